"""Count the records and fields of a data set that training does not use."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trainers.foundation.counts import format_count


@dataclass
class ReadingCounts:
    """The numbers of dropped records by reason, and of records with an ignored field by its name.

    They cover training and held-out examples. A field is ignored because data.ignore lists it, or
    because it has no meaning for training.
    """

    dropped: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)

    def update(self, other: "ReadingCounts") -> None:
        """Add the counts of other records."""
        self.dropped.update(other.dropped)
        self.ignored.update(other.ignored)

    def lines(self) -> Iterator[str]:
        """Yield one line of text for each kind of loss that occurs."""
        if self.dropped:
            yield f"dropped: {_listed(self.dropped)}"
        if self.ignored:
            yield f"ignored fields: {_listed(self.ignored)}"

    def to_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> "ReadingCounts":
        """Return the counts that `to_json` wrote."""
        return cls(**{name: Counter(counts) for name, counts in json.loads(text).items()})


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{name} ({format_count(count, 'record')})" for name, count in sorted(counts.items())
    )
