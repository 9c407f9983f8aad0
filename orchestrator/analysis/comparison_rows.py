"""Rows of a comparison of two models: by benchmark, by group and by category."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from evals.results.paired import PairedItems, mcnemar_test, paired_bootstrap
from evals.results.paired_samples import Pair, PairedBenchmark, category_of, is_binary, paired_items
from evals.results.scores import Score
from orchestrator.statistics.aggregates import POINTS, points_conversion
from orchestrator.statistics.holm import holm

Level = Literal["benchmark", "group", "category"]


class ComparisonRow(BaseModel):
    """A score of both models on their common items; `difference` is B minus A, in `unit`.

    `ci_low` and `ci_high` are the 95% paired bootstrap interval, `p_value` its two-sided p-value
    and `p_holm` that value corrected for the number of rows of the same level. McNemar's test is
    given for items that are right or wrong: `num_only_a` are right in A alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level
    name: str
    benchmark: str | None
    unit: str
    higher_is_better: bool
    num_items: int
    a: float
    b: float
    difference: float
    ci_low: float | None
    ci_high: float | None
    p_value: float
    p_holm: float
    num_only_a: int | None = None
    num_only_b: int | None = None
    mcnemar_p_value: float | None = None


def comparison_rows(benchmarks: Sequence[PairedBenchmark], seed: int) -> list[ComparisonRow]:
    """Return a row for each benchmark, group and category, corrected within each level."""
    return [
        *_with_holm([_benchmark_row(one, seed) for one in benchmarks]),
        *_with_holm(list(_group_rows(benchmarks, seed))),
        *_with_holm(list(_category_rows(benchmarks, seed))),
    ]


def _benchmark_row(benchmark: PairedBenchmark, seed: int) -> ComparisonRow:
    parts = [paired_items(benchmark.score, pairs) for pairs in benchmark.pairs.values()]
    return _row(
        "benchmark",
        benchmark.score.name,
        benchmark.score,
        parts,
        weights=benchmark.weights,
        pairs=benchmark.all_pairs,
        seed=seed,
    )


def _category_rows(benchmarks: Sequence[PairedBenchmark], seed: int) -> Iterator[ComparisonRow]:
    """Yield a row for each category of a benchmark, or task of a group, if there are several."""
    for benchmark in benchmarks:
        categories: dict[str, list[Pair]] = defaultdict(list)
        for measure, pairs in benchmark.pairs.items():
            for pair in pairs:
                name = measure if len(benchmark.pairs) > 1 else category_of(pair[0])
                if name is not None:
                    categories[name].append(pair)
        if len(categories) > 1:
            for name, pairs in sorted(categories.items()):
                parts = [paired_items(benchmark.score, pairs)]
                yield _row("category", name, benchmark.score, parts, pairs=pairs, seed=seed)


def _row(
    level: Level,
    name: str,
    score: Score | None,
    parts: Sequence[PairedItems],
    *,
    weights: Sequence[float] | None = None,
    pairs: Sequence[Pair] = (),
    seed: int,
) -> ComparisonRow:
    """Return a row for `score`, or for a mean in points; McNemar's test is that of `pairs`."""
    found = paired_bootstrap(parts, weights=weights, seed=seed)
    mcnemar = None
    if pairs and is_binary(pairs):
        mcnemar = mcnemar_test([one["value"] == 1 for one, _ in pairs],
                               [other["value"] == 1 for _, other in pairs])  # fmt: skip
    return ComparisonRow(
        level=level,
        name=name,
        benchmark=score.name if score else None,
        unit=score.unit if score else POINTS,
        higher_is_better=score.higher_is_better if score else True,
        num_items=found.num_items,
        a=found.first,
        b=found.second,
        difference=found.difference,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        p_value=found.p_value,
        p_holm=found.p_value,
        num_only_a=mcnemar.num_only_first if mcnemar else None,
        num_only_b=mcnemar.num_only_second if mcnemar else None,
        mcnemar_p_value=mcnemar.p_value if mcnemar else None,
    )


def _group_rows(benchmarks: Sequence[PairedBenchmark], seed: int) -> Iterator[ComparisonRow]:
    """Yield the mean of each group's benchmarks in points, if the group has several."""
    groups: dict[str, list[PairedBenchmark]] = defaultdict(list)
    for benchmark in benchmarks:
        if benchmark.score.group is not None and points_conversion(benchmark.score) is not None:
            groups[benchmark.score.group].append(benchmark)
    for name, members in groups.items():
        if len(members) < 2:
            continue
        parts, weights = [], []
        for member in members:
            total = sum(member.weights)
            for (_, pairs), weight in zip(member.pairs.items(), member.weights, strict=True):
                parts.append(_in_points(paired_items(member.score, pairs), member))
                weights.append(weight / total)
        yield _row("group", name, None, parts, weights=weights, seed=seed)


def _in_points(items: PairedItems, benchmark: PairedBenchmark) -> PairedItems:
    convert = points_conversion(benchmark.score)
    assert convert is not None
    score = items.score
    return replace(items, score=lambda sums: convert(score(sums)))


def _with_holm(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    corrected = holm([row.p_value for row in rows])
    return [row.model_copy(update={"p_holm": p}) for row, p in zip(rows, corrected, strict=True)]
