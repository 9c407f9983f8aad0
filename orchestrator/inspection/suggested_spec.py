"""Write a sweep spec for a model and data, with weights around the predicted best PLW."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from evals.config import DistractorChoiceConfig, EvalConfig
from evals.heldout.examples import choice_items
from orchestrator.foundation.safe_write import check_overwrite, write_output
from orchestrator.inspection.advice import Advice
from trainers.data.example_store import open_examples
from trainers.data.examples import Example
from trainers.data.length_stats import DataStats, GenerationRatio
from trainers.data.tokenize import read_split
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

_MAX_HELDOUT = 256
_HELDOUT_FRACTION = 5  # at most one of five examples, or chats, is held out
_MAX_BATCH = 64
_MIN_STEPS_PER_EPOCH = 10
_KINDS = {
    "short": "Short-completion data",
    "long": "Long-completion data",
    "between": "Neither clearly short- nor long-completion data",
}
_GPU_PRECISION = "precision: bfloat16                # float32 on CPUs"
_CPU_PRECISION = "precision: float32                 # bfloat16 on GPUs; this machine has none"
_NO_TEXTS = "null                # the data is tokenised"

_TEMPLATE = """\
# Weights around the prediction of arXiv 2401.13586 for this data, written by plw data stats.
# {kind}: R_g (completion over prompt tokens) below 1 is short.
# With the template's tokens in the prompt: {ratio};
# without them: {text_ratio}.
# Check the cost with plw plan, then start it with plw sweep.

model:
  path: {model}
data:
  {data}

optimizer:
  learning_rate: 2.0e-5              # of Stanford Alpaca; search it as well to be sure
schedule:
  kind: cosine
  warmup_ratio: 0.03
  epochs: 3
batch:
  global_batch_size: {global_batch_size}
  micro_batch_size: {micro_batch_size}
  packing: true                      # concatenate examples instead of padding
deepspeed:
  zero_stage: 2
  {precision}

search:
  method: grid
  space:
    loss.prompt_loss_weight: {weights}
  seeds: [0, 1, 2]                   # one seed cannot separate an effect from noise

evals:                               # on held-out examples; null turns a measure off
  heldout: {{examples: {heldout}}}
  heldout_choice: {choice}
  heldout_exact_match: {exact_match}
  heldout_chrf: {chrf}

resources:
  workers_per_trial: 1               # GPUs per trial, if there are any
"""


def write_suggested_spec(
    path: Path, advice: Advice, stats: DataStats, data: DataConfig, *, model: str, overwrite: bool
) -> None:
    """Write a spec for this model and data that `plw plan` accepts.

    Raises:
        InputError: `path` exists or cannot be written, or no example can be held out.
    """
    check_overwrite(path, overwrite=overwrite)
    # Whole chats are held out, also where each of their turns is an example.
    num_chats = len(open_examples(data))
    wanted = max(1, min(_MAX_HELDOUT, num_chats // _HELDOUT_FRACTION))
    data = data.model_copy(update={"heldout_examples": wanted})
    split = read_split(data)
    # Fewer if prompts are shared. The split with this number is the same.
    data = data.model_copy(update={"heldout_examples": len(split.heldout)})
    size = 2 ** int(math.log2(max(1, min(_MAX_BATCH, len(split.train) // _MIN_STEPS_PER_EPOCH))))
    is_long = advice.kind == "long"
    num_items = len(split.heldout)
    has_texts = all(example.tokens is None for example in split.heldout)
    text = _TEMPLATE.format(
        kind=_KINDS[advice.kind],
        ratio=_ratio_text(stats.generation_ratio),
        text_ratio=_ratio_text(stats.generation_ratio_without_template),
        precision=_GPU_PRECISION if torch.cuda.is_available() else _CPU_PRECISION,
        model=_scalar(model),
        data="\n  ".join(_data_lines(data)),
        global_batch_size=size,
        micro_batch_size=min(4, size),
        weights=json.dumps([_number(plw) for plw in advice.prompt_loss_weights]),
        heldout=num_items,
        choice=_choice(split.heldout) if has_texts else _NO_TEXTS,
        # Short generation uses the shorter side of a pair, long generation the longer side.
        exact_match=_generation(min(128, num_items), 32, invert=is_long)
        if has_texts
        else _NO_TEXTS,
        chrf=_generation(min(64, num_items), 128, invert=not is_long) if has_texts else _NO_TEXTS,
    )
    write_output(path, text, overwrite=overwrite)


def _ratio_text(ratio: GenerationRatio) -> str:
    of_means, mean_of_ratios = ratio.of_means or 0, ratio.mean_of_ratios or 0
    return f"{of_means:.3g} (ratio of means), {mean_of_ratios:.3g} (mean of ratios)"


def _data_lines(data: DataConfig) -> Iterator[str]:
    """Yield the most important data settings, and all that differ from their defaults."""
    always = ("template", "max_length", "heldout_examples")
    defaults = DataConfig(path="default").model_dump(mode="json")
    for name, value in data.model_dump(mode="json").items():
        if name in always or value not in (defaults[name], None):
            yield f"{name}: {_scalar(value)}"


def _choice(heldout: Sequence[Example]) -> str:
    """Return the setting with as many choices as the completions allow, or null."""
    for choices in (4, 2):
        config = DistractorChoiceConfig(examples=len(heldout), choices=choices)
        with suppress(InputError):
            choice_items(heldout, config, EvalConfig().seed)
            return f"{{examples: {len(heldout)}, choices: {choices}}}"
    return "null                # too few different completions"


def _generation(examples: int, max_new_tokens: int, *, invert: bool) -> str:
    return f"{{examples: {examples}, max_new_tokens: {max_new_tokens}, invert: {_scalar(invert)}}}"


def _scalar(value: Any) -> str:
    """Return `value` as a scalar that is valid YAML and JSON."""
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
