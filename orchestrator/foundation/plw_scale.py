"""The scale on which PLW is searched, fitted and drawn."""

# Source: arXiv 2401.13586, the transform under which PLW 0.1 becomes 0.5.
W_P_EXPONENT = 0.30103


def w_p(prompt_loss_weight: float) -> float:
    """PLW ** 0.30103, in [0, 1]: gives small weights room. Source: arXiv 2401.13586."""
    return float(prompt_loss_weight**W_P_EXPONENT)
