"""What trials start from and are scored on, as it is recorded, and how people tell it apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class BaseRecord(BaseModel):
    """A model, the held-out examples it is scored on, and the template and length they have.

    Scores are only comparable within one base. `key` is a digest of all of it. `model` has path,
    revision, fingerprint, num_parameters and note; `data` has path, split, fingerprint, num_train,
    num_heldout and stats, once for each way in which the base's trials take their training
    examples (`train_examples`, `too_long`, `completion_turns`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    template: str
    max_length: int
    model: dict[str, Any]
    data: list[dict[str, Any]]


def base_labels(bases: Sequence[BaseRecord]) -> dict[str, str]:
    """A few words by key that tell each base from the others: `model tiny, data short.jsonl`.

    Empty for a single base, which needs none.
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


def _facts(base: BaseRecord) -> dict[str, str]:
    data = base.data[0] if base.data else {}
    return {
        "model": str(base.model.get("path")),
        "revision": str(base.model.get("revision")),
        "data": str(data.get("path")),
        "split": str(data.get("split")),
        "template": base.template,
        "max_length": str(base.max_length),
    }


def _short(value: str) -> str:
    """The last part of a file's or folder's path; names of a hub and others as they are."""
    return Path(value).name if Path(value).is_absolute() else value
