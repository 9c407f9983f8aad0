"""Plan single trials, for a grid or a search at run time, and their baselines."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.harness.preflight import check_benchmarks
from evals.heldout.examples import write_examples
from evals.results.scores import ScoreCard
from evals.scoring_identity import is_same_scoring, scoring_identity
from orchestrator.foundation.clock import now
from orchestrator.plan.estimates import estimate_speed, measured_speeds, memory_gib
from orchestrator.plan.fingerprint import fingerprint_baseline, fingerprint_trial
from orchestrator.plan.legacy_ids import legacy_trial_id
from orchestrator.plan.sources import DataSource, ModelSource, Sources
from orchestrator.record.baselines import BaselineRecord
from orchestrator.record.folder import BaselineUsage, SweepFolder, TrialRecord, check_records
from orchestrator.spec.setting_fields import PLW, with_values
from orchestrator.spec.sweep_spec import SweepSpec, with_absolute_paths
from orchestrator.spec.two_weights import zero_weights_fix
from trainers.config import TrainConfig
from trainers.data.batches import num_steps
from trainers.data.examples import Example
from trainers.foundation.errors import InputError, Problem
from trainers.schedule import check_schedule, describe_schedule
from trainers.token_weights import check_data_weights

# `pending`: train and score; `scores`: only score again; `done` and `stopped` (early, in an earlier
# run): skip.
PlannedState = Literal["pending", "scores", "done", "stopped"]


class TrialPlan(BaseModel):
    """A planned trial. Estimates are None if unknown; times are in seconds.

    `base` is the key of the trial's baseline. `opponent` is the id of the trial with PLW 0 whose
    outputs are the opponent's in pandalm_prompts, planned or not; None without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    base: str
    settings: dict[str, Any]
    searched: dict[str, Any]
    state: PlannedState
    opponent: str | None = None
    steps: int
    schedule: str
    tokens: int
    estimated_train_seconds: float | None
    estimated_memory_gib: float | None


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Model and held-out examples of trials, with the inputs for scoring the untuned model.

    `settings` and `opponent` are those of the baseline's first trial. `scoring` identifies the
    requested scores.
    """

    record: BaselineRecord
    model_path: str
    heldout: Sequence[Example]
    settings: dict[str, Any]
    scoring: dict[str, Any]
    has_scores: bool
    opponent: str | None = None

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def num_parameters(self) -> int | None:
        """The model's number of parameters; None for a model that has not been downloaded."""
        size: int | None = self.record.model["num_parameters"]
        return size


class Planner:
    """Plans the trials of a spec one by one; reads models and data sets when first needed.

    `created_at` is the time at which the sweep was first run, or now. Templates that show the date
    of today show that day in all trials.

    Raises:
        InputError: records in the sweep's folder cannot be read, or files of its benchmarks are
            missing or contain invalid items.
    """

    def __init__(self, spec: SweepSpec) -> None:
        check_benchmarks(spec.evals)
        self._spec = spec
        self._folder = SweepFolder(spec.folder)
        self._has_record = self._folder.sweep_json.exists()
        if self._has_record:
            check_records(self._folder)
        self.created_at = self._folder.read_sweep().created_at if self._has_record else now()
        self._sources = Sources(spec.evals)
        self._speeds = measured_speeds(self._folder)
        self._baselines: dict[str, Baseline] = {}

    @property
    def baselines(self) -> list[Baseline]:
        """The baselines of the trials planned so far, in the order of their first use."""
        return list(self._baselines.values())

    def baseline_of(self, trial: TrialPlan) -> Baseline:
        """Return the baseline of a trial that was planned here."""
        return self._baselines[trial.base]

    def plan_trial(self, searched: Mapping[str, Any]) -> TrialPlan:
        """Return the trial with these searched values.

        Raises:
            InputError: the values are invalid, or the model or the data cannot be used.
        """
        config, model, data = self._load(searched)
        check_data_weights(data.examples, config.loss)
        base = self._base(config, model, data)
        settings = config.model_dump(mode="json")
        trial_id = _id_in(self._folder, settings, model, data)
        opponent = self._opponent(searched)
        if self._baselines[base.key].opponent is None:
            self._baselines[base.key] = replace(self._baselines[base.key], opponent=opponent)
        stats = data.stats
        steps = num_steps(stats.num_examples, config.batch.global_batch_size, config.schedule)
        check_schedule(config.schedule, steps)
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
            opponent=opponent,
            steps=steps,
            schedule=describe_schedule(config.schedule, steps),
            tokens=tokens,
            estimated_train_seconds=tokens / speed if speed else None,
            estimated_memory_gib=None if size is None else memory_gib(size, config, workers),
        )

    def _load(self, searched: Mapping[str, Any]) -> tuple[TrainConfig, ModelSource, DataSource]:
        """Return the settings of a trial, dated if its template needs it, with model and data."""
        config = trial_config(self._spec, searched)
        today = datetime.fromisoformat(self.created_at).date()
        data = self._sources.with_date(config.model, config.data, today)
        return config.model_copy(update={"data": data}), *self._sources.load(config.model, data)

    def id_in(self, folder: SweepFolder, searched: Mapping[str, Any]) -> str:
        """Return the id of the trial with these searched values in another sweep's folder.

        Raises:
            InputError: see `plan_trial`.
        """
        config, model, data = self._load(searched)
        self._base(config, model, data)
        return _id_in(folder, config.model_dump(mode="json"), model, data)

    def _opponent(self, searched: Mapping[str, Any]) -> str | None:
        """Return the id of the trial with PLW 0 and otherwise the same searched values.

        None if pandalm_prompts has another opponent, or if there can be no such trial.
        """
        if not self._spec.evals.needs_plw_0_trial:
            return None
        try:
            return self.id_in(self._folder, {**searched, PLW: 0.0})
        except InputError:
            return None

    def speed(self, base: Baseline) -> tuple[float | None, str]:
        """Return the expected tokens per second of training from `base`, and their basis."""
        fingerprint = base.record.model["fingerprint"]
        if fingerprint not in self._speeds:
            workers = self._spec.resources.workers_per_trial
            return estimate_speed(base.num_parameters, workers)
        return self._speeds[fingerprint]

    def _base(self, config: TrainConfig, model: ModelSource, data: DataSource) -> Baseline:
        """Return the baseline of a trial, after adding the trial's training data to its record."""
        key = fingerprint_baseline(
            model=model.fingerprint,
            items=data.heldout_digest,
            template=config.data.template,
            max_length=config.data.max_length,
            template_args=config.data.template_args,
            truncation_side=config.data.truncation_side if data.heldout_is_truncated else None,
        )
        base = self._baselines.get(key) or self._new_base(key, config, model, data)
        entry = _data_entry(config, data)
        if entry not in base.record.data:
            record = base.record.model_copy(update={"data": [*base.record.data, entry]})
            base = replace(base, record=record)
        self._baselines[key] = base
        return base

    def _new_base(
        self, key: str, config: TrainConfig, model: ModelSource, data: DataSource
    ) -> Baseline:
        template, max_length = config.data.template, config.data.max_length
        scoring = scoring_identity(
            data.heldout,
            self._spec.evals,
            template=template,
            max_length=max_length,
            template_args=config.data.template_args,
            truncation_side=config.data.truncation_side,
        )
        if not data.heldout_is_truncated:
            scoring.pop("truncation_side")
        if template == "chat":
            # The chat template belongs to the model and is part of the model's fingerprint.
            scoring.pop("template_sha256")
        return Baseline(
            record=BaselineRecord(
                key=key,
                template=template,
                template_args=config.data.template_args,
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
            has_scores=self._is_scored(self._folder.read_baseline_scores(key), scoring),
        )

    def _state(self, trial_id: str, base: Baseline) -> PlannedState:
        known = self._folder.read_trial(trial_id)
        if known is not None and known.state == "stopped" and self._spec.search.early_stopping:
            return "stopped"
        if known is None or known.state != "done":
            return "pending"
        if self._is_scored(self._folder.read_scores(trial_id), base.scoring):
            return "done"
        # keep_models or plw clean may have deleted the model.
        return "scores" if self._folder.model(trial_id).is_dir() else "pending"

    def has_requested_scores(self, card: ScoreCard | None, trial: TrialRecord) -> bool:
        """Return whether a trial of another sweep has the scores that this spec requests."""
        base = self._baselines.get(trial.base)
        return (
            base is not None and card is not None and is_same_scoring(card.signature, base.scoring)
        )

    def _is_scored(self, card: ScoreCard | None, scoring: Mapping[str, Any]) -> bool:
        """Return whether a score card has the requested scores."""
        return card is not None and self._has_record and is_same_scoring(card.signature, scoring)


def _id_in(
    folder: SweepFolder, settings: dict[str, Any], model: ModelSource, data: DataSource
) -> str:
    """Return the trial's id, or its legacy id if `folder` has a record with that id."""
    is_truncated = data.stats.has_truncated_examples
    trial_id = fingerprint_trial(
        settings, model.fingerprint, data.fingerprint, is_truncated=is_truncated
    )
    if folder.has_trial(trial_id) or data.has_extras:
        # Early releases did not hash weights, tools and reasoning, so a legacy id is ambiguous.
        return trial_id
    legacy = legacy_trial_id(
        settings, model.fingerprint, data.fingerprint, is_truncated=is_truncated
    )
    return legacy if legacy is not None and folder.has_trial(legacy) else trial_id


def trial_config(spec: SweepSpec, searched: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a trial.

    Raises:
        InputError: the combination of searched values is invalid, such as epochs with steps.
    """
    settings = with_values(spec.train_settings(), searched)
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
                fix=zero_weights_fix(searched, spec.search.method) or fix,
            )
        ) from None


def _data_entry(config: TrainConfig, data: DataSource) -> dict[str, Any]:
    """Return the entry for a trial's training data in the record of its baseline."""
    return {
        **config.data.model_dump(
            mode="json", include={"path", "name", "revision", "split", "columns", "sources"}
        ),
        "train_examples": config.data.train_examples,
        "too_long": config.data.too_long,
        "fingerprint": data.fingerprint,
        "num_train": data.stats.num_examples,
        "num_heldout": len(data.heldout),
        "stats": data.stats.to_json(),
    }


def pending_record(trial: TrialPlan) -> TrialRecord:
    """Return the initial record of a planned trial."""
    return TrialRecord(
        id=trial.id,
        base=trial.base,
        settings=trial.settings,
        searched=trial.searched,
        opponent=trial.opponent,
        total_steps=trial.steps,
    )


def updated_record(known: TrialRecord, trial: TrialPlan) -> TrialRecord:
    """Return the record of an earlier run of the same trial, updated for this plan.

    The id guarantees the same result, but files may have moved and other settings may be searched.
    """
    settings = known.settings if known.state == "done" else trial.settings
    return known.model_copy(
        update={
            "base": trial.base,
            "searched": trial.searched,
            "settings": settings,
            "opponent": trial.opponent,
        }
    )


def prepare_baseline(folder: SweepFolder, base: Baseline) -> None:
    """Write the held-out examples of `base`; delete its scores if they are not those requested."""
    if not base.has_scores:
        usage = folder.read_baseline_usage(base.key)
        shutil.rmtree(folder.baseline(base.key), ignore_errors=True)
        # Keep the usage, because a budget includes the time for earlier scores.
        if usage != BaselineUsage():
            folder.add_baseline_usage(base.key, usage)
    write_examples(folder.heldout(base.key), base.heldout)
