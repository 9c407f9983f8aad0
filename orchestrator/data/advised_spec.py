"""A sweep spec for one's own model and data around the PLW that is predicted for it."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from evals.config import EvalConfig, MultipleChoiceConfig
from evals.heldout.examples import choice_items
from orchestrator.data.advice import Advice
from orchestrator.foundation.safe_write import check_new, write_new
from trainers.config import DataConfig
from trainers.data.examples import Example
from trainers.data.length_stats import DataStats
from trainers.data.tokenize import read_split
from trainers.foundation.errors import InputError

_MAX_HELDOUT = 256
_HELDOUT_SHARE = 5  # one example of so many is held out where there are few
_MAX_BATCH = 64
_STEPS_PER_EPOCH = 10  # at least, where there are few examples

_TEMPLATE = """\
# Weights around what arXiv 2401.13586 predicts for this data, written by plw data stats.
# {kind}-completion data: R_g {ratio} (completion over prompt tokens, template included).
# Look at what it will cost with plw plan, then start it with plw sweep.

model:
  path: {model}
data:
  {data}

optimizer:
  learning_rate: 2.0e-5              # Stanford Alpaca's; sweep it too to be sure
schedule:
  kind: cosine
  warmup_ratio: 0.03
  epochs: 3
batch:
  global_batch_size: {global_batch_size}
  micro_batch_size: {micro_batch_size}
  packing: true                      # examples back to back instead of padded
deepspeed:
  zero_stage: 2
  precision: bfloat16                # float32 on CPUs

search:
  method: grid
  space:
    loss.prompt_loss_weight: {weights}
  seeds: [0, 1, 2]                   # one seed cannot tell a better weight from a lucky one

evals:                               # on held-out examples; null leaves a measure out
  heldout: {{examples: {heldout}}}
  multiple_choice: {multiple_choice}
  short_generation: {short_generation}
  long_generation: {long_generation}

resources:
  workers_per_trial: 1               # GPUs of one trial, where there are any
"""


def write_advised_spec(
    path: Path, advice: Advice, stats: DataStats, data: DataConfig, *, model: str, is_forced: bool
) -> None:
    """Write a spec that `plw plan` accepts with this model and data.

    Raises:
        InputError: `path` may not be written, or no example can be held out.
    """
    check_new(path, is_forced=is_forced)
    num_examples = stats.num_examples + stats.num_dropped_examples
    wanted = max(1, min(_MAX_HELDOUT, num_examples // _HELDOUT_SHARE))
    data = data.model_copy(update={"heldout_examples": wanted})
    split = read_split(data)
    size = 2 ** int(math.log2(max(1, min(_MAX_BATCH, len(split.train) // _STEPS_PER_EPOCH))))
    is_long = advice.kind == "long"
    num_items = len(split.heldout)
    text = _TEMPLATE.format(
        kind={"short": "Short", "long": "Long", "between": "Medium"}[advice.kind],
        ratio=f"{stats.generation_ratio.of_means or 0:.3g}",
        model=_scalar(model),
        data="\n  ".join(_data_lines(data)),
        global_batch_size=size,
        micro_batch_size=min(4, size),
        weights=json.dumps([_number(plw) for plw in advice.prompt_loss_weights]),
        heldout=num_items,
        multiple_choice=_multiple_choice(split.heldout),
        # What is generated is the shorter side of a pair first, the longer one after it.
        short_generation=_generation(min(128, num_items), 32, invert=is_long),
        long_generation=_generation(min(64, num_items), 128, invert=not is_long),
    )
    write_new(path, text, is_forced=is_forced)


def _data_lines(data: DataConfig) -> Iterator[str]:
    """The settings of the data that are not the usual ones, and those that everybody looks for."""
    always = ("path", "template", "max_length", "heldout_examples")
    for name, field in DataConfig.model_fields.items():
        value = getattr(data, name)
        if name in always or value != field.default:
            yield f"{name}: {_scalar(value)}"


def _multiple_choice(heldout: Sequence[Example]) -> str:
    """The measure, with as many choices as the completions allow; null where they allow none."""
    for choices in (4, 2):
        config = MultipleChoiceConfig(examples=len(heldout), choices=choices)
        with suppress(InputError):
            choice_items(heldout, config, EvalConfig().seed)
            return f"{{examples: {len(heldout)}, choices: {choices}}}"
    return "null                # too few different completions to choose from"


def _generation(examples: int, max_new_tokens: int, *, invert: bool) -> str:
    return f"{{examples: {examples}, max_new_tokens: {max_new_tokens}, invert: {_scalar(invert)}}}"


def _scalar(value: Any) -> str:
    """`value` as YAML and JSON both write it."""
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
