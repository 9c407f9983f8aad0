"""Compile prompt templates and locate a record's texts in their output."""

import re
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import jinja2
import jinja2.sandbox

from trainers.foundation.errors import InputError, Problem

# Source: github.com/tatsu-lab/stanford_alpaca, train.py, PROMPT_DICT.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further"
    " context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately"
    " completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
)

Piece = tuple[str, int | None]
"""A part of a rendered text: its text, and the number of the field that it shows, if any."""

# Marker of field N. Rendering it instead of the text locates the field in the template's output.
# The em spaces around it show whether the template trims the text; no template writes em spaces
# itself.
_MARKER = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")


class FieldFinder:
    """Locates the texts of fields in the output of one template."""

    def __init__(self) -> None:
        self._marked: dict[Hashable, list[str]] = {}

    def find(
        self, shape: Hashable, texts: Sequence[str], render: Callable[[Sequence[str]], str]
    ) -> tuple[list[Piece], str]:
        """Return the pieces of `render(texts)` in order, and its whole text.

        Markers are rendered to locate the fields, because a short text may also occur in the
        template, such as "help" in "You are a helpful assistant". The list of pieces is empty if
        the template changes a text other than by trimming, if a text changes the template's output
        around it, or if the template cannot render markers, for example because it expects a
        separator in the text.

        Args:
            shape: everything else that `render` depends on, used as a cache key.
        """
        whole = render(texts)
        key = (shape, tuple(map(bool, texts)))
        if key not in self._marked:
            markers = [
                f"\u2003\ue000{i}\ue001\u2003" if text else "" for i, text in enumerate(texts)
            ]
            self._marked[key] = _MARKER.split(_try_render(render, markers) or "")
        before, *rest = self._marked[key]
        pieces: list[Piece] = [(before, None)]
        for lead, number, trail, after in zip(*(rest[part::4] for part in range(4)), strict=True):
            if int(number) >= len(texts):  # The example itself contains such characters.
                return [], whole
            text = texts[int(number)]
            text = text if lead else text.lstrip()
            pieces += [(text if trail else text.rstrip(), int(number)), (after, None)]
        return (pieces if whole == "".join(text for text, _ in pieces) else []), whole


def depends_on_fields(whole: str, num_texts: int, render: Callable[[Sequence[str]], str]) -> bool:
    """Return whether the template's output depends on the texts of its fields.

    `whole` is the output for the real texts; it is compared with the output for artificial texts.
    The result is True if the template rejects both sets of artificial texts.
    """
    artificial = [
        _try_render(render, [f"{mark}{number}" for number in range(num_texts)])
        for mark in ("\ue000", "\ue001")
    ]
    others = [text for text in artificial if text is not None]
    return not others or any(text != whole for text in others)


def _try_render(render: Callable[[Sequence[str]], str], texts: Sequence[str]) -> str | None:
    """Return the output for artificial texts; None if the template rejects them."""
    try:
        return render(texts)
    except Exception:  # Rejected: it may demand a separator in a text. Real texts still raise.
        return None


def text_or_none(render: Callable[[], str]) -> str | None:
    """Return the text of `render`; None if the template rejects the messages.

    A template is a program and can raise any error.
    """
    try:
        return render()
    except Exception:
        return None


def describe_error(error: Exception) -> str:
    """Return the message of an error in a template, which can be any Python exception."""
    if isinstance(error, jinja2.TemplateError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def compile_template(path: Path, source: str) -> jinja2.Template:
    """Return the sandboxed template with the text `source`; undefined variables are errors.

    Raises:
        InputError: the template has a syntax error; the message names the line in `path`.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(
            Problem(
                message=f"not a valid template: {error.message}", where=f"{path}:{error.lineno}"
            )
        ) from None
