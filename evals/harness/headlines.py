"""Scores of tasks and groups: one main score for each headline; all others are secondary."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from evals.config import Group
from evals.harness.loading import Headline, LoadedTasks
from evals.harness.planning import PlannedTask
from evals.harness.results import (
    CHOICE_OUTPUTS,
    MetricScore,
    TaskResult,
    score_name,
    task_result,
)
from evals.results.evaluation import EvaluationResult
from evals.results.scores import Score
from trainers.foundation.errors import InputError, Problem

_Z_95 = NormalDist().inv_cdf(0.975)


def tasks_result(
    loaded: LoadedTasks,
    results: Mapping[str, Any],
    planned: PlannedTask,
    *,
    signature: Mapping[str, Any],
) -> EvaluationResult:
    """Return the scores and samples of a planned task, from the output of lm-eval's `evaluate`.

    The first scores are those of the headlines, each of which counts once for its group of
    benchmarks. The secondary scores are further metrics, subgroups and the members of groups. All
    values are lm-eval's.

    Raises:
        InputError: no member of a group has the metric that the group aggregates.
    """
    parts = {
        name: task_result(
            loaded.tasks[name],
            results,
            main_metric=headline.metric,
            main_filter=headline.filter,
            seed=planned.seed,
        )
        for headline in loaded.headlines
        for name in headline.members
    }
    groups = {
        name: _group_scores(group, parts, results)
        for name, group in loaded.groups.items()
        if group.has_aggregation
    }
    mains = [_main_score(headline, parts, groups) for headline in loaded.headlines]
    everything = [
        *(score for scores in groups.values() for score in scores),
        *(score for part in parts.values() for score in part.scores),
    ]
    main_names = {main.score.name for main in mains}
    return EvaluationResult(
        scores=[
            main.score.model_copy(
                update={"group": planned.group or _benchmark_group(headline, parts, main.metric)}
            )
            for headline, main in zip(loaded.headlines, mains, strict=True)
        ],
        secondary=[one.score for one in everything if one.score.name not in main_names],
        samples=[sample for part in parts.values() for sample in part.samples],
        signature={
            "tasks": {name: {**part.signature, **signature} for name, part in parts.items()},
            **_groups_signature(loaded),
        },
    )


def _main_score(
    headline: Headline,
    parts: Mapping[str, TaskResult],
    groups: Mapping[str, Sequence[MetricScore]],
) -> MetricScore:
    if not headline.is_group:
        return parts[headline.name].scores[0]
    for one in groups[headline.name]:
        if one.metric == headline.metric and headline.filter in (None, one.filter):
            return one
    raise InputError(
        Problem(
            message=f"no task of group {headline.name} has the metric {headline.metric}",
            where="evals.tasks",
            fix="correct aggregate_metric_list in the group's file",
        )
    )


def _group_scores(
    group: Any, parts: Mapping[str, TaskResult], results: Mapping[str, Any]
) -> list[MetricScore]:
    """Return the aggregates of a group, as its authors define them.

    Items of different tasks are independent, so the variance of a weighted mean is the sum of the
    tasks' variances times their squared weights. A task whose items are all equal adds none.
    """
    names = [task.task_name for task in group.get_all_tasks()]
    found = []
    for aggregate in group.aggregate_metric_list:
        scores = [
            one for name in names for one in parts[name].scores if one.metric == aggregate.metric
        ]
        for filter in aggregate.filter_list or sorted({one.filter for one in scores}):
            members = [one.score for one in scores if one.filter == filter]
            value = results["results"][group.name].get(f"{aggregate.metric},{filter}")
            if members and value is not None:
                score = _aggregate(
                    score_name(group.name, aggregate.metric, filter),
                    float(value),
                    members,
                    weight_by_size=aggregate.weight_by_size,
                )
                found.append(MetricScore(metric=aggregate.metric, filter=filter, score=score))
    return found


def _aggregate(name: str, value: float, members: Sequence[Score], *, weight_by_size: bool) -> Score:
    sizes = [member.num_items if weight_by_size else 1 for member in members]
    has_error = any(member.standard_error is not None for member in members)
    error = math.hypot(
        *(
            size * (member.standard_error or 0.0)
            for size, member in zip(sizes, members, strict=True)
        )
    ) / sum(sizes)
    return Score(
        name=name,
        group=None,
        value=value,
        standard_error=error if has_error else None,
        ci_low=value - _Z_95 * error if has_error else None,
        ci_high=value + _Z_95 * error if has_error else None,
        num_items=sum(member.num_items for member in members),
        higher_is_better=members[0].higher_is_better,
        unit=members[0].unit,
        interval_method=f"propagated from the items of {len(members)} tasks",
    )


def _benchmark_group(
    headline: Headline, parts: Mapping[str, TaskResult], metric: str
) -> Group | None:
    """Return the group of benchmarks to which most members with the main metric belong."""
    kinds = [
        parts[name].kind
        for name in headline.members
        if any(one.metric == metric for one in parts[name].scores)
    ]
    most_common = Counter(kinds).most_common(1)[0][0]
    if most_common in CHOICE_OUTPUTS:
        return "multiple_choice"
    return "short_generation" if most_common == "generate_until" else None


def _groups_signature(loaded: LoadedTasks) -> dict[str, Any]:
    if not loaded.groups:
        return {}
    return {
        "groups": {
            name: {
                "version": group.version,
                "tasks": [task.task_name for task in group.get_all_tasks()],
                "weight_by_size": all(
                    one.weight_by_size for one in group.aggregate_metric_list or ()
                ),
            }
            for name, group in loaded.groups.items()
        }
    }
