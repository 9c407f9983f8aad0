"""The record of a sweep on disk: which folder holds what, and the state of each trial.

MLflow and the report are views of these files; nothing that matters lives anywhere else.

    <output_dir>/
      sweep.json                 the spec as resolved, the trials' ids, where it ran
      sweep.log                  what Ray and the libraries had to say
      bases/<key>/heldout.jsonl  the examples that trials of this base are scored on
      bases/<key>/scores.json    its model before any training
      bases/<key>/samples.jsonl  every scored item of that
      bases/<key>/usage.json     how long that has taken
      bases/<key>/log.txt
      trials/<id>/trial.json     settings, state, outcome
      trials/<id>/metrics.jsonl  one line per logged step
      trials/<id>/system.jsonl   what the first rank's node did, one line every 10 s
      trials/<id>/log.txt        the trial's own output
      trials/<id>/checkpoints/   to resume from, while the trial runs
      trials/<id>/model/         the trained model
      trials/<id>/scores.json    benchmark scores
      trials/<id>/samples.jsonl  every scored item, with output and verdict
      trials/<id>/stop           `plw stop` asks for the end of this trial
      stop                       `plw stop` asks for the end of the sweep
      report.md report.html plots/
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.results.scores import ScoreCard
from orchestrator.record.bases import BaseRecord
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import read_json, write_json

# A waiting trial has its turn but no place yet, as its `note` says. An interrupted trial goes on
# when its sweep is run again; a stopped one was ended early, on purpose.
State = Literal[
    "pending", "waiting", "training", "scoring", "interrupted", "done", "stopped", "failed"
]
RUNNING: tuple[State, ...] = ("training", "scoring")


class TrialRecord(BaseModel):
    """One trial: what was asked of it (`settings`, `searched`) and what became of it.

    `base` is the key of what it starts from and is scored on, `note` says what it waits for.
    `busy_seconds` are those for which it held its workers and `scorer_seconds` those for which it
    held a scorer, over all attempts; of the latter, `attempts` counts none. `is_scored_beside` says
    that its own workers go on with other trials while it is scored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    base: str
    settings: dict[str, Any]
    searched: dict[str, Any]
    state: State = "pending"
    attempts: int = 0
    error: str | None = None
    note: str | None = None
    busy_seconds: float = 0.0
    scorer_seconds: float = 0.0
    is_scored_beside: bool = False
    started_at: str | None = None
    ended_at: str | None = None
    total_steps: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    tokens_per_second: float | None = None
    final_completion_loss: float | None = None
    final_prompt_loss: float | None = None
    loss_rsd: float | None = None
    distance: float | None = None
    device: str | None = None

    @property
    def prompt_loss_weight(self) -> float:
        return float(self.settings["loss"]["prompt_loss_weight"])


class BaseUsage(BaseModel):
    """What scoring a base's untuned model has taken, over all attempts: as for a trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    busy_seconds: float = 0.0
    scorer_seconds: float = 0.0


class TrackingRecord(BaseModel):
    """Where the sweep is in MLflow: the experiment, its parent run and one run per trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    experiment: str
    experiment_id: str
    parent_run_id: str
    trial_run_ids: dict[str, str] = {}


class SweepRecord(BaseModel):
    """A sweep: the resolved spec, its trials in order, and the circumstances it ran under.

    `end_reason` says why it ended before all that it could have tried was done, if it did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    name: str
    created_at: str
    spec: dict[str, Any]
    spec_path: str
    trial_ids: list[str]
    bases: list[BaseRecord]
    environment: dict[str, Any]
    end_reason: str | None = None


class SweepFolder:
    """Every path of a sweep, and the reads and writes of its records."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def sweep_json(self) -> Path:
        return self.root / "sweep.json"

    @property
    def tracking_json(self) -> Path:
        return self.root / "tracking.json"

    @property
    def log(self) -> Path:
        return self.root / "sweep.log"

    @property
    def report_md(self) -> Path:
        return self.root / "report.md"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    def relative(self) -> Path:
        """The folder as a person in the working directory would type it."""
        here = Path.cwd()
        return self.root.relative_to(here) if self.root.is_relative_to(here) else self.root

    def base(self, key: str) -> Path:
        return self.root / "bases" / key

    def heldout(self, key: str) -> Path:
        return self.base(key) / "heldout.jsonl"

    def trial(self, trial_id: str) -> Path:
        return self.root / "trials" / trial_id

    def metrics(self, trial_id: str) -> Path:
        return self.trial(trial_id) / "metrics.jsonl"

    def system_metrics(self, trial_id: str) -> Path:
        return self.trial(trial_id) / "system.jsonl"

    def model(self, trial_id: str) -> Path:
        return self.trial(trial_id) / "model"

    def read_sweep(self) -> SweepRecord:
        return SweepRecord.model_validate(read_json(self.sweep_json))

    def write_sweep(self, record: SweepRecord) -> None:
        write_json(self.sweep_json, record.model_dump(mode="json"))

    def read_trial(self, trial_id: str) -> TrialRecord | None:
        path = self.trial(trial_id) / "trial.json"
        return TrialRecord.model_validate(read_json(path)) if path.exists() else None

    def write_trial(self, record: TrialRecord) -> None:
        write_json(self.trial(record.id) / "trial.json", record.model_dump(mode="json"))

    def read_trials(self) -> list[TrialRecord]:
        """The records of the sweep's trials, in the order of the plan."""
        records = (self.read_trial(trial_id) for trial_id in self.read_sweep().trial_ids)
        return [record for record in records if record is not None]

    def read_scores(self, trial_id: str) -> ScoreCard | None:
        """The scores of a trial; None if it is not scored yet."""
        return _read_card(self.trial(trial_id))

    def read_base_scores(self, key: str) -> ScoreCard | None:
        """The scores of a base's model before any training; None if it is not scored yet."""
        return _read_card(self.base(key))

    def read_base_usage(self, key: str) -> BaseUsage:
        path = self._usage(key)
        return BaseUsage.model_validate(read_json(path)) if path.exists() else BaseUsage()

    def add_base_usage(self, key: str, added: BaseUsage) -> None:
        """Add to what scoring a base has taken so far."""
        known = self.read_base_usage(key)
        total = BaseUsage(
            busy_seconds=known.busy_seconds + added.busy_seconds,
            scorer_seconds=known.scorer_seconds + added.scorer_seconds,
        )
        write_json(self._usage(key), total.model_dump(mode="json"))

    def _usage(self, key: str) -> Path:
        return self.base(key) / "usage.json"

    def request_stop(self, trial_id: str | None) -> None:
        """Ask the driver to end a trial, or the whole sweep for None."""
        path = self._stop(trial_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def stop_requested(self, trial_id: str | None) -> bool:
        """Whether the end of this very trial was asked for, or that of the whole sweep for None."""
        return self._stop(trial_id).exists()

    def clear_stop_requests(self) -> None:
        """Forget all requests to stop, the trials' and the sweep's."""
        for path in (self._stop(None), *self.root.glob("trials/*/stop")):
            path.unlink(missing_ok=True)

    def _stop(self, trial_id: str | None) -> Path:
        return (self.root if trial_id is None else self.trial(trial_id)) / "stop"

    def read_tracking(self) -> TrackingRecord | None:
        if not self.tracking_json.exists():
            return None
        return TrackingRecord.model_validate(read_json(self.tracking_json))

    def write_tracking(self, record: TrackingRecord) -> None:
        write_json(self.tracking_json, record.model_dump(mode="json"))


def _read_card(folder: Path) -> ScoreCard | None:
    path = folder / "scores.json"
    return ScoreCard.model_validate(read_json(path)) if path.exists() else None


def check_sweep_record(folder: SweepFolder) -> None:
    """Raise InputError if the sweep's own record, sweep.json, cannot be read."""
    kept = "keeps the trained models and scores them again"
    problems = _damaged(folder.sweep_json, folder.read_sweep, kept)
    if problems:
        raise InputError(problems)


def check_records(folder: SweepFolder) -> None:
    """Raise InputError with all records of the sweep in `folder` that cannot be read."""
    check_sweep_record(folder)
    problems = _damaged_records(folder)
    if problems:
        raise InputError(problems)


def _damaged_records(folder: SweepFolder) -> list[Problem]:
    """What is wrong with the records beside sweep.json, which is whole."""
    scored_again = "scores that model again"
    problems = _damaged(folder.tracking_json, folder.read_tracking, "posts it to MLflow anew")
    sweep = folder.read_sweep()
    for base in sweep.bases:
        path = folder.base(base.key) / "scores.json"
        problems += _damaged(path, partial(folder.read_base_scores, base.key), scored_again)
        path = folder.base(base.key) / "usage.json"
        counted_anew = "counts anew what scoring the untuned model takes"
        problems += _damaged(path, partial(folder.read_base_usage, base.key), counted_anew)
    for trial_id in sweep.trial_ids:
        root = folder.trial(trial_id)
        for name, read, outcome in (
            ("trial.json", folder.read_trial, "runs that trial again"),
            ("scores.json", folder.read_scores, scored_again),
        ):
            problems += _damaged(root / name, partial(read, trial_id), outcome)
    return problems


def _damaged(path: Path, read: Callable[[], object], outcome: str) -> list[Problem]:
    """The problem with the record at `path`, if `read` fails; `outcome` of a run without it."""
    try:
        read()
    except (OSError, ValueError) as error:
        return [
            Problem(
                message=f"the record is damaged: {_fault(error)}",
                where=str(path),
                fix=f"delete this file and run the same sweep again, which {outcome}",
            )
        ]
    return []


def _fault(error: OSError | ValueError) -> str:
    """Why a record cannot be read, on one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"])) or "the whole of it"
    return f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}"
