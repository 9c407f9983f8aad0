"""Contrasts and F tests, compared with statsmodels and scipy."""

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from orchestrator.statistics.estimates import Estimates, equal_noise, estimate_noise, t_quantile

Array = NDArray[np.float64]


def one_way(groups: list[Array]) -> Estimates:
    """Return the means of independent groups with unequal variances."""
    sizes = [len(group) for group in groups]
    y = np.concatenate(groups)
    group = np.repeat(np.arange(len(groups)), sizes)
    linear = np.array([(group == each) / sizes[each] for each in range(len(groups))])
    residual = y - (linear @ y)[group]
    share = 1 - 1 / np.array(sizes)[group]
    return estimate_noise(residual, share, group).estimates(linear, y)


def centring(size: int) -> Array:
    return np.eye(size) - 1 / size


def test_one_noise_group_equals_least_squares() -> None:
    rng = np.random.default_rng(1)
    terms = np.column_stack([np.ones(15), rng.standard_normal((15, 3))])
    y = terms @ [3.0, 1.0, -0.5, 0.2] + rng.standard_normal(15)
    model = sm.OLS(y, terms).fit()
    found = equal_noise(np.asarray(model.resid), 11.0).estimates(np.linalg.pinv(terms), y)
    rows = np.array([[0.0, 1, 0, 0], [0, 0, 1, -1], [0, 1, 1, -1]])
    values, errors, df = found.contrasts(rows)
    expected = model.t_test(rows)
    assert values == pytest.approx(expected.effect, rel=1e-9)
    assert errors == pytest.approx(expected.sd, rel=1e-9)
    assert df == pytest.approx([11, 11, 11])
    # The third row is the sum of the first two, so the test has two degrees of freedom.
    assert found.f_test(rows) == pytest.approx(float(model.f_test(rows[:2]).pvalue), rel=1e-9)
    assert found.f_test(rows[1:2]) == pytest.approx(float(expected.pvalue[1]), rel=1e-9)


def test_two_groups_with_unequal_noise_equal_welchs_t_test() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 1, 4), rng.normal(1, 2, 6)
    found = one_way([first, second])
    expected = stats.ttest_ind(second, first, equal_var=False)
    (value,), (error,), (df,) = found.contrasts(np.array([[-1.0, 1.0]]))
    interval = expected.confidence_interval(0.95)
    half = t_quantile(df, 0.975) * error
    assert value == pytest.approx(second.mean() - first.mean())
    assert (value - half, value + half) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert df == pytest.approx(float(expected.df))
    assert found.f_test(np.array([[-1.0, 1.0]])) == pytest.approx(float(expected.pvalue), rel=1e-9)


def literal_numerator_df(variances: Array, sizes: Array, *, unbiased: bool) -> float:
    """Return Mehrotra's numerator df of F*, by his formula; ours uses unbiased squares of
    variances.
    """
    shares = sizes / sizes.sum()
    squares = variances**2
    cross = (shares * variances).sum() ** 2
    weighted = ((1 - shares) * variances).sum() ** 2
    if unbiased:
        # E[s^4] = (1 + 2 / df) sigma^4
        excess = 2 / (sizes + 1)
        cross -= (excess * (shares * variances) ** 2).sum()
        weighted -= (excess * ((1 - shares) * variances) ** 2).sum()
        squares = squares * (1 - excess)
    whole = squares.sum() - 2 * (shares * squares).sum() + cross
    return float(min(max(weighted / whole, 1.0), len(variances) - 1))


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (3, 3, 3, 3, 3, 3), (4, 5, 6, 7)])
def test_unequal_noise_equals_brown_and_forsythe(
    sizes: tuple[int, ...],
) -> None:
    rng = np.random.default_rng(13)
    groups = [rng.normal(0.7 * each, 1 + 0.4 * each, size) for each, size in enumerate(sizes)]
    variances = np.array([group.var(ddof=1) for group in groups])
    assert variances.min() > 0.1 * variances.mean(), "no variance is raised to the least"
    expected = anova_oneway(groups, use_var="bf")
    counts = np.array(sizes, dtype=float)
    plain = literal_numerator_df(variances, counts, unbiased=False)
    assert plain == pytest.approx(expected.df[0]), "the formula is statsmodels'"
    ours = literal_numerator_df(variances, counts, unbiased=True)
    assert ours > plain
    p_value = stats.f.sf(expected.statistic, ours, expected.df[1])
    assert one_way(groups).f_test(centring(len(sizes))) == pytest.approx(p_value, rel=1e-8)


def test_numerator_df_in_large_groups_equals_mehrotras() -> None:
    rng = np.random.default_rng(6)
    groups = [rng.normal(0.05 * each, 1 + each, 400) for each in range(4)]
    expected = anova_oneway(groups, use_var="bf")
    assert 0.01 < expected.pvalue < 0.99
    assert one_way(groups).f_test(centring(4)) == pytest.approx(expected.pvalue, rel=0.01)


def test_equal_noise_keeps_a_p_value_near_the_classical_one() -> None:
    """With equal noise the numerator df is near 5; its biased form is not, with three seeds."""
    rng = np.random.default_rng(7)
    unbiased, plain = [], []
    for _ in range(200):
        variances = rng.chisquare(2, 6) / 2
        sizes = np.full(6, 3.0)
        unbiased.append(literal_numerator_df(variances, sizes, unbiased=True))
        plain.append(literal_numerator_df(variances, sizes, unbiased=False))
    assert np.median(plain) < 3.9
    assert np.median(unbiased) > 4.4


def test_f_star_has_about_its_nominal_size_with_unequal_noise() -> None:
    """6 groups of 3, one of which is 1, 3 or 5 times as noisy, at a nominal level of 5%.

    4,000 studies give 2.5, 6.1 and 8.0%; here 400 each.
    """
    rng = np.random.default_rng(8)
    for factor, least, most in ((1.0, 0.01, 0.05), (3.0, 0.03, 0.085), (5.0, 0.03, 0.1)):
        sds = np.array([factor, 1, 1, 1, 1, 1])
        p_values = [
            one_way(list(sds[:, None] * rng.standard_normal((6, 3)))).f_test(centring(6))
            for _ in range(400)
        ]
        assert least < np.mean(np.array(p_values) < 0.05) < most


def test_group_without_spread_gets_the_minimum_variance() -> None:
    found = one_way([np.array([1.0, 1.0]), np.array([0.0, 2.0]), np.array([3.0, 5.0])])
    # The mean variance is 4 / 3; the minimum is a tenth of it.
    _, errors, _ = found.contrasts(np.eye(3))
    assert errors**2 == pytest.approx([0.4 / 3 / 2, 1, 1])


def test_f_test_without_contrasts_has_p_value_1() -> None:
    found = one_way([np.array([1.0, 2.0]), np.array([3.0, 5.0])])
    assert found.f_test(np.zeros((1, 2))) == 1.0
    alike = one_way([np.array([1.0, 1.0]), np.array([1.0, 1.0])])
    assert alike.f_test(centring(2)) == 1.0


def test_shrunk_variance_is_the_df_weighted_mean_with_the_pooled_one() -> None:
    residual = np.array([1.0, -1, 0, 2, -2, 0])
    found = estimate_noise(residual, np.full(6, 2 / 3), np.repeat([0, 1], 3)).shrunk(3.0)
    # By group: 2 / 2 and 8 / 2 with two df each; pooled: 10 / 4.
    assert found.variance == pytest.approx([(2 * 1 + 3 * 2.5) / 5, (2 * 4 + 3 * 2.5) / 5])
    assert found.df == pytest.approx([5, 5])


def test_minimum_counted_df_is_four_thirds() -> None:
    found = estimate_noise(np.array([1.0, -1, 2, -2]), np.full(4, 0.5), np.repeat([0, 1], 2))
    assert found.variance == pytest.approx([2, 8])
    assert found.df == pytest.approx([4 / 3, 4 / 3])
    assert found.total_df == pytest.approx(2)


def test_single_trial_takes_the_pooled_variance() -> None:
    shares = np.array([2 / 3, 2 / 3, 2 / 3, 0.0])
    found = estimate_noise(np.array([1.0, -1, 0, 0]), shares, np.array([0, 0, 0, 1]))
    assert found.variance == pytest.approx([1, 1])
    assert found.df == pytest.approx([2, 2])
