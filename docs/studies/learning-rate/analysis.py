"""Print the results of the study from losses.csv: means, best rates and the tests of the claims.

Independent of plw's own analysis: paired t tests within seeds, as the protocol says.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

LOW, MIDDLE, HIGH = 3e-5, 1e-4, 3e-4


def best_rates(losses: pd.DataFrame, plw: float) -> dict[int, float]:
    """Return, for each seed, the rate with the lowest mean loss over the other seeds."""
    table = losses[losses.plw == plw].pivot(index="seed", columns="learning_rate", values="score")
    return {seed: float(table.drop(index=seed).mean().idxmin()) for seed in table.index}


def at(losses: pd.DataFrame, plw: float, rates: float | dict[int, float]) -> pd.Series:
    """Return the loss of each seed at a weight, at one rate or at a rate for each seed."""
    chosen = losses[losses.plw == plw].set_index(["seed", "learning_rate"]).score
    seeds = sorted(losses.seed.unique())
    return pd.Series({s: chosen[s, rates[s] if isinstance(rates, dict) else rates] for s in seeds})


def holm(p_values: list[float]) -> list[float]:
    """Return p values corrected by Holm's method."""
    order = np.argsort(p_values)
    steps = [(len(order) - rank) * p_values[index] for rank, index in enumerate(order)]
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(p) for p in corrected]


def main() -> None:
    losses = pd.read_csv(Path(__file__).parent / "losses.csv")
    print(losses.pivot_table(index="plw", columns="learning_rate", values="score").round(3))
    print(
        losses.pivot_table(
            index="plw", columns="learning_rate", values="score", aggfunc="std"
        ).round(3)
    )
    best = {plw: best_rates(losses, plw) for plw in sorted(losses.plw.unique())}
    print("best rates, by seed left out:", best)
    claims = {
        "1: L(1) - L(0.242) at 1e-4": at(losses, 1, MIDDLE) - at(losses, 0.242, MIDDLE),
        "2: that difference at 3e-4 less at 3e-5": (at(losses, 1, HIGH) - at(losses, 0.242, HIGH))
        - (at(losses, 1, LOW) - at(losses, 0.242, LOW)),
        "3: L(1) - L(0.242) at best rates": at(losses, 1, best[1]) - at(losses, 0.242, best[0.242]),
        "4: L(0.242) - L(0) at best rates": at(losses, 0.242, best[0.242]) - at(losses, 0, best[0]),
    }
    tests = [stats.ttest_1samp(difference, 0) for difference in claims.values()]
    for (claim, difference), test, p in zip(
        claims.items(), tests, holm([test.pvalue for test in tests]), strict=True
    ):
        low, high = test.confidence_interval(0.95)
        print(f"{claim}: {difference.mean():+.3f} ({low:.3f} to {high:.3f}), corrected p = {p:.3g}")


if __name__ == "__main__":
    main()
