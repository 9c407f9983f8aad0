"""The settings of one fine-tune, from a config of `plw train` or from a sweep's spec."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.spec.setting_fields import PLW
from orchestrator.spec.sweep_spec import load_spec, with_absolute_paths
from trainers.config import TrainConfig
from trainers.foundation.settings_file import load_config, read_yaml


@dataclass(frozen=True)
class SettingsFile:
    """What a file says; `is_weight_searched` where a sweep tries several prompt loss weights."""

    config: TrainConfig
    is_weight_searched: bool


def read_settings(path: Path) -> SettingsFile:
    """The settings in a YAML file; a spec's searched settings have the values they start from.

    Raises:
        InputError: the file cannot be read or breaks rules.
    """
    if "search" not in read_yaml(path):
        return SettingsFile(with_absolute_paths(load_config(TrainConfig, path)), False)
    spec = load_spec(path)
    config = TrainConfig.model_validate(spec.train_settings())
    return SettingsFile(config, PLW in spec.search.space)
