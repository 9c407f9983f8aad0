"""Flatten and redact records for display."""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

# scheme://user:password@host, as in URIs of tracking servers and SQLAlchemy databases.
CREDENTIALS = re.compile(r"(?<=://)[^/?#\s\"'<>]+@")


def redact(value: Any) -> Any:
    """Return `value` without the user and password of any URI in its strings, at any depth."""
    if isinstance(value, str):
        return CREDENTIALS.sub("", value)
    if isinstance(value, dict):
        return {redact(key): redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def flatten(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of each leaf of nested mappings, in order."""
    for key, value in section.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def to_yaml(content: Any) -> str:
    """Return `content` as redacted YAML in block style, with keys in their given order."""
    yaml = YAML(typ="safe", pure=True)
    # ruamel declares the attribute as None and reads it as a bool.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(redact(content), stream)
    return stream.getvalue()
