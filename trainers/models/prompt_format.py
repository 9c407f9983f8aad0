"""How a model was shown its prompts in training, kept beside its weights for whoever scores it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from trainers.config import DataConfig
from trainers.foundation.files import read_json, sha256_of, write_json

FILE_NAME = "trained_as.json"


@dataclass(frozen=True, kw_only=True)
class TrainedAs:
    """Template and length in tokens of the training examples.

    `template_sha256` is that of a template that is a file; None for the others.
    """

    template: str
    max_length: int
    template_sha256: str | None = None


def write_trained_as(folder: Path, data: DataConfig) -> None:
    """Put the settings of the training data into a model's folder."""
    template = Path(data.template)
    is_file = template.is_file()
    record = TrainedAs(
        template=str(template.absolute()) if is_file else data.template,
        max_length=data.max_length,
        template_sha256=sha256_of(template) if is_file else None,
    )
    write_json(folder / FILE_NAME, asdict(record))


def read_trained_as(model: str) -> TrainedAs | None:
    """What a model's folder, or the run that it is in, says; None if nothing does."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    if (folder / FILE_NAME).exists():
        return TrainedAs(**read_json(folder / FILE_NAME))
    run = folder.absolute().parent / "train.json"
    if folder.name != "model" or not run.exists():
        return None
    data = read_json(run)["config"]["data"]
    return TrainedAs(template=data["template"], max_length=data["max_length"])
