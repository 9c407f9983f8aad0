"""Read the settings of one fine-tune from a `plw train` config or a sweep spec."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.spec.setting_fields import PLW
from orchestrator.spec.sweep_spec import load_spec, with_absolute_paths
from trainers.config import TrainConfig
from trainers.foundation.settings_file import load_config, read_yaml


@dataclass(frozen=True)
class SettingsFile:
    """The settings in a file, and the paths of those that it searches, if it is a spec."""

    config: TrainConfig
    searched: frozenset[str]

    @property
    def is_weight_searched(self) -> bool:
        """Return whether the file is a spec that searches PLW."""
        return PLW in self.searched


def read_settings(path: Path) -> SettingsFile:
    """Return the settings in a YAML file; for a spec, the settings outside of `search`.

    Raises:
        InputError: the file cannot be read or violates rules.
    """
    if "search" not in read_yaml(path):
        return SettingsFile(with_absolute_paths(load_config(TrainConfig, path)), frozenset())
    spec = load_spec(path)
    config = TrainConfig.model_validate(spec.train_settings())
    return SettingsFile(config, frozenset(spec.search.space))
