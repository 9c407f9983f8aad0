"""Means, curves, noise and seed blocks, compared with dummy-variable fits and hand arithmetic."""

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from orchestrator.statistics.estimates import t_quantile
from orchestrator.statistics.weight_analysis import analyse_weights
from orchestrator.statistics.weight_effects import Effects
from tests.orchestrator.statistics.scores import (
    PLWS,
    SIX,
    analysed,
    columns,
    fitted,
    grid,
    make_rows,
    rows_at,
    w_p,
)

Array = NDArray[np.float64]

BY_HAND = grid([[1.0, 2, 6], [2, 5, 5], [6, 8, 7]], (0.0, 0.1, 1.0))


def dummies(labels: list[object]) -> Array:
    names = list(dict.fromkeys(labels))
    return np.array([[label == name for name in names] for label in labels], dtype=float)


def simulate_points(num_seeds: int = 4, *, missing: tuple[int, ...] = (), seed: int = 0) -> dict:
    """Return points of six weights by PLW and seed, without the trials numbered in `missing`."""
    rng = np.random.default_rng(seed)
    values = np.array([3 * w_p(plw) for plw in SIX])[:, None] + rng.standard_normal((6, num_seeds))
    points = grid((values + 2 * rng.standard_normal(num_seeds)).tolist(), SIX)
    return {key: own for number, (key, own) in enumerate(points.items()) if number not in missing}


def by_least_squares(points: dict, contrasts: Array, more: Array | None = None):
    """Return statsmodels' t test of contrasts of the weights' means, with seed dummies."""
    plw, seeds, y = columns(points)
    terms = [dummies(plw.tolist()), dummies(list(seeds))[:, 1:]]
    terms += [more] if more is not None else []
    model = sm.OLS(y, np.hstack(terms)).fit()
    rest = np.zeros((len(contrasts), model.params.size - contrasts.shape[1]))
    return model, model.t_test(np.hstack([contrasts, rest]))


def differences_from_first(size: int) -> Array:
    """Return (size - 1, size): each mean minus the first."""
    return np.eye(size)[1:] - np.eye(size)[0]


def get_means(effects: Effects, rows: Array) -> Array:
    assert effects.means is not None
    return effects.means.contrasts(rows)[0]


@pytest.mark.parametrize("missing", [(), (0, 7, 13), (3, 4, 5, 20)])
def test_differences_within_seeds_equal_least_squares_with_seed_dummies(
    missing: tuple[int, ...],
) -> None:
    points = simulate_points(missing=missing)
    _, effects = fitted(rows_at(points))
    assert effects.is_blocked
    model, expected = by_least_squares(points, differences_from_first(6))
    assert get_means(effects, differences_from_first(6)) == pytest.approx(expected.effect, abs=1e-9)
    assert effects.total_df == pytest.approx(model.df_resid)
    assert effects.residual == pytest.approx(np.asarray(model.resid), abs=1e-9)
    hat = model.get_influence().hat_matrix_diag
    assert effects.share == pytest.approx(1 - hat, abs=1e-9)


def test_f_test_with_equal_variances_equals_least_squares() -> None:
    """Three noise groups with equal variances act as one: balanced blocks, equal residuals."""
    values = np.array([[0.0, 1, 2], [3, 1, 2], [1, 5, 9]])
    residual = np.array([[1.0, 0, -1], [0, -1, 1], [-1, 1, 0]])
    points = grid((values.mean(axis=1)[:, None] + residual).tolist(), (0.0, 0.1, 1.0))
    _, effects = fitted(rows_at(points))
    assert effects.means is not None
    assert effects.noise is not None
    assert effects.noise.variance == pytest.approx([1.5, 1.5, 1.5])
    model, expected = by_least_squares(points, differences_from_first(3))
    values, errors, df = effects.means.contrasts(differences_from_first(3))
    assert values == pytest.approx(expected.effect)
    assert errors == pytest.approx(expected.sd)
    # Two of three variances with 4 / 3 df each: Satterthwaite gives 8 / 3, not the pooled 4.
    assert df == pytest.approx([8 / 3, 8 / 3])
    statistic = float(model.f_test(np.hstack([differences_from_first(3), np.zeros((2, 2))])).fvalue)
    # With equal variances F* is F; its numerator df, by unbiased squares, is at most the rank.
    assert effects.means.f_test(differences_from_first(3)) == pytest.approx(
        stats.f.sf(statistic, 2, 4), rel=1e-6
    )


def test_variance_of_each_weight_equals_hand_arithmetic() -> None:
    # Row means 3, 4, 7, column means 3, 5, 6, mean 14 / 3: residuals in thirds.
    residual = np.array([[-1, -4, 5], [-1, 2, -1], [2, 2, -4]]) / 3
    # Each trial has (1 - 1/3) (1 - 1/3) = 4 / 9 of the 4 residual df, so a weight has 4 / 3.
    _, effects = fitted(rows_at(BY_HAND))
    assert effects.noise is not None
    assert effects.residual == pytest.approx(residual.ravel())
    assert effects.noise.df == pytest.approx([4 / 3] * 3)
    assert effects.noise.variance == pytest.approx([42 / 9 * 3 / 4, 6 / 9 * 3 / 4, 24 / 9 * 3 / 4])
    assert effects.noise.pooled == pytest.approx(72 / 9 / 4)


def test_seed_level_is_its_common_effect() -> None:
    trials, effects = fitted(rows_at(BY_HAND))
    assert [(seed, round(level, 9)) for _, seed, level in effects.seed_levels] == [
        ("0", round(3 - 14 / 3, 9)),
        ("1", round(5 - 14 / 3, 9)),
        ("2", round(6 - 14 / 3, 9)),
    ]
    assert {trials.cells[cell] for cell, _, _ in effects.seed_levels} == {("", "", "")}


def test_missing_best_weight_does_not_lower_the_seed_level() -> None:
    points = grid([[0.0, 1, 2], [0, 1, 2], [0, 1, 2], [30, 31, 32]], (0.0, 0.1, 0.5, 1.0))
    del points[1.0, "0"]
    del points[0.0, "2"]
    _, effects = fitted(rows_at(points))
    levels = {seed: level for _, seed, level in effects.seed_levels}
    assert levels["1"] - levels["0"] == pytest.approx(1)
    assert levels["2"] - levels["1"] == pytest.approx(1)


def test_two_weights_with_shared_seeds_equal_the_paired_t_test() -> None:
    rng = np.random.default_rng(4)
    low, high = rng.normal(0, 1, 4), rng.normal(1.5, 1, 4)
    seeds = rng.normal(0, 3, 4)
    points = grid([(low + seeds).tolist(), (high + seeds).tolist()], (0.0, 1.0))
    found = analysed(rows_at(points))
    expected = stats.ttest_rel(high, low)
    interval = expected.confidence_interval(0.95)
    assert found.means is not None
    assert found.pairs is not None
    assert found.p_value == pytest.approx(float(expected.pvalue), rel=1e-6)
    for estimates in (found.means, found.pairs):
        (value,), (error,), (df,) = estimates.contrasts(np.array([[-1.0, 1.0]]))
        half = t_quantile(df, 0.975) * error
        assert value == pytest.approx((high - low).mean())
        assert df == pytest.approx(3)
        assert (value - half, value + half) == pytest.approx((interval.low, interval.high))


def test_two_weights_with_different_seeds_equal_welchs_t_test() -> None:
    rng = np.random.default_rng(4)
    low, high = rng.normal(0, 1, 4), rng.normal(1.5, 2, 5)
    points = {(0.0, f"a{number}"): float(value) for number, value in enumerate(low)}
    points |= {(1.0, f"b{number}"): float(value) for number, value in enumerate(high)}
    _, effects = fitted(rows_at(points))
    assert not effects.is_blocked
    found = analysed(rows_at(points))
    expected = stats.ttest_ind(high, low, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.means is not None
    assert found.p_value == pytest.approx(float(expected.pvalue), rel=1e-6)
    (value,), (error,), (df,) = found.means.contrasts(np.array([[-1.0, 1.0]]))
    half = t_quantile(df, 0.975) * error
    assert (value - half, value + half) == pytest.approx((interval.low, interval.high))


def test_pairs_are_compared_with_shrunk_variances() -> None:
    """With a prior of 2 df: (df s^2 + 2 pooled) / (df + 2), unlike in Welch's test."""
    values = [np.array([0.0, 2, 4]), np.array([5.0, 6, 7]), np.array([1.0, 1, 4])]
    points = {
        (plw, f"{plw}-{number}"): float(value)
        for plw, own in zip((0.0, 0.1, 1.0), values, strict=True)
        for number, value in enumerate(own)
    }
    _, effects = fitted(rows_at(points))
    assert effects.pairs is not None
    # Variances 4, 1, 3 with 2 df each, together 8 / 3.
    shrunk = (np.array([4, 1, 3.0]) * 2 + 2 * 8 / 3) / 4
    _, errors, df = effects.pairs.contrasts(differences_from_first(3))
    assert errors == pytest.approx(np.sqrt((shrunk[0] + shrunk[1:]) / 3))
    parts = shrunk / 3
    expected = (parts[0] + parts[1:]) ** 2 / (parts[0] ** 2 / 4 + parts[1:] ** 2 / 4)
    assert df == pytest.approx(np.minimum(expected, 6))


def test_curve_without_repeated_weights_equals_least_squares() -> None:
    rng = np.random.default_rng(0)
    points = {
        (plw, "0"): -5 * (w_p(plw) - 0.6) ** 2 + 0.3 * rng.standard_normal()
        for plw in (*PLWS, 0.002, 0.8)
    }
    plw, _, y = columns(points)
    at = np.array([w_p(each) for each in plw])
    model = sm.OLS(y, np.column_stack([at, at**2, np.ones_like(at)])).fit()
    found = analysed(rows_at(points))
    assert (found.method, found.lack_of_fit) == ("assumed curve", None)
    assert found.curve is not None
    rows = np.array([[1.0, 0], [0, 1], [1, 1.2]])
    values, errors, df = found.curve.contrasts(rows)
    expected = model.t_test(np.hstack([rows, np.zeros((3, 1))]))
    assert values == pytest.approx(expected.effect, rel=1e-6)
    assert errors == pytest.approx(expected.sd, rel=1e-6)
    assert df == pytest.approx([6, 6, 6])
    both = model.f_test(np.eye(3)[:2])
    assert found.p_value == pytest.approx(float(both.pvalue), rel=1e-6)


def test_curve_of_repeated_weights_equals_least_squares_within_seeds() -> None:
    points = simulate_points(missing=(2, 9))
    plw, seeds, y = columns(points)
    at = np.array([w_p(each) for each in plw])
    model = sm.OLS(y, np.hstack([at[:, None], at[:, None] ** 2, dummies(list(seeds))])).fit()
    found = analysed(rows_at(points))
    assert found.curve is not None
    assert found.curve.values == pytest.approx(model.params[:2], rel=1e-6)
    # A sandwich estimate with each weight's variance, unlike the pooled one.
    _, effects = fitted(rows_at(points))
    assert effects.noise is not None
    inverse = np.linalg.pinv(model.model.exog)[:2]
    variances = effects.noise.variance[effects.trial_setting]
    assert found.curve.covariance == pytest.approx((inverse * variances) @ inverse.T, rel=1e-6)


def test_learning_rates_and_cells_equal_least_squares_terms() -> None:
    rng = np.random.default_rng(3)
    rows, y, plw, block, log_rate = [], [], [], [], []
    for model in ("small", "large"):
        for seed in range(3):
            for each in SIX:
                rate = float(rng.choice([1e-5, 3e-5, 1e-4]))
                points = 4 * w_p(each) + np.log10(rate) ** 2 + rng.standard_normal() + seed
                points += 7 if model == "large" else 0
                rows += rows_at({(each, str(seed)): points}, level=20, model=model,
                                learning_rate=rate)  # fmt: skip
                y.append(points)
                plw.append((model, each))
                block.append((model, seed))
                log_rate.append(np.log10(rate))
    trials, effects = fitted(rows)
    assert effects.is_blocked
    logs = np.array(log_rate) - np.mean(log_rate)
    terms = np.hstack([dummies(list(plw)), dummies(list(block))[:, [1, 2, 4, 5]],
                       logs[:, None], logs[:, None] ** 2])  # fmt: skip
    model_fit = sm.OLS(np.array(y), terms).fit()
    # Trials of a weight at one rate count as one point. The fit has two levels of models, two terms
    # of rates, and five contrasts of weights in each model.
    points = {(*own, at) for own, at in zip(plw, log_rate, strict=True)}
    assert len(points) == 27
    assert effects.total_df == 27 - 2 - 2 - 2 * 5
    found = {
        (trials.cells[cell][0], at): value
        for (cell, at), value in zip(effects.settings, effects.means.values, strict=True)
    }
    for model in ("small", "large"):
        for each in SIX[1:]:
            index, first = plw.index((model, each)), plw.index((model, 0.0))
            names = list(dict.fromkeys(plw))
            expected = (
                model_fit.params[names.index(plw[index])]
                - model_fit.params[names.index(plw[first])]
            )
            mine = found[model, w_p(each)] - found[model, 0.0]
            assert mine == pytest.approx(expected, abs=1e-8)


def test_mean_over_cells_is_unweighted() -> None:
    small = grid([[0.0, 0.2, 0.4], [1, 1.2, 1.1], [2, 2.4, 2.2]], (0.0, 0.1, 1.0))
    large = grid([[0.0, 0.1, 0.2], [5, 5.2, 5.1], [4, 4.4, 4.2]], (0.0, 0.1, 1.0))
    del large[1.0, "2"]
    rows = rows_at(small, model="small") + rows_at(large, model="large")
    trials, effects = fitted(rows)
    mean, *each = analyse_weights(effects, trials, "g")
    assert [one.cell[0] for one in each if one.cell] == ["large", "small"]
    own = [one.means.contrasts(differences_from_first(3))[0] for one in each if one.means]
    assert mean.means is not None
    assert mean.means.contrasts(differences_from_first(3))[0] == pytest.approx(
        (own[0] + own[1]) / 2
    )


def test_blocks_depend_on_the_design_and_not_on_scores() -> None:
    rng = np.random.default_rng(0)
    for missing in ((), (1, 2, 3, 8, 9, 10, 15, 16, 17), tuple(range(6, 18))):
        points = simulate_points(3, missing=missing)
        choices = set()
        for scale in (0.01, 1.0, 10.0):
            values = scale * rng.permutation(list(points.values()))
            rows = rows_at(dict(zip(points, values.tolist(), strict=True)))
            choices.add(fitted(rows)[1].is_blocked)
        assert len(choices) == 1, missing


def test_seeds_at_few_weights_are_not_blocks() -> None:
    assert fitted(rows_at(simulate_points(3)))[1].is_blocked
    own = {(plw, f"{plw}-{seed}"): value for (plw, seed), value in simulate_points(3).items()}
    assert not fitted(rows_at(own))[1].is_blocked
    assert not fitted(rows_at(simulate_points(1)))[1].is_blocked


def test_order_of_rows_does_not_matter() -> None:
    rows = make_rows(lambda at: 3 * at, plws=SIX, seed_sd=1.0)
    order = np.random.default_rng(1).permutation(len(rows))
    first, second = analysed(rows), analysed([rows[each] for each in order])
    assert first.p_value == pytest.approx(second.p_value, rel=1e-6)
    assert first.optimum == pytest.approx(second.optimum, rel=1e-6)
