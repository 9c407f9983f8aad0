"""The fields of a line of scores as the values of a row."""

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.foundation.plw_scale import W_P_EXPONENT, w_p
from orchestrator.statistics.columns import NUMBERS
from orchestrator.statistics.csv_text import CsvText
from trainers.foundation.errors import Problem

# Weights that agree in so many significant digits are one weight: 0.1 and 0.1000000001.
_WEIGHT_DIGITS = 6
# Three decimals of a w_p, rounded in whatever way.
_SAME_W_P = 1e-3


class RowParser:
    """Parses records one by one; what is wrong with them goes to `problems`, with its line."""

    def __init__(self, places: Mapping[str, int], table: CsvText) -> None:
        """Args: `places` of the columns, by our names for them."""
        self.problems: list[tuple[int, Problem]] = []
        self._path = table.path
        self._separator = table.separator
        self._width = len(table.header)
        self._places = tuple(places.items())
        self._numbers = [name for name in NUMBERS if name in places and name not in ("plw", "w_p")]
        self._texts = [name for name in places if name not in NUMBERS]
        # Equal texts and weights are kept once: a table of 100,000 rows has few of them.
        self._kept: dict[str, str] = {}
        self._weights: dict[tuple[str, str], float] = {}
        self._decimal_comma: int | None = None
        self._decimal_point: int | None = None

    def parse(self, line: int, fields: list[str]) -> dict[str, Any] | None:
        """The values of a `ScoreRow`; None where there is a problem."""
        before = len(self.problems)
        if len(fields) != self._width:
            self._report_width(line, len(fields))
            return None
        given = {name: text for name, place in self._places if (text := fields[place].strip())}
        values: dict[str, Any] = {"plw": self._weight(line, given)}
        for name in self._numbers:
            if name in given:
                values[name] = self._number(line, name, given[name])
        for name in self._texts:
            if name in given:
                values[name] = self._kept.setdefault(given[name], given[name])
        for name in ("benchmark", "score"):
            if name not in given:
                self._report(line, f"has no {name}", f"leave out lines without a {name}")
        items = values.get("num_items")
        if items is not None:
            if items != int(items):
                self._report(line, f"num_items must be whole, got {items:g}", "give a count")
            values["num_items"] = int(items)
        return values if len(self.problems) == before else None

    def finish(self) -> None:
        """Report what only the whole file shows: decimal commas beside decimal points."""
        if self._decimal_comma is not None and self._decimal_point is not None:
            self._report(
                self._decimal_comma,
                "a number has a decimal comma, and one on line "
                f"{self._decimal_point} has a decimal point",
                "write all numbers in one way, and none with a separator of thousands",
            )

    def _weight(self, line: int, given: Mapping[str, str]) -> float | None:
        key = (given.get("plw", ""), given.get("w_p", ""))
        known = self._weights.get(key)
        if known is not None:
            return known
        before = len(self.problems)
        plw, at = (
            self._number(line, name, text) if text else None
            for name, text in zip(("plw", "w_p"), key, strict=True)
        )
        if len(self.problems) > before:
            return None
        if plw is None and at is None:
            self._report(line, "has no plw", "give the weight of prompt tokens, from 0 to 1")
            return None
        if plw is None:
            assert at is not None
            if not 0 <= at <= 1:
                self._report(line, f"w_p must be in [0, 1], got {at:g}", "give PLW ** 0.30103")
                return None
            plw = at ** (1 / W_P_EXPONENT)
        elif at is not None and 0 <= plw <= 1 and abs(at - w_p(plw)) > _SAME_W_P:
            self._report(
                line,
                f"plw {plw:g} and w_p {at:g} contradict each other: PLW {plw:g} is w_p "
                f"{w_p(plw):.4g}",
                "correct one of them, or drop the column `w_p`",
            )
            return None
        self._weights[key] = float(f"{plw:.{_WEIGHT_DIGITS}g}")
        return self._weights[key]

    def _number(self, line: int, name: str, text: str) -> float | None:
        plain = text
        if self._separator != ",":
            if "," in text:
                self._decimal_comma = self._decimal_comma or line
                plain = text.replace(",", ".")
            elif "." in text:
                self._decimal_point = self._decimal_point or line
        try:
            value = float(plain)
        except ValueError:
            is_comma = self._separator == "," and "," in text
            fix = "write decimals with a point" if is_comma else "write a plain number"
            self._report(line, f"{name} must be a number, got {text!r}", fix)
            return None
        if not math.isfinite(value):
            self._report(
                line, f"{name} must be a finite number, got {text!r}", "leave out what is not known"
            )
        return value

    def _report_width(self, line: int, width: int) -> None:
        fix = "give each line as many fields as the header"
        if self._separator == ",":
            fix += "; quote fields with commas in them, and write decimals with a point"
        fields = "1 field" if width == 1 else f"{width} fields"
        self._report(line, f"has {fields}, and the header has {self._width}", fix)

    def _report(self, line: int, message: str, fix: str) -> None:
        self.problems.append(
            (line, Problem(message=message, where=f"{self._path}:{line}", fix=fix))
        )
