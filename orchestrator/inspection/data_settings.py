"""Settings of `plw data stats`, `show` and `check`: those of a spec, or defaults for a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.spec.setting_fields import PLW
from orchestrator.spec.settings_file import read_settings
from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import apply_override, build_config

DEFAULT_MODEL = "demo:smollm2-135m-instruct"
_SETTINGS_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class DataSettings:
    """Model, data and loss settings; `weighting` describes the source of the loss weights."""

    config: TrainConfig
    weighting: str


def read_data_settings(
    source: str | None,
    *,
    config_path: Path | None,
    options: Mapping[str, Any],
    overrides: Sequence[str] = (),
) -> DataSettings:
    """Return the settings of `source`, changed by the options that are not None.

    Args:
        source: a sweep spec or train config (YAML), or a data set: a file, hub name or demo:...
        config_path: a spec or train config whose settings are used for the data set `source`.
        options: values by dotted path, or whole sections by name.
        overrides: `key.path=value` settings, applied before `options`.

    Raises:
        InputError: a file cannot be read, or the settings break rules.
    """
    changes = {path: value for path, value in options.items() if value is not None}
    if source is not None and Path(source).suffix.lower() in _SETTINGS_SUFFIXES:
        if config_path is not None:
            message = f"two files of settings: {source} and --config {config_path}"
            raise InputError(Problem(message=message, fix="give one of them"))
        config_path = Path(source)
    elif source is not None:
        changes |= {"data.path": source, "data.sources": []}
    elif config_path is None:
        raise InputError(
            Problem(message="no data", fix="give a data file, a hub name, demo:... or a spec")
        )
    found = read_settings(config_path) if config_path else None
    content: dict[str, Any] = (
        found.config.model_dump(mode="json") if found else {"model": {"path": DEFAULT_MODEL}}
    )
    for override in overrides:
        apply_override(content, override)
    for path, value in changes.items():
        section, _, key = path.rpartition(".")
        (content.setdefault(section, {}) if section else content)[key] = value
    config = build_config(TrainConfig, content, source=Path("command line"))
    searched = found.searched if found else frozenset()
    return DataSettings(config, _weighting(config, changes, searched))


def _weighting(config: TrainConfig, changes: Mapping[str, Any], searched: frozenset[str]) -> str:
    """Return the values of the loss weights, and which of them the spec searches."""
    has_role_weights = any(weight is not None for _, weight in config.loss.role_weights)
    weighting = f"PLW {config.loss.prompt_loss_weight:g}"
    if has_role_weights:
        weighting += " and loss.role_weights"
    is_given = PLW in changes
    names = ["it"] if PLW in searched and not is_given else []
    names += sorted(name for name in searched if name.startswith("loss.role_weights."))
    notes = [f"the spec searches {' and '.join(names)}"] if names else []
    notes += [] if is_given else ["set another with --plw"]
    return f"{weighting} ({'; '.join(notes)})" if notes else weighting
