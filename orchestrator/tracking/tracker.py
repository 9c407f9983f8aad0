"""MLflow as a view of a sweep: a parent run, one child run per trial, scores and artifacts.

Everything here is derived from the files of the sweep's folder and can be posted again at any
time, from any process, without duplicating a run or a metric point. Three things make it so: runs
carry tags by which they are found again, posted metric lines are counted in each run's
`tracking_state.json`, and a point that is posted twice all the same (a kill between the post and
the count) has the same key, time, step and value, which MLflow's SQL stores hold once.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.analysis.answer import read_findings
from orchestrator.foundation.redaction import redact, to_yaml
from orchestrator.record.bases import base_labels
from orchestrator.record.folder import SweepFolder, TrackingRecord, TrialRecord
from orchestrator.record.reader import Version, trial_versions
from orchestrator.statistics.aggregates import with_aggregates
from orchestrator.tracking.answer import answer_metrics, answer_note, answer_tags
from orchestrator.tracking.client import (
    MAX_PER_POST,
    MetricPoint,
    flat,
    log_run,
    make_client,
    mlflow_errors,
)
from orchestrator.tracking.files import (
    OF_INTERVAL,
    RunState,
    first_line,
    metric_lines,
    milliseconds,
    param_text,
    read_state,
    score_metrics,
    tail,
    trial_scores,
    write_state,
    written_at,
)
from orchestrator.tracking.links import post_data, post_model
from orchestrator.tracking.runs import open_runs, verified
from orchestrator.tracking.uri import (
    answers,
    check_reachable,
    choose_uri,
    default_uri,
    sqlite_path,
    ui_command,
)
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Tracker", "check_reachable", "choose_uri", "default_uri", "ui_command"]

logger = logging.getLogger(__name__)

FinalStatus = Literal["FINISHED", "FAILED", "KILLED"]

MAX_TAG_CHARS = 4000
PROBE_TIMEOUT_S = 3.0
RETRY_AFTER_S = 5.0
RUN_STATUS = {
    "waiting": "SCHEDULED",
    "training": "RUNNING",
    "scoring": "RUNNING",
    "interrupted": "KILLED",
    "done": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
}
ENDED = ("done", "stopped", "failed")


class Tracker:
    """Posts one sweep's record to MLflow, as far as MLflow does not have it yet."""

    def __init__(
        self,
        folder: SweepFolder,
        client: "MlflowClient",
        uri: str,
        record: TrackingRecord,
        *,
        is_verified: bool,
    ) -> None:
        self._folder = folder
        self._client = client
        self._uri = uri
        self._record = record
        self._is_verified = is_verified
        self._states: dict[str, RunState] = {}
        self._created: set[str] = set()
        self._posted: dict[str, tuple[Version, ...]] = {}
        self._is_away = False
        self._retry_at = 0.0

    @classmethod
    def open(
        cls, folder: SweepFolder, *, uri: str, experiment: str, is_verified: bool = False
    ) -> "Tracker":
        """The tracker of the sweep in `folder`, its parent run found again or created: running.

        Args:
            is_verified: ask MLflow for all that it has, instead of trusting what was counted.

        Raises:
            InputError: MLflow is not reachable at `uri`, refuses the credentials, or the
                experiment was deleted there.
        """
        check_reachable(uri)
        database = sqlite_path(uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        try:
            client = make_client(uri)
            record = open_runs(client, folder, uri, experiment)
            # As tags, since a sweep that is run again may have another spec, and params are fixed.
            spec = flat(folder.read_sweep().spec)
            tags = {f"spec.{key}": param_text(value) for key, value in spec.items()}
            log_run(client, record.parent_run_id, tags=tags)
        except mlflow_errors() as error:
            raise InputError(
                Problem(
                    message=f"MLflow at {redact(uri)} refused: {first_line(error)}",
                    where="tracking.uri",
                    fix="see its documentation, or track to another URI",
                )
            ) from error
        folder.write_tracking(record)
        return cls(folder, client, uri, record, is_verified=is_verified)

    @property
    def record(self) -> TrackingRecord:
        """Where the sweep is in MLflow."""
        return self._record

    def sync_trial(self, trial_id: str) -> bool:
        """Post what MLflow lacks of one trial; False if MLflow could not take it now.

        Costs next to nothing while the trial's files stand still. While MLflow is away it is
        asked once in 5 s, whichever trial is synced.
        """
        versions = trial_versions(self._folder, trial_id)
        if self._posted.get(trial_id) == versions or self._was_posted(trial_id, versions):
            return True
        if time.monotonic() < self._retry_at:
            return False
        has_arrived = self._attempt(
            f"trial {trial_id}", lambda: self._sync_trial(trial_id, versions)
        )
        if has_arrived:
            self._posted[trial_id] = versions
        return has_arrived

    def _was_posted(self, trial_id: str, versions: tuple[Version, ...]) -> bool:
        """Whether an earlier process posted all of a trial, which has ended."""
        run_id = self._record.trial_run_ids.get(trial_id)
        if self._is_verified or run_id is None or trial_id in self._posted:
            return False
        if read_state(self._folder, trial_id, run_id).versions != versions:
            return False
        self._posted[trial_id] = versions
        return True

    def finish(self, status: FinalStatus) -> bool:
        """Post what is left of all trials and the sweep's results, and end the parent run.

        Returns whether everything arrived; what did not is posted by the next tracker's finish.
        """
        self._retry_at = 0.0
        trial_ids = self._folder.read_sweep().trial_ids
        arrived = [trial_id for trial_id in trial_ids if self.sync_trial(trial_id)]
        has_arrived = self._attempt("the results", lambda: self._finish(status, arrived))
        return has_arrived and len(arrived) == len(trial_ids)

    def _attempt(self, what: str, post: Callable[[], None]) -> bool:
        try:
            # A server that is away would hold each call for the time of its retries.
            if not answers(self._uri, PROBE_TIMEOUT_S):
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                raise ConnectionError("it does not answer")
            post()
        except mlflow_errors() as error:
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

    def _save(self, state: RunState) -> None:
        write_state(self._folder, state)

    def _read_state(self, trial_id: str | None, run_id: str) -> RunState:
        state = read_state(self._folder, trial_id, run_id)
        return verified(self._client, state) if self._is_verified else state

    def _sync_trial(self, trial_id: str, versions: tuple[Version, ...]) -> None:
        trial = self._folder.read_trial(trial_id)
        if trial is None or trial.state == "pending":
            return
        if trial.state == "waiting" and trial.started_at is None:
            return
        state = self._trial_state(trial)
        self._post_values(trial, state)
        self._post_links(trial, state)
        self._post_trial_files(trial, state)
        self._post_trial_status(trial, state)
        if trial.state in ENDED:
            # Kept on disk alone, so that the memory of a long sweep's driver does not grow.
            self._save(state.model_copy(update={"versions": versions}))
            del self._states[trial_id]

    def _trial_state(self, trial: TrialRecord) -> RunState:
        """The trial's state below its run, which is created if MLflow has none."""
        run_id = self._record.trial_run_ids.get(trial.id) or self._create_trial_run(trial)
        state = self._states.get(trial.id)
        if state is None or state.run_id != run_id:
            state = self._read_state(trial.id, run_id)
            if state.state not in ENDED and run_id not in self._created:
                # Killed after a post and before its count, then resumed: the lines that are
                # written anew carry other times, so MLflow would hold both. Ask it once.
                state.last_step = max(state.last_step, self._last_posted_step(trial.id, run_id))
        self._states[trial.id] = state
        state.versions = None
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
        self._created.add(run_id)
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

    def _post_values(self, trial: TrialRecord, state: RunState) -> None:
        """Post settings, the metric lines past the last posted step, scores and state.

        All of it at once where it is not too much; long metrics in batches that end with a line.
        """
        params = {} if state.has_params else flat(trial.settings)
        scores, digest = self._new_scores(trial, state)
        steps, state_after = self._post_long(state, self._folder.metrics(trial.id), "last_step")
        path = self._folder.system_metrics(trial.id)
        system, state_after_system = self._post_long(state, path, "last_system_step")
        tags = {} if state.state == trial.state else _state_tags(trial, state)
        if not (params or steps or system or scores or tags):
            return
        points = steps + system + scores
        log_run(self._client, state.run_id, params=params, points=points, tags=tags)
        state.has_params = True
        state.last_step, state.last_system_step = state_after, state_after_system
        if digest is not None:
            state.files["scores"] = digest
        self._save(state)

    def _post_long(
        self, state: RunState, path: Path, last: Literal["last_step", "last_system_step"]
    ) -> tuple[list[MetricPoint], int]:
        """Post the lines past the step in `last`, but for a rest that goes with other things.

        Returns the rest and its last step.
        """
        batch: list[MetricPoint] = []
        batch_step: int = getattr(state, last)
        for step, time_ms, metrics in metric_lines(path):
            if step <= getattr(state, last):
                continue
            if len(batch) + len(metrics) > MAX_PER_POST:
                log_run(self._client, state.run_id, points=batch)
                setattr(state, last, batch_step)
                self._save(state)
                batch = []
            batch += [(key, value, time_ms, step) for key, value in metrics.items()]
            batch_step = step
        return batch, batch_step

    def _post_links(self, trial: TrialRecord, state: RunState) -> None:
        is_new = post_data(self._client, self._folder, trial, state)
        if trial.state == "done":
            values, time_ms = trial_scores(self._folder, trial)
            step = trial.total_steps or 0
            points = [
                (key, value, time_ms, step)
                for key, value in values.items()
                if not key.endswith(OF_INTERVAL)
            ]
            experiment_id = self._record.experiment_id
            is_new |= post_model(self._client, self._folder, trial, state, experiment_id, points)
        if is_new:
            self._save(state)

    def _new_scores(
        self, trial: TrialRecord, state: RunState
    ) -> tuple[list[MetricPoint], str | None]:
        """The scores that MLflow lacks, and the digest of all of them where there are any."""
        values, time_ms = trial_scores(self._folder, trial)
        if not values:
            return [], None
        digest = sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        if state.files.get("scores") == digest:
            return [], digest
        is_first = state.run_id in self._created and "scores" not in state.files
        step = trial.total_steps or 0
        return self._changed(state.run_id, values, step, time_ms, is_first=is_first), digest

    def _changed(
        self,
        run_id: str,
        values: Mapping[str, float],
        step: int,
        time_ms: int,
        *,
        is_first: bool = False,
    ) -> list[MetricPoint]:
        """The values that MLflow does not show as the latest already.

        With `is_first` it surely shows none of them, and is not asked.
        """
        known = {} if is_first else self._client.get_run(run_id).data.metrics
        changed = {key: value for key, value in values.items() if known.get(key) != value}
        return [(key, value, time_ms, step) for key, value in changed.items()]

    def _post_trial_files(self, trial: TrialRecord, state: RunState) -> None:
        root = self._folder.trial(trial.id)
        self._post_text(state, "settings.yaml", to_yaml(trial.settings))
        if trial.state == "done":
            for name in ("scores.json", "samples.jsonl"):
                self._post_file(state, root / name)
        if trial.state == "failed" and (root / "log.txt").exists():
            self._post_text(state, "log_tail.txt", tail(root / "log.txt"))

    def _post_text(self, state: RunState, name: str, text: str) -> None:
        if state.files.get(name) != (digest := sha256(redact(text).encode()).hexdigest()):
            self._client.log_text(state.run_id, redact(text), name)
            state.files[name] = digest
            self._save(state)

    def _post_file(self, state: RunState, path: Path, under: str | None = None) -> None:
        name = f"{under}/{path.name}" if under else path.name
        if path.exists() and state.files.get(name) != (digest := sha256_of(path)):
            self._client.log_artifact(state.run_id, str(path), under)
            state.files[name] = digest
            self._save(state)

    def _post_trial_status(self, trial: TrialRecord, state: RunState) -> None:
        """Last: a run that MLflow shows as finished has all of its scores and files."""
        if state.state == trial.state:
            return
        status = RUN_STATUS[trial.state]
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(state.run_id, status=status)
        else:
            self._client.set_terminated(state.run_id, status, milliseconds(trial.ended_at))
        state.state = trial.state
        self._save(state)

    def _finish(self, status: FinalStatus, trial_ids: Sequence[str]) -> None:
        parent = self._record.parent_run_id
        self._post_late_aggregates(trial_ids)
        state = self._read_state(None, parent)
        for key, label in base_labels(self._folder.read_sweep().bases).items():
            self._post_untuned(state, key, label)
        sweep_text = self._folder.sweep_json.read_text(encoding="utf-8")
        self._post_text(state, "sweep.json", sweep_text)
        for path in (self._folder.report_md, self._folder.report_html):
            self._post_file(state, path)
        for path in sorted(self._folder.plots.glob("*")):
            self._post_file(state, path, "plots")
        findings = read_findings(self._folder)
        # The page of a run opens with this tag's text.
        tags = {"mlflow.note.content": answer_note(findings), **answer_tags(findings)}
        points = self._changed(
            parent, answer_metrics(findings), 0, written_at(self._folder.sweep_json)
        )
        cut = {name: str(redact(text))[:MAX_TAG_CHARS] for name, text in tags.items()}
        log_run(self._client, parent, points=points, tags=cut)
        # The end of its last trial, and so the same whenever it is posted.
        ends = [trial.ended_at for trial in self._folder.read_trials() if trial.ended_at]
        self._client.set_terminated(parent, status, milliseconds(max(ends)) if ends else None)

    def _post_late_aggregates(self, trial_ids: Sequence[str]) -> None:
        """Post those of trials that were done before their untuned model was scored."""
        for trial_id in trial_ids:
            trial = self._folder.read_trial(trial_id)
            run_id = self._record.trial_run_ids.get(trial_id)
            if trial is None or run_id is None:
                continue
            state = read_state(self._folder, trial_id, run_id)
            points, digest = self._new_scores(trial, state)
            if points and digest is not None:
                log_run(self._client, run_id, points=points)
                state.files["scores"] = digest
                self._save(state)
                self._post_links(trial, state)

    def _post_untuned(self, state: RunState, key: str, label: str) -> None:
        """Post the untuned scores of a base, under its key where a label says there are several."""
        card = self._folder.read_base_scores(key)
        if card is None:
            return
        parent, path = self._record.parent_run_id, self._folder.base(key) / "scores.json"
        card = with_aggregates(card, None)
        values = score_metrics(card, prefix=f"untuned_{key}_" if label else "untuned_")
        log_run(self._client, parent, points=self._changed(parent, values, 0, written_at(path)))
        self._post_file(state, path, f"untuned/{key}" if label else "untuned")
        if label:
            self._client.set_tag(parent, f"plw.untuned_{key}", label)


def _state_tags(trial: TrialRecord, state: RunState) -> dict[str, str]:
    tags = {"plw.state": str(trial.state)}
    if trial.error or state.state == "failed":
        tags["plw.error"] = str(redact(trial.error or ""))[-MAX_TAG_CHARS:]
    return tags
