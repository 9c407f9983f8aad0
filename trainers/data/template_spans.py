"""Templates as texts: what each says, and where in it the texts of a record stand."""

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
"""A part of a rendered text: what it says, and the number of the field it shows, if it does."""

# Stands for the text of field number N while a template is searched for its fields. The spaces
# are ones that a template would trim, and that no template writes itself.
_MARKER = re.compile("(\u2003?)\ue000(\\d+)\ue001(\u2003?)")


class FieldFinder:
    """Finds the texts of fields in what one template makes of them."""

    def __init__(self) -> None:
        self._marked: dict[Hashable, list[str]] = {}

    def find(
        self, shape: Hashable, texts: Sequence[str], render: Callable[[Sequence[str]], str]
    ) -> tuple[list[Piece], str]:
        """The pieces of `render(texts)` in their order, and all of it as one text.

        Found by rendering with markers for texts too, since a short text may occur in the
        template: "help" in "You are a helpful assistant". No pieces if a text is changed by more
        than trimming, or changes what the template says around it, or if the template cannot
        render markers, such as one that counts on a separator in the text.

        Args:
            shape: all that `render` depends on beside `texts`; it is kept for the next one.
        """
        whole = render(texts)
        key = (shape, tuple(map(bool, texts)))
        if key not in self._marked:
            markers = [
                f"\u2003\ue000{i}\ue001\u2003" if text else "" for i, text in enumerate(texts)
            ]
            self._marked[key] = _MARKER.split(_rendered(render, markers) or "")
        before, *rest = self._marked[key]
        pieces: list[Piece] = [(before, None)]
        for lead, number, trail, after in zip(*(rest[part::4] for part in range(4)), strict=True):
            text = texts[int(number)]
            text = text if lead else text.lstrip()
            pieces += [(text if trail else text.rstrip(), int(number)), (after, None)]
        return (pieces if whole == "".join(text for text, _ in pieces) else []), whole


def depends_on_texts(whole: str, num_texts: int, render: Callable[[Sequence[str]], str]) -> bool:
    """Whether a template says something else for other texts than the ones it made `whole` of.

    Yes in doubt: where it can render neither of two sets of made-up texts.
    """
    made_up = [
        _rendered(render, [f"{mark}{number}" for number in range(num_texts)])
        for mark in ("\ue000", "\ue001")
    ]
    others = [text for text in made_up if text is not None]
    return not others or any(text != whole for text in others)


def _rendered(render: Callable[[Sequence[str]], str], texts: Sequence[str]) -> str | None:
    """What a template makes of made-up texts; None where it cannot, which is no fault of it."""
    try:
        return render(texts)
    except Exception:
        return None


def describe_error(error: Exception) -> str:
    """What went wrong in a template, which may run into any error of Python's."""
    if isinstance(error, jinja2.TemplateError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def read_template(path: Path) -> str:
    """The content of a Jinja file.

    Raises:
        InputError: it is not there, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            Problem(
                message=f"data.template must be chat, alpaca, plain or a Jinja file, got {path}",
                fix="give the path of a UTF-8 file that exists",
            )
        ) from None


def compile_template(path: Path, source: str) -> jinja2.Template:
    """The template with the text `source`, sandboxed; an undefined variable is an error in it.

    Raises:
        InputError: it is not a template; the message names the line in `path`.
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
