"""Predict the best PLW for a data set from its token counts, with the limits of the prediction."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from orchestrator.foundation.plw_scale import W_P_EXPONENT
from trainers.data.length_stats import DataStats

# Source: arXiv 2401.13586, fit for short completions: -4.284 (w_p - 0.652)^2 + 0.781.
PAPER_BEST_W_P = 0.652
# The short grid is about evenly spaced in w_p and includes the paper's best weight. The long grid
# has both ends and one weight between them, which is enough to detect an effect.
_SHORT_GRID = (0.0, 0.01, 0.1, 0.242, 0.5, 1.0)
_LONG_GRID = (0.0, 0.1, 1.0)

Kind = Literal["short", "long", "between"]


class _Advice(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CompletionShare(_Advice):
    """The completions' share of the total weight at one PLW, with `loss.normalization: weights`."""

    prompt_loss_weight: float
    share: float


class Advice(_Advice):
    """The prediction of arXiv 2401.13586 for data with these lengths, and weights to try.

    `best_prompt_loss_weight` is the maximum of the published fit; None if the paper found no effect
    for such lengths.
    """

    kind: Kind
    prediction: list[str]
    limits: list[str]
    best_prompt_loss_weight: float | None
    prompt_loss_weights: list[float]
    completion_shares: list[CompletionShare]


def advise(stats: DataStats) -> Advice:
    """Return the prediction for data with these token counts."""
    kind = _kind(stats)
    grid = _LONG_GRID if kind == "long" else _SHORT_GRID
    best = None if kind == "long" else round(PAPER_BEST_W_P ** (1 / W_P_EXPONENT), 3)
    return Advice(
        kind=kind,
        prediction=_prediction(kind, best),
        limits=_limits(stats, kind),
        best_prompt_loss_weight=best,
        prompt_loss_weights=list(grid),
        completion_shares=[
            CompletionShare(prompt_loss_weight=plw, share=share)
            for plw in grid
            if (share := _completion_share(stats, plw)) is not None
        ],
    )


def _kind(stats: DataStats) -> Kind:
    """Return `short` or `long` if all four ratios are on one side of 1, else `between`."""
    found = (stats.generation_ratio, stats.generation_ratio_without_template)
    ratios = [r for ratio in found for r in (ratio.of_means, ratio.mean_of_ratios) if r is not None]
    if all(ratio < 1 for ratio in ratios):
        return "short"
    return "long" if all(ratio >= 1 for ratio in ratios) else "between"


def _prediction(kind: Kind, best: float | None) -> list[str]:
    if kind == "long":
        return [
            "long-completion data (R_g of 1 and above): the paper found no relation between PLW "
            "and scores; a small grid shows whether your data has one"
        ]
    effect = [
        f"over all benchmarks, scores follow a quadratic in w_p with its maximum at PLW {best}",
        "multiple choice and short generations were better at 0.01 to 0.5, long generations "
        "near 1: the best PLW depends on the use of the model",
    ]
    if kind == "short":
        return ["short-completion data (R_g below 1), where the paper found an effect", *effect]
    return [
        "neither clearly short nor clearly long: R_g is below 1 by only some of its four "
        "definitions. If it counts as short, where the paper found an effect:",
        *effect,
    ]


def _limits(stats: DataStats, kind: Kind) -> list[str]:
    limits = [
        "measured on LLaMA 1 and 2 with 7 billion parameters and Alpaca data, for short "
        "completions on only one data set (Alpaca inverted); other models, data and learning "
        "rates may differ",
        "the paper's definition of R_g (with the template or without, mean of ratios or ratio of "
        "means) and the divisor of its loss are unknown",
    ]
    spread = stats.generation_ratio.spread
    if spread is not None and kind != "between" and 0.2 < spread.share_below_one < 0.8:
        limits.append(
            f"the data is mixed: {spread.share_below_one:.0%} of the examples have a ratio below "
            "1, so one R_g does not describe it"
        )
    return limits


def _completion_share(stats: DataStats, prompt_loss_weight: float) -> float | None:
    weight = stats.completion.total + prompt_loss_weight * stats.prompt.total
    return stats.completion.total / weight if weight else None
