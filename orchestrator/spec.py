"""The sweep spec: one fine-tune's settings, what is searched, what is scored, on what it runs."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from evals.config import EvalConfig
from trainers.config import NonNegative, PositiveInt, Section, TrainConfig
from trainers.config_file import apply_override, build_config, line_of, read_yaml
from trainers.errors import InputError, Problem

# Trials on one data set are compared on the same held-out examples.
_FIXED = ("data.heldout_examples", "data.seed")
# What a spec need not give beside the values that are searched for it.
_SEARCHED_SOURCES = (("model", "path"), ("data", "path"))
# What only decides how often something is written is no part of a trial's identity.
CADENCE = (
    "checkpoint",
    "log_every_steps",
    "log_distance_every_steps",
    "log_heldout_every_steps",
)

Count = Annotated[int, Field(ge=0)]


class SearchConfig(Section):
    method: Literal["grid"] = "grid"
    space: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        min_length=1,
        description="Values to try by dotted path, such as loss.prompt_loss_weight: [0, 0.1, 1].",
    )


class ResourceConfig(Section):
    workers_per_trial: PositiveInt = Field(1, description="Ranks of one fine-tune.")
    cpus_per_worker: PositiveInt = Field(1, description="CPU cores of one rank.")
    gpus_per_worker: NonNegative | None = Field(
        None, description="GPUs of one rank; null takes 1 where the cluster has GPUs, else 0."
    )
    max_concurrent_trials: PositiveInt | None = Field(
        None, description="Trials at once; null runs as many as fit."
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
    """A sweep: the settings of a fine-tune, and lists of values for some of them."""

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
    retries: RetryConfig = RetryConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def folder(self) -> Path:
        return Path(self.output_dir or f"runs/{self.name}").expanduser().absolute()

    def train_settings(self) -> dict[str, Any]:
        """The settings of a trial before any searched value is put in."""
        return self.model_dump(mode="json", include=set(TrainConfig.model_fields))


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
    problems = _space_problems(content, path)
    try:
        spec = build_config(SweepSpec, content, source=path)
    except InputError as error:
        raise InputError([*error.problems, *problems]) from None
    if problems:
        raise InputError(problems)
    return with_absolute_paths(spec)


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


def _space_problems(content: Mapping[str, Any], path: Path) -> list[Problem]:
    search = content.get("search")
    space = search.get("space") if isinstance(search, Mapping) else None
    if not isinstance(space, Mapping):
        return []
    fields = dict(_leaf_fields())
    problems: list[Problem] = []
    for dotted, values in space.items():
        where = f"{path}:{line_of(content, ('search', 'space', dotted)) or 1}"
        label = f"search.space.{dotted}"
        if dotted not in fields:
            near = difflib.get_close_matches(str(dotted), fields, n=1, cutoff=0.5)
            fix = f"did you mean {near[0]}?" if near else f"settings: {', '.join(fields)}"
            problems.append(Problem(message=f"unknown setting {dotted}", where=where, fix=fix))
        elif dotted in _FIXED:
            problems.append(
                Problem(
                    message=f"{dotted} cannot be searched: trials share their held-out examples",
                    where=where,
                    fix="set it outside of search.space",
                )
            )
        elif dotted.split(".")[0] in CADENCE:
            problems.append(
                Problem(
                    message=f"{dotted} cannot be searched: it does not change a trial's result",
                    where=where,
                    fix="set it outside of search.space",
                )
            )
        elif isinstance(values, list):
            problems += _value_problems(label, values, fields[dotted], content, path)
    return problems


def _value_problems(
    label: str, values: list[Any], field: FieldInfo, content: Mapping[str, Any], path: Path
) -> list[Problem]:
    rules: Any = field.annotation
    if field.metadata:
        rules = Annotated[field.annotation, *field.metadata]
    adapter: TypeAdapter[Any] = TypeAdapter(rules)
    problems = []
    dotted = label.removeprefix("search.space.")
    for index, value in enumerate(values):
        where = f"{path}:{line_of(content, ('search', 'space', dotted, index)) or 1}"
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            rule = error.errors()[0]["msg"]
            message = f"{label}: {rule[0].lower()}{rule[1:]}, got {value!r}"
            problems.append(Problem(message=message, where=where, fix=f"edit {label}"))
        if value in values[:index]:
            problems.append(
                Problem(message=f"{label} lists {value!r} twice", where=where, fix="drop one")
            )
    return problems


def _leaf_fields(
    model: type[Section] = TrainConfig, prefix: str = ""
) -> list[tuple[str, FieldInfo]]:
    leaves: list[tuple[str, FieldInfo]] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            leaves += _leaf_fields(annotation, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", field))
    return leaves
