"""Define records of baselines (a model with held-out examples), and short labels for them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from trainers.foundation.records import Record


class BaselineRecord(Record):
    """A model, its held-out examples, and their template with its arguments and maximum length.

    Scores are only comparable within one baseline. `key` is a digest of these. `model` has
    path, revision, fingerprint, num_parameters and note. `data` has one entry for each selection of
    training examples (`train_examples`, `too_long`, `completion_turns`), with path or sources,
    fingerprint, num_train, num_heldout and stats.
    """

    key: str
    template: str
    template_args: dict[str, Any] = Field(default_factory=dict)
    max_length: int
    model: dict[str, Any]
    data: list[dict[str, Any]]


def baseline_labels(bases: Sequence[BaselineRecord]) -> dict[str, str]:
    """Return a label that distinguishes each baseline (`model tiny, data a.jsonl`), by key.

    The label of a single baseline is empty.
    """
    facts = [_facts(base) for base in bases]
    differing = (
        [name for name in facts[0] if len({fact[name] for fact in facts}) > 1] if facts else []
    )
    labels = [", ".join(f"{name} {_short(fact[name])}" for name in differing) for fact in facts]
    return {
        base.key: label if labels.count(label) == 1 else ", ".join(filter(None, [label, base.key]))
        for base, label in zip(bases, labels, strict=True)
    }


def data_name(data: Mapping[str, Any]) -> str:
    """Return the path of an entry of `BaselineRecord.data`, or the paths of its sources."""
    sources = data.get("sources") or [data]
    return ", ".join(str(source.get("path")) for source in sources)


def _facts(base: BaselineRecord) -> dict[str, str]:
    data = base.data[0] if base.data else {}
    return {
        "model": str(base.model.get("path")),
        "revision": str(base.model.get("revision")),
        "data": data_name(data),
        "split": str(data.get("split")),
        "template": base.template,
        "template_args": json.dumps(base.template_args),
        "max_length": str(base.max_length),
    }


def _short(value: str) -> str:
    """Return the last part of an absolute path; return other names, such as hub names, as is."""
    return Path(value).name if Path(value).is_absolute() else value
