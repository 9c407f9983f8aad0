"""Count the records and fields of a data set that training does not use, or that are unusual."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from trainers.foundation.counts import format_count


@dataclass
class ReadingCounts:
    """The numbers of dropped records by reason, and of records with an ignored field by its name.

    They cover training and held-out examples. A field is ignored because data.ignore lists it, or
    because it has no meaning for training. `tool_faults` are the numbers of records whose tool
    calls are inconsistent, by the kind of it; `first_tool_faults` are the ids of the first.
    """

    dropped: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    tool_faults: Counter[str] = field(default_factory=Counter)
    first_tool_faults: dict[str, str] = field(default_factory=dict)

    def add_tool_faults(self, kinds: Collection[str], record_id: str) -> None:
        """Count the inconsistent tool calls of a record."""
        self.tool_faults.update(kinds)
        for kind in kinds:
            self.first_tool_faults.setdefault(kind, record_id)

    def update(self, other: "ReadingCounts") -> None:
        """Add the counts of other records."""
        self.dropped.update(other.dropped)
        self.ignored.update(other.ignored)
        self.tool_faults.update(other.tool_faults)
        self.first_tool_faults = {**other.first_tool_faults, **self.first_tool_faults}

    def lines(self) -> Iterator[str]:
        """Yield one line of text for each kind of loss, or of inconsistency, that occurs."""
        if self.dropped:
            yield f"dropped: {_listed(self.dropped)}"
        if self.ignored:
            yield f"ignored fields: {_listed(self.ignored)}"
        if self.tool_faults:
            listed = ", ".join(
                f"{kind} ({format_count(count, 'record')}, first {self.first_tool_faults[kind]})"
                for kind, count in sorted(self.tool_faults.items())
            )
            yield f"inconsistent tool calls, used as they are: {listed}"

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "ReadingCounts":
        """Return the counts that `to_json` wrote."""
        content = json.loads(text)
        first = content.pop("first_tool_faults", {})
        counts = {name: Counter(counted) for name, counted in content.items()}
        return cls(**counts, first_tool_faults=first)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} ({format_count(count, 'record')})" for name, count in sorted(counts.items())
    )
