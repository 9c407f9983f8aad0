import math

import pytest

from evals.config import Group
from evals.results.scores import Score, ScoreCard
from orchestrator.statistics.aggregates import add_aggregates, is_aggregate


def score(
    name: str,
    value: float,
    *,
    group: Group | None = "multiple_choice",
    error: float | None = 0.05,
    unit: str = "share of items",
    higher_is_better: bool = True,
    items: int = 100,
    interval: tuple[float, float] | None = None,
) -> Score:
    low, high = interval or (None, None)
    return Score(
        name=name, group=group, value=value, standard_error=error, ci_low=low, ci_high=high,
        num_items=items, higher_is_better=higher_is_better, unit=unit, interval_method="",
    )  # fmt: skip


def card(*scores: Score) -> ScoreCard:
    return ScoreCard(model_path="m", scores=list(scores), signature={}, seconds=1.0)


def aggregates(scores: ScoreCard, untuned: ScoreCard | None = None) -> dict[str, Score]:
    return {s.name: s for s in add_aggregates(scores, untuned).scores if is_aggregate(s)}


def test_group_aggregate_is_the_mean_of_its_benchmarks_in_points() -> None:
    found = aggregates(
        card(
            score("arc", 0.4, error=0.03),
            score("piqa", 0.8, error=0.04),
            score("chrf", 30.0, group="long_generation", unit="chrF", error=2.0),
        )
    )
    assert list(found) == ["aggregate_multiple_choice", "aggregate_long_generation"]
    choice = found["aggregate_multiple_choice"]
    assert choice.value == pytest.approx(60)
    # Errors of 3 and 4 points make 5; the mean has half of that.
    assert choice.standard_error == pytest.approx(2.5)
    assert (choice.ci_low, choice.ci_high) == pytest.approx((60 - 4.9, 60 + 4.9), abs=0.01)
    assert (choice.num_items, choice.unit, choice.group) == (200, "points", None)
    assert choice.interval_method == "propagated from the items of 2 benchmarks"
    long = found["aggregate_long_generation"]
    assert (long.value, long.standard_error) == (30.0, 2.0)


@pytest.mark.parametrize(
    ("ter", "points", "slope"), [(0.0, 100, 1), (100.0, 50, 0.25), (300.0, 25, 1 / 16)]
)
def test_ter_is_converted_to_points_between_0_and_100(
    ter: float, points: float, slope: float
) -> None:
    scores = score(
        "wmt", ter, group="short_generation", unit="TER", higher_is_better=False, error=8.0
    )
    found = aggregates(card(scores))["aggregate_short_generation"]
    assert found.value == pytest.approx(points)
    assert found.standard_error == pytest.approx(8 * slope)
    assert found.higher_is_better


def test_error_rate_is_reversed() -> None:
    found = aggregates(card(score("errors", 0.1, higher_is_better=False)))
    assert found["aggregate_multiple_choice"].value == pytest.approx(90)


def test_losses_and_unknown_units_are_not_aggregated() -> None:
    scores = card(
        score("heldout_completion_loss", 2.0, group=None, unit="nats per token"),
        score("training_bleu", 20.0, group=None, unit="BLEU"),
        score("perplexity", 12.0, unit="perplexity", higher_is_better=False),
    )
    assert aggregates(scores, scores) == {}


def test_relative_aggregate_is_the_mean_log_odds_minus_untuned() -> None:
    untuned = card(score("arc", 0.5, items=10**9), score("piqa", 0.5, items=10**9))
    scores = card(score("arc", 0.75, items=10**9), score("piqa", 0.5, items=10**9))
    found = aggregates(scores, untuned)["aggregate_relative"]
    # Odds of 3 to 1 on one of two benchmarks.
    assert found.value == pytest.approx(math.log(3) / 2)
    # 0.05 / (p (1 - p)) each: 4/15, then three times 1/5.
    error = math.sqrt((0.05 / 0.1875) ** 2 + 3 * 0.2**2) / 2
    assert found.standard_error == pytest.approx(error)
    assert found.unit == "log odds above the untuned model's"
    assert aggregates(untuned, untuned)["aggregate_relative"].value == 0


def test_untuned_score_of_0_gives_a_finite_relative_aggregate() -> None:
    untuned = card(score("exact", 0.0, error=None, interval=(0.0, 0.037)))
    scores = card(score("exact", 0.3))
    found = aggregates(scores, untuned)["aggregate_relative"]
    assert found.value == pytest.approx(math.log(30.5 / 70.5) - math.log(0.5 / 100.5))
    # From Wilson's interval: a hundred zeros have no variance.
    assert found.standard_error == pytest.approx(1.92, abs=0.1)


def test_difference_of_two_trials_does_not_depend_on_the_untuned_model() -> None:
    one = card(score("arc", 0.6), score("ter", 80.0, unit="TER", higher_is_better=False))
    other = card(score("arc", 0.5), score("ter", 120.0, unit="TER", higher_is_better=False))
    differences = []
    for arc, ter in ((0.25, 140.0), (0.9, 60.0)):
        untuned = card(score("arc", arc), score("ter", ter, unit="TER", higher_is_better=False))
        values = [
            aggregates(scores, untuned)["aggregate_relative"].value for scores in (one, other)
        ]
        differences.append(values[0] - values[1])
    assert differences[0] == pytest.approx(differences[1])
    assert differences[0] > 0


def test_missing_benchmark_gives_no_relative_aggregate() -> None:
    untuned = card(score("arc", 0.5), score("piqa", 0.5))
    assert "aggregate_relative" not in aggregates(card(score("arc", 0.6)), untuned)
    assert "aggregate_relative" not in aggregates(card(score("arc", 0.6)))


def test_missing_error_gives_an_unknown_aggregate_error() -> None:
    found = aggregates(card(score("arc", 0.4), score("piqa", 0.8, error=None)))
    choice = found["aggregate_multiple_choice"]
    assert choice.value == pytest.approx(60)
    assert (choice.standard_error, choice.ci_low, choice.ci_high) == (None, None, None)
