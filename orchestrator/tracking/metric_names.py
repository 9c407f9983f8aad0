"""Name metrics in MLflow. Its pages group the charts by the part before the slash.

| prefix | content |
|---|---|
| `train/` | training metrics of a step, and totals of the training |
| `heldout/` | the held-out loss during training |
| `eval/` | scores of the finished model |
| `untuned/`, `answer/` | scores before training, and the verdicts; on the sweep's run only |
| `interval/` | bounds and standard errors of the three above |
| `system/` | the node's processors, memory, disk and GPUs |
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping

# Written to each run's state. Increase it when names change: the runs then get all points again.
NAMES_VERSION = 2
# MLflow rejects longer names of metrics, params and tags.
MAX_NAME_CHARS = 250
# Suffixes of the metrics for a value's interval and standard error.
INTERVAL_SUFFIXES = ("_ci_low", "_ci_high", "_standard_error")
_HELDOUT_PREFIX = "heldout_"
_INTERVAL, _SYSTEM = "interval/", "system/"
# Totals of a trial by the field of its record.
TOTALS = {
    "train_seconds": "train/seconds",
    "eval_seconds": "eval/seconds",
    "final_completion_loss": "train/final_completion_loss",
    "final_prompt_loss": "train/final_prompt_loss",
    "loss_rsd": "train/loss_rsd",
    "distance": "train/final_distance",
    "exported_step": "train/exported_step",
    "last_heldout_completion_loss": "train/last_heldout_completion_loss",
    "exported_heldout_completion_loss": "train/exported_heldout_completion_loss",
}


def step_metric(key: str) -> str:
    """Return the name of a value in metrics.jsonl or system.jsonl."""
    if key.startswith(_SYSTEM):
        return key
    if key.startswith(_HELDOUT_PREFIX):
        return f"heldout/{key.removeprefix(_HELDOUT_PREFIX)}"
    return f"train/{key}"


def score_metric(name: str) -> str:
    """Return the name of a score of the trained model, given its name in MLflow's characters."""
    return f"eval/{name}"


def with_intervals(
    prefix: str, name: str, value: float | None, bounds: Mapping[str, float | None]
) -> dict[str, float]:
    """Return a value as `prefix/name` and its bounds as `interval/...`, without None values.

    The names of bounds repeat a prefix other than `eval`, so that they are unique within a run.

    Args:
        bounds: values by suffix, such as `_ci_low`.
    """
    stem = name if prefix == "eval" else f"{prefix}_{name}"
    found = {f"{prefix}/{name}": value}
    found |= {f"{_INTERVAL}{stem}{suffix}": bound for suffix, bound in bounds.items()}
    return {key: one for key, one in found.items() if one is not None}


def is_interval(name: str) -> bool:
    """Return whether the metric is a bound or a standard error."""
    return name.startswith(_INTERVAL)


def mlflow_names(names: Iterable[str], *, added_chars: int = 0) -> dict[str, str]:
    """Return a name that MLflow accepts for each of `names`, such as `mmlu _5-shot_`.

    Invalid characters and empty parts become `_`. Names that would become equal, and those of more
    than 250 characters with the `added_chars` of prefix and suffix, end with a digest of the name.
    """
    valid = {name: _valid_name(name) for name in names}
    counts = Counter(valid.values())
    most = MAX_NAME_CHARS - added_chars
    return {
        name: one if counts[one] == 1 and len(one) <= most else _with_digest(one, name, most)
        for name, one in valid.items()
    }


def _valid_name(name: str) -> str:
    """Return `name` in a form that MLflow accepts; it rejects a whole request for one name."""
    allowed = re.sub(r"[^\w.\- /]", "_", name)
    parts = [part if part.strip(".") else "_" for part in allowed.split("/")]
    return "/".join(parts)


def _with_digest(valid: str, name: str, most: int) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{valid[: most - len(digest) - 1]}_{digest}"
