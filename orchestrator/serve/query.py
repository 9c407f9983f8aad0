"""Read the query parameters of a request, and write its JSON answer."""

import json
import re
from collections.abc import Collection
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from orchestrator.serve.errors import invalid_value, unknown_parameter

# More digits are above every limit; int() refuses thousands of them.
_MAX_DIGITS = 12
_METADATA = re.compile(r"metadata\[(.+)\]")


def read_query(request: Request, known: Collection[str]) -> dict[str, str]:
    """Return the parameters of the query; filters by metadata are left out.

    Raises:
        ApiError: a parameter is unknown.
    """
    found = {}
    for name, value in request.query_params.items():
        if _METADATA.fullmatch(name) and "metadata" in known:
            continue
        if name not in known:
            raise unknown_parameter(name, known)
        found[name] = value
    return found


def read_metadata(request: Request) -> dict[str, str]:
    """Return the filters by metadata: metadata[key]=value."""
    pairs = ((_METADATA.fullmatch(name), value) for name, value in request.query_params.items())
    return {match[1]: value for match, value in pairs if match}


def read_limit(query: dict[str, str], *, default: int, top: int) -> int:
    """Return the length of a page.

    Raises:
        ApiError: it is not a number from 1 to `top`.
    """
    text = query.get("limit")
    if text is None:
        return default
    if not text.isdecimal():
        message = f"Invalid type for 'limit': expected an integer, but got {text[:40]!r} instead."
        raise invalid_value("limit", message, "invalid_type")
    number = int(text[:_MAX_DIGITS])
    if not 1 <= number <= top:
        code = "integer_below_min_value" if number < 1 else "integer_above_max_value"
        raise invalid_value("limit", f"'limit' must be from 1 to {top}, got {text[:40]}.", code)
    return number


def json_answer(content: dict[str, Any]) -> Response:
    """Return an answer without FastAPI's encoder, which takes most of the time of a long page."""
    return Response(json.dumps(content), media_type="application/json")
