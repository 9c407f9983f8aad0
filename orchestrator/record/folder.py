"""Read and write the record of a sweep on disk: its files, and the state of each trial.

MLflow and the report are views of these files, which contain all results.

    <output_dir>/
      sweep.json                 resolved spec, trial ids, environment
      sweep.log                  output of Ray and the libraries
      bases/<key>/heldout.jsonl  held-out examples of this baseline
      bases/<key>/scores.json    scores of its untuned model
      bases/<key>/samples.jsonl  every scored item of the untuned model
      bases/<key>/usage.json     time spent on its scoring
      bases/<key>/log.txt
      trials/<id>/trial.json     settings, state, outcome
      trials/<id>/metrics.jsonl  one line per logged step
      trials/<id>/system.jsonl   system metrics of the first rank's node, every 10 s
      trials/<id>/log.txt        output of the trial
      trials/<id>/checkpoints/   checkpoints, while the trial runs
      trials/<id>/model/         the trained model
      trials/<id>/scores.json    benchmark scores
      trials/<id>/samples.jsonl  every scored item, with output and verdict
      trials/<id>/outputs/       outputs that a judge compared
      trials/<id>/stop           request of `plw stop` for this trial
      stop                       request of `plw stop` for the sweep
      report.md report.html plots/
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from evals.judge.outputs_file import outputs_name
from evals.results.scores import ScoreCard
from orchestrator.foundation.shell_words import shell_path
from orchestrator.record.baselines import BaselineRecord
from orchestrator.record.upgrade import (
    RECORD_VERSION,
    check_version,
    current_sweep,
    current_trial,
    newer_writer,
)
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import read_json, write_json
from trainers.foundation.records import Record, describe_fault

# waiting: for resources; `note` has the reason. interrupted: resumes when the sweep runs again.
# stopped: ended early on purpose.
State = Literal[
    "pending", "waiting", "training", "scoring", "interrupted", "done", "stopped", "failed"
]
# For records of releases without search.objectives.
DEFAULT_OBJECTIVE = "heldout_completion_loss"
RUNNING: tuple[State, ...] = ("training", "scoring")
# In a trial's folder: outputs that are the opponent's of other trials.
PANDALM_OUTPUTS = f"outputs/{outputs_name('pandalm_prompts')}"


class TrialRecord(Record):
    """A trial: its settings, its state and its results.

    `base` is the key of its baseline; `note` is the reason for waiting. `failure` is the kind of
    `error`: one of the spec's `retries`, or `lost_node`, `start` or `input`. `busy_seconds` and
    `scorer_seconds` are the times for which it held its workers and a scorer, over all attempts.
    `attempts` counts only attempts at training. `is_scored_beside`: a scorer scores the trial while
    its workers run other trials. `opponent` is the id of the trial with PLW 0 whose outputs are the
    opponent's in pandalm_prompts; None without one.
    """

    id: str
    base: str
    settings: dict[str, Any]
    searched: dict[str, Any]
    state: State = "pending"
    attempts: int = 0
    error: str | None = None
    failure: str | None = None
    note: str | None = None
    busy_seconds: float = 0.0
    scorer_seconds: float = 0.0
    is_scored_beside: bool = False
    opponent: str | None = None
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
    exported_step: int | None = None
    last_heldout_completion_loss: float | None = None
    exported_heldout_completion_loss: float | None = None

    @property
    def prompt_loss_weight(self) -> float:
        return float(self.settings["loss"]["prompt_loss_weight"])


class BaselineUsage(Record):
    """Time for scoring a baseline's untuned model over all attempts, as in `TrialRecord`."""

    busy_seconds: float = 0.0
    scorer_seconds: float = 0.0


class TrackingRecord(Record):
    """The sweep in MLflow: the experiment, its parent run and one run per trial."""

    uri: str
    experiment: str
    experiment_id: str
    parent_run_id: str
    trial_run_ids: dict[str, str] = Field(default_factory=dict)


# The end_reason of a sweep that was interrupted and can continue.
STOP_REQUESTED = "a stop was requested"


class SweepRecord(Record):
    """A sweep: the resolved spec, its trials in order, and its environment.

    `overrides` are those of --set, redacted, which the resolved spec contains.
    `end_reason`: why the sweep ended before all trials were done; None if all are done.
    """

    version: int = Field(RECORD_VERSION, ge=1)
    name: str
    created_at: str
    spec: dict[str, Any]
    spec_path: str
    trial_ids: list[str]
    bases: list[BaselineRecord]
    environment: dict[str, Any]
    end_reason: str | None = None
    overrides: list[str] = Field(default_factory=list)

    @property
    def command(self) -> str:
        """The command that starts or resumes the sweep."""
        output_dir = self.spec.get("output_dir")
        option = f" -o {shell_path(output_dir)}" if output_dir else ""
        changes = "".join(f" --set {shlex.quote(override)}" for override in self.overrides)
        return f"plw sweep {shell_path(self.spec_path)}{option}{changes}"

    def with_next_seeds(self, next_seeds: Sequence[int]) -> "SweepRecord | None":
        """Return the sweep with more seeds; None if it would not run exactly the next trials.

        Args:
            next_seeds: the seed of each next trial.
        """
        search, new = self.spec.get("search", {}), set(next_seeds)
        seeds = search.get("seeds") or [self.spec.get("seed", 0)]
        is_whole_grid = len(next_seeds) * len(seeds) == len(new) * len(self.trial_ids)
        if search.get("method") != "grid" or not new or new & set(seeds) or not is_whole_grid:
            return None
        others = [each for each in self.overrides if not each.startswith("search.seeds=")]
        added = f"search.seeds={[*seeds, *sorted(new)]}"
        return self.model_copy(update={"overrides": [*others, added]})

    @property
    def num_planned(self) -> int:
        """The number of trials; of a search that may go on, those of all points of the spec."""
        num_opened, search = len(self.trial_ids), self.spec.get("search", {})
        has_ended = self.end_reason not in (None, STOP_REQUESTED)
        if search.get("method") == "grid" or has_ended:
            return num_opened
        return max(num_opened, (search.get("points") or 0) * len(search.get("seeds") or [None]))

    @property
    def objective(self) -> str:
        """The first score that the search optimizes."""
        objectives = self.spec["search"].get("objectives") or [DEFAULT_OBJECTIVE]
        return str(objectives[0])


class SweepFolder:
    """Paths of a sweep's folder, and methods that read and write its records."""

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
        """Return the root path, relative to the working directory if it is inside it."""
        here = Path.cwd()
        return self.root.relative_to(here) if self.root.is_relative_to(here) else self.root

    def baseline(self, key: str) -> Path:
        return self.root / "bases" / key

    def heldout(self, key: str) -> Path:
        return self.baseline(key) / "heldout.jsonl"

    def trial(self, trial_id: str) -> Path:
        return self.root / "trials" / trial_id

    def metrics(self, trial_id: str) -> Path:
        return self.trial(trial_id) / "metrics.jsonl"

    def system_metrics(self, trial_id: str) -> Path:
        return self.trial(trial_id) / "system.jsonl"

    def model(self, trial_id: str) -> Path:
        return self.trial(trial_id) / "model"

    def pandalm_outputs(self, trial_id: str) -> Path:
        return self.trial(trial_id) / PANDALM_OUTPUTS

    def read_sweep(self) -> SweepRecord:
        """Return the sweep's record.

        Raises:
            InputError: a newer release wrote the record in a format that this one cannot read.
        """
        content = read_json(self.sweep_json)
        check_version(content, self.sweep_json)
        return SweepRecord.model_validate(current_sweep(content))

    def write_sweep(self, record: SweepRecord) -> None:
        write_json(self.sweep_json, record.model_dump(mode="json"))

    def has_trial(self, trial_id: str) -> bool:
        """Return whether the trial has a record."""
        return self._trial_json(trial_id).exists()

    def read_trial(self, trial_id: str) -> TrialRecord | None:
        """Return the record of a trial; None if it has no record."""
        path = self._trial_json(trial_id)
        if not path.exists():
            return None
        return TrialRecord.model_validate(current_trial(read_json(path)))

    def write_trial(self, record: TrialRecord) -> None:
        write_json(self._trial_json(record.id), record.model_dump(mode="json"))

    def _trial_json(self, trial_id: str) -> Path:
        return self.trial(trial_id) / "trial.json"

    def read_trials(self) -> list[TrialRecord]:
        """Return the records of the sweep's trials, in the order of the plan."""
        records = (self.read_trial(trial_id) for trial_id in self.read_sweep().trial_ids)
        return [record for record in records if record is not None]

    def read_scores(self, trial_id: str) -> ScoreCard | None:
        """Return the scores of a trial; None if it has not been scored."""
        return _read_card(self.trial(trial_id))

    def read_baseline_scores(self, key: str) -> ScoreCard | None:
        """Return the scores of a baseline's untuned model; None if it has not been scored."""
        return _read_card(self.baseline(key))

    def read_baseline_usage(self, key: str) -> BaselineUsage:
        path = self._usage(key)
        return BaselineUsage.model_validate(read_json(path)) if path.exists() else BaselineUsage()

    def add_baseline_usage(self, key: str, added: BaselineUsage) -> None:
        """Add to the recorded time for scoring a baseline."""
        known = self.read_baseline_usage(key)
        total = BaselineUsage(
            busy_seconds=known.busy_seconds + added.busy_seconds,
            scorer_seconds=known.scorer_seconds + added.scorer_seconds,
        )
        write_json(self._usage(key), total.model_dump(mode="json"))

    def _usage(self, key: str) -> Path:
        return self.baseline(key) / "usage.json"

    def request_stop(self, trial_id: str | None) -> None:
        """Request a stop of a trial, or of the whole sweep if `trial_id` is None."""
        path = self._stop(trial_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def stop_requested(self, trial_id: str | None) -> bool:
        """Return whether a stop of the trial, or of the sweep for None, was requested."""
        return self._stop(trial_id).exists()

    def clear_stop_requests(self) -> None:
        """Delete all stop requests, for trials and for the sweep."""
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
    outcome = "keeps the trained models and scores them again"
    problems = _read_problems(folder, folder.sweep_json, folder.read_sweep, outcome)
    if problems:
        raise InputError(problems)


def check_records(folder: SweepFolder) -> None:
    """Raise InputError with all records of the sweep in `folder` that cannot be read."""
    check_sweep_record(folder)
    problems = [
        problem
        for path, read, outcome in _other_records(folder)
        for problem in _read_problems(folder, path, read, outcome)
    ]
    if problems:
        raise InputError(problems)


def _other_records(
    folder: SweepFolder,
) -> Iterator[tuple[Path, Callable[[], object], str]]:
    """Yield path, reader and effect of a loss for each record except sweep.json."""
    scored_again = "scores that model again"
    yield folder.tracking_json, folder.read_tracking, "logs it to MLflow again"
    sweep = folder.read_sweep()
    for base in sweep.bases:
        root = folder.baseline(base.key)
        yield root / "scores.json", partial(folder.read_baseline_scores, base.key), scored_again
        counted = "counts the time for scoring the untuned model from 0"
        yield root / "usage.json", partial(folder.read_baseline_usage, base.key), counted
    for trial_id in sweep.trial_ids:
        root = folder.trial(trial_id)
        yield root / "trial.json", partial(folder.read_trial, trial_id), "runs that trial again"
        yield root / "scores.json", partial(folder.read_scores, trial_id), scored_again


def _read_problems(
    folder: SweepFolder, path: Path, read: Callable[[], object], outcome: str
) -> list[Problem]:
    """Return the problem with the record at `path`; empty if `read` succeeds.

    Args:
        outcome: action of the sweep's next run if the record is missing.
    """
    try:
        read()
    except InputError as error:
        return error.problems
    except (OSError, ValueError) as error:
        writer = newer_writer(folder.sweep_json)
        if writer is not None:
            message = f"written by a newer plw-sweep {writer}: {describe_fault(error)}"
            return [Problem(message=message, where=str(path), fix=f"upgrade plw-sweep to {writer}")]
        fix = (
            f"restore it from a backup, or rename it to {path.name}.bad and run the sweep again, "
            f"which {outcome}"
        )
        return [
            Problem(
                message=f"the record is damaged: {describe_fault(error)}", where=str(path), fix=fix
            )
        ]
    return []
