"""Store a model's prompt format in its folder, for scoring."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainers.data_config import DataConfig, TruncationSide
from trainers.foundation.files import read_json, sha256_file, write_json

FILE_NAME = "trained_as.json"


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """Template with its arguments, maximum length in tokens and truncation side of the examples.

    `template_sha256` is the digest of a template file; None for built-in templates.
    """

    template: str
    max_length: int
    template_sha256: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    truncation_side: TruncationSide = "left"


def write_prompt_format(folder: Path, data: DataConfig) -> None:
    """Write the prompt format of the training data into a model's folder."""
    template = Path(data.template)
    is_file = template.is_file()
    record = PromptFormat(
        template=str(template.absolute()) if is_file else data.template,
        max_length=data.max_length,
        template_sha256=sha256_file(template) if is_file else None,
        template_args=data.template_args,
        truncation_side=data.truncation_side,
    )
    write_json(folder / FILE_NAME, asdict(record))


def read_prompt_format(model: str) -> PromptFormat | None:
    """Return the prompt format from a model's folder or its run; None if it is not recorded."""
    folder = Path(model)
    if not folder.is_dir():
        return None
    if (folder / FILE_NAME).exists():
        return PromptFormat(**read_json(folder / FILE_NAME))
    run = folder.absolute().parent / "train.json"
    if folder.name != "model" or not run.exists():
        return None
    data = read_json(run)["config"]["data"]
    return PromptFormat(
        template=data["template"],
        max_length=data["max_length"],
        template_args=data.get("template_args", {}),
        truncation_side=data.get("truncation_side", "left"),
    )
