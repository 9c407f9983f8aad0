"""Write training data as token ids with labels; ignored tokens have the label -100."""

import json

import numpy as np

from orchestrator.export.base import Recipe
from trainers.token_weights import token_weights

_IGNORED = -100


def labelled_jsonl(recipe: Recipe) -> str:
    """Return JSONL with input_ids, attention_mask and labels, tokenized and truncated as in plw.

    All token weights must be 0 or 1. The first token of an example is never predicted.
    """
    lines = []
    for example in recipe.examples:
        ids = np.asarray(example.input_ids)
        labels = np.where(token_weights(example, recipe.config.loss) > 0, ids, _IGNORED)
        row = {
            "input_ids": ids.tolist(),
            "attention_mask": [1] * len(ids),
            "labels": labels.tolist(),
        }
        lines.append(json.dumps(row) + "\n")
    return "".join(lines)
