"""Seeds as blocks, against two-way least squares written out, and where they are none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from orchestrator.statistics.curves import collect_trials, fit_curves, lack_of_fit
from orchestrator.statistics.table import ScoreRow
from orchestrator.statistics.conclusions import answer
from orchestrator.transform import w_p
from tests.orchestrator.statistics.scores import rows_of

PLWS = (0, 0.01, 0.05, 0.1, 0.25, 1)


def moved(rows: Sequence[ScoreRow], lucks: dict[str, float]) -> list[ScoreRow]:
    """The rows with each seed's luck added to all of its scores on the logit scale."""
    return [
        replace(row, score=float(special.expit(special.logit(row.score) + lucks[row.seed])))
        for row in rows
    ]


def num_terms(plws: Sequence[float], seeds: Sequence[str]) -> int:
    """Of the model for one score of each of these trials."""
    rows = [
        ScoreRow(benchmark="b", plw=plw, seed=seed, trial=str(each), score=0.5)
        for each, (plw, seed) in enumerate(zip(plws, seeds, strict=True))
    ]
    return collect_trials(rows).terms().shape[1]


def test_the_test_of_a_flat_curve_is_that_of_randomised_blocks() -> None:
    rows = rows_of(lambda at: -0.1 * (at - 0.6) ** 2, plws=PLWS, trial_sd=0.03)
    rows = moved(rows, {"0": 0.2, "1": -0.1, "2": 0.0})
    (curve,) = fit_curves(rows, collect_trials(rows))
    seeds = [seed for _ in PLWS for seed in range(3)]
    at = np.repeat([w_p(plw) for plw in PLWS], 3)
    logits = np.array([special.logit(row.score) for row in rows]).reshape(18, 3).mean(axis=1)
    blocks = np.eye(3)[seeds]

    def squares(terms: np.ndarray) -> float:
        return float(np.linalg.lstsq(terms, logits, rcond=None)[1][0])

    full, flat = squares(np.column_stack([blocks, at, at**2])), squares(blocks)
    ratio = (flat - full) / 2 / (full / 13)
    assert curve.fit.freedom == pytest.approx(13, rel=1e-4)
    assert curve.p_value == pytest.approx(stats.f.sf(ratio, 2, 13), rel=1e-4)


@pytest.mark.parametrize("groups", [None, {"multiple_choice": 3, "long_generation": 2}])
def test_what_a_seed_does_to_all_weights_alike_changes_no_verdict(
    groups: dict[str, int] | None,
) -> None:
    rows = rows_of(lambda at: -((at - 0.6) ** 2), plws=PLWS, groups=groups)
    before = answer(rows).verdicts
    after = answer(moved(rows, {"0": 0.3, "1": -0.3, "2": 0.1})).verdicts
    for one, other in zip(before, after, strict=True):
        assert other.p_value == pytest.approx(one.p_value, rel=1e-5)
        assert np.ravel(other.pieces) == pytest.approx(np.ravel(one.pieces), rel=1e-4)
        assert (one.kind, other.kind) == ("best", "best")


def test_a_seeds_level_is_no_lack_of_fit_and_hides_none() -> None:
    rows = rows_of(lambda at: -((at - 0.6) ** 2), plws=PLWS)
    bent = rows_of(lambda at: 3 * abs(at - 0.6), plws=PLWS)
    lucks = {"0": 0.5, "1": -0.5, "2": 0.0}
    fits, bends = (lack_of_fit(collect_trials(moved(one, lucks))) for one in (rows, bent))
    assert fits is not None
    assert bends is not None
    assert bends < 0.001 < fits


@pytest.mark.parametrize(
    ("plws", "seeds", "terms"),
    [
        # Intercept, w_p and its square, and one less than seeds.
        (PLWS * 2, ["0"] * 6 + ["1"] * 6, 4),
        (PLWS, ["0"] * 6, 3),
        # Two seeds of three weights leave too little to judge noise by.
        ((0, 0.1, 1) * 2, ["0"] * 3 + ["1"] * 3, 3),
        # A new seed for each trial says nothing beside its level.
        (PLWS * 2, [str(each) for each in range(12)], 3),
        # A trial more of a third seed costs little, six of six others cost half of what is known.
        ((*PLWS * 2, 0.1), ["0"] * 6 + ["1"] * 6 + ["2"], 5),
        (PLWS * 2, ["0"] * 6 + [str(each) for each in range(1, 7)], 3),
    ],
)
def test_seeds_are_blocks_where_each_has_weights_enough(
    plws: Sequence[float], seeds: Sequence[str], terms: int
) -> None:
    assert num_terms(plws, seeds) == terms
