"""Log the training data and the trained model of a trial's run in MLflow."""

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from orchestrator.record.baselines import data_name
from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.record.remote_sweep import STORED
from orchestrator.tracking.client import MetricPoint, log_dataset, log_model
from orchestrator.tracking.run_state import RunState

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Settings that identify a trial's data set among those of its base.
_DATA_KEYS = {
    *("path", "name", "revision", "split", "columns", "sources"),
    *("train_examples", "too_long", "completion_turns"),
}


def log_training_data(
    client: "MlflowClient", folder: SweepFolder, trial: TrialRecord, state: RunState
) -> bool:
    """Log the data of a trial's run unless MLflow has it; return whether it was posted."""
    data = _data_of(folder, trial)
    if data is None or state.files.get("inputs") == data["fingerprint"]:
        return False
    profile = {key: value for key, value in data.items() if key.startswith("num_")}
    ratio = (data.get("stats") or {}).get("generation_ratio") or {}
    log_dataset(
        client,
        state.run_id,
        path=data_name(data),
        digest=str(data["fingerprint"]).removeprefix("sha256:"),
        profile={**profile, "generation_ratio": ratio.get("of_means")},
    )
    state.files["inputs"] = data["fingerprint"]
    return True


def log_trained_model(
    client: "MlflowClient",
    folder: SweepFolder,
    trial: TrialRecord,
    state: RunState,
    experiment_id: str,
    points: list[MetricPoint],
) -> bool:
    """Log the model of a finished trial with all scores unless MLflow has it.

    Returns whether it was posted.
    """
    digest = sha256(repr(sorted(points)).encode()).hexdigest()
    if state.files.get("model") == digest:
        return False
    model, seed = folder.model(trial.id), trial.settings["seed"]
    stored = model / STORED
    path = stored.read_text(encoding="utf-8").strip() if stored.exists() else str(model)
    log_model(
        client,
        experiment_id,
        state.run_id,
        # MLflow allows no dots in the name.
        name=f"plw-{trial.prompt_loss_weight:g}-seed-{seed}-{trial.id}".replace(".", "_"),
        params={**trial.searched, "seed": seed, "model.path": trial.settings["model"]["path"]},
        link={
            "trial": trial.id,
            "path": path,
            "use": f"transformers.AutoModelForCausalLM.from_pretrained({path!r})",
        },
        points=points,
    )
    state.files["model"] = digest
    return True


def _data_of(folder: SweepFolder, trial: TrialRecord) -> dict[str, Any] | None:
    """Return the record of the data that a trial was trained on."""
    wanted = trial.settings["data"]
    bases = (base for base in folder.read_sweep().bases if base.key == trial.base)
    return next(
        (
            data
            for base in bases
            for data in base.data
            if all(_is_same(data[key], wanted.get(key)) for key in _DATA_KEYS & data.keys())
        ),
        None,
    )


def _is_same(value: Any, recorded: Any) -> bool:
    # Records of earlier versions lack the settings that are empty by default.
    return (value or None) == (recorded or None)
