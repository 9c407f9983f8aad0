"""The published study: conclusions compared with plain least squares on mean points."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.table import read_scores

TABLE = Path("docs/studies/python-docs/scores.csv")
SHORT = ("", "python-docs-short", "")


@pytest.fixture(scope="module")
def trials() -> pd.DataFrame:
    """Return mean points of each trial: benchmarks equal within groups, and groups equal."""
    table = pd.read_csv(TABLE)
    keys = ["data_set", "plw", "seed"]
    of_groups = table.groupby([*keys, "group"]).score.mean()
    found = (100 * of_groups.groupby(keys).mean()).rename("points").reset_index()
    found["w"] = found.plw**0.30103
    found["block"] = found.data_set + found.seed.astype(str)
    return found


def test_overall_means_equal_least_squares_with_seeds_as_blocks(
    trials: pd.DataFrame,
) -> None:
    found = draw_conclusions(read_scores(TABLE))
    fit = smf.ols("points ~ C(plw) + C(block)", trials).fit()
    above_zero = {0.0: 0.0} | {
        plw: float(fit.params[f"C(plw)[T.{plw}]"]) for plw in (0.01, 0.05, 0.242, 0.5, 1.0)
    }
    front = {point.plw: np.mean(list(point.points.values())) for point in found.front}
    quadratic = smf.ols("points ~ w + I(w**2) + C(block)", trials).fit()
    slope, curvature = quadratic.params["w"], quadratic.params["I(w ** 2)"]
    assert found.lead.best_plw == pytest.approx((-slope / 2 / curvature) ** (1 / 0.30103), rel=1e-6)
    for plw, points in front.items():
        at = plw**0.30103
        assert points == pytest.approx(slope * at + curvature * at**2, abs=1e-9)
    # The curve fits (p = 0.28), so it is within half a point of the means.
    assert found.lead.method == "curve"
    assert max(abs(front[plw] - above_zero[plw]) for plw in front) < 0.5


def test_gain_of_short_completions_agrees_with_their_means(trials: pd.DataFrame) -> None:
    """The gain was first published as 3.9 points, although the table of means shows 1.5."""
    found = draw_conclusions(read_scores(TABLE))
    [verdict] = [one for one in found.verdicts if one.cell == SHORT]
    short = trials[trials.data_set == "python-docs-short"]
    fit = smf.ols("points ~ w + I(w**2) + C(block)", short).fit()
    slope, curvature = fit.params["w"], fit.params["I(w ** 2)"]
    best = -slope / 2 / curvature
    assert verdict.best_plw == pytest.approx(0.5915, abs=1e-4)
    assert verdict.best_plw == pytest.approx(best ** (1 / 0.30103), rel=1e-6)
    means = short.groupby("plw").points.mean()
    assert means[1.0] - means[0.0] == pytest.approx(1.5, abs=0.05)
    assert verdict.gain == pytest.approx(slope * best + curvature * best**2, abs=0.3)
    assert verdict.gain == pytest.approx(1.6, abs=0.05)
