"""Which examples `plw data show` prints, in whose tokens and with which weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.data.token_view import ExampleView, view_examples
from orchestrator.spec.settings_file import SettingsFile, read_settings
from trainers.config import DataConfig, LossConfig, ModelConfig
from trainers.data.readers import read_examples
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import build_config
from trainers.models.loading import load_tokenizer

_DEMO_MODEL = "demo:smollm2-135m-instruct"


@dataclass(frozen=True)
class ShownData:
    """Some of `num_examples` examples; `weighting` says where their weights come from."""

    views: list[ExampleView]
    num_examples: int
    data: DataConfig
    weighting: str

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON takes it."""
        return {
            "path": self.data.path,
            "template": self.data.template,
            "num_examples": self.num_examples,
            "weighting": self.weighting,
            "examples": [view.model_dump(mode="json") for view in self.views],
        }


def read_shown(
    path: str | None,
    *,
    number: int,
    start: int,
    plw: float | None,
    config_path: Path | None,
    model: str | None,
    **data_options: Any,
) -> ShownData:
    """`number` examples from index `start` on; what is None comes from the config, if any.

    Raises:
        InputError: there is no such data, model or template, or they do not fit.
    """
    settings = read_settings(config_path) if config_path else None
    changes = {key: value for key, value in data_options.items() if value is not None}
    if path is not None:
        changes["path"] = path
    elif settings is None:
        raise InputError(Problem(message="nothing to show", fix="give PATH, or a spec as --config"))
    given = settings.config.data.model_dump() if settings else {}
    data = build_config(DataConfig, {**given, **changes}, source=Path("plw data show"))
    source = settings.config.model if settings else ModelConfig(path=_DEMO_MODEL)
    if model is not None:
        source = ModelConfig(path=model)
    loss, weighting = _loss(settings, plw)
    examples = read_examples(data.path, split=data.split)
    if start >= len(examples):
        raise InputError(
            Problem(
                message=f"--start must be below the number of examples, got {start}",
                where=data.path,
                fix=f"give one of 0 to {len(examples) - 1}",
            )
        )
    views = view_examples(examples[start : start + number], data, loss, load_tokenizer(source))
    return ShownData(views, len(examples), data, weighting)


def _loss(settings: SettingsFile | None, plw: float | None) -> tuple[LossConfig, str]:
    """The loss whose weights are shown, and where they come from in words."""
    loss = settings.config.loss if settings else LossConfig()
    if plw is not None:
        loss = LossConfig.model_validate({**loss.model_dump(), "prompt_loss_weight": plw})
    own = any(weight is not None for _, weight in loss.role_weights)
    weighting = f"PLW {loss.prompt_loss_weight:g}{' and loss.role_weights' if own else ''}"
    if plw is None and settings is not None and settings.is_weight_searched:
        weighting += " (the spec searches it: --plw shows another)"
    elif plw is None and settings is None:
        weighting += " (--plw shows another)"
    return loss, weighting
