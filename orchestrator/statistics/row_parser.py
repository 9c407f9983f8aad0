"""Parse the fields of one line of scores into the values of a `ScoreRow`."""

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.foundation.plw_scale import plw_from_w_p, w_p
from orchestrator.statistics.columns import NUMBERS
from orchestrator.statistics.csv_text import CsvText
from trainers.foundation.errors import Problem

# Weights that agree in this many significant digits count as one, such as 0.1 and 0.1000000001.
_WEIGHT_DIGITS = 6
# Allowed difference between w_p and PLW: w_p may be rounded to three decimals.
_SAME_W_P = 1e-3


class RowParser:
    """Parser of records; collects problems with their lines in `problems`."""

    def __init__(self, indices: Mapping[str, int], table: CsvText) -> None:
        """Create a parser for the lines of `table`.

        Args:
            indices: index of each column by its standard name.
        """
        self.problems: list[tuple[int, Problem]] = []
        self._path = table.path
        self._separator = table.separator
        self._width = len(table.header)
        self._indices = tuple(indices.items())
        self._numbers = [name for name in NUMBERS if name in indices and name not in ("plw", "w_p")]
        self._texts = [name for name in indices if name not in NUMBERS]
        # Caches of parsed texts and weights: a table of 100,000 rows has few distinct ones.
        self._text_cache: dict[str, str] = {}
        self._weight_cache: dict[tuple[str, str], float] = {}
        self._decimal_comma: int | None = None
        self._decimal_point: int | None = None

    def parse(self, line: int, fields: list[str]) -> dict[str, Any] | None:
        """Return the values of a `ScoreRow`; None if the record has a problem."""
        before = len(self.problems)
        if len(fields) != self._width:
            self._report_width(line, len(fields))
            return None
        given = {name: text for name, index in self._indices if (text := fields[index].strip())}
        values: dict[str, Any] = {"plw": self._weight(line, given)}
        for name in self._numbers:
            if name in given:
                values[name] = self._number(line, name, given[name])
        if values.get("learning_rate") is not None:
            values["learning_rate"] = float(f"{values['learning_rate']:.{_WEIGHT_DIGITS}g}")
        for name in self._texts:
            if name in given:
                values[name] = self._text_cache.setdefault(given[name], given[name])
        for name in ("benchmark", "score"):
            if name not in given:
                self._report(line, f"missing {name}", f"remove lines without a {name}")
        items = values.get("num_items")
        if items is not None:
            if items != int(items):
                self._report(line, f"num_items must be an integer, got {items:g}", "give a count")
            values["num_items"] = int(items)
        return values if len(self.problems) == before else None

    def finish(self) -> None:
        """Report the problem that only the whole file shows: mixed decimal commas and points."""
        if self._decimal_comma is not None and self._decimal_point is not None:
            self._report(
                self._decimal_comma,
                f"decimal comma here, but decimal point on line {self._decimal_point}",
                "use one decimal separator in all numbers, and no thousands separator",
            )

    def _weight(self, line: int, given: Mapping[str, str]) -> float | None:
        key = (given.get("plw", ""), given.get("w_p", ""))
        known = self._weight_cache.get(key)
        if known is not None:
            return known
        before = len(self.problems)
        plw, w_p_given = (
            self._number(line, name, text) if text else None
            for name, text in zip(("plw", "w_p"), key, strict=True)
        )
        if len(self.problems) > before:
            return None
        if plw is None and w_p_given is None:
            self._report(line, "missing plw", "give the prompt loss weight, from 0 to 1")
            return None
        if plw is None:
            assert w_p_given is not None
            if not 0 <= w_p_given <= 1:
                message = f"w_p must be in [0, 1], got {w_p_given:g}"
                self._report(line, message, "give PLW ** 0.30103")
                return None
            plw = plw_from_w_p(w_p_given)
        elif w_p_given is not None and 0 <= plw <= 1 and abs(w_p_given - w_p(plw)) > _SAME_W_P:
            self._report(
                line,
                f"plw {plw:g} and w_p {w_p_given:g} contradict each other: PLW {plw:g} is w_p "
                f"{w_p(plw):.4g}",
                "correct one of them, or remove the column `w_p`",
            )
            return None
        self._weight_cache[key] = float(f"{plw:.{_WEIGHT_DIGITS}g}")
        return self._weight_cache[key]

    def _number(self, line: int, name: str, text: str) -> float | None:
        normalized = text
        if self._separator != ",":
            if "," in text:
                self._decimal_comma = self._decimal_comma or line
                normalized = text.replace(",", ".")
            elif "." in text:
                self._decimal_point = self._decimal_point or line
        try:
            value = float(normalized)
        except ValueError:
            is_comma = self._separator == "," and "," in text
            fix = "use a decimal point" if is_comma else "write a number"
            self._report(line, f"{name} must be a number, got {text!r}", fix)
            return None
        if not math.isfinite(value):
            self._report(
                line, f"{name} must be a finite number, got {text!r}", "leave it empty if unknown"
            )
        return value

    def _report_width(self, line: int, width: int) -> None:
        fix = "give every line as many fields as the header"
        if self._separator == ",":
            fix += "; quote fields that contain commas, and use a decimal point"
        fields = "1 field" if width == 1 else f"{width} fields"
        self._report(line, f"line has {fields}, but the header has {self._width}", fix)

    def _report(self, line: int, message: str, fix: str) -> None:
        self.problems.append(
            (line, Problem(message=message, where=f"{self._path}:{line}", fix=fix))
        )
