"""Training data as tokens with labels, in which a token that does not count is -100."""

import json

import numpy as np

from orchestrator.final.frameworks import Source
from trainers.data.roles import Role

_IGNORED = -100


def labelled_lines(source: Source) -> str:
    """JSONL with input_ids, attention_mask and labels, cut and templated as plw trains on it.

    The weights must all be 0 or 1.
    """
    table = np.array([source.weights.get(role, 0.0) for role in Role])
    lines = []
    for example in source.examples:
        ids = np.asarray(example.input_ids)
        labels = np.where(table[np.asarray(example.roles)] > 0, ids, _IGNORED)
        row = {
            "input_ids": ids.tolist(),
            "attention_mask": [1] * len(ids),
            "labels": labels.tolist(),
        }
        lines.append(json.dumps(row) + "\n")
    return "".join(lines)
