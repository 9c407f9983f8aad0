"""Write examples as one self-contained HTML page: rendered text next to tokens, roles, weights."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.foundation.safe_write import write_output
from orchestrator.inspection.example_selection import SelectedExamples
from orchestrator.inspection.token_runs import Run, token_runs, visible, visible_token
from orchestrator.inspection.token_view import Cut, ExampleView, TokenView

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).parent / "templates"
# A space is invisible in a token's box, and an empty box looks like no token.
_SPACE = "·"


def write_token_page(path: Path, shown: SelectedExamples, *, overwrite: bool) -> None:
    """Write a page of the selected examples, which needs no other file and no network.

    Raises:
        InputError: the file exists and `overwrite` is false, or it cannot be written.
    """
    data = shown.settings.config.data
    content = {
        "path": data.label,
        "facts": [
            ("Data", data.label),
            ("Model", shown.settings.config.model.path),
            ("Template", data.template),
            ("Completion turns", data.completion_turns),
            ("Maximum length", f"{data.max_length} tokens"),
            ("Weights", shown.settings.weighting),
        ],
        "num_examples": shown.num_examples,
        "roles": sorted({one.role for view in shown.views for one in view.roles}),
        "examples": [_example(view) for view in shown.views],
    }
    write_output(path, _template().render(content), overwrite=overwrite)


def _example(view: ExampleView) -> dict[str, Any]:
    return {"view": view, "parts": [_part(run) for run in token_runs(view)]}


def _part(run: Run | Cut) -> dict[str, Any]:
    """Return a run or a cut for the template."""
    if isinstance(run, Cut):
        return {"cut": run, "text": _printable(run.text)}
    return {
        "cut": None,
        "role": run.role,
        "weight": run.weight,
        "text": "".join(_printable(token.text) for token in run.tokens),
        "tokens": [
            {"text": _visible_token(token), "title": _title(token, position)}
            for position, token in enumerate(run.tokens, start=run.start)
        ],
    }


def _printable(text: str) -> str:
    """Return `text` with visible control characters; line breaks and tabs stay as they are."""
    return "".join(character if character in "\n\t" else visible(character) for character in text)


def _visible_token(token: TokenView) -> str:
    return visible_token(token).replace(" ", _SPACE)


def _title(token: TokenView, position: int) -> str:
    piece = visible(token.piece)
    return f"position {position}, id {token.id} {piece}, {token.role}, weight {token.weight:g}"


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("tokens.html.j2")
