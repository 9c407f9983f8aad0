"""Trials one by one, as a grid or a search at run time names them, and what they start from."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.harness.preflight import check_data
from evals.heldout.examples import write_examples
from evals.results.scores import ScoreCard
from evals.scoring_identity import scoring_identity
from orchestrator.plan.estimates import guessed_speed, measured_speeds, memory_gib
from orchestrator.plan.fingerprint import fingerprint_base, fingerprint_trial
from orchestrator.plan.sources import DataSource, ModelSource, Sources
from orchestrator.record.bases import BaseRecord
from orchestrator.record.folder import BaseUsage, SweepFolder, TrialRecord, check_records
from orchestrator.spec.sweep_spec import SweepSpec, with_absolute_paths
from orchestrator.spec.two_weights import fix_of_zero_weights
from trainers.config import TrainConfig
from trainers.data.batches import num_steps
from trainers.data.examples import Example
from trainers.foundation.errors import InputError, Problem

# `pending` is trained and scored, `scores` is only scored anew; `done` and `stopped`, early in an
# earlier run, are skipped.
PlannedState = Literal["pending", "scores", "done", "stopped"]


class TrialPlan(BaseModel):
    """One trial before it runs. Times are estimates in seconds, None where nothing is known.

    `base` is the key of what it starts from and is scored on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    base: str
    settings: dict[str, Any]
    searched: dict[str, Any]
    state: PlannedState
    steps: int
    tokens: int
    estimated_train_seconds: float | None
    estimated_memory_gib: float | None


@dataclass(frozen=True, kw_only=True)
class Base:
    """What trials start from and are scored on, with all that scoring its untuned model takes.

    `settings` are those of the first trial that starts from it; `scoring` is what the scores
    that the spec asks for depend on.
    """

    record: BaseRecord
    model_path: str
    heldout: Sequence[Example]
    settings: dict[str, Any]
    scoring: dict[str, Any]
    has_scores: bool

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def num_parameters(self) -> int | None:
        """Those of the model; None for one that is not here yet."""
        size: int | None = self.record.model["num_parameters"]
        return size


class Planner:
    """Plans trials of a spec one by one; a model or data set is read when a first trial needs it.

    Raises:
        InputError: the sweep's folder holds records that cannot be read, or the files of its
            benchmarks are missing or hold what are no items.
    """

    def __init__(self, spec: SweepSpec) -> None:
        check_data(spec.evals)
        self._spec = spec
        self._folder = SweepFolder(spec.folder)
        self._has_record = self._folder.sweep_json.exists()
        if self._has_record:
            check_records(self._folder)
        self._sources = Sources(spec.evals)
        self._speeds = measured_speeds(self._folder)
        self._bases: dict[str, Base] = {}

    @property
    def bases(self) -> list[Base]:
        """The bases of the trials planned so far, in the order in which they came up."""
        return list(self._bases.values())

    def base_of(self, trial: TrialPlan) -> Base:
        """What a trial planned here starts from and is scored on."""
        return self._bases[trial.base]

    def plan_trial(self, searched: Mapping[str, Any]) -> TrialPlan:
        """The trial with these searched values.

        Raises:
            InputError: the values break a rule, or their model or data do not fit.
        """
        config = trial_config(self._spec, searched)
        model, data = self._sources.of(config.model, config.data)
        base = self._base(config, model, data)
        settings = config.model_dump(mode="json")
        trial_id = fingerprint_trial(settings, model.fingerprint, data.fingerprint)
        stats = data.stats
        steps = num_steps(stats.num_examples, config.batch.global_batch_size, config.schedule)
        tokens = round(steps * config.batch.global_batch_size * stats.tokens_per_example)
        speed, _ = self.speed(base)
        size = model.num_parameters
        workers = self._spec.resources.workers_per_trial
        return TrialPlan(
            id=trial_id,
            base=base.key,
            settings=settings,
            searched=dict(searched),
            state=self._state(trial_id, base),
            steps=steps,
            tokens=tokens,
            estimated_train_seconds=tokens / speed if speed else None,
            estimated_memory_gib=None if size is None else memory_gib(size, config, workers),
        )

    def speed(self, base: Base) -> tuple[float | None, str]:
        """Tokens a second that training from `base` will take, and how that was found."""
        fingerprint = base.record.model["fingerprint"]
        if fingerprint not in self._speeds:
            workers = self._spec.resources.workers_per_trial
            return guessed_speed(base.num_parameters, workers)
        return self._speeds[fingerprint]

    def _base(self, config: TrainConfig, model: ModelSource, data: DataSource) -> Base:
        """The base of a trial, with its training data among those that the base records."""
        key = fingerprint_base(
            model=model.fingerprint,
            items=data.heldout_digest,
            template=config.data.template,
            max_length=config.data.max_length,
        )
        base = self._bases.get(key) or self._new_base(key, config, model, data)
        entry = _data_entry(config, data)
        if entry not in base.record.data:
            record = base.record.model_copy(update={"data": [*base.record.data, entry]})
            base = replace(base, record=record)
        self._bases[key] = base
        return base

    def _new_base(
        self, key: str, config: TrainConfig, model: ModelSource, data: DataSource
    ) -> Base:
        template, max_length = config.data.template, config.data.max_length
        scoring = scoring_identity(
            data.heldout, self._spec.evals, template=template, max_length=max_length
        )
        if template == "chat":
            # The chat template is the model's, and so part of its fingerprint.
            scoring.pop("template_sha256")
        return Base(
            record=BaseRecord(
                key=key,
                template=template,
                max_length=max_length,
                model={
                    "path": config.model.path,
                    "revision": config.model.revision,
                    "fingerprint": model.fingerprint,
                    "num_parameters": model.num_parameters,
                    "note": model.note,
                },
                data=[],
            ),
            model_path=model.path,
            heldout=data.heldout,
            settings=config.model_dump(mode="json"),
            scoring=scoring,
            has_scores=self._is_scored(self._folder.read_base_scores(key), scoring),
        )

    def _state(self, trial_id: str, base: Base) -> PlannedState:
        known = self._folder.read_trial(trial_id)
        if known is not None and known.state == "stopped" and self._spec.search.early_stopping:
            return "stopped"
        if known is None or known.state != "done":
            return "pending"
        is_scored = self._is_scored(self._folder.read_scores(trial_id), base.scoring)
        return "done" if is_scored else "scores"

    def is_scored_alike(self, card: ScoreCard | None, trial: TrialRecord) -> bool:
        """Whether a trial of another sweep, on a base of this one, was scored as the spec asks."""
        base = self._bases.get(trial.base)
        return base is not None and card is not None and _matches(card, base.scoring)

    def _is_scored(self, card: ScoreCard | None, scoring: Mapping[str, Any]) -> bool:
        """Whether scores were taken as the spec asks for."""
        return card is not None and self._has_record and _matches(card, scoring)


def _matches(card: ScoreCard, scoring: Mapping[str, Any]) -> bool:
    return all(card.signature.get(key) == value for key, value in scoring.items())


def trial_config(spec: SweepSpec, searched: Mapping[str, Any]) -> TrainConfig:
    """The settings of a trial.

    Raises:
        InputError: the searched values break a rule together, such as epochs beside steps.
    """
    settings = copy.deepcopy(spec.train_settings())
    for dotted, value in searched.items():
        *parents, last = dotted.split(".")
        section = settings
        for parent in parents:
            section = section[parent]
        section[last] = value
    try:
        return with_absolute_paths(TrainConfig.model_validate(settings))
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ")
        part = "exclude" if spec.search.method == "grid" else "constraints"
        fix = f"rule it out by search.{part}, or change what is set outside search.space"
        raise InputError(
            Problem(
                message=f"the trial {dict(searched)} is not valid: {rule}",
                where="search.space",
                fix=fix_of_zero_weights(searched, spec.search.method) or fix,
            )
        ) from None


def _data_entry(config: TrainConfig, data: DataSource) -> dict[str, Any]:
    """The training data of a trial, as its base records it."""
    return {
        "path": config.data.path,
        "split": config.data.split,
        "train_examples": config.data.train_examples,
        "too_long": config.data.too_long,
        "fingerprint": data.fingerprint,
        "num_train": data.stats.num_examples,
        "num_heldout": len(data.heldout),
        "stats": data.stats.to_json(),
    }


def pending_record(trial: TrialPlan) -> TrialRecord:
    """The record that a planned trial starts with."""
    return TrialRecord(
        id=trial.id,
        base=trial.base,
        settings=trial.settings,
        searched=trial.searched,
        total_steps=trial.steps,
    )


def refreshed_record(known: TrialRecord, trial: TrialPlan) -> TrialRecord:
    """The record of an earlier run of the same trial, as this plan calls it.

    What decides its result is the same by its id, but files may have moved and other settings
    may be searched now.
    """
    settings = known.settings if known.state == "done" else trial.settings
    return known.model_copy(
        update={"base": trial.base, "searched": trial.searched, "settings": settings}
    )


def prepare_base(folder: SweepFolder, base: Base) -> None:
    """Write the held-out examples of `base`, and drop scores that are not the ones asked for."""
    if not base.has_scores:
        usage = folder.read_base_usage(base.key)
        shutil.rmtree(folder.base(base.key), ignore_errors=True)
        # A budget counts what earlier scores have taken, too.
        if usage != BaseUsage():
            folder.add_base_usage(base.key, usage)
    write_examples(folder.heldout(base.key), base.heldout)
