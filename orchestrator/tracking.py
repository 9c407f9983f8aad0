"""MLflow as a view of a sweep: a parent run, one child run per trial, scores and artifacts.

The only module that imports mlflow. Everything here is derived from the files of the sweep's
folder and can be posted again at any time, from any process, without duplicating a run or a
metric point. Three things make it so: runs carry tags by which they are found again, posted
metric lines are counted in `tracking_state.json`, and a point that is posted twice all the same
(a kill between the post and the count) has the same key, time, step and value, which MLflow's
SQL stores hold once.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.analysis import headline, read_findings
from orchestrator.bases import base_labels
from orchestrator.plain import flatten, redact, to_yaml
from orchestrator.record import SweepFolder, TrackingRecord, TrialRecord
from orchestrator.tracking_files import (
    TrackingState,
    TrialState,
    first_line,
    metric_lines,
    milliseconds,
    param_text,
    read_state,
    score_metrics,
    tail,
    write_state,
    written_at,
)
from orchestrator.tracking_runs import open_runs
from orchestrator.tracking_uri import (
    answers,
    check_reachable,
    choose_uri,
    default_uri,
    sqlite_path,
    ui_command,
)
from trainers.errors import InputError, Problem
from trainers.files import sha256_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

__all__ = ["Tracker", "check_reachable", "choose_uri", "default_uri", "ui_command"]

logger = logging.getLogger(__name__)

FinalStatus = Literal["FINISHED", "FAILED", "KILLED"]

MAX_METRICS_PER_POST = 1000
MAX_PARAMS_PER_POST = 100
MAX_TAG_CHARS = 4000
PROBE_TIMEOUT_S = 3.0
RETRY_AFTER_S = 5.0
WATCHED_FILES = ("trial.json", "metrics.jsonl", "scores.json")
SUMMARY_FIELDS = (
    "train_seconds",
    "eval_seconds",
    "final_completion_loss",
    "final_prompt_loss",
    "loss_rsd",
    "distance",
)
RUN_STATUS = {
    "waiting": "SCHEDULED",
    "training": "RUNNING",
    "scoring": "RUNNING",
    "interrupted": "KILLED",
    "done": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
# A sweep must not stand still while MLflow is away: its own 7 retries of 120 s take minutes,
# and the next sync posts what this one could not. The rest keeps mlflow off the terminal.
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Tracker:
    """Posts one sweep's record to MLflow, as far as MLflow does not have it yet."""

    def __init__(
        self,
        folder: SweepFolder,
        client: "MlflowClient",
        uri: str,
        record: TrackingRecord,
        state: TrackingState,
    ) -> None:
        self._folder = folder
        self._client = client
        self._uri = uri
        self._record = record
        self._state = state
        self._checked: set[str] = set()
        self._posted: dict[str, tuple[int, ...]] = {}
        self._is_away = False
        self._retry_at = 0.0

    @classmethod
    def open(cls, folder: SweepFolder, *, uri: str, experiment: str) -> "Tracker":
        """The tracker of the sweep in `folder`, its parent run found again or created: running.

        Raises:
            InputError: MLflow is not reachable at `uri`, refuses the credentials, or the
                experiment was deleted there.
        """
        check_reachable(uri)
        database = sqlite_path(uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        try:
            client = _client(uri)
            record = open_runs(client, folder, uri, experiment)
            _set_spec_tags(client, record.parent_run_id, folder.read_sweep().spec)
        except _mlflow_errors() as error:
            raise InputError(
                Problem(
                    message=f"MLflow at {redact(uri)} refused: {first_line(error)}",
                    where="tracking.uri",
                    fix="see its documentation, or track to another URI",
                )
            ) from error
        folder.write_tracking(record)
        return cls(folder, client, uri, record, read_state(folder, record.parent_run_id))

    @property
    def record(self) -> TrackingRecord:
        """Where the sweep is in MLflow."""
        return self._record

    def sync_trial(self, trial_id: str) -> bool:
        """Post what MLflow lacks of one trial; False if MLflow could not take it now.

        Costs next to nothing while the trial's files stand still. While MLflow is away it is
        asked once in 5 s, whichever trial is synced.
        """
        versions = self._versions(trial_id)
        if self._posted.get(trial_id) == versions:
            return True
        if time.monotonic() < self._retry_at:
            return False
        has_arrived = self._attempt(f"trial {trial_id}", lambda: self._sync_trial(trial_id))
        if has_arrived:
            self._posted[trial_id] = versions
        return has_arrived

    def _versions(self, trial_id: str) -> tuple[int, ...]:
        """What changes whenever one of a trial's files is written."""
        root = self._folder.trial(trial_id)
        found = [path.stat() for path in map(root.joinpath, WATCHED_FILES) if path.exists()]
        return tuple(number for stat in found for number in (stat.st_mtime_ns, stat.st_size))

    def finish(self, status: FinalStatus) -> bool:
        """Post what is left of all trials and the sweep's results, and end the parent run.

        Returns whether everything arrived; what did not is posted by the next tracker's finish.
        """
        self._retry_at = 0.0
        trial_ids = self._folder.read_sweep().trial_ids
        have_arrived = [self.sync_trial(trial_id) for trial_id in trial_ids]
        return self._attempt("the results", lambda: self._finish(status)) and all(have_arrived)

    def _attempt(self, what: str, post: Callable[[], None]) -> bool:
        try:
            # A server that is away would hold each call for the time of its retries.
            if not answers(self._uri, PROBE_TIMEOUT_S):
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                raise ConnectionError("it does not answer")
            post()
        except _mlflow_errors() as error:
            # One line for each time that MLflow goes away, not one per step.
            level = logging.DEBUG if self._is_away else logging.WARNING
            text = "MLflow at %s did not take %s, which will be tried again: %s"
            logger.log(level, text, redact(self._uri), what, first_line(error))
            self._is_away = True
            return False
        if self._is_away:
            logger.info("MLflow at %s takes posts again", redact(self._uri))
        self._is_away = False
        return True

    def _save(self) -> None:
        write_state(self._folder, self._state)

    def _sync_trial(self, trial_id: str) -> None:
        trial = self._folder.read_trial(trial_id)
        if trial is None or trial.state == "pending":
            return
        if trial.state == "waiting" and trial.started_at is None:
            return
        state = self._trial_state(trial)
        self._post_params(trial, state)
        self._post_metrics(trial, state)
        self._post_scores(trial, state)
        self._post_trial_files(trial, state)
        self._post_trial_state(trial, state)

    def _trial_state(self, trial: TrialRecord) -> TrialState:
        """The trial's state below its run, which is created if MLflow has none."""
        run_id = self._record.trial_run_ids.get(trial.id) or self._create_trial_run(trial)
        state = self._state.trials.get(trial.id)
        if state is None or state.run_id != run_id:
            state = self._state.trials[trial.id] = TrialState(run_id=run_id)
        if trial.id not in self._checked and state.state not in ("done", "failed"):
            # Killed after a post and before its count, then resumed: the lines that are written
            # anew carry other times, so MLflow would hold both. Ask it once per process.
            state.last_step = max(state.last_step, self._last_posted_step(trial.id, run_id))
        self._checked.add(trial.id)
        return state

    def _create_trial_run(self, trial: TrialRecord) -> str:
        name = f"PLW {trial.prompt_loss_weight:g} · seed {trial.settings['seed']} · {trial.id}"
        run = self._client.create_run(
            self._record.experiment_id,
            start_time=milliseconds(trial.started_at),
            run_name=name,
            tags={"mlflow.parentRunId": self._record.parent_run_id, "plw.trial_id": trial.id},
        )
        run_id = str(run.info.run_id)
        runs = {**self._record.trial_run_ids, trial.id: run_id}
        self._record = self._record.model_copy(update={"trial_run_ids": runs})
        self._folder.write_tracking(self._record)
        return run_id

    def _last_posted_step(self, trial_id: str, run_id: str) -> int:
        first = next(metric_lines(self._folder.metrics(trial_id)), None)
        if first is None:
            return -1
        known = self._client.get_run(run_id).data.metrics
        key = next((key for key in first[2] if key in known), None)
        history = self._client.get_metric_history(run_id, key) if key else []
        return max((metric.step for metric in history), default=-1)

    def _post_params(self, trial: TrialRecord, state: TrialState) -> None:
        if not state.has_params:
            _log_params(self._client, state.run_id, trial.settings)
            state.has_params = True
            self._save()

    def _post_metrics(self, trial: TrialRecord, state: TrialState) -> None:
        """Post the lines past the last posted step, in batches that end with a line."""
        from mlflow.entities import Metric

        batch: list[Metric] = []
        batch_step = state.last_step
        for step, time_ms, metrics in metric_lines(self._folder.metrics(trial.id)):
            if step <= state.last_step:
                continue
            if len(batch) + len(metrics) > MAX_METRICS_PER_POST:
                self._post_batch(state, batch, batch_step)
                batch = []
            batch += [Metric(key, value, time_ms, step) for key, value in metrics.items()]
            batch_step = step
        if batch:
            self._post_batch(state, batch, batch_step)

    def _post_batch(self, state: TrialState, batch: "list[Metric]", step: int) -> None:
        self._client.log_batch(state.run_id, metrics=batch)
        state.last_step = step
        self._save()

    def _post_scores(self, trial: TrialRecord, state: TrialState) -> None:
        card = self._folder.read_scores(trial.id)
        if card is None or trial.state != "done":
            return
        summary = {name: getattr(trial, name) for name in SUMMARY_FIELDS}
        values = score_metrics(card)
        values |= {name: value for name, value in summary.items() if value is not None}
        digest = sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        if state.files.get("scores") != digest:
            time_ms = written_at(self._folder.trial(trial.id) / "scores.json")
            self._log_changed(state.run_id, values, step=trial.total_steps or 0, time_ms=time_ms)
            state.files["scores"] = digest
            self._save()

    def _log_changed(
        self, run_id: str, values: Mapping[str, float], *, step: int, time_ms: int
    ) -> None:
        """Log the values that MLflow does not show as the latest already."""
        from mlflow.entities import Metric

        known = self._client.get_run(run_id).data.metrics
        changed = {key: value for key, value in values.items() if known.get(key) != value}
        metrics = [Metric(key, value, time_ms, step) for key, value in changed.items()]
        for start in range(0, len(metrics), MAX_METRICS_PER_POST):
            self._client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_PER_POST])

    def _post_trial_files(self, trial: TrialRecord, state: TrialState) -> None:
        root = self._folder.trial(trial.id)
        self._post_text(state.run_id, state.files, "settings.yaml", to_yaml(trial.settings))
        if trial.state == "done":
            for name in ("scores.json", "samples.jsonl"):
                self._post_file(state.run_id, state.files, root / name)
        if trial.state == "failed" and (root / "log.txt").exists():
            self._post_text(state.run_id, state.files, "log_tail.txt", tail(root / "log.txt"))

    def _post_text(self, run_id: str, posted: dict[str, str], name: str, text: str) -> None:
        if posted.get(name) != (digest := sha256(redact(text).encode()).hexdigest()):
            self._client.log_text(run_id, redact(text), name)
            posted[name] = digest
            self._save()

    def _post_file(
        self, run_id: str, posted: dict[str, str], path: Path, under: str | None = None
    ) -> None:
        name = f"{under}/{path.name}" if under else path.name
        if path.exists() and posted.get(name) != (digest := sha256_of(path)):
            self._client.log_artifact(run_id, str(path), under)
            posted[name] = digest
            self._save()

    def _post_trial_state(self, trial: TrialRecord, state: TrialState) -> None:
        """Tags and status last: a run that MLflow shows as finished has all of its scores."""
        if state.state == trial.state:
            return
        self._client.set_tag(state.run_id, "plw.state", trial.state)
        if trial.error or state.state == "failed":
            error = redact(trial.error or "")[-MAX_TAG_CHARS:]
            self._client.set_tag(state.run_id, "plw.error", error)
        status = RUN_STATUS[trial.state]
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(state.run_id, status=status)
        else:
            self._client.set_terminated(state.run_id, status, milliseconds(trial.ended_at))
        state.state = trial.state
        self._save()

    def _finish(self, status: FinalStatus) -> None:
        parent, posted = self._record.parent_run_id, self._state.files
        for key, label in base_labels(self._folder.read_sweep().bases).items():
            self._post_untuned(key, label)
        sweep_text = self._folder.sweep_json.read_text(encoding="utf-8")
        self._post_text(parent, posted, "sweep.json", sweep_text)
        for path in (self._folder.report_md, self._folder.report_html):
            self._post_file(parent, posted, path)
        for path in sorted(self._folder.plots.glob("*")):
            self._post_file(parent, posted, path, "plots")
        findings = read_findings(self._folder)
        # The page of a run opens with this tag's text.
        self._client.set_tag(parent, "mlflow.note.content", redact(headline(findings)))
        for name, count in findings.trials.model_dump().items():
            self._client.set_tag(parent, f"plw.trials_{name}", str(count))
        self._client.set_terminated(parent, status)

    def _post_untuned(self, key: str, label: str) -> None:
        """Post the untuned scores of a base, under its key where a label says there are several."""
        card = self._folder.read_base_scores(key)
        if card is None:
            return
        parent, path = self._record.parent_run_id, self._folder.base(key) / "scores.json"
        values = score_metrics(card, prefix=f"untuned_{key}_" if label else "untuned_")
        self._log_changed(parent, values, step=0, time_ms=written_at(path))
        self._post_file(parent, self._state.files, path, f"untuned/{key}" if label else "untuned")
        if label:
            self._client.set_tag(parent, f"plw.untuned_{key}", label)


def _client(uri: str) -> "MlflowClient":
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Left by an enclosing MLflow run, it would draw our runs into that one.
    os.environ.pop("MLFLOW_RUN_ID", None)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _mlflow_errors() -> tuple[type[Exception], ...]:
    """What MLflow being away or refusing raises; the errors of requests are OSErrors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def _log_params(client: "MlflowClient", run_id: str, settings: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(key, param_text(value)) for key, value in flatten(redact(dict(settings)))]
    for start in range(0, len(params), MAX_PARAMS_PER_POST):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS_PER_POST])


def _set_spec_tags(client: "MlflowClient", run_id: str, spec: Mapping[str, Any]) -> None:
    """The spec as tags, since a sweep that is run again may have another, and params are fixed."""
    from mlflow.entities import RunTag

    tags = [RunTag(f"spec.{key}", param_text(value)) for key, value in flatten(redact(dict(spec)))]
    for start in range(0, len(tags), MAX_PARAMS_PER_POST):
        client.log_batch(run_id, tags=tags[start : start + MAX_PARAMS_PER_POST])
