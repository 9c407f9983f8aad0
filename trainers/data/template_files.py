"""The names of built-in templates, and the files of the others."""

from pathlib import Path

SINGLE_TURN = ("alpaca", "plain")
_SHIPPED_FOLDER = Path(__file__).with_name("chat_templates")
DEEPSEEK_R1 = "deepseek-r1"
"""The chat template for models whose own one cannot be used for training."""
CHATML_TOOLS = "chatml-tools"
"""The chat template with tools for models with the tokens of ChatML."""
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
# Names of all chat templates that we ship.
SHIPPED = tuple(sorted(path.stem for path in _SHIPPED_FOLDER.glob("*.jinja")))
TEMPLATE_NAMES = ("chat", *SINGLE_TURN, *SHIPPED)


def template_file(name: str) -> Path | None:
    """Return the file of `data.template`; None if it has no file or the file does not exist."""
    path = _SHIPPED_FOLDER / f"{name}.jinja" if name in SHIPPED else Path(name)
    return path if name not in ("chat", *SINGLE_TURN) and path.is_file() else None
