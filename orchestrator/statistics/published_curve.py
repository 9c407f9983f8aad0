"""The paper's fit for short completions, for comparison.

Source: arXiv 2401.13586.
"""

from orchestrator.foundation.plw_scale import plw_from_w_p

# On a link scale: the fit gives -1.04 at PLW 0.
PUBLISHED_CURVATURE = -4.284
PUBLISHED_BEST_W_P = 0.652
PUBLISHED_MAX = 0.781


def critical_plw(best_w_p: float = PUBLISHED_BEST_W_P) -> float:
    """Return the PLW at the maximum of a curve; 0.242 for the published fit."""
    return plw_from_w_p(best_w_p)


def published_curve(w_p: float) -> float:
    """Return the paper's fit for short completions at w_p, on its link scale."""
    return PUBLISHED_MAX + PUBLISHED_CURVATURE * (w_p - PUBLISHED_BEST_W_P) ** 2
