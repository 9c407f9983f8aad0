"""The paper's fit for short completions, to compare with. Source: arXiv 2401.13586."""

from orchestrator.statistics.table import plw_of

# On a link scale, as it gives -1.04 at PLW 0.
PUBLISHED_CURVATURE = -4.284
PUBLISHED_BEST_W_P = 0.652
PUBLISHED_TOP = 0.781


def critical_plw(best_w_p: float = PUBLISHED_BEST_W_P) -> float:
    """The PLW at the top of a curve; the published fit's is 0.242."""
    return plw_of(best_w_p)


def published_curve(w_p: float) -> float:
    """The paper's fit for short completions at w_p, on its link scale."""
    return PUBLISHED_TOP + PUBLISHED_CURVATURE * (w_p - PUBLISHED_BEST_W_P) ** 2
