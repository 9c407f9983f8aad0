"""Outputs of several trials on the same items, to compare any two of them on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evals.results.evaluation import Sample
from evals.results.paired_samples import read_scored_model
from trainers.foundation.errors import InputError

# Bounds of a page's size. `plw compare` shows any two models with all their items.
MAX_MODELS = 12
MAX_ITEMS = 20
MAX_FILE_BYTES = 50 * 2**20
_MAX_CHARACTERS = 600

_Key = tuple[str, str]


class SampleItem(BaseModel):
    """An item with the output and value of each model, in the order of `SampleTable.models`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    id: str
    prompt: str
    target: str
    outputs: list[str | None]
    values: list[float | None]


class SampleTable(BaseModel):
    """Items that all models answered, those with the largest spread of values first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: list[str]
    items: list[SampleItem]
    num_items: int
    num_models: int


def sample_table(folders: Mapping[str, Path]) -> SampleTable | None:
    """Return the outputs of the models in `folders`, by label; None for fewer than two models.

    Of more than `MAX_MODELS` models, the first ones are used. Models without valid samples, or with
    a file above `MAX_FILE_BYTES`, are left out. Items with an output come before others.
    """
    found: dict[str, dict[_Key, Sample]] = {}
    for label, folder in folders.items():
        if len(found) == MAX_MODELS:
            break
        samples = _read_samples(folder)
        if samples:
            found[label] = samples
    if len(found) < 2:
        return None
    first, *rest = found.values()
    common = [
        key
        for key, sample in first.items()
        if all(key in other and _is_same(sample, other[key]) for other in rest)
    ]
    items = [_item(key, [samples[key] for samples in found.values()]) for key in common]
    items.sort(key=lambda item: (all(one is None for one in item.outputs), -_spread(item)))
    if not items:
        return None
    return SampleTable(
        models=list(found), items=items[:MAX_ITEMS], num_items=len(items), num_models=len(folders)
    )


def _read_samples(folder: Path) -> dict[_Key, Sample]:
    path = folder / "samples.jsonl"
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return {}
        samples = read_scored_model(folder).samples
    except (InputError, OSError):
        # A report is still written; plw compare explains what is wrong with the file.
        return {}
    return {(str(one["measure"]), str(one["id"])): one for one in samples}


def _is_same(one: Sample, other: Sample) -> bool:
    return all(one[name] == other[name] for name in ("prompt", "target"))


def _item(key: _Key, samples: Sequence[Sample]) -> SampleItem:
    measure, item_id = key
    return SampleItem(
        measure=measure,
        id=item_id,
        prompt=_shortened(samples[0]["prompt"]) or "",
        target=_shortened(samples[0]["target"]) or "",
        outputs=[_shortened(one["output"]) for one in samples],
        values=[None if one["value"] is None else float(one["value"]) for one in samples],
    )


def _spread(item: SampleItem) -> float:
    values = [value for value in item.values if value is not None]
    return max(values) - min(values) if values else 0.0


def _shortened(value: object) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]} ..."
