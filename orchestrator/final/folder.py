"""The folder of a final model: its config, and where its settings come from."""

from pathlib import Path

from orchestrator.final.setting import BestSetting
from orchestrator.foundation.redaction import to_yaml
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder, read_json, write_json, write_text


def write_final(folder: Path, best: BestSetting, config: TrainConfig) -> Path:
    """Write `config.yaml`, with which `plw train` trains the model, and `choice.json`.

    Returns the path of the config.

    Raises:
        InputError: `folder` cannot be written, or holds the model of other settings.
    """
    check_output_folder(folder, where="--output-dir")
    path, choice_path = folder / "config.yaml", folder / "choice.json"
    settings = config.model_dump(mode="json")
    choice = {**best.model_dump(mode="json", exclude={"settings"}), "config": settings}
    if choice_path.exists() and read_json(choice_path).get("config") != settings:
        raise InputError(
            Problem(
                message="holds a final model with other settings",
                where=str(folder),
                fix="give another --output-dir, or delete the folder",
            )
        )
    header = f"# PLW {config.loss.prompt_loss_weight:g}, from the sweep {best.sweep}: {best.reason}"
    write_text(path, " ".join(header.split()) + "\n" + to_yaml(settings))
    write_json(choice_path, choice)
    return path
