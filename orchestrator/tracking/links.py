"""What a trial's run in MLflow is linked to: the data it was trained on, and the model it made."""

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from orchestrator.record.folder import SweepFolder, TrialRecord
from orchestrator.record.stored_sweep import STORED
from orchestrator.tracking.client import MetricPoint, log_dataset, log_model
from orchestrator.tracking.files import RunState

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What says which of a base's data a trial takes.
_OF_DATA = ("path", "split", "train_examples", "too_long", "completion_turns")


def post_data(
    client: "MlflowClient", folder: SweepFolder, trial: TrialRecord, state: RunState
) -> bool:
    """Name the data of a trial's run, unless MLflow has it; whether there was something to post."""
    data = _data_of(folder, trial)
    if data is None or state.files.get("inputs") == data["fingerprint"]:
        return False
    profile = {key: value for key, value in data.items() if key.startswith("num_")}
    ratio = (data.get("stats") or {}).get("generation_ratio") or {}
    log_dataset(
        client,
        state.run_id,
        path=str(data["path"]),
        digest=str(data["fingerprint"]).removeprefix("sha256:"),
        profile={**profile, "generation_ratio": ratio.get("of_means")},
    )
    state.files["inputs"] = data["fingerprint"]
    return True


def post_model(
    client: "MlflowClient",
    folder: SweepFolder,
    trial: TrialRecord,
    state: RunState,
    experiment_id: str,
    points: list[MetricPoint],
) -> bool:
    """Give a finished trial's run its model with all scores, unless MLflow has them.

    Returns whether there was something to post.
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
        # MLflow takes no dots in it.
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
    """The record of the data that a trial was trained on."""
    wanted = trial.settings["data"]
    bases = (base for base in folder.read_sweep().bases if base.key == trial.base)
    return next(
        (
            data
            for base in bases
            for data in base.data
            if all(data[key] == wanted.get(key) for key in _OF_DATA if key in data)
        ),
        None,
    )
