"""The search space as Optuna sees it, and back: PLW as w_p, list values by their place."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.foundation.plw_scale import W_P_EXPONENT, w_p
from orchestrator.spec.search_config import Range
from orchestrator.spec.search_rules import is_in
from orchestrator.spec.setting_fields import PLW, number_kind

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# A rounded value is what is trained, shown and compared; no score tells closer ones apart.
SIGNIFICANT_DIGITS = 4


class Space:
    """Points between the two forms: `searched` by dotted path, `params` as Optuna names them.

    A param is w_p for the prompt loss weight, the value itself for another range, and the place
    in the list for a list, because lists may hold what Optuna does not take as a choice.
    """

    def __init__(self, space: Mapping[str, list[Any] | Range]) -> None:
        self.values = dict(space)

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Optuna's distribution of each param."""
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
        """The settings that params stand for, floats rounded to four significant digits."""
        return {dotted: self._setting(dotted, params[dotted]) for dotted in self.values}

    def to_params(self, searched: Mapping[str, Any]) -> dict[str, Any] | None:
        """The params of a point, or None for one outside of the space or without all its keys.

        Other keys are passed over only if `searched` has none: a point that sets more was run
        under other settings.
        """
        if set(searched) != set(self.values):
            return None
        if not all(is_in(values, dotted, searched[dotted]) for dotted, values in self.items()):
            return None
        return self.partial_params(searched)

    def items(self) -> list[tuple[str, list[Any] | Range]]:
        """The searched settings and their values."""
        return list(self.values.items())

    def partial_params(self, searched: Mapping[str, Any]) -> dict[str, Any]:
        """The params of values that are in the space, perhaps not of all keys."""
        return {dotted: self._param(dotted, value) for dotted, value in searched.items()}

    def size(self) -> int | None:
        """How many points there are; None where a setting takes any number of a range."""
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
        value = param ** (1 / W_P_EXPONENT) if dotted == PLW else float(param)
        # Rounding must not leave the range.
        return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), values.low), values.high)

    def _param(self, dotted: str, value: Any) -> Any:
        values = self.values[dotted]
        if isinstance(values, list):
            return next(place for place, one in enumerate(values) if is_in([one], dotted, value))
        if dotted == PLW:
            return w_p(value)
        return int(value) if number_kind(dotted) == "integer" else float(value)
