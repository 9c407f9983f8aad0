"""Read the fields of one record, and collect the record's problems."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from trainers.data_config import DropReason
from trainers.foundation.errors import Problem
from trainers.foundation.jsonl import json_error_message, load_json
from trainers.foundation.suggestions import did_you_mean

# Loss weights of turns: numbers, and flags that are true or false.
FLAG_FIELDS = ("train", "loss")
WEIGHT_FIELDS = ("weight", "loss_scale", *FLAG_FIELDS)
# Flags that are false for a bad answer.
LABEL_FIELDS = ("label", "kto_tag")
# Products of the weights of an example, a turn and a part are normal float32 numbers.
_MIN_WEIGHT, _MAX_WEIGHT = 1e-12, 1e12
WEIGHT_RULE = f"0 or a number from {_MIN_WEIGHT:g} to {_MAX_WEIGHT:g}"
# Field names that suggest a choice of what to train on, or text of the prompt or the answer.
_MEANINGFUL = re.compile(
    r".*(weight|mask|loss|label|train|tool|function|reason|think|system|history|context|chosen"
    r"|rejected|image|audio|video|kto|choices|option|document|passage|persona|rationale|thought"
    r"|chat_template_kwargs|instructions|reward|is_correct|desirable|is_bad|upsample|is_target"
    r"|supervised|evidence|knowledge|background|paragraph|premise|hypothesis|scratchpad|few_?shot"
    r"|demonstration|distractor|refusal).*|cot|ignore|skip|exclude|learn|files?|prefix|suffix|[a-e]"
)
_MAX_SHOWN = 60  # characters of a value

# The value of a string of JSON that is not valid; its problem is already reported.
DAMAGED: Final = object()


@dataclass(frozen=True)
class Row:
    """One record before validation; `where` is for errors, `id` becomes the example's id.

    Columnar files and hub data sets add the fields that a record lacks, as nulls. In text files,
    such as CSV, all values are strings.
    """

    id: str
    where: str
    content: Any
    is_columnar: bool = False
    is_text: bool = False


@dataclass
class FieldParser:
    """Reads the fields of one record; base of the parsers of its forms.

    `problems` lists what is wrong with the record. `ignored` are the names of fields that are not
    used. `tool_faults` are the kinds of inconsistent tool calls. `dropped` is the reason for which
    the record is not used, if there is one: a reason in `drop`, or its weight 0.
    """

    row: Row
    ignore: Collection[str] = ()
    drop: Collection[DropReason] = ()
    problems: list[Problem] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    tool_faults: set[str] = field(default_factory=set)
    dropped: DropReason | Literal["weight 0"] | None = None

    def record_fields(self) -> dict[str, Any]:
        """Return the used fields of the record; CSV cells of weights and labels are parsed."""
        content = self.row.content
        return self.used_fields({name: self._typed(name, cell) for name, cell in content.items()})

    def _typed(self, name: str, value: Any) -> Any:
        """Return the value, parsed if it is a CSV cell of a field that is not a text."""
        if not self.row.is_text or name not in (*WEIGHT_FIELDS, *LABEL_FIELDS):
            return value
        try:
            return json.loads(value.lower() or "null")
        except ValueError:
            return value

    def used_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that are neither null nor in data.ignore."""
        self.check_characters("".join(fields), "a field's name")
        given = {name: value for name, value in fields.items() if value is not None}
        self.ignored.update(name for name in self.ignore if name in given)
        return {name: value for name, value in given.items() if name not in self.ignore}

    def weight(self, value: Any, name: str, *, is_flag: bool = False) -> float:
        """Return a weight in the data: a number of at least 0, or true (1) or false (0)."""
        if value in (0, 1):
            return float(value)
        if is_flag:
            self.add_problem(f"{name} must be true or false, got {format_value(value)}")
        elif not is_weight(value):
            self.add_problem(
                f"{name} must be {WEIGHT_RULE}, got {format_value(value)}",
                ignore_fix(name.rpartition(".")[2]),
            )
        else:
            return float(value)
        return 1.0

    def json_value(self, value: Any, name: str) -> Any:
        """Return the value, parsed if it is a JSON string; some columns contain JSON as text.

        If the string is not valid, report it and return `DAMAGED`.
        """
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            try:
                return load_json(value)
            except ValueError as error:
                self.add_problem(
                    f"{name} is {json_error_message(error)}, got {format_value(value)}"
                )
                return DAMAGED
        return value

    def check_characters(self, value: Any, name: str) -> None:
        """Check that a text, or all texts of a list or object, consist of characters."""
        text = value if isinstance(value, str) else _to_json(value)
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            # JSON can escape an unpaired surrogate, which every tokenizer rejects.
            self.add_problem(
                f"{name} contains half a surrogate pair, which is not a character", "fix the text"
            )

    def reject_empty(self, message: str, fix: str) -> None:
        """Report a record without an answer, or drop it if data.drop lists empty."""
        if "empty" in self.drop:
            self.dropped = "empty"
        else:
            self.add_problem(message, f"{fix}, or add empty to data.drop")

    def without_nulls(self, value: Any) -> Any:
        """Return the value without the nulls that a columnar file adds to nested objects."""
        if not self.row.is_columnar:
            return value
        if isinstance(value, dict):
            return {k: self.without_nulls(v) for k, v in value.items() if v is not None}
        return [self.without_nulls(one) for one in value] if isinstance(value, list) else value

    def add_problem(self, message: str, fix: str | None = None) -> None:
        """Add a problem of the record."""
        self.problems.append(Problem(message=message, where=self.row.where, fix=fix))


def is_weight(value: Any) -> bool:
    """Return whether a value of the data meets `WEIGHT_RULE`."""
    return isinstance(value, int | float) and (value == 0 or _MIN_WEIGHT <= value <= _MAX_WEIGHT)


def is_meaningful(name: str) -> bool:
    """Return whether a field's name suggests that training must not ignore it."""
    return _MEANINGFUL.fullmatch(name.lower()) is not None


def ignore_fix(name: str, known: Iterable[str] = ()) -> str:
    """Return the advice to train without a field, after the name in `known` that it may mean."""
    names = set(known)
    near = None if name in names else did_you_mean(name, names, cutoff=0.8)
    ignore = f"list {name} in data.ignore to train without it"
    return f"{near} If not, {ignore}" if near else ignore


def format_value(value: Any) -> str:
    """Return `value` as JSON, truncated."""
    text = _to_json(value)
    # An unpaired surrogate cannot be printed.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _to_json(value: Any) -> str:
    # Parquet files may contain dates and other values that only have a text form.
    return json.dumps(value, ensure_ascii=False, default=str)
