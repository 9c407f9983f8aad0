"""Convert points between the spec's form and Optuna's: PLW as w_p, list values by index."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.foundation.plw_scale import plw_from_w_p, w_p
from orchestrator.spec.search_fields import Range
from orchestrator.spec.search_points import is_value_in
from orchestrator.spec.setting_fields import PLW, number_kind

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Values are rounded before training, so that reports show exactly the values that were used. Scores
# cannot distinguish closer values.
SIGNIFICANT_DIGITS = 4


class Space:
    """A search space that converts between settings (`searched`) and Optuna's `params`.

    A param is w_p for the prompt loss weight, the value itself for another range, and the index
    for a list, because Optuna does not accept every value of a list as a choice.
    """

    def __init__(self, space: Mapping[str, list[Any] | Range]) -> None:
        self.values = dict(space)

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Return Optuna's distribution of each param."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        found: dict[str, BaseDistribution] = {}
        for dotted, values in self.values.items():
            if isinstance(values, list):
                found[dotted] = CategoricalDistribution(tuple(range(len(values))))
            elif dotted == PLW:
                found[dotted] = FloatDistribution(w_p(values.low), w_p(values.high))
            elif number_kind(dotted) == "integer":
                low, high = int(values.low), int(values.high)
                found[dotted] = IntDistribution(low, high, log=values.scale == "log")
            else:
                found[dotted] = FloatDistribution(
                    values.low, values.high, log=values.scale == "log"
                )
        return found

    def to_searched(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of params, with floats rounded to four significant digits."""
        return {dotted: self._setting(dotted, params[dotted]) for dotted in self.values}

    def to_params(self, searched: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the params of a point; None if it is outside of the space or has other keys."""
        if set(searched) != set(self.values):
            return None
        if not all(
            is_value_in(values, dotted, searched[dotted]) for dotted, values in self.values.items()
        ):
            return None
        return self.partial_params(searched)

    def partial_params(self, searched: Mapping[str, Any]) -> dict[str, Any]:
        """Return the params of valid values for all or some of the searched settings."""
        return {dotted: self._param(dotted, value) for dotted, value in searched.items()}

    def size(self) -> int | None:
        """Return the number of points; None if a setting is continuous."""
        total = 1
        for dotted, values in self.values.items():
            if isinstance(values, list):
                total *= len(values)
            elif number_kind(dotted) == "integer":
                total *= int(values.high) - int(values.low) + 1
            else:
                return None
        return total

    def _setting(self, dotted: str, param: Any) -> Any:
        values = self.values[dotted]
        if isinstance(values, list):
            return values[param]
        if number_kind(dotted) == "integer":
            return int(param)
        value = plw_from_w_p(param) if dotted == PLW else float(param)
        # A rounded value may be outside of the range.
        return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), values.low), values.high)

    def _param(self, dotted: str, value: Any) -> Any:
        values = self.values[dotted]
        if isinstance(values, list):
            return next(
                index for index, one in enumerate(values) if is_value_in([one], dotted, value)
            )
        if dotted == PLW:
            return w_p(value)
        return int(value) if number_kind(dotted) == "integer" else float(value)
