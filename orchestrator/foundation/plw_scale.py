"""Convert between PLW and w_p, the scale on which PLW is searched, fitted and drawn."""

# Maps PLW 0.1 to w_p 0.5. Source: arXiv 2401.13586.
W_P_EXPONENT = 0.30103


def w_p(prompt_loss_weight: float) -> float:
    """Return w_p = PLW ** 0.30103, in [0, 1]. The scale spreads small weights apart.

    Source: arXiv 2401.13586.
    """
    return float(prompt_loss_weight**W_P_EXPONENT)


def plw_from_w_p(w_p: float) -> float:
    """Return PLW = w_p ** (1 / 0.30103), the inverse of `w_p`; negative values count as 0."""
    return float(max(w_p, 0.0) ** (1 / W_P_EXPONENT))
