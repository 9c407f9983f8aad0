"""Simulate how often and how precisely a design names a weight.

A trial's value is the truth at its weight plus normal noise with one variance. A seed's common
effect on all weights cancels in the comparison and is not simulated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.foundation.plw_scale import plw_from_w_p
from orchestrator.foundation.plw_scale import w_p as w_p_of
from orchestrator.statistics.confidence_set import confidence_set
from orchestrator.statistics.trial_points import Trials
from orchestrator.statistics.weight_analysis import analyse_weights
from orchestrator.statistics.weight_effects import fit_effects

Array = NDArray[np.float64]

LEVEL = 0.05
_GROUP = "simulated"
_TOUCHING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """Expected results of a design.

    Attributes:
        detects: share of studies that find an effect (corrected for `num_claims`).
        names: share of studies that name a best weight, or several tied ones.
        plw_low, plw_high: ends of the median confidence set over the studies that find an effect;
            the whole range if no study does.
        width_ratio: median width of that set in w_p, relative to the current set; None if there is
            no current set.
        num_studies: number of simulated studies.
    """

    detects: float
    names: float
    plw_low: float
    plw_high: float
    width_ratio: float | None
    num_studies: int


def simulate_verdicts(
    *,
    plw: Array,
    seed: Sequence[str],
    truth: Array,
    trial_sd: float,
    num_studies: int,
    num_claims: int = 1,
    width_before: float | None = None,
    random_seed: int = 0,
) -> Prospect:
    """Simulate trials at `plw` (T) with `seed` (T) and true values `truth` (T).

    Args:
        trial_sd: sd of a trial's noise, in the unit of `truth`.
        num_claims: number of verdicts that share the significance level. The correction is
            Bonferroni's, which equals Holm's for the smallest p-value.
        width_before: width of the current confidence set, in w_p.
    """
    rng = np.random.default_rng(random_seed)
    at = np.array([w_p_of(each) for each in plw])
    found, named = 0, 0
    sets: list[tuple[float, float]] = []
    for _ in range(num_studies):
        values = truth + trial_sd * rng.standard_normal(len(truth))
        trials = _trials(np.asarray(plw, dtype=np.float64), at, seed, values)
        effects = fit_effects(trials, _GROUP)
        analyses = analyse_weights(effects, trials, _GROUP) if effects is not None else []
        if not analyses or effects is None or effects.noise is None:
            continue
        if min(1.0, analyses[0].p_value * num_claims) >= LEVEL:
            continue
        pieces = confidence_set(analyses[0])
        low, high = pieces[0][0], pieces[-1][1]
        found += 1
        named += low > at.min() + _TOUCHING or high < at.max() - _TOUCHING
        sets.append((low, high))
    low, high = np.median(sets, axis=0) if sets else (at.min(), at.max())
    width = float(np.median([end - start for start, end in sets])) if sets else float(np.ptp(at))
    return Prospect(
        detects=found / num_studies,
        names=named / num_studies,
        plw_low=_nearest(float(low), at, plw),
        plw_high=_nearest(float(high), at, plw),
        width_ratio=width / width_before if width_before else None,
        num_studies=num_studies,
    )


def _nearest(w_p: float, at: Array, plw: Array) -> float:
    """Return the PLW of a w_p; at the w_p of a tried weight, exactly its PLW."""
    index = int(np.abs(at - w_p).argmin())
    is_tried = abs(at[index] - w_p) < _TOUCHING
    return float(plw[index]) if is_tried else plw_from_w_p(w_p)


def _trials(plw: Array, at: Array, seed: Sequence[str], values: Array) -> Trials:
    return Trials(
        keys=tuple((str(each),) for each in range(len(plw))),
        plw=plw,
        w_p=at,
        cell=np.zeros(len(plw), dtype=np.int64),
        cells=(("", "", ""),),
        seed=tuple(seed),
        learning_rate=np.zeros((len(plw), 0)),
        rates=(None,) * len(plw),
        is_confounded=False,
        groups=(_GROUP,),
        values=values[:, None],
        is_share=True,
    )
