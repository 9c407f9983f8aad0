"""The current time, in the form in which records contain it."""

from datetime import UTC, datetime


def now() -> str:
    """Return the current time as an ISO 8601 string in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
