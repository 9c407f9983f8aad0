"""Read and write `tracking_state.json`, which records the content posted to an MLflow run."""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.record.folder import SweepFolder
from orchestrator.record.reader import Version
from orchestrator.tracking.metric_names import NAMES_VERSION
from trainers.foundation.files import read_json, write_json

logger = logging.getLogger(__name__)


class RunState(BaseModel):
    """Content posted to one run; `trial_id` is None for the sweep's parent run.

    `files` maps artifacts to the digest of their content. `versions` are the versions of the
    trial's files at the time when all of them had been posted. `names_version` is 1 for runs of
    earlier releases, whose metrics have other names.
    """

    model_config = ConfigDict(extra="forbid")

    trial_id: str | None
    run_id: str
    has_params: bool = False
    last_step: int = -1
    last_system_step: int = -1
    state: str | None = None
    files: dict[str, str] = {}
    versions: tuple[Version, ...] | None = None
    names_version: int = 1

    def with_current_names(self) -> "RunState":
        """Return the state without the metrics that were posted under names of another release."""
        if self.names_version == NAMES_VERSION:
            return self
        metrics = ("scores", "model")
        return RunState(
            trial_id=self.trial_id,
            run_id=self.run_id,
            has_params=self.has_params,
            state=self.state,
            files={name: one for name, one in self.files.items() if name not in metrics},
            names_version=NAMES_VERSION,
        )


def read_state(folder: SweepFolder, trial_id: str | None, run_id: str) -> RunState:
    """Return the state of the run; empty if the file is missing, damaged or of another run."""
    path = _state_path(folder, trial_id)
    if path.exists():
        try:
            state = RunState.model_validate(read_json(path))
        except ValueError:
            logger.warning("%s is damaged: posting everything again", path)
        else:
            if state.run_id == run_id:
                return state.with_current_names()
    return RunState(trial_id=trial_id, run_id=run_id, names_version=NAMES_VERSION)


def write_state(folder: SweepFolder, state: RunState) -> None:
    """Write `tracking_state.json` atomically."""
    write_json(_state_path(folder, state.trial_id), state.model_dump(mode="json"))


def _state_path(folder: SweepFolder, trial_id: str | None) -> Path:
    # One file per run: a single file would be rewritten in full for each step of each trial.
    return (folder.root if trial_id is None else folder.trial(trial_id)) / "tracking_state.json"
