"""Results of evaluations on disk, each saved as soon as it is complete.

    out_dir/parts/heldout.json     identity, scores, signature, seconds and samples of a result

If a scoring run was killed, the next run executes only the missing evaluations.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.engine.batching import ProgressCallback
from evals.results.evaluation import Evaluation, EvaluationResult, Sample
from evals.results.response_log import ResponseLog
from evals.results.scores import Score, ScoreCard
from trainers.foundation.errors import TrainingError
from trainers.foundation.files import write_text

# The files that determine a model's outputs: weights, settings and tokenizer.
_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


@dataclass(frozen=True, kw_only=True)
class FinishedEvaluation:
    """The result of an evaluation, its duration, and whether it is from an earlier run."""

    name: str
    result: EvaluationResult
    seconds: float
    is_reused: bool


@dataclass(frozen=True, kw_only=True)
class StoredEvaluation:
    """A finished evaluation with the identity that is stored in its file."""

    identity: dict[str, Any]
    finished: FinishedEvaluation

    @property
    def common(self) -> dict[str, Any]:
        """Return the part of the identity that all evaluations of a run share."""
        return {k: v for k, v in self.identity.items() if k not in ("part", "settings")}


class _ResultFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: dict[str, Any]
    scores: list[Score]
    secondary: list[Score] = []
    signature: dict[str, Any]
    seconds: float
    samples: list[Sample]


class ResultStore:
    """The folder of the results of one scoring run.

    Results with another identity, such as those of another model or machine, are ignored.

    Args:
        common: everything that all results depend on, JSON-serialisable.
    """

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder = folder
        self._common = dict(common)

    def load(self, evaluation: Evaluation) -> FinishedEvaluation | None:
        """Return the saved result with the same identity, or None."""
        stored = read_evaluation(self._path(evaluation))
        if stored is None or stored.identity != self._identity(
            evaluation.name, evaluation.settings
        ):
            return None
        return stored.finished

    def run(self, evaluation: Evaluation, on_progress: ProgressCallback) -> FinishedEvaluation:
        """Run an evaluation and save its result; its logged responses are then removed.

        If the number of items is known, `on_progress` is first called with 0 finished items.

        Raises:
            InputError: see the evaluation.
            TrainingError: see the evaluation; or a score is not finite. The logged responses are
                kept, so that another attempt ends without the model's work.
        """
        start = time.monotonic()
        if evaluation.num_items is not None:
            on_progress(0, evaluation.num_items)
        result = evaluation.run(on_progress=on_progress)
        seconds = time.monotonic() - start
        finished = FinishedEvaluation(
            name=evaluation.name, result=result, seconds=seconds, is_reused=False
        )
        _check_finite(result)
        self.save(finished, evaluation.settings)
        self._responses_path(evaluation.name).unlink(missing_ok=True)
        return finished

    def save(self, finished: FinishedEvaluation, settings: dict[str, Any]) -> None:
        """Save a result; it replaces an earlier one with the same name."""
        file = _ResultFile(
            identity=self._identity(finished.name, settings),
            scores=finished.result.scores,
            secondary=finished.result.secondary,
            signature=finished.result.signature,
            seconds=finished.seconds,
            samples=finished.result.samples,
        )
        content = json.dumps(file.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
        write_text(self._path(finished), content + "\n")

    def response_log(self, name: str, settings: dict[str, Any]) -> ResponseLog:
        """Return the response log of the evaluation with this name and these settings."""
        identity = self._identity(name, settings)
        return ResponseLog(self._responses_path(name), identity)

    def _responses_path(self, name: str) -> Path:
        return self.folder / f"{safe_file_name(name)}.answers.jsonl"

    def _path(self, evaluation: Evaluation | FinishedEvaluation) -> Path:
        return self.folder / f"{safe_file_name(evaluation.name)}.json"

    def _identity(self, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        identity = {**self._common, "part": name, "settings": settings}
        # JSON has no tuples; convert the identity so that it can be compared with a file.
        converted: dict[str, Any] = json.loads(json.dumps(identity))
        return converted


def _check_finite(result: EvaluationResult) -> None:
    wrong = [s for s in (*result.scores, *result.secondary) if not math.isfinite(s.value)]
    if wrong:
        raise TrainingError(
            f"{wrong[0].name} is {wrong[0].value}: the model gives some items a probability of 0,"
            " so its weights have diverged; lower optimizer.learning_rate",
            kind="divergence",
        )


def write_samples(out_dir: Path, finished: Sequence[FinishedEvaluation]) -> None:
    """Write the samples of all evaluations to `out_dir/samples.jsonl`, atomically."""
    lines = [
        json.dumps(sample, ensure_ascii=False, allow_nan=False)
        for evaluation in finished
        for sample in evaluation.result.samples
    ]
    write_text(out_dir / "samples.jsonl", "".join(line + "\n" for line in lines))


def build_score_card(
    finished: Sequence[FinishedEvaluation],
    *,
    model_path: str | Path,
    signature: dict[str, Any],
    start: float,
) -> ScoreCard:
    """Return all scores of a model.

    `seconds` is the time since `start` (from time.monotonic) plus that of the reused results.
    """
    signature = dict(signature)
    for evaluation in finished:
        for key, value in evaluation.result.signature.items():
            signature[key] = signature.get(key, {}) | value if isinstance(value, dict) else value
    reused_seconds = sum(evaluation.seconds for evaluation in finished if evaluation.is_reused)
    return ScoreCard(
        model_path=str(model_path),
        scores=[score for evaluation in finished for score in evaluation.result.scores],
        secondary=[score for evaluation in finished for score in evaluation.result.secondary],
        signature=signature,
        seconds=time.monotonic() - start + reused_seconds,
    )


def read_evaluation(path: Path) -> StoredEvaluation | None:
    """Return the evaluation in a file; None if the file is missing or damaged."""
    try:
        file = _ResultFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    finished = FinishedEvaluation(
        name=str(file.identity["part"]),
        result=EvaluationResult(
            scores=file.scores,
            secondary=file.secondary,
            samples=file.samples,
            signature=file.signature,
        ),
        seconds=file.seconds,
        is_reused=True,
    )
    return StoredEvaluation(identity=file.identity, finished=finished)


def safe_file_name(name: str) -> str:
    """Return `name` if every file system accepts it, or else a readable form with a hash."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)[:80]
    if safe == name and not name.startswith("."):
        return name
    return f"{safe.lstrip('.')}-{hashlib.sha256(name.encode('utf-8')).hexdigest()[:8]}"


def checkpoint_identity(model_path: str | Path, commit: str | None) -> dict[str, Any]:
    """Return values that distinguish a checkpoint from others, without reading its weights.

    For a folder: name, size and modification time of its files. For a hub model: its `commit`.
    """
    folder = Path(model_path)
    if not folder.is_dir():
        return {"hub": str(model_path), "commit": commit}
    files = sorted({path for pattern in _MODEL_FILES for path in folder.glob(pattern)})
    return {"files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]}
