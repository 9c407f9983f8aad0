"""Trial values in points, compared with simple means and least squares."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from orchestrator.statistics.trial_points import OVERALL, collect_trials
from tests.orchestrator.statistics.scores import SIX, make_rows

GROUPS = {"mc": (45.0, 55.0, 70.0), "chrf": (12.0,)}


def centred(values: np.ndarray) -> list[float]:
    return list(values - values.mean())


def test_benchmarks_and_groups_have_equal_weights() -> None:
    rows = make_rows(lambda at: 3 * at, plws=SIX, groups=GROUPS)
    trials = collect_trials(rows)
    assert trials.verdict_groups == ("overall", "mc", "chrf")
    assert len(trials.keys) == 18
    keys = [(plw, str(seed)) for plw in SIX for seed in range(3)]
    of_group = {
        group: np.array([
            100 * np.mean([row.score for row in rows
                           if (row.plw, row.seed, row.group) == (*key, group)])
            for key in keys
        ])
        for group in GROUPS
    }  # fmt: skip
    for group, expected in of_group.items():
        assert trials.group_values(group) == pytest.approx(centred(expected), abs=1e-9)
    overall = (of_group["mc"] + of_group["chrf"]) / 2
    assert trials.group_values(OVERALL) == pytest.approx(centred(overall), abs=1e-9)


def test_missing_benchmark_is_handled_as_in_least_squares() -> None:
    rows = make_rows(lambda at: 3 * at, plws=SIX, groups={"mc": GROUPS["mc"]})
    rng = np.random.default_rng(0)
    rows = [row for row in rows if rng.random() > 0.15]
    trials = collect_trials(rows)
    names = list(dict.fromkeys((row.plw, row.seed) for row in rows))
    terms = np.hstack([
        np.array([[(row.plw, row.seed) == name for name in names] for row in rows], dtype=float),
        np.array([[row.benchmark == f"mc{each}" for each in (1, 2)] for row in rows], dtype=float),
    ])  # fmt: skip
    model = sm.OLS(np.array([100 * row.score for row in rows]), terms).fit()
    found = trials.group_values("mc")
    assert found - found[0] == pytest.approx(model.params[: len(names)] - model.params[0], abs=1e-6)


def test_trial_without_a_group_has_no_overall_value() -> None:
    rows = make_rows(lambda at: 3 * at, plws=SIX, groups=GROUPS)
    partial = [
        row for row in rows if not (row.group == "chrf" and row.plw == 0 and row.seed == "0")
    ]
    trials = collect_trials(partial)
    assert np.isnan(trials.group_values(OVERALL)).tolist() == [True] + [False] * 17
    assert np.isnan(trials.group_values("chrf")).tolist() == [True] + [False] * 17
    assert not np.isnan(trials.group_values("mc")).any()
    assert trials.is_complete.sum() == 17


def test_cells_are_centred_separately() -> None:
    small = make_rows(lambda at: 3 * at, plws=SIX, model="small")
    large = [replace(row, score=row.score + 0.2, model="large") for row in small]
    trials = collect_trials(small + large)
    values = trials.group_values("multiple_choice")
    assert values[:18] == pytest.approx(values[18:])


def test_losses_keep_their_unit() -> None:
    rows = make_rows(lambda at: 3 * at, plws=SIX)
    shares = collect_trials(rows).values
    assert collect_trials(rows, shares=False).values == pytest.approx(shares / 100)


def test_learning_rates_are_terms_unless_confounded_with_the_weight() -> None:
    rows = make_rows(lambda at: 3 * at, plws=SIX)
    rates = (1e-5, 1e-4, 1e-3)
    crossed = collect_trials([replace(row, learning_rate=rates[int(row.seed)]) for row in rows])
    assert crossed.learning_rate.shape == (18, 2)
    assert crossed.learning_rate[:3, 0] == pytest.approx([-1, 0, 1])
    assert not crossed.is_confounded
    along = collect_trials([replace(row, learning_rate=1e-5 * (1 + row.w_p)) for row in rows])
    assert along.is_confounded
    assert along.learning_rate.shape == (18, 0)
    some = [replace(row, learning_rate=1e-5) if row.plw == 0 else row for row in rows]
    unknown = collect_trials(some)
    assert (unknown.learning_rate.shape, unknown.is_confounded) == ((18, 0), False)


def test_named_trials_are_identified_by_name() -> None:
    rows = [replace(row, trial=f"t{row.plw}-{row.seed}", seed="0") for row in
            make_rows(lambda at: 3 * at, plws=SIX)]  # fmt: skip
    assert len(collect_trials(rows).keys) == 18
