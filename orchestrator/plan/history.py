"""Find the known and unfinished points of a sampling search in the records of earlier runs.

A recorded trial belongs to a spec only if the spec, with the trial's searched values, plans a trial
with the same id. Then settings, data and model are the same.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.plan.planner import Planner, TrialPlan
from orchestrator.record.folder import SweepFolder, TrialRecord, check_records
from orchestrator.search.points import Observation, point_key
from orchestrator.spec.sweep_spec import SweepSpec
from orchestrator.statistics.aggregates import add_aggregates
from trainers.foundation.errors import InputError, Problem


@dataclass
class History:
    """Points of earlier runs.

    `known`: finished points of this sweep and of others. `unfinished`: searched values of the
    points to continue first. `trials`: all trials of this sweep's points, done or not. `num_own`:
    number of finished points of this sweep.
    """

    known: list[Observation] = field(default_factory=list)
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    trials: list[TrialPlan] = field(default_factory=list)
    num_own: int = 0


def read_history(spec: SweepSpec, planner: Planner) -> History:
    """Return the spec's points found in the sweep's folder and in those of `search.warm_start`.

    Raises:
        InputError: a folder in `search.warm_start` has no sweep, or its records are damaged.
    """
    history = History()
    own = SweepFolder(spec.folder)
    seen = set()
    for searched, records in _points(spec, planner, own):
        plans = plan_point(spec, planner, searched)
        history.trials += plans
        seen.add(point_key(searched))
        observation = observe(own, searched, records, spec.search.objectives)
        is_complete = len(records) == len(plans) and all(p.state == "done" for p in plans)
        is_stopped = observation.state == "stopped" and spec.search.early_stopping is not None
        if is_complete or is_stopped:
            history.known.append(observation)
            history.num_own += 1
        else:
            history.unfinished.append(searched)
    for other in _other_folders(spec):
        for searched, records in _points(spec, planner, other):
            # Scores with other metrics, items or lengths are not comparable.
            alike = [r for r in records if planner.has_requested_scores(other.read_scores(r.id), r)]
            observation = observe(other, searched, alike, spec.search.objectives)
            if observation.state == "done" and point_key(searched) not in seen:
                history.known.append(observation)
                seen.add(point_key(searched))
    return history


def plan_point(spec: SweepSpec, planner: Planner, searched: Mapping[str, Any]) -> list[TrialPlan]:
    """Return the trials of a point, one for each seed."""
    return [planner.plan_trial({**searched, **repeat}) for repeat in seed_values(spec)]


def seed_values(spec: SweepSpec) -> list[dict[str, Any]]:
    """Return the overrides for the repetitions of a point, one for each seed."""
    seeds = spec.search.seeds
    return [{}] if seeds is None else [{"seed": seed} for seed in seeds]


def observe(
    folder: SweepFolder,
    searched: dict[str, Any],
    records: Sequence[TrialRecord],
    objectives: Sequence[str],
) -> Observation:
    """Return the observation of a point from its trials: means over seeds."""
    by_seed: dict[str, tuple[float, ...]] = {}
    for record in records:
        card = folder.read_scores(record.id) if record.state == "done" else None
        scores = add_aggregates(card, None).by_name() if card is not None else {}
        if all(name in scores for name in objectives):
            by_seed[str(record.settings["seed"])] = tuple(scores[name].value for name in objectives)
    if any(record.state == "stopped" for record in records):
        return Observation(searched, "stopped", None)
    if not by_seed:
        has_diverged = any(record.failure == "divergence" for record in records)
        return Observation(searched, "diverged" if has_diverged else "failed", None)
    columns = zip(*by_seed.values(), strict=True)
    means = tuple(statistics.fmean(column) for column in columns)
    return Observation(searched, "done", means, by_seed)


def _points(
    spec: SweepSpec, planner: Planner, folder: SweepFolder
) -> Iterator[tuple[dict[str, Any], list[TrialRecord]]]:
    """Yield the points of a folder that belong to the spec, with their trials."""
    if not folder.sweep_json.exists():
        return
    groups: dict[str, tuple[dict[str, Any], list[TrialRecord]]] = {}
    for record in folder.read_trials():
        searched = _searched_values(spec, record)
        if searched is None or record.state == "pending":
            continue
        repeat = {} if spec.search.seeds is None else {"seed": record.settings["seed"]}
        try:
            is_ours = planner.id_in(folder, {**searched, **repeat}) == record.id
        except InputError:
            is_ours = False
        if is_ours and (spec.search.seeds is None or repeat["seed"] in spec.search.seeds):
            groups.setdefault(point_key(searched), (searched, []))[1].append(record)
    yield from groups.values()


def _searched_values(spec: SweepSpec, record: TrialRecord) -> dict[str, Any] | None:
    """Return a trial's values of the spec's searched settings; None if it lacks one of them."""
    found: dict[str, Any] = {}
    for dotted in spec.search.space:
        if dotted in record.searched:
            found[dotted] = record.searched[dotted]
            continue
        value: Any = record.settings
        for key in dotted.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        found[dotted] = value
    return found


def _other_folders(spec: SweepSpec) -> list[SweepFolder]:
    folders = [SweepFolder(Path(path).expanduser()) for path in spec.search.warm_start]
    problems = [
        Problem(
            message=f"there is no sweep in {folder.root}",
            where="search.warm_start",
            fix="give the folders of other sweeps, each with a sweep.json",
        )
        for folder in folders
        if not folder.sweep_json.exists()
    ]
    if problems:
        raise InputError(problems)
    for folder in folders:
        check_records(folder)
    return folders
