"""The server's configuration: models by public name, the search of `auto`, jobs and limits."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from orchestrator.foundation.shell_words import shell_path
from orchestrator.spec.search_fields import BudgetConfig
from orchestrator.spec.sweep_spec import ResourceConfig, with_absolute_paths
from trainers.config import TrainConfig
from trainers.config_base import PathText, Positive, PositiveInt, StrictSettings
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.settings_file import load_config
from trainers.loss_config import Weight

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Set for each job, so they cannot be part of a model's base settings.
_PER_JOB = ("seed", "loss.prompt_loss_weight", "data.path", "data.sources")
# OpenAI trains on all answers of a chat, and its files have this field, which has no effect here.
_DATA_DEFAULTS = {"completion_turns": "all", "ignore": ["parallel_tool_calls"]}
_CHECKPOINT_DEFAULTS = {"every_steps": 50}


class ModelEntry(StrictSettings):
    """A model that can be tuned and served."""

    path: PathText = Field(min_length=1, description="Folder, hub name or demo model.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Sections of a config of plw train: the base settings."
    )
    resources: ResourceConfig = Field(
        ResourceConfig(), description="Resources of the trials of an auto search."
    )
    url: str | None = Field(
        None,
        description="Base URL, with /v1, of a server that answers for the base model, such as"
        " vLLM; null: transformers serve, started on demand.",
    )

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        given = {
            f"{name}.{key}" for name, part in self.settings.items() if isinstance(part, Mapping)
            for key in part
        } | {*self.settings}  # fmt: skip
        fixed = [name for name in (*_PER_JOB, "model.path") if name in given]
        if fixed:
            raise ValueError(f"settings must not set {', '.join(fixed)}: each job sets it")
        try:
            self.train_config("data.jsonl")
        except ValidationError as error:
            parts = [
                f"{'.'.join(map(str, one['loc'])) or 'settings'}: {one['msg']}"
                for one in error.errors()
            ]
            raise ValueError(f"settings are not those of plw train: {'; '.join(parts)}") from None
        return self

    def train_config(self, data_path: str) -> TrainConfig:
        """Return the base settings with this model and the data in `data_path`."""
        content = dict(self.settings)
        content["model"] = {**content.get("model", {}), "path": self.path}
        content["data"] = {
            **_DATA_DEFAULTS,
            **content.get("data", {}),
            "path": data_path,
            "heldout_examples": 0,
        }
        content["checkpoint"] = {**_CHECKPOINT_DEFAULTS, **content.get("checkpoint", {})}
        return TrainConfig.model_validate(content)


class AutoConfig(StrictSettings):
    """The sweep of a job with `prompt_loss_weight: "auto"`."""

    weights: Annotated[list[Weight], Field(min_length=2)] = Field(
        default=[0.0, 0.01, 0.1, 1.0], description="Prompt loss weights to compare."
    )
    seeds: PositiveInt = Field(3, description="Repeats of each weight with another seed.")
    default: Weight = Field(0.0, description="Weight of the model if the sweep names none.")
    heldout_examples: PositiveInt = Field(
        128, description="Held-out examples of the sweep; at most a fifth of the file."
    )
    budget: BudgetConfig = Field(
        BudgetConfig(hours=12.0), description="Limits of the sweep, as search.budget of a spec."
    )


class JobsConfig(StrictSettings):
    """How jobs run."""

    at_once: PositiveInt = Field(1, description="Jobs that run at the same time.")
    niceness: Annotated[int, Field(ge=0, le=19)] = Field(
        10, description="Niceness of a job's processes, so that the server stays responsive."
    )
    address: str | None = Field(
        None, description="Ray cluster for the sweeps of auto; null: this machine."
    )
    crashes: PositiveInt = Field(
        3, description="Deaths of a job's process without a new step after which it fails."
    )


class LimitsConfig(StrictSettings):
    """Limits of requests and files."""

    file_mib: PositiveInt = Field(512, description="Largest file, in MiB.")
    min_examples: PositiveInt = Field(10, description="Fewest examples of a training file.")
    requests_per_minute: PositiveInt = Field(
        6000, description="Requests of one API key per minute; more are answered with 429."
    )
    idle_s: Positive = Field(30.0, description="Longest wait for the next bytes of a request.")


class InferenceConfig(StrictSettings):
    """Model servers for chat and completions, started on demand."""

    at_once: PositiveInt = Field(
        1, description="Model servers at once; the least recently used one is stopped first."
    )
    start_timeout_s: Positive = Field(300.0, description="Longest wait for a server's start.")


class ServeConfig(StrictSettings):
    """The configuration file of `plw serve`."""

    models: Annotated[dict[str, ModelEntry], Field(min_length=1)] = Field(
        description="Models by the name that clients use."
    )
    auto: AutoConfig = AutoConfig()
    jobs: JobsConfig = JobsConfig()
    limits: LimitsConfig = LimitsConfig()
    inference: InferenceConfig = InferenceConfig()
    tracking_uri: str | None = Field(
        None, description="MLflow tracking URI of jobs; null: an SQLite file in the data folder."
    )

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        wrong = [name for name in self.models if not _NAME.fullmatch(name)]
        if wrong:
            raise ValueError(
                "a model's name has 1 to 64 letters, digits, '.', '_' and '-', got"
                f" {', '.join(map(repr, wrong))}"
            )
        return self


def load_serve_config(path: Path) -> ServeConfig:
    """Read the configuration in a YAML file; paths become absolute.

    Raises:
        InputError: all problems of the file, with their lines.
    """
    if not path.exists():
        fix = f"correct the path, or create it with plw serve --init {shell_path(path)}"
        raise InputError(Problem(message="no such file", where=str(path), fix=fix))
    config = load_config(ServeConfig, path)
    models = {
        name: entry.model_copy(
            update={"path": with_absolute_paths(entry.train_config("data.jsonl")).model.path}
        )
        for name, entry in config.models.items()
    }
    return config.model_copy(update={"models": models})


def default_config() -> ServeConfig:
    """Return the configuration of a server without a file: the demo's model."""
    return load_serve_config(EXAMPLE)


EXAMPLE = Path(__file__).parent / "templates" / "serve.yaml"


def write_example(path: Path) -> None:
    """Write a commented configuration to start from.

    Raises:
        InputError: the file exists.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(EXAMPLE.read_text(encoding="utf-8"))
    except FileExistsError:
        raise InputError(
            Problem(message="file exists", where=str(path), fix="give another name to --init")
        ) from None
    except OSError as error:
        fault = error.strerror or str(error)
        raise InputError(
            Problem(message=f"cannot be written: {fault}", where=str(path), fix="use another path")
        ) from None
