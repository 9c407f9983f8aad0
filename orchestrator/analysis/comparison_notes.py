"""Notes of a comparison of two models: what its rows do not show."""

from collections.abc import Iterator, Sequence
from typing import get_args

from evals.results.paired import SMALLEST_P_VALUE
from evals.results.paired_samples import PairedBenchmark, ScoredModel
from orchestrator.analysis.comparison_rows import ComparisonRow, Level
from trainers.foundation.counts import format_count

_TWO_WEIGHTS = (
    "Two checkpoints are not two weights: the p-values concern these two models on other items. "
    "Another seed moves scores too; for the effect of the prompt loss weight, run several seeds "
    "of each and use plw report."
)
# Settings of scoring that change what a score means.
_SETTINGS = ("template", "template_sha256", "max_length", "seed", "device", "dtype")

_MIN_ITEMS = 30
_SIGNIFICANCE = 0.05


def comparison_notes(
    first: ScoredModel,
    second: ScoredModel,
    benchmarks: Sequence[PairedBenchmark],
    rows: Sequence[ComparisonRow],
) -> list[str]:
    """Return all notes, the most general one first."""
    return [_TWO_WEIGHTS, *_notes(first, second, benchmarks), *_row_notes(rows)]


def _notes(
    first: ScoredModel, second: ScoredModel, benchmarks: Sequence[PairedBenchmark]
) -> Iterator[str]:
    one, other = first.card.signature, second.card.signature
    settings = [name for name in _SETTINGS if one.get(name) != other.get(name)]
    if settings:
        yield (
            "The models were scored with different settings: "
            + ", ".join(f"{name} {one.get(name)} and {other.get(name)}" for name in settings)
        )
    tasks, others = one.get("tasks", {}), other.get("tasks", {})
    prompts = [
        name
        for name in tasks.keys() & others.keys()
        if tasks[name].get("prompts_sha256") != others[name].get("prompts_sha256")
    ]
    if prompts:
        yield f"The prompts differ in {', '.join(sorted(prompts))}"
    for benchmark in benchmarks:
        if benchmark.num_unpaired:
            yield (
                f"{benchmark.score.name}: {format_count(benchmark.num_unpaired, 'item')} left out: "
                "only one model answered, or the texts differ"
            )
    compared = {benchmark.score.name for benchmark in benchmarks}
    scores = (*first.card.scores, *second.card.scores)
    if missing := sorted({score.name for score in scores if score.group} - compared):
        yield f"Not compared, because the models have no common items: {', '.join(missing)}"


def _row_notes(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    """Yield where the intervals or p-values of rows say less than they seem to."""
    for level in get_args(Level):
        num_items = [row.num_items for row in rows if row.level == level]
        if num_few := sum(number < _MIN_ITEMS for number in num_items):
            yield (
                f"By {level}: {num_few} of {format_count(len(num_items), 'row')} "
                f"{'has' if num_few == 1 else 'have'} fewer than {_MIN_ITEMS} items, so "
                f"{'its interval is' if num_few == 1 else 'their intervals are'} too narrow"
            )
        smallest = len(num_items) * SMALLEST_P_VALUE
        if smallest > _SIGNIFICANCE:
            yield (
                f"By {level}: p (Holm) of the smallest p is at least {smallest:.2g}, because there "
                f"are {len(num_items)} rows and p is at least {SMALLEST_P_VALUE:.1g}"
            )
