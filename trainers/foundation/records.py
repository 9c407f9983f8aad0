"""Models of files on disk, which a newer release may have written or which may be damaged."""

import logging
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

logger = logging.getLogger(__name__)


class Record(BaseModel):
    """A frozen record; unknown fields are ignored, with one warning per set of unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _warn_of_unknown_fields(cls, content: Any) -> Any:
        if isinstance(content, dict):
            warn_of_unknown(cls.__name__, content.keys() - cls.model_fields.keys())
        return content


def describe_fault(error: Exception) -> str:
    """Return why content is invalid, on one line: all of pydantic's errors with their places."""
    if not isinstance(error, ValidationError):
        return str(error)
    return ", ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'the record'}:"
        f" {fault['msg'][0].lower()}{fault['msg'][1:]}"
        for fault in error.errors()
    )


def warn_of_unknown(record: str, fields: set[str]) -> None:
    """Log a warning about ignored fields of a record, once per process for the same fields."""
    if fields:
        _warn(record, tuple(sorted(map(str, fields))))


@cache
def _warn(record: str, fields: tuple[str, ...]) -> None:
    logger.warning(
        "%s: ignoring unknown fields %s; a newer plw-sweep wrote this record, upgrade to use them",
        record,
        ", ".join(fields),
    )
