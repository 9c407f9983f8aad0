"""What is shown of a record: YAML, or its leaves under dotted paths, and no passwords."""

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML

# scheme://user:password@host, the form of tracking servers and SQLAlchemy databases alike.
CREDENTIALS = re.compile(r"(?<=://)[^/?#\s\"'<>]+@")


def redact(value: Any) -> Any:
    """`value` with the user and password of every URI in its strings removed, however nested."""
    if isinstance(value, str):
        return CREDENTIALS.sub("", value)
    if isinstance(value, dict):
        return {redact(key): redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def flatten(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings with their dotted paths, in order."""
    for key, value in section.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def to_yaml(content: Any) -> str:
    """Plain data as YAML in block style, keys in their order, without the passwords of URIs."""
    yaml = YAML(typ="safe", pure=True)
    # ruamel declares the attribute as None and reads it as a bool.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(redact(content), stream)
    return stream.getvalue()
