"""Define the sweep spec: settings of a fine-tune, search, evaluations, resources, tracking."""

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from evals.config import JUDGED_BENCHMARKS, EvalConfig
from orchestrator.spec.constraints import all_hold, read_constraint
from orchestrator.spec.search_config import SearchConfig
from orchestrator.spec.search_points import corner_points
from orchestrator.spec.search_rules import Violation, violations_error
from orchestrator.spec.setting_fields import with_values
from orchestrator.spec.two_weights import zero_weights_fix
from trainers.config import TrainConfig
from trainers.config_base import (
    MAX_COUNT,
    NonNegative,
    PathText,
    Positive,
    PositiveInt,
    StrictSettings,
)
from trainers.data.template_files import TEMPLATE_NAMES
from trainers.foundation.settings_file import apply_override, build_config, read_yaml

# Required settings that a spec may omit if their values are searched.
_SEARCHED_SOURCES = (("model", "path"), ("data", "path"))
_BENCHMARKS = ("tasks", "benchmarks")
# The evaluations of which one at least is needed for an objective.
_EVALUATIONS: dict[str, tuple[str, ...]] = {
    "heldout_completion_loss": ("heldout",),
    "heldout.choice": ("heldout_choice",),
    "heldout.exact_match": ("heldout_exact_match",),
    "heldout.chrf": ("heldout_chrf",),
    "aggregate_heldout": ("heldout_choice", "heldout_exact_match", "heldout_chrf"),
    "aggregate_multiple_choice": _BENCHMARKS,
    "aggregate_short_generation": _BENCHMARKS,
    "aggregate_long_generation": (*JUDGED_BENCHMARKS, "judged", *_BENCHMARKS),
}

KeepModels = Literal["all", "best", "last", "none"]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
# Valid as a file name on every platform.
_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
# No part of the path begins with a dot, so there is no `..`.
_STORAGE_PATTERN = r"^(s3|gs)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*$"


class ResourceConfig(StrictSettings):
    workers_per_trial: PositiveInt = Field(1, description="Ranks per trial.")
    cpus_per_worker: PositiveInt = Field(1, description="CPU cores per rank.")
    gpus_per_worker: NonNegative | None = Field(
        None, description="GPUs per rank; null: 1 if the cluster has GPUs, else 0."
    )
    placement: Literal["node", "any"] = Field(
        "node",
        description="node: the ranks of a trial share a node if any node has room for all of "
        "them; any: they may run on several nodes.",
    )
    max_concurrent_trials: PositiveInt | None = Field(
        None, description="Concurrent trials; null: as many as fit."
    )
    scorers: Count | None = Field(
        None,
        description="Processes that evaluate models while later trials train; null: as many as "
        "fit, at most one per concurrent trial; 0: the ranks of each trial evaluate.",
    )
    cpus_per_scorer: PositiveInt | None = Field(
        None, description="CPU cores per scorer; null: cpus_per_worker."
    )
    gpus_per_scorer: NonNegative | None = Field(
        None, description="GPUs per scorer; null: gpus_per_worker, at most 1."
    )
    price_per_gpu_hour: NonNegative | None = Field(
        None, description="Price of a GPU-hour in any currency, for costs and budgets."
    )


class RetryConfig(StrictSettings):
    """Retries of a trial, from its last checkpoint, by kind of failure."""

    crash: Count = Field(2, description="Retries after a failed process or library.")
    out_of_memory: Count = Field(1, description="Retries after a rank ran out of memory.")
    divergence: Count = Field(0, description="Retries after a non-finite loss or gradient.")
    stalled_minutes: Positive | None = Field(
        60,
        description="Minutes without a new file of any trial after which `plw sweep` starts Ray "
        "again; null: never. Three times the longest such time so far is allowed in any case.",
    )


class TrackingConfig(StrictSettings):
    uri: str | None = Field(
        None,
        description="MLflow tracking URI; null: MLFLOW_TRACKING_URI if set, else an SQLite file "
        "next to output_dir.",
    )
    experiment: str | None = Field(
        None, description="MLflow experiment; null: the name of the sweep."
    )


class SweepSpec(TrainConfig):
    """The settings of a fine-tune, and the search over some of them."""

    name: str = Field(
        json_schema_extra={"pattern": _NAME_PATTERN},
        description="Name of the sweep; default: the file name without extension.",
    )
    output_dir: PathText | None = Field(None, description="Folder of the sweep; null: runs/NAME.")
    storage: str | None = Field(
        None,
        json_schema_extra={"pattern": _STORAGE_PATTERN},
        description="Object store of the sweep, such as s3://BUCKET/PREFIX, for nodes without a "
        "shared file system; null: all nodes share output_dir.",
    )
    keep_models: KeepModels = Field(
        "all",
        description="Models that stay once their trials are scored: all, best (by the first of "
        "search.objectives), last (the last to finish) or none. Scores and records stay.",
    )
    note: str | None = Field(None, description="A note that the report shows as a caveat.")
    search: SearchConfig
    evals: EvalConfig = EvalConfig()
    resources: ResourceConfig = ResourceConfig()
    retries: RetryConfig = RetryConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _search_fits(self) -> Self:
        rules = [
            *_unevaluated_objectives(self),
            *_invalid_combinations(self),
            *_missing_price(self),
            *_fractional_gpus(self),
        ]
        if rules:
            raise violations_error(rules)
        return self

    @property
    def folder(self) -> Path:
        return Path(self.output_dir or f"runs/{self.name}").expanduser().absolute()

    @property
    def storage_uri(self) -> str | None:
        """URI prefix of the sweep's objects; None without an object store."""
        return None if self.storage is None else f"{self.storage}/{self.name}"

    def train_settings(self) -> dict[str, Any]:
        """Return the settings of a trial without the searched values."""
        settings = self.model_dump(mode="json", include=set(TrainConfig.model_fields))
        early_stopping = self.search.early_stopping
        if early_stopping is not None:
            settings["log_heldout_every_steps"] = early_stopping.eval_every_steps
        return settings

    @field_validator("storage")
    @classmethod
    def _storage_of_objects(cls, storage: str | None) -> str | None:
        if storage is not None and not re.fullmatch(_STORAGE_PATTERN, storage):
            message = f"storage must be s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, got {storage!r}"
            fix = "edit storage, or remove it if all nodes share output_dir"
            raise PydanticCustomError("rule", "{message}", {"message": message, "fix": fix})
        return storage

    @field_validator("name")
    @classmethod
    def _name_of_a_folder(cls, name: str) -> str:
        if not re.fullmatch(_NAME_PATTERN, name):
            raise PydanticCustomError(
                "rule",
                "{message}",
                {
                    "message": "name must be 1 to 100 letters, digits, '.', '_' and '-', starting "
                    f"with a letter or digit, got {name!r}",
                    "fix": "edit name, or set it if it comes from the file name",
                },
            )
        return name


Config = TypeVar("Config", bound=TrainConfig)


def load_spec(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read and check the spec in a YAML file.

    Args:
        overrides: `key.path=value` settings that replace those of the file.

    Raises:
        InputError: all problems of the file, each with its line.
    """
    content = read_yaml(path)
    content.setdefault("name", path.stem)
    for override in overrides:
        apply_spec_override(content, override)
    return spec_from_content(content, path)


def spec_from_content(content: dict[str, Any], source: Path) -> SweepSpec:
    """Return the spec with the settings `content`, which has a name and is completed.

    Raises:
        InputError: all problems, each with its line if `content` is from the YAML file `source`.
    """
    _start_from_searched(content)
    spec = with_absolute_paths(build_config(SweepSpec, content, source=source))
    return spec.model_copy(update={"evals": spec.evals.with_absolute_paths()})


def apply_spec_override(content: dict[str, Any], override: str) -> None:
    """Set a value of a spec's content from `key.path=value`.

    Below `search.space`, the rest of the path is one key: the path of the searched setting.

    Raises:
        InputError: as `apply_override`.
    """
    apply_override(content, override, flat_section="search.space")


def with_absolute_paths(config: Config) -> Config:
    """Return a copy with absolute paths, because ranks run in other working directories."""

    def absolute(path: str) -> str:
        local = Path(path).expanduser()
        is_found = local.exists() or glob.glob(str(local), recursive=True)
        return str(local.absolute()) if is_found else path

    data = config.data
    changes = {
        "template": data.template if data.template in TEMPLATE_NAMES else absolute(data.template),
        "path": None if data.path is None else absolute(data.path),
        "sources": tuple(
            source.model_copy(update={"path": absolute(source.path)}) for source in data.sources
        ),
    }
    model = config.model.model_copy(update={"path": absolute(config.model.path)})
    return config.model_copy(update={"model": model, "data": data.model_copy(update=changes)})


def _start_from_searched(content: dict[str, Any]) -> None:
    """Set omitted model.path and data.path to their first searched values."""
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


def _unevaluated_objectives(spec: SweepSpec) -> Iterator[Violation]:
    """Check that `evals` computes the objectives that the search uses."""
    search = spec.search
    default = SearchConfig.model_fields["objectives"].default
    if search.method not in ("tpe", "gp") and search.objectives == default:
        return
    for index, name in enumerate(search.objectives):
        # The groups of tasks are only known once they are loaded, so any task may be of a group.
        evaluations = _EVALUATIONS[name]
        if not any(getattr(spec.evals, evaluation) for evaluation in evaluations):
            yield Violation(
                ("search", "objectives", index),
                f"search.objectives: {name} requires evals.{' or evals.'.join(evaluations)}",
                "set it, or use another objective",
            )


def _invalid_combinations(spec: SweepSpec) -> Iterator[Violation]:
    """Find the first invalid combination in a sampled space; planning checks those of a grid."""
    if spec.search.method == "grid":
        return
    constraints = [read_constraint(text) for text in spec.search.constraints]
    for corner in corner_points(spec.search):
        if not all_hold(constraints, corner):
            continue
        try:
            TrainConfig.model_validate(with_values(spec.train_settings(), corner))
        except ValidationError as error:
            rule = error.errors()[0]["msg"].removeprefix("Value error, ")
            message = f"search.space includes {corner}, which is invalid: {rule}"
            fix = zero_weights_fix(corner, spec.search.method)
            fix = fix or "change the space, or add a constraint"
            yield Violation(("search", "space"), message, fix)
            return


def _missing_price(spec: SweepSpec) -> Iterator[Violation]:
    """Check that a budget of money has a price per GPU-hour."""
    if spec.search.budget.money is not None and not spec.resources.price_per_gpu_hour:
        yield Violation(
            ("search", "budget", "money"),
            "search.budget.money requires resources.price_per_gpu_hour above 0",
            "set the price, or remove the budget",
        )


def _fractional_gpus(spec: SweepSpec) -> Iterator[Violation]:
    """Check GPU counts: Ray can share one GPU, but allocates several only as whole GPUs."""
    for key in ("gpus_per_worker", "gpus_per_scorer"):
        count = getattr(spec.resources, key)
        if count is not None and count > 1 and not count.is_integer():
            message = f"resources.{key} must be an integer if above 1, got {count:g}"
            yield Violation(("resources", key), message, f"edit resources.{key}")
    count, workers = spec.resources.gpus_per_worker, spec.resources.workers_per_trial
    if count is not None and 0 < count < 1 and workers > 1:
        yield Violation(
            ("resources", "gpus_per_worker"),
            f"resources.gpus_per_worker {count:g} would put several of {workers} workers of a trial"
            " on one GPU, which NCCL does not support",
            "set it to 1, or resources.workers_per_trial to 1",
        )
