"""The trials of a sweep, who they are and what they will cost. Starts nothing."""

import copy
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from evals.items import check_examples, scoring_identity
from orchestrator.fingerprint import fingerprint_examples, fingerprint_model, fingerprint_trial
from orchestrator.record import SweepFolder, TrialRecord, check_records
from orchestrator.spec import SweepSpec
from trainers.batches import num_steps
from trainers.config import TrainConfig
from trainers.data import Split, encode_all, read_split
from trainers.errors import InputError, Problem
from trainers.examples import Example
from trainers.memory import GIB, state_bytes
from trainers.models import check_model, load_tokenizer, resolve_model_path
from trainers.stats import DataStats, data_stats

# The share of the matrix-product peak that training reached on two CPU cores: SmolLM2-135M in
# float32 at about 80 tokens/s with 265 GFLOP/s.
_TYPICAL_EFFICIENCY = 0.25


# `pending` is trained and scored, `scores` is only scored anew, `done` is skipped.
PlannedState = Literal["pending", "scores", "done"]


class TrialPlan(BaseModel):
    """One trial before it runs. Times are estimates in seconds, None where nothing is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    settings: dict[str, Any]
    searched: dict[str, Any]
    state: PlannedState
    steps: int
    tokens: int
    estimated_train_seconds: float | None


class SweepPlan(BaseModel):
    """All that a sweep will do; `trials` in the order in which they start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    output_dir: str
    trials: list[TrialPlan]
    num_done: int
    has_untuned_scores: bool
    workers_per_trial: int
    cpus_per_worker: int
    model: dict[str, Any]
    data: dict[str, Any]
    estimated_memory_gib: float | None
    estimated_disk_gib: float | None
    estimate_basis: str


@dataclass(frozen=True)
class Prepared:
    """A plan with the data it was made from, so that nothing is read twice."""

    plan: SweepPlan
    split: Split


def make_plan(spec: SweepSpec) -> Prepared:
    """Expand the search space, read and count the data, and estimate the cost.

    Raises:
        InputError: model, data or a trial's settings do not fit.
    """
    folder = SweepFolder(spec.folder)
    if folder.sweep_json.exists():
        check_records(folder)
    check_model(spec.model)
    split = read_split(spec.data)
    check_examples(split.heldout, spec.evals)
    tokenizer = load_tokenizer(spec.model)
    encoded = encode_all(split.train, spec.data, tokenizer)
    stats = data_stats(encoded, spec.data)
    model_fingerprint = fingerprint_model(spec)
    data_fingerprint = fingerprint_examples([*split.train, *split.heldout])
    num_parameters = count_parameters(resolve_model_path(spec.model.path))
    speed, basis = _tokens_per_second(folder, num_parameters, model_fingerprint)
    scores = partial(_has_scores, folder, spec, split.heldout)
    trials = []
    for searched in expand(spec):
        settings = settings_with(spec, searched)
        trial_id = fingerprint_trial(settings, model_fingerprint, data_fingerprint)
        trials.append(
            _plan_trial(
                trial_id,
                searched,
                TrainConfig.model_validate(settings),
                stats,
                state=_planned_state(folder, trial_id, scores),
                speed=speed,
            )
        )
    plan = SweepPlan(
        name=spec.name,
        output_dir=str(spec.folder),
        trials=trials,
        num_done=sum(trial.state == "done" for trial in trials),
        has_untuned_scores=(
            scores(None) and folder.read_sweep().model["fingerprint"] == model_fingerprint
        ),
        workers_per_trial=spec.resources.workers_per_trial,
        cpus_per_worker=spec.resources.cpus_per_worker,
        model={
            "path": spec.model.path,
            "fingerprint": model_fingerprint,
            "num_parameters": num_parameters,
            "note": _model_note(spec),
        },
        data={
            "path": spec.data.path,
            "fingerprint": data_fingerprint,
            "num_train": len(encoded),
            "num_heldout": len(split.heldout),
            **_stats_summary(stats),
        },
        estimated_memory_gib=_memory_gib(num_parameters, spec),
        estimated_disk_gib=_disk_gib(num_parameters, trials, spec),
        estimate_basis=basis,
    )
    return Prepared(plan, split)


def _plan_trial(
    trial_id: str,
    searched: dict[str, Any],
    config: TrainConfig,
    stats: DataStats,
    *,
    state: PlannedState,
    speed: float | None,
) -> TrialPlan:
    """One trial, at `speed` tokens a second where that is known."""
    steps = num_steps(stats.num_examples, config.batch.global_batch_size, config.schedule)
    tokens = round(steps * config.batch.global_batch_size * stats.tokens_per_example)
    return TrialPlan(
        id=trial_id,
        settings=config.model_dump(mode="json"),
        searched=searched,
        state=state,
        steps=steps,
        tokens=tokens,
        estimated_train_seconds=tokens / speed if speed else None,
    )


def expand(spec: SweepSpec) -> list[dict[str, Any]]:
    """The grid: every combination of the searched values, the first key changing slowest."""
    keys = list(spec.search.space)
    return [
        dict(zip(keys, values, strict=True))
        for values in itertools.product(*(spec.search.space[key] for key in keys))
    ]


def settings_with(spec: SweepSpec, searched: Mapping[str, Any]) -> dict[str, Any]:
    """The full settings of a trial.

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
        return TrainConfig.model_validate(settings).model_dump(mode="json")
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(
            Problem(message=f"the trial {dict(searched)} is not valid: {rule}")
        ) from None


def count_parameters(path: str) -> int | None:
    """Parameters in a folder's safetensors headers; None for a model that is not here yet.

    Raises:
        InputError: a file is damaged, such as one that was not copied whole.
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    total = 0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt") as tensors:
                keys = tensors.keys()
                total += sum(prod(tensors.get_slice(key).get_shape()) for key in keys)
        except SafetensorError as error:
            raise InputError(
                Problem(
                    message=f"the weights cannot be read: {error}",
                    where=str(file),
                    fix="copy or download the file again, or save the model with save_pretrained",
                )
            ) from None
    return total


def pending_record(trial: TrialPlan) -> TrialRecord:
    """The record that a planned trial starts with."""
    return TrialRecord(
        id=trial.id,
        settings=trial.settings,
        searched=trial.searched,
        total_steps=trial.steps,
    )


def _planned_state(
    folder: SweepFolder, trial_id: str, has_scores: Callable[[str], bool]
) -> PlannedState:
    known = folder.read_trial(trial_id)
    if known is None or known.state != "done":
        return "pending"
    return "done" if has_scores(trial_id) else "scores"


def _has_scores(
    folder: SweepFolder, spec: SweepSpec, heldout: Sequence[Example], trial_id: str | None
) -> bool:
    """Whether a trial, or the untuned model for None, has the scores that the spec asks for."""
    card = folder.read_scores(trial_id)
    if card is None or not folder.sweep_json.exists():
        return False
    wanted = scoring_identity(
        heldout, spec.evals, template=spec.data.template, max_length=spec.data.max_length
    )
    if spec.data.template == "chat":
        # The chat template is the model's, and so part of its fingerprint.
        wanted.pop("template_sha256")
    return all(card.signature.get(key) == value for key, value in wanted.items())


def _tokens_per_second(
    folder: SweepFolder, num_parameters: int | None, model_fingerprint: str
) -> tuple[float | None, str]:
    """Expected training speed, from this sweep's own trials or from a matrix product."""
    if folder.sweep_json.exists() and (
        folder.read_sweep().model["fingerprint"] == model_fingerprint
    ):
        measured = [t.tokens_per_second for t in folder.read_trials() if t.tokens_per_second]
        if measured:
            mean = sum(measured) / len(measured)
            return mean, f"measured on {len(measured)} finished trials of this sweep"
    if num_parameters is None:
        return None, "the model is not on this machine yet"
    peak = _matmul_flops_per_second()
    basis = (
        f"6 FLOP per parameter and token at {_TYPICAL_EFFICIENCY:.0%} of this machine's "
        f"{peak / 1e9:.0f} GFLOP/s"
    )
    return _TYPICAL_EFFICIENCY * peak / (6 * num_parameters), basis


def _matmul_flops_per_second(size: int = 1024, seconds: float = 0.2) -> float:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    float((matrix @ matrix).sum())
    count, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        float((matrix @ matrix)[0, 0])
        count += 1
    return 2 * size**3 * count / (time.monotonic() - started)


def _memory_gib(num_parameters: int | None, spec: SweepSpec) -> float | None:
    if num_parameters is None:
        return None
    config = TrainConfig.model_validate(spec.train_settings())
    return state_bytes(num_parameters, config, spec.resources.workers_per_trial) / GIB


def _disk_gib(num_parameters: int | None, trials: list[TrialPlan], spec: SweepSpec) -> float | None:
    """Exported models of all trials, and the checkpoints of the one that runs."""
    if num_parameters is None:
        return None
    width = 4 if spec.deepspeed.precision == "float32" else 2
    to_run = sum(trial.state == "pending" for trial in trials)
    has_checkpoints = to_run > 0 and spec.checkpoint.every_steps is not None
    checkpoint = 12 * (spec.checkpoint.keep + 1) if has_checkpoints else 0
    return num_parameters * (width * to_run + checkpoint) / 2**30


def _model_note(spec: SweepSpec) -> str | None:
    source = Path(resolve_model_path(spec.model.path)) / "SOURCE.json"
    notes = [json.loads(source.read_text(encoding="utf-8")).get("note")] if source.exists() else []
    notes.append(spec.note)
    return "; ".join(str(note) for note in notes if note) or None


def _stats_summary(stats: DataStats) -> dict[str, Any]:
    return {"stats": stats.to_json()}
