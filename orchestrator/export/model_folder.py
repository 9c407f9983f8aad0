"""Write the config of a final model and a record of how it was selected."""

from pathlib import Path

from orchestrator.export.best_setting import BestSetting
from orchestrator.foundation.redaction import to_yaml
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import check_output_folder, read_json, write_json, write_text


def write_final_config(folder: Path, best: BestSetting, config: TrainConfig) -> Path:
    """Write `choice.json`, and `config.yaml` for `plw train`; return the path of the config.

    Raises:
        InputError: `folder` cannot be written, or contains a model with other settings.
    """
    check_output_folder(folder, where="--output-dir")
    path, choice_path = folder / "config.yaml", folder / "choice.json"
    settings = config.model_dump(mode="json")
    choice = {**best.model_dump(mode="json", exclude={"settings"}), "config": settings}
    if choice_path.exists() and read_json(choice_path).get("config") != settings:
        raise InputError(
            Problem(
                message="contains a final model with other settings",
                where=str(folder),
                fix="give another --output-dir, or delete the folder",
            )
        )
    header = f"# PLW {config.loss.prompt_loss_weight:g}, from the sweep {best.sweep}: {best.reason}"
    write_text(path, " ".join(header.split()) + "\n" + to_yaml(settings))
    write_json(choice_path, choice)
    return path
