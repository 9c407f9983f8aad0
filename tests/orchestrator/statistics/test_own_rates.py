"""Weights that were tried at learning rates of their own, as in a search over both."""

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import statsmodels.api as sm

from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.conclusions_markdown import headline
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.statistics.scores import hill, make_rows

PLWS = (0.0, 5e-4, 2e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
# Log rates without a trend over the weights.
LOG_RATES = (-4.1, -3.2, -4.8, -3.6, -4.4, -3.1, -4.9, -3.9, -4.6, -3.4)
# A sweep of SmolLM2-135M-Instruct on 48 records: tpe over both, three seeds; held-out losses.
SEARCHED = {
    (0.0, 7.077e-05): (1.3529, 1.3136, 1.3113),
    (1.0, 1.038e-04): (1.5365, 1.5922, 1.5310),
    (0.1363, 1.038e-04): (1.4405, 1.3589, 1.3331),
    (0.1861, 7.013e-05): (1.3937, 1.3811),
    (0.05767, 8.85e-05): (1.3821, 1.3314, 1.3216),
    (1.11e-04, 2.536e-05): (1.4893, 1.5236, 1.4862),
}


def searched_rows() -> list[ScoreRow]:
    return [
        ScoreRow(
            benchmark="heldout_completion_loss", group="scores", plw=plw, learning_rate=rate,
            seed=str(seed), score=loss,
        )
        for (plw, rate), losses in SEARCHED.items()
        for seed, loss in enumerate(losses)
    ]  # fmt: skip


def with_own_rates(rows: list[ScoreRow], level: Callable[[float], float]) -> list[ScoreRow]:
    """Return rows with a rate for each weight, whose level in points depends on the log rate."""
    logs = dict(zip(PLWS, LOG_RATES, strict=True))
    return [
        replace(
            row, learning_rate=10 ** logs[row.plw], score=row.score + level(logs[row.plw]) / 100
        )
        for row in rows
    ]


def test_the_test_is_that_of_statsmodels_on_the_means_over_seeds() -> None:
    rows = with_own_rates(
        make_rows(hill, plws=PLWS, seeds=2, seed_sd=1.0), lambda log: -3 * (log + 4) ** 2
    )
    found = draw_conclusions(rows).lead
    means = [100 * fmean(row.score for row in rows if row.plw == plw) for plw in PLWS]
    w_p = np.array(PLWS) ** 0.30103
    logs = np.array(LOG_RATES) - np.mean(LOG_RATES)
    model = sm.OLS(means, np.column_stack([np.ones(10), w_p, w_p**2, logs, logs**2])).fit()
    assert model.df_resid == 5
    assert found.p_value == pytest.approx(float(model.f_test(np.eye(5)[1:3]).pvalue), rel=1e-6)
    assert found.method == "assumed curve"
    best = (-model.params[1] / model.params[2] / 2) ** (1 / 0.30103)
    assert found.best_plw == pytest.approx(best, rel=1e-6)


def test_one_trial_of_each_point_has_the_same_test() -> None:
    rows = with_own_rates(make_rows(hill, plws=PLWS, seeds=1), lambda log: -3 * (log + 4) ** 2)
    means = [100 * fmean(row.score for row in rows if row.plw == plw) for plw in PLWS]
    w_p, logs = np.array(PLWS) ** 0.30103, np.array(LOG_RATES) + 4
    model = sm.OLS(means, np.column_stack([np.ones(10), w_p, w_p**2, logs, logs**2])).fit()
    found = draw_conclusions(rows).lead
    assert found.p_value == pytest.approx(float(model.f_test(np.eye(5)[1:3]).pvalue), rel=1e-6)


def test_repeated_weights_are_tested_on_the_means_of_points() -> None:
    """Five weights at three rates each, with two seeds: the seeds share the misfit of the rates."""
    plws = [plw for plw in (0.0, 0.01, 0.1, 0.3, 1.0) for _ in range(3)]
    rng = np.random.default_rng(5)
    logs = rng.uniform(-5, -3, 15)
    rows, means = [], []
    for plw, log in zip(plws, logs, strict=True):
        scores = 50 + 4 * plw - 5 * abs(log + 4) + 0.3 * rng.standard_normal(2) + [0.0, 2.0]
        means.append(scores.mean())
        rows += [
            ScoreRow(benchmark="b", plw=plw, learning_rate=10**log, seed=str(seed),
                     score=float(score) / 100, trial=f"{plw}-{log}-{seed}")
            for seed, score in enumerate(scores)
        ]  # fmt: skip
    weights = np.array(plws)[:, None] == np.unique(plws)
    rates = np.column_stack([logs - logs.mean(), (logs - logs.mean()) ** 2])
    model = sm.OLS(means, np.column_stack([weights, rates])).fit()
    contrasts = np.column_stack([np.eye(4), -np.ones(4), np.zeros((4, 2))])
    found = draw_conclusions(rows)
    assert found.lead.p_value == pytest.approx(float(model.f_test(contrasts).pvalue), rel=1e-6)
    assert "the verdicts adjust for the learning rate" in found.notes[0]


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ({(0.0, 1e-4): 0.5, (1.0, 2e-4): 0.6}, "the learning rate changed along with PLW"),
        (
            {(0.0, 1e-4): 0.5, (1.0, 2e-4): 0.6, (0.0, 3e-4): 0.5, (1.0, 5e-5): 0.7},
            "weights were tried at different learning rates, and these points leave 0",
        ),
    ],
)
def test_two_weights_at_rates_of_their_own_are_not_told_to_add_seeds(
    points: dict[tuple[float, float], float], text: str
) -> None:
    rows = [
        ScoreRow(benchmark="b", plw=plw, learning_rate=rate, seed=str(seed), trial=f"{rate}{seed}",
                 score=score + seed / 100)
        for (plw, rate), score in points.items()
        for seed in range(3)
    ]  # fmt: skip
    assert text in draw_conclusions(rows).lead.text


def test_points_that_are_too_few_give_no_verdict_but_trials_that_can() -> None:
    """An earlier version named 0.1363 with a gain over 0, whose loss is lower in each seed."""
    found = draw_conclusions(searched_rows(), shares=False, higher_is_better=False, margin=0.01)
    assert found.lead.kind == "cannot say"
    assert found.lead.gain is None
    assert found.lead.text.startswith(
        "cannot say: weights were tried at different learning rates, and these points leave 1 "
        "residual degree of freedom to separate the two, 3 needed"
    )
    plws = sorted({plw for plw, _ in SEARCHED})
    assert [(run.plw, run.seed) for run in found.next_runs] == [
        (plw, seed) for seed in (3, 4, 5) for plw in plws
    ]
    assert {run.learning_rate for run in found.next_runs} == {8.85e-05}
    assert headline(found).endswith(
        "Run these 18 trials next at learning rate 8.85e-05: PLW 0, 0.000111, 0.05767, 0.1363, "
        "0.1861 and 1 with seeds 3, 4 and 5."
    )
    rng = np.random.default_rng(0)
    more = [
        ScoreRow(
            benchmark="heldout_completion_loss", group="scores", plw=run.plw,
            learning_rate=run.learning_rate, seed=str(run.seed),
            score=1.3 + 0.3 * run.plw + 0.02 * rng.standard_normal(),
        )
        for run in found.next_runs
    ]  # fmt: skip
    table = [*searched_rows(), *more]
    after = draw_conclusions(table, shares=False, higher_is_better=False, margin=0.01)
    assert after.lead.method != "assumed curve"
    assert after.lead.kind in ("falls", "tied", "best")
    assert not any("assume a parabola" in note for note in after.notes)


def test_a_rate_that_changed_along_with_the_weight_gives_no_verdict() -> None:
    rows = [replace(row, learning_rate=1e-5 * 10 ** (2 * row.w_p)) for row in make_rows(hill)]
    found = draw_conclusions(rows)
    assert found.lead.kind == "cannot say"
    assert "the learning rate changed along with PLW" in found.lead.text
    assert found.follow_up is not None
    assert found.follow_up.reason == "all weights at one rate"
    assert len(found.next_runs) == 3 * len({row.plw for row in rows})


def test_rates_without_a_trend_over_repeated_weights_are_only_adjusted_for() -> None:
    """Each weight at several rates of a random search: its mean is known beside the rates."""
    rng = np.random.default_rng(1)
    rows = [
        replace(row, learning_rate=10 ** rng.uniform(-5, -3), trial=f"{row.plw}-{row.seed}")
        for row in make_rows(hill, seeds=4)
    ]
    found = draw_conclusions(rows)
    assert found.lead.method in ("curve", "means")
    assert not any("assume a parabola" in note for note in found.notes)


def test_a_second_seed_with_equal_scores_adds_no_certainty() -> None:
    groups = {"a": (40.0,), "b": (60.0,)}
    curves = {"a": lambda at: 2 * at, "b": lambda at: -2 * at}
    once = with_own_rates(
        make_rows(curves, plws=PLWS, seeds=1, groups=groups, trial_sd=0.8), lambda log: -abs(log)
    )
    twice = [*once, *(replace(row, seed="1") for row in once)]
    first, second = draw_conclusions(once), draw_conclusions(twice)
    assert first.lead.p_value == pytest.approx(second.lead.p_value)
    probabilities = [point.probability for point in first.front]
    assert [point.probability for point in second.front] == pytest.approx(probabilities, abs=0.01)
    assert any(0.02 < one < 0.98 for one in probabilities)
