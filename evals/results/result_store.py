"""The measures of a scoring, each kept on its own once it is taken.

    out_dir/parts/heldout.json     identity, scores, signature, seconds and samples of one measure

A scoring that was killed and is run again takes only the measures that are not there yet.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.engine.batching import Progress
from evals.results.measurement import Measured, Sample
from evals.results.response_log import Answers
from evals.results.scores import Score, ScoreCard
from trainers.foundation.files import write_text

# What decides how a model answers: its weights, its settings and its tokenizer.
_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


class Take(Protocol):
    """Takes a measure."""

    def __call__(self, *, on_progress: Progress) -> Measured: ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """One measure: `measure` takes it, and tells a Progress how many of `num_items` are done.

    `num_items` is None where only the measure itself finds out.

    `name` is unique within a scoring. `settings` are all that the outcome depends on beside the
    model, its template and the machine, ready for JSON.
    """

    name: str
    num_items: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    measure: Take


@dataclass(frozen=True, kw_only=True)
class KeptPart:
    """A part as a folder has it, whoever wrote it."""

    identity: dict[str, Any]
    taken: "TakenPart"

    @property
    def common(self) -> dict[str, Any]:
        """What every part of that scoring depends on."""
        return {k: v for k, v in self.identity.items() if k not in ("part", "settings")}


@dataclass(frozen=True, kw_only=True)
class TakenPart:
    """What a part came to, in how many seconds, and whether an earlier run had taken it."""

    name: str
    measured: Measured
    seconds: float
    is_kept: bool


class _PartFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: dict[str, Any]
    scores: list[Score]
    secondary: list[Score] = []
    signature: dict[str, Any]
    seconds: float
    samples: list[Sample]


class PartFolder:
    """The folder of the parts of one scoring; those of another model or machine do not count.

    Args:
        common: what every part's outcome depends on, ready for JSON.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder = folder
        self._common = dict(common)

    def kept(self, part: Part) -> TakenPart | None:
        """`part` as an earlier run has taken it; None if none did, or with other settings."""
        found = read_part(self._path(part))
        if found is None or found.identity != self._identity(part.name, part.settings):
            return None
        return found.taken

    def take(self, part: Part, on_progress: Progress) -> TakenPart:
        """`part`, taken now and kept; `on_progress` is told of its items, first that none is done.

        Raises:
            InputError, TrainingError: as the measure.
        """
        start = time.monotonic()
        if part.num_items is not None:
            on_progress(0, part.num_items)
        measured = part.measure(on_progress=on_progress)
        seconds = time.monotonic() - start
        taken = TakenPart(name=part.name, measured=measured, seconds=seconds, is_kept=False)
        self.replace(part, taken)
        return taken

    def replace(self, part: Part, taken: TakenPart) -> None:
        """Keep what a part comes to now, with these settings, instead of what is kept."""
        file = _PartFile(
            identity=self._identity(part.name, part.settings),
            scores=taken.measured.scores,
            secondary=taken.measured.secondary,
            signature=taken.measured.signature,
            seconds=taken.seconds,
            samples=taken.measured.samples,
        )
        content = json.dumps(file.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
        write_text(self._path(part), content + "\n")

    def answers(self, name: str, settings: dict[str, Any]) -> Answers:
        """What a model has answered so far for the part of this name with these settings."""
        identity = self._identity(name, settings)
        return Answers(self.folder / f"{file_name(name)}.answers.jsonl", identity)

    def _path(self, part: Part) -> Path:
        return self.folder / f"{file_name(part.name)}.json"

    def _identity(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        identity = {**self._common, "part": name, "settings": settings}
        # As it will be read: JSON knows no tuples.
        as_read: dict[str, Any] = json.loads(json.dumps(identity))
        return as_read


def write_samples(
    out_dir: Path,
    taken: Sequence[TakenPart],
    *,
    model_path: str | Path,
    signature: dict[str, Any],
    start: float,
) -> ScoreCard:
    """Put every sample into `out_dir/samples.jsonl`, in one step; returns all scores together.

    Its seconds are those since `start` (of time.monotonic) and those of parts kept from before.
    """
    lines = [
        json.dumps(sample, ensure_ascii=False, allow_nan=False)
        for part in taken
        for sample in part.measured.samples
    ]
    write_text(out_dir / "samples.jsonl", "".join(line + "\n" for line in lines))
    signature = dict(signature)
    for part in taken:
        for key, value in part.measured.signature.items():
            signature[key] = signature.get(key, {}) | value if isinstance(value, dict) else value
    return ScoreCard(
        model_path=str(model_path),
        scores=[score for part in taken for score in part.measured.scores],
        secondary=[score for part in taken for score in part.measured.secondary],
        signature=signature,
        seconds=time.monotonic() - start + sum(part.seconds for part in taken if part.is_kept),
    )


def read_part(path: Path) -> KeptPart | None:
    """The part in a file; None if there is none, or a damaged one."""
    try:
        file = _PartFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    measured = Measured(
        scores=file.scores,
        secondary=file.secondary,
        samples=file.samples,
        signature=file.signature,
    )
    taken = TakenPart(
        name=str(file.identity["part"]), measured=measured, seconds=file.seconds, is_kept=True
    )
    return KeptPart(identity=file.identity, taken=taken)


def file_name(name: str) -> str:
    """`name` where it can be that of a file everywhere, else what can, with a hash to tell it."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:80]
    if plain == name and not name.startswith("."):
        return name
    return f"{plain.lstrip('.')}-{hashlib.sha256(name.encode('utf-8')).hexdigest()[:8]}"


def checkpoint_identity(model_path: str | Path, commit: str | None) -> dict[str, Any]:
    """What tells a checkpoint from another one, without reading its weights.

    A folder's files by name, size and time of writing; a hub model by its `commit`.
    """
    folder = Path(model_path)
    if not folder.is_dir():
        return {"hub": str(model_path), "commit": commit}
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    return {"files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]}
