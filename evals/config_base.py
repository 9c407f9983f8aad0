"""What the groups of evaluation settings are made of."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]


class EvalSection(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


def absolute(path: str) -> str:
    """`path` as it is called from any folder."""
    return str(Path(path).expanduser().absolute())
