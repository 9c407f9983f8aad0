"""Mirror a sweep in MLflow: a parent run, one child run per trial, scores and artifacts.

All content comes from the files in the sweep's folder. Any process can post it again at any time
without duplicate runs or metric points, for three reasons. Runs are found by their tags. Each run's
`tracking_state.json` counts the posted metric lines. A point that is posted twice (after a kill
between the post and the count) has the same key, time, step and value, and MLflow's SQL stores keep
it once.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from orchestrator.analysis.findings import Findings
from orchestrator.analysis.sweep_findings import read_findings
from orchestrator.foundation.redaction import redact, to_yaml
from orchestrator.record.baselines import baseline_labels
from orchestrator.record.folder import SweepFolder, TrackingRecord, TrialRecord
from orchestrator.record.reader import Version, trial_versions
from orchestrator.statistics.aggregates import add_aggregates
from orchestrator.tracking.answer import (
    answer_metrics,
    answer_note,
    answer_tags,
    is_answer_metric,
    is_answer_tag,
)
from orchestrator.tracking.client import (
    SPEC_TAG_PREFIX,
    MetricPoint,
    log_run,
    make_client,
    mlflow_errors,
    redacted_leaves,
)
from orchestrator.tracking.lineage import log_trained_model, log_training_data
from orchestrator.tracking.metric_names import is_interval
from orchestrator.tracking.run_poster import RunPoster
from orchestrator.tracking.run_state import RunState, read_state
from orchestrator.tracking.runs import open_runs
from orchestrator.tracking.uri import check_reachable, responds, sqlite_path
from orchestrator.tracking.values import (
    error_summary,
    log_tail,
    metric_lines,
    milliseconds,
    modified_ms,
    param_text,
    score_metrics,
    trial_scores,
)
from trainers.foundation.errors import InputError, Problem

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
    """Posts the parts of one sweep's record that MLflow does not have yet."""

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
        self._poster = RunPoster(folder, client, is_verified=is_verified)
        self._states: dict[str, RunState] = {}
        self._new_runs: set[str] = set()
        self._posted: dict[str, tuple[Version, ...]] = {}
        self._is_unavailable = False
        self._retry_at = 0.0

    @classmethod
    def open(
        cls, folder: SweepFolder, *, uri: str, experiment: str, is_verified: bool = False
    ) -> "Tracker":
        """Find or create the parent run of the sweep in `folder`, and set it to running.

        Args:
            is_verified: ask MLflow for its content instead of trusting the recorded state.

        Raises:
            InputError: MLflow is not reachable at `uri`, refuses the credentials, or the experiment
                was deleted there.
        """
        check_reachable(uri)
        database = sqlite_path(uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        try:
            client = make_client(uri)
            record = open_runs(client, folder, uri, experiment)
            # Tags, not params: params cannot change, and a rerun of the sweep may change the spec.
            spec = redacted_leaves(folder.read_sweep().spec)
            tags = {f"{SPEC_TAG_PREFIX}{key}": param_text(value) for key, value in spec.items()}
            log_run(client, record.parent_run_id, tags=tags)
        except mlflow_errors() as error:
            raise InputError(
                Problem(
                    message=f"MLflow at {redact(uri)} refused: {error_summary(error)}",
                    where="tracking.uri",
                    fix="see its documentation, or track to another URI",
                )
            ) from error
        folder.write_tracking(record)
        return cls(folder, client, uri, record, is_verified=is_verified)

    @property
    def record(self) -> TrackingRecord:
        """The ids of the sweep's experiment and runs in MLflow."""
        return self._record

    def sync_trial(self, trial_id: str) -> bool:
        """Post everything of one trial that MLflow lacks; return False if MLflow did not accept it.

        This is cheap while the trial's files are unchanged. While MLflow is unavailable, it is
        contacted at most once in 5 s, over all trials.
        """
        versions = trial_versions(self._folder, trial_id)
        if self._posted.get(trial_id) == versions or self._was_posted(trial_id, versions):
            return True
        if time.monotonic() < self._retry_at:
            return False
        is_posted = self._attempt(f"trial {trial_id}", lambda: self._sync_trial(trial_id, versions))
        if is_posted:
            self._posted[trial_id] = versions
        return is_posted

    def _was_posted(self, trial_id: str, versions: tuple[Version, ...]) -> bool:
        """Return whether an earlier process posted everything of a trial that has ended."""
        run_id = self._record.trial_run_ids.get(trial_id)
        if self._is_verified or run_id is None or trial_id in self._posted:
            return False
        if read_state(self._folder, trial_id, run_id).versions != versions:
            return False
        self._posted[trial_id] = versions
        return True

    def finish(self, status: FinalStatus) -> bool:
        """Post the rest of all trials and the sweep's results, and end the parent run.

        Returns whether everything was posted. If not, the next tracker's `finish` posts the rest.
        """
        self._retry_at = 0.0
        trial_ids = self._folder.read_sweep().trial_ids
        posted = [trial_id for trial_id in trial_ids if self.sync_trial(trial_id)]
        is_posted = self._attempt("the results", lambda: self._finish(status, posted))
        return is_posted and len(posted) == len(trial_ids)

    def _attempt(self, what: str, post: Callable[[], None]) -> bool:
        try:
            # Without this probe, each call to an unavailable server takes the time of its retries.
            if not responds(self._uri, PROBE_TIMEOUT_S):
                self._retry_at = time.monotonic() + RETRY_AFTER_S
                raise ConnectionError("it does not respond")
            post()
        except mlflow_errors() as error:
            # Log one warning each time MLflow becomes unavailable, not one per step.
            level = logging.DEBUG if self._is_unavailable else logging.WARNING
            text = "MLflow at %s did not accept %s, which will be posted again: %s"
            logger.log(level, text, redact(self._uri), what, error_summary(error))
            self._is_unavailable = True
            return False
        if self._is_unavailable:
            logger.info("MLflow at %s accepts posts again", redact(self._uri))
        self._is_unavailable = False
        return True

    def _sync_trial(self, trial_id: str, versions: tuple[Version, ...]) -> None:
        trial = self._folder.read_trial(trial_id)
        if trial is None or trial.state == "pending":
            return
        if trial.state == "waiting" and trial.started_at is None:
            return
        state = self._trial_state(trial)
        self._post_values(trial, state)
        self._post_lineage(trial, state)
        self._post_trial_files(trial, state)
        self._post_trial_status(trial, state)
        if trial.state in ENDED:
            # This is kept on disk only, so that the memory of a long sweep's driver does not grow.
            self._poster.save(state.model_copy(update={"versions": versions}))
            del self._states[trial_id]

    def _trial_state(self, trial: TrialRecord) -> RunState:
        """Return the state of the trial's run; create the run if MLflow has none."""
        run_id = self._record.trial_run_ids.get(trial.id) or self._create_trial_run(trial)
        state = self._states.get(trial.id)
        if state is None or state.run_id != run_id:
            state = self._poster.read_state(trial.id, run_id)
            if state.state not in ENDED and run_id not in self._new_runs:
                # After a kill between a post and its count, the resumed trainer writes the same
                # steps with other times, and MLflow would keep both. So query MLflow once for the
                # last step.
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
        self._new_runs.add(run_id)
        runs = {**self._record.trial_run_ids, trial.id: run_id}
        self._record = self._record.model_copy(update={"trial_run_ids": runs})
        self._folder.write_tracking(self._record)
        return run_id

    def _last_posted_step(self, trial_id: str, run_id: str) -> int:
        first = next(metric_lines(self._folder.metrics(trial_id)), None)
        if first is None:
            return -1
        known = self._client.get_run(run_id).data.metrics
        key = next((key for key in first.metrics if key in known), None)
        history = self._client.get_metric_history(run_id, key) if key else []
        return max((metric.step for metric in history), default=-1)

    def _post_values(self, trial: TrialRecord, state: RunState) -> None:
        """Post settings, new metric lines, scores and the state, in one request if they fit."""
        params = {} if state.has_params else redacted_leaves(trial.settings)
        scores, digest = self._new_scores(trial, state)
        metrics = self._folder.metrics(trial.id)
        steps, last_step = self._poster.post_metric_lines(state, metrics, "last_step")
        system_metrics = self._folder.system_metrics(trial.id)
        system, last_system_step = self._poster.post_metric_lines(
            state, system_metrics, "last_system_step"
        )
        tags = {} if state.state == trial.state else _state_tags(trial, state)
        if not (params or steps or system or scores or tags):
            return
        points = steps + system + scores
        log_run(self._client, state.run_id, params=params, points=points, tags=tags)
        state.has_params = True
        state.last_step, state.last_system_step = last_step, last_system_step
        if digest is not None:
            state.files["scores"] = digest
        self._poster.save(state)

    def _post_lineage(self, trial: TrialRecord, state: RunState) -> None:
        is_new = log_training_data(self._client, self._folder, trial, state)
        if trial.state == "done":
            values, time_ms = trial_scores(self._folder, trial)
            step = trial.total_steps or 0
            points = [
                (key, value, time_ms, step) for key, value in values.items() if not is_interval(key)
            ]
            is_new |= log_trained_model(
                self._client, self._folder, trial, state, self._record.experiment_id, points
            )
        if is_new:
            self._poster.save(state)

    def _new_scores(
        self, trial: TrialRecord, state: RunState
    ) -> tuple[list[MetricPoint], str | None]:
        """Return the scores that MLflow lacks, and the digest of all scores if there are any."""
        values, time_ms = trial_scores(self._folder, trial)
        if not values:
            return [], None
        digest = sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        if state.files.get("scores") == digest:
            return [], digest
        is_new_run = state.run_id in self._new_runs and "scores" not in state.files
        step = trial.total_steps or 0
        points = self._poster.changed_points(
            state.run_id, values, step, time_ms, is_new_run=is_new_run
        )
        return points, digest

    def _post_trial_files(self, trial: TrialRecord, state: RunState) -> None:
        root = self._folder.trial(trial.id)
        # A trial's settings never change, and writing them takes as long as a request.
        if "settings.yaml" not in state.files:
            self._poster.post_text(state, "settings.yaml", to_yaml(trial.settings))
        if trial.state == "done":
            for name in ("scores.json", "samples.jsonl"):
                self._poster.post_file(state, root / name)
        if trial.state == "failed" and (root / "log.txt").exists():
            self._poster.post_text(state, "log_tail.txt", log_tail(root / "log.txt"))

    def _post_trial_status(self, trial: TrialRecord, state: RunState) -> None:
        """Post the status last, so that a finished run in MLflow has all its scores and files."""
        if state.state == trial.state:
            return
        status = RUN_STATUS[trial.state]
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(state.run_id, status=status)
        else:
            self._client.set_terminated(state.run_id, status, milliseconds(trial.ended_at))
        state.state = trial.state
        self._poster.save(state)

    def _finish(self, status: FinalStatus, trial_ids: Sequence[str]) -> None:
        parent = self._record.parent_run_id
        self._post_late_aggregates(trial_ids)
        state = self._poster.read_state(None, parent)
        for key, label in baseline_labels(self._folder.read_sweep().bases).items():
            self._post_untuned(state, key, label)
        sweep_text = self._folder.sweep_json.read_text(encoding="utf-8")
        self._poster.post_text(state, "sweep.json", sweep_text)
        for path in (self._folder.report_md, self._folder.report_html):
            self._poster.post_file(state, path)
        for path in sorted(self._folder.plots.glob("*")):
            self._poster.post_file(state, path, "plots")
        self._post_answer(read_findings(self._folder))
        # Use the end time of the last trial, which is the same at each post.
        ends = [trial.ended_at for trial in self._folder.read_trials() if trial.ended_at]
        self._client.set_terminated(parent, status, milliseconds(max(ends)) if ends else None)

    def _post_answer(self, findings: Findings) -> None:
        """Post the verdicts; tags and metrics that an earlier answer alone had do not stay."""
        parent = self._record.parent_run_id
        # MLflow shows the first tag as the description of the run.
        tags = {"mlflow.note.content": answer_note(findings), **answer_tags(findings)}
        known = self._client.get_run(parent).data
        for name in known.tags:
            if is_answer_tag(name) and name not in tags:
                self._client.delete_tag(parent, name)
        # Metrics cannot be deleted.
        outdated = {
            name: math.nan
            for name, value in known.metrics.items()
            if is_answer_metric(name) and not math.isnan(value)
        }
        points = self._poster.changed_points(
            parent, outdated | answer_metrics(findings), 0, modified_ms(self._folder.sweep_json)
        )
        truncated = {name: str(redact(text))[:MAX_TAG_CHARS] for name, text in tags.items()}
        log_run(self._client, parent, points=points, tags=truncated)

    def _post_late_aggregates(self, trial_ids: Sequence[str]) -> None:
        """Post the aggregates of trials that ended before their untuned model was scored."""
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
                self._poster.save(state)
                self._post_lineage(trial, state)

    def _post_untuned(self, state: RunState, key: str, label: str) -> None:
        """Post the scores of an untuned model; with several models, names include its key."""
        card = self._folder.read_baseline_scores(key)
        if card is None:
            return
        parent, path = self._record.parent_run_id, self._folder.baseline(key) / "scores.json"
        values = score_metrics(
            add_aggregates(card, None), prefix=f"untuned_{key}" if label else "untuned"
        )
        points = self._poster.changed_points(parent, values, 0, modified_ms(path))
        log_run(self._client, parent, points=points)
        self._poster.post_file(state, path, f"untuned/{key}" if label else "untuned")
        if label:
            self._client.set_tag(parent, f"plw.untuned_{key}", label)


def _state_tags(trial: TrialRecord, state: RunState) -> dict[str, str]:
    tags = {"plw.state": str(trial.state)}
    if trial.error or state.state == "failed":
        tags["plw.error"] = str(redact(trial.error or ""))[-MAX_TAG_CHARS:]
    return tags
