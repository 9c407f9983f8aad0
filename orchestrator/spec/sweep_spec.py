"""The sweep spec: one fine-tune's settings, what is searched, what is scored, on what it runs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from evals.config import EvalConfig
from orchestrator.spec.constraints import all_hold, read_constraint
from orchestrator.spec.search_config import SearchConfig
from orchestrator.spec.search_rules import Rule, corners, rule_error
from orchestrator.spec.setting_fields import with_values
from orchestrator.spec.two_weights import fix_of_zero_weights
from trainers.config import MAX_COUNT, NonNegative, PathText, PositiveInt, Section, TrainConfig
from trainers.foundation.settings_file import apply_override, build_config, read_yaml

# What a spec need not give beside the values that are searched for it.
_SEARCHED_SOURCES = (("model", "path"), ("data", "path"))
_MEASURED_BY = {
    "heldout_completion_loss": "heldout",
    "multiple_choice_accuracy": "multiple_choice",
    "short_generation_exact_match": "short_generation",
    "long_generation_chrf": "long_generation",
    "aggregate_multiple_choice": "multiple_choice",
    "aggregate_short_generation": "short_generation",
    "aggregate_long_generation": "long_generation",
}

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
# What files and folders may be called everywhere.
_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_STORAGE_PATTERN = r"^(s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._=-]+)*$"


class ResourceConfig(Section):
    workers_per_trial: PositiveInt = Field(1, description="Ranks of one fine-tune.")
    cpus_per_worker: PositiveInt = Field(1, description="CPU cores of one rank.")
    gpus_per_worker: NonNegative | None = Field(
        None, description="GPUs of one rank; null takes 1 where the cluster has GPUs, else 0."
    )
    max_concurrent_trials: PositiveInt | None = Field(
        None, description="Trials at once; null runs as many as fit."
    )
    scorers: Count | None = Field(
        None,
        description="Processes that score trained models while the next ones train; null takes as "
        "many as fit beside the trials, at most one for each; 0 lets a trial's first worker score.",
    )
    cpus_per_scorer: PositiveInt | None = Field(
        None, description="CPU cores of one scorer; null takes cpus_per_worker."
    )
    gpus_per_scorer: NonNegative | None = Field(
        None, description="GPUs of one scorer; null takes those of a worker, at most 1."
    )
    price_per_gpu_hour: NonNegative | None = Field(
        None, description="Price of one GPU for an hour, in any currency, for costs and budgets."
    )


class RetryConfig(Section):
    """How often a trial is tried again, from its last checkpoint, after a failure of each kind."""

    crash: Count = Field(2, description="A process, node or library that failed.")
    out_of_memory: Count = Field(0, description="A rank whose memory was too small.")
    divergence: Count = Field(0, description="A loss or gradient that was not finite.")


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
        json_schema_extra={"pattern": _NAME_PATTERN},
        description="Name of the sweep; left out, that of the file without its ending.",
    )
    output_dir: PathText | None = Field(None, description="Folder of the sweep; null: runs/<name>.")
    storage: str | None = Field(
        None,
        json_schema_extra={"pattern": _STORAGE_PATTERN},
        description="Object store that keeps the sweep, s3://BUCKET/PREFIX, for nodes that share "
        "no file system; null: they share output_dir.",
    )
    note: str | None = Field(None, description="A caveat that the report repeats.")
    search: SearchConfig
    evals: EvalConfig = EvalConfig()
    resources: ResourceConfig = ResourceConfig()
    retries: RetryConfig = RetryConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _search_fits(self) -> Self:
        rules = [*_unmeasured(self), *_impossible(self), *_without_price(self), *_split_gpus(self)]
        if rules:
            raise rule_error(rules)
        return self

    @property
    def folder(self) -> Path:
        return Path(self.output_dir or f"runs/{self.name}").expanduser().absolute()

    @property
    def stored_at(self) -> str | None:
        """The URI below which the sweep's objects are; None without a store."""
        return None if self.storage is None else f"{self.storage}/{self.name}"

    def train_settings(self) -> dict[str, Any]:
        """The settings of a trial before any searched value is put in."""
        settings = self.model_dump(mode="json", include=set(TrainConfig.model_fields))
        early_stopping = self.search.early_stopping
        if early_stopping is not None:
            settings["log_heldout_every_steps"] = early_stopping.measured_every_steps
        return settings

    @field_validator("storage")
    @classmethod
    def _storage_of_objects(cls, storage: str | None) -> str | None:
        if storage is not None and not re.match(_STORAGE_PATTERN, storage):
            message = f"storage must be s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, got {storage!r}"
            fix = "edit storage, or leave it out where all nodes share output_dir"
            raise PydanticCustomError("rule", "{message}", {"message": message, "fix": fix})
        return storage

    @field_validator("name")
    @classmethod
    def _name_of_a_folder(cls, name: str) -> str:
        if not re.match(_NAME_PATTERN, name):
            raise PydanticCustomError(
                "rule",
                "{message}",
                {
                    "message": "name must be 1 to 100 letters, digits, '.', '_' and '-', the first "
                    f"a letter or digit, got {name!r}",
                    "fix": "edit name, or add one: without it, that of the file is taken",
                },
            )
        return name


Config = TypeVar("Config", bound=TrainConfig)


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
    _start_from_searched(content)
    spec = with_absolute_paths(build_config(SweepSpec, content, source=path))
    return spec.model_copy(update={"evals": spec.evals.with_absolute_paths()})


def with_absolute_paths(config: Config) -> Config:
    """Ranks run elsewhere: what is a path here must still be one there."""

    def absolute(path: str) -> str:
        local = Path(path).expanduser()
        return str(local.absolute()) if local.exists() else path

    model = config.model.model_copy(update={"path": absolute(config.model.path)})
    data = config.data.model_copy(
        update={"path": absolute(config.data.path), "template": absolute(config.data.template)}
    )
    return config.model_copy(update={"model": model, "data": data})


def _start_from_searched(content: dict[str, Any]) -> None:
    """Where model or data are only searched, put in their first values: nobody gives them twice."""
    search = content.get("search")
    space = search.get("space") if isinstance(search, Mapping) else None
    if not isinstance(space, Mapping):
        return
    for name, key in _SEARCHED_SOURCES:
        values = space.get(f"{name}.{key}")
        if isinstance(values, list) and values:
            section = content.setdefault(name, {})
            if isinstance(section, dict):
                section.setdefault(key, values[0])


def _unmeasured(spec: SweepSpec) -> Iterator[Rule]:
    """Objectives that evals leave out, where the search looks at them."""
    search = spec.search
    default = SearchConfig.model_fields["objectives"].default
    if search.method not in ("tpe", "gp") and search.objectives == default:
        return
    for index, name in enumerate(search.objectives):
        measure = _MEASURED_BY[name]
        if name.startswith("aggregate_") and (spec.evals.tasks or spec.evals.benchmarks):
            # Which groups these are of is known once they are loaded.
            continue
        if getattr(spec.evals, measure) is None:
            yield Rule(
                ("search", "objectives", index),
                f"search.objectives: {name} is not measured, because evals.{measure} is null",
                f"drop evals.{measure}: null, or take another objective",
            )


def _impossible(spec: SweepSpec) -> Iterator[Rule]:
    """The first combination of a sampled space that is no valid fine-tune; a grid's are planned."""
    if spec.search.method == "grid":
        return
    constraints = [read_constraint(text) for text in spec.search.constraints]
    for corner in corners(spec.search):
        if not all_hold(constraints, corner):
            continue
        try:
            TrainConfig.model_validate(with_values(spec.train_settings(), corner))
        except ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Value error, ")
            message = f"search.space holds {corner}, which is not valid: {rule}"
            fix = fix_of_zero_weights(corner, spec.search.method)
            fix = fix or "change the space, or add a constraint"
            yield Rule(("search", "space"), message, fix)
            return


def _without_price(spec: SweepSpec) -> Iterator[Rule]:
    """A budget of money of which nobody could tell when it is spent."""
    if spec.search.budget.money is not None and not spec.resources.price_per_gpu_hour:
        yield Rule(
            ("search", "budget", "money"),
            "search.budget.money needs resources.price_per_gpu_hour above 0",
            "give the price, or drop the budget",
        )


def _split_gpus(spec: SweepSpec) -> Iterator[Rule]:
    """GPUs that Ray gives to no process: it shares one out, but takes several only whole."""
    for key in ("gpus_per_worker", "gpus_per_scorer"):
        count = getattr(spec.resources, key)
        if count is not None and count > 1 and not count.is_integer():
            message = f"resources.{key} must be a whole number where it is above 1, got {count:g}"
            yield Rule(("resources", key), message, f"edit resources.{key}")
