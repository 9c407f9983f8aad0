"""The base class of settings, and field types that several sections use."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Upper limits. Derived numbers, such as the number of tokens in a run, must be finite floats.
# Optuna uses NumPy, which rejects larger seeds.
MAX_COUNT = 10**12
MAX_EPOCHS = 10**6
MAX_SEED = 2**32 - 1

PositiveInt = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

MAX_PATH_PART_BYTES = 255


def _check_path(text: str) -> str:
    """Return `text` if it can be the path of a file; reject paths that would fail later."""
    if "\0" in text:
        raise ValueError("must not contain a zero byte")
    if any(len(part.encode()) > MAX_PATH_PART_BYTES for part in text.split("/")):
        raise ValueError(f"no part of a path may be longer than {MAX_PATH_PART_BYTES} bytes")
    try:
        Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ValueError(
            f"must not begin with {user}: there is no such user on this machine"
        ) from None
    return text


PathText = Annotated[str, AfterValidator(_check_path)]


class StrictSettings(BaseModel):
    """Base of all settings: frozen, strictly typed, and unknown keys are errors."""

    # Strict types: `true` is not a weight of 1, and "20" is not a number of steps.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)
