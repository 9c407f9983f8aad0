"""The function from the product of a model's output head to its logits: a scale and a soft cap.

Shape legend: N positions, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Relative tolerance of a fit. Both sides come from the same product in float32.
_TOLERANCE = 1e-5
_MAX_SAMPLES = 2**15
# Significant digits of a fitted parameter: as exact as float32, and coarser than the fit's error,
# so that every machine finds the same number.
_DIGITS = 7


@dataclass(frozen=True)
class LogitMap:
    """logits = soft_cap * tanh(scale * product / soft_cap); without a soft cap, scale * product.

    Gemma, for example, has a soft cap; Cohere, Granite and Falcon-H1 have a scale.
    """

    scale: float = 1.0
    soft_cap: float | None = None

    def apply_(self, products_NV: Tensor) -> Tensor | float | None:
        """Change products to logits in place, and return the derivative by the product.

        The derivative is a tensor (N, V), a number, or None for 1.
        """
        if self.soft_cap is None:
            if self.scale == 1.0:
                return None
            products_NV.mul_(self.scale)
            return self.scale
        products_NV.mul_(self.scale / self.soft_cap).tanh_()
        slope_NV = products_NV.square().neg_().add_(1).mul_(self.scale)
        products_NV.mul_(self.soft_cap)
        return slope_NV


PLAIN_LOGITS = LogitMap()


def fit_logit_map(products: Sequence[Tensor], logits: Sequence[Tensor]) -> LogitMap | None:
    """Return the map from each tensor of products to its logits; None if there is none.

    Args:
        products: at least one tensor should have values that reach a soft cap, if there is any.
    """
    if any(one.shape != other.shape for one, other in zip(products, logits, strict=True)):
        return None
    candidates = _candidates(products, logits)
    return next((one for one in candidates if _fits(one, products, logits)), None)


def _candidates(products: Sequence[Tensor], logits: Sequence[Tensor]) -> Iterator[LogitMap]:
    yield PLAIN_LOGITS
    yield LogitMap(_rounded(_slope(_samples(products), _samples(logits))))
    soft_capped = _fit_soft_cap(products, logits)
    if soft_capped is not None:
        yield soft_capped


def _fits(candidate: LogitMap, products: Sequence[Tensor], logits: Sequence[Tensor]) -> bool:
    for one, other in zip(products, logits, strict=True):
        mapped = one.double()  # a copy of float32 products
        candidate.apply_(mapped)
        # Also false if a value is not finite.
        if not (mapped - other).norm() <= _TOLERANCE * other.double().norm():
            return False
    return True


def _fit_soft_cap(products: Sequence[Tensor], logits: Sequence[Tensor]) -> LogitMap | None:
    x, y = _samples(products), _samples(logits)
    largest = float(np.abs(y).max())
    is_small = np.abs(y) < 0.1 * largest
    scale = _slope(x[is_small], y[is_small])
    if not (np.isfinite(y).all() and scale > 0):
        return None

    # Here, because few models need it and its import takes longer than the fit.
    from scipy.optimize import least_squares

    def residuals(log_parameters: np.ndarray) -> np.ndarray:
        scale, cap = np.exp(log_parameters)
        errors: np.ndarray = (cap * np.tanh(scale * x / cap) - y) / largest
        return errors

    fit = least_squares(residuals, np.log([scale, largest]), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    scale, soft_cap = np.exp(fit.x)
    return LogitMap(_rounded(scale), _rounded(soft_cap))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the scale of y = scale * x by least squares; 0 if all x are 0."""
    square = float(x @ x)
    return float(x @ y) / square if square else 0.0


def _samples(tensors: Sequence[Tensor]) -> np.ndarray:
    """Return the same number of values of each tensor, in float64."""
    parts = [tensor.flatten()[: _MAX_SAMPLES // len(tensors)].double() for tensor in tensors]
    samples: np.ndarray = torch.cat(parts).numpy()
    return samples
