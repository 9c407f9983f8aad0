"""Post artifacts and metrics to a run and record what was posted in its state."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.foundation.redaction import redact
from orchestrator.record.folder import SweepFolder
from orchestrator.tracking.client import MAX_PER_POST, MetricPoint, log_run
from orchestrator.tracking.run_state import RunState, read_state, write_state
from orchestrator.tracking.runs import verify_state
from orchestrator.tracking.values import MetricLine, metric_lines
from trainers.foundation.files import sha256_file

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RunPoster:
    """Posts missing content to the runs of one sweep, and saves their states after each post."""

    def __init__(self, folder: SweepFolder, client: "MlflowClient", *, is_verified: bool) -> None:
        """If `is_verified`, ask MLflow for its artifacts instead of trusting the saved state."""
        self._folder = folder
        self._client = client
        self._is_verified = is_verified
        # By metrics file: its inode, the last step that MLflow has, and the byte offset after that
        # step.
        self._starts: dict[Path, tuple[int, int, int]] = {}

    def read_state(self, trial_id: str | None, run_id: str) -> RunState:
        """Return the state of a run; if `is_verified`, limited to the content that MLflow has."""
        state = read_state(self._folder, trial_id, run_id)
        return verify_state(self._client, state) if self._is_verified else state

    def save(self, state: RunState) -> None:
        """Write the state."""
        write_state(self._folder, state)

    def post_text(self, state: RunState, name: str, text: str) -> None:
        """Post a text as an artifact unless MLflow has it."""
        if state.files.get(name) != (digest := sha256(redact(text).encode()).hexdigest()):
            self._client.log_text(state.run_id, redact(text), name)
            state.files[name] = digest
            self.save(state)

    def post_file(self, state: RunState, path: Path, artifact_folder: str | None = None) -> None:
        """Post a file as an artifact if it exists, unless MLflow has it."""
        name = f"{artifact_folder}/{path.name}" if artifact_folder else path.name
        if path.exists() and state.files.get(name) != (digest := sha256_file(path)):
            self._client.log_artifact(state.run_id, str(path), artifact_folder)
            state.files[name] = digest
            self.save(state)

    def post_metric_lines(
        self, state: RunState, path: Path, counter: Literal["last_step", "last_system_step"]
    ) -> tuple[list[MetricPoint], int]:
        """Post full batches of the lines after the step in `counter`; batches never split a line.

        Returns the points of the last batch, which is not posted, and their last step.
        """
        batch: list[MetricPoint] = []
        batch_step: int = getattr(state, counter)
        for step, time_ms, metrics, _ in self._lines_after(path, batch_step):
            if len(batch) + len(metrics) > MAX_PER_POST:
                log_run(self._client, state.run_id, points=batch)
                setattr(state, counter, batch_step)
                self.save(state)
                batch = []
            batch += [(key, value, time_ms, step) for key, value in metrics.items()]
            batch_step = step
        return batch, batch_step

    def _lines_after(self, path: Path, last_step: int) -> Iterator[MetricLine]:
        """Yield the lines after `last_step`; the next call starts reading at the first of them."""
        if not path.exists():
            return
        inode = path.stat().st_ino
        known_inode, posted_step, start = self._starts.get(path, (inode, last_step, 0))
        if inode != known_inode or last_step < posted_step:
            # The trainer replaces the file when it drops lines of an earlier run.
            start = 0
        for line in metric_lines(path, start):
            if line.step > last_step:
                yield line
            else:
                self._starts[path] = (inode, line.step, line.end)

    def changed_points(
        self,
        run_id: str,
        values: Mapping[str, float],
        step: int,
        time_ms: int,
        *,
        is_new_run: bool = False,
    ) -> list[MetricPoint]:
        """Return the values that differ from the latest ones in MLflow, as points.

        If `is_new_run`, the run has no values yet, so MLflow is not queried.
        """
        known = {} if is_new_run else self._client.get_run(run_id).data.metrics
        changed = {key: value for key, value in values.items() if known.get(key) != value}
        return [(key, value, time_ms, step) for key, value in changed.items()]
