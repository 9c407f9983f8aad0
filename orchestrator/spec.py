"""The sweep spec: one fine-tune's settings, what is searched, what is scored, on what it runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from evals.config import EvalConfig
from orchestrator.search_config import SearchConfig
from trainers.config import NonNegative, PositiveInt, Section, TrainConfig
from trainers.config_file import apply_override, build_config, read_yaml


class ResourceConfig(Section):
    workers_per_trial: PositiveInt = Field(1, description="Ranks of one fine-tune.")
    cpus_per_worker: PositiveInt = Field(1, description="CPU cores of one rank.")
    gpus_per_worker: NonNegative | None = Field(
        None, description="GPUs of one rank; null takes 1 where the cluster has GPUs, else 0."
    )
    max_concurrent_trials: PositiveInt | None = Field(
        None, description="Trials at once; null runs as many as fit."
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        1, description="Times a trial is restarted from its last checkpoint after a failure."
    )


class TrackingConfig(Section):
    uri: str | None = Field(
        None,
        description="MLflow tracking URI; null takes MLFLOW_TRACKING_URI, else SQLite beside "
        "output_dir.",
    )
    experiment: str | None = Field(None, description="MLflow experiment; null takes the name.")


class SweepSpec(TrainConfig):
    """A sweep: the settings of a fine-tune, and what is tried for some of them."""

    name: str = Field(
        min_length=1,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the sweep; left out, that of the file without its ending.",
    )
    output_dir: str | None = Field(None, description="Folder of the sweep; null: runs/<name>.")
    note: str | None = Field(None, description="A caveat that the report repeats.")
    search: SearchConfig
    evals: EvalConfig = EvalConfig()
    resources: ResourceConfig = ResourceConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def folder(self) -> Path:
        return Path(self.output_dir or f"runs/{self.name}").expanduser().absolute()

    def train_settings(self) -> dict[str, Any]:
        """The settings of a trial before any searched value is put in."""
        return self.model_dump(mode="json", include=set(TrainConfig.model_fields))


def load_spec(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """The spec in a YAML file.

    Args:
        overrides: `key.path=value` settings that replace the file's.

    Raises:
        InputError: every rule that the file breaks, with its line.
    """
    content = read_yaml(path)
    content.setdefault("name", path.stem)
    for override in overrides:
        apply_override(content, override)
    return _with_absolute_paths(build_config(SweepSpec, content, source=path))


def _with_absolute_paths(spec: SweepSpec) -> SweepSpec:
    """Ranks run elsewhere: what is a path here must still be one there."""

    def absolute(path: str) -> str:
        local = Path(path).expanduser()
        return str(local.absolute()) if local.exists() else path

    model = spec.model.model_copy(update={"path": absolute(spec.model.path)})
    data = spec.data.model_copy(
        update={"path": absolute(spec.data.path), "template": absolute(spec.data.template)}
    )
    return spec.model_copy(update={"model": model, "data": data})
