"""The base class and field types of evaluation settings."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]


class EvalSettings(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


def absolute_path(path: str) -> str:
    """Return `path` as an absolute path, with `~` expanded."""
    return str(Path(path).expanduser().absolute())
