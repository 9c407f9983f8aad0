"""Answer a comparison of two models in a sentence for each measure that differs."""

from collections.abc import Iterator, Sequence

from orchestrator.analysis.comparison_rows import ComparisonRow

_SIGNIFICANCE = 0.05


def comparison_answers(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return which benchmarks differ significantly and by how much, then those that do not.

    A difference is significant if its p (Holm) is below 0.05 and its 95% interval excludes 0.
    """
    benchmarks = [row for row in rows if row.level == "benchmark"]
    answers = list(_differences(benchmarks))
    equal = [row.name for row in benchmarks if not _is_significant(row)]
    if equal:
        answers.append(f"No significant difference between A and B: {', '.join(equal)}.")
    return answers


def _differences(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    for row in rows:
        if not _is_significant(row):
            continue
        verdict = "better" if (row.difference > 0) == row.higher_is_better else "worse"
        low, high = sorted(abs(limit) for limit in (row.ci_low, row.ci_high) if limit is not None)
        yield (
            f"{row.name}: B is {verdict} than A by {abs(row.difference):.3f} "
            f"(95% interval {low:.3f} to {high:.3f})."
        )


def _is_significant(row: ComparisonRow) -> bool:
    if row.ci_low is None or row.ci_high is None:
        return False
    return row.p_holm < _SIGNIFICANCE and (row.ci_low > 0 or row.ci_high < 0)
