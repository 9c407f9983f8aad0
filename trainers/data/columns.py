"""Rename the columns of records to our field names, as `data.columns` says."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from trainers.data.record_fields import Row, ignore_fix
from trainers.foundation.errors import Problem
from trainers.foundation.suggestions import did_you_mean


@dataclass
class ColumnRenamer:
    """Renames the columns of the records of one data set.

    `columns` maps our field names to those of the data; `ignore` lists fields that are not used.
    """

    columns: Mapping[str, str]
    ignore: Collection[str] = ()
    _seen: dict[str, None] = field(default_factory=dict)

    def rename(self, row: Row) -> Row | Problem:
        """Return the record with our field names; a problem if a name would be given twice."""
        if not self.columns or not isinstance(row.content, dict):
            return row
        self._seen |= dict.fromkeys(row.content)
        renamed = {
            ours: row.content[theirs]
            for ours, theirs in self.columns.items()
            if theirs in row.content
        }
        rest = {
            name: value for name, value in row.content.items() if name not in self.columns.values()
        }
        both = sorted(
            name
            for name in renamed.keys() & rest.keys()
            if rest[name] is not None and name not in self.ignore
        )
        if both:
            return Problem(
                message=f"the record has {both[0]} and {self.columns[both[0]]}, which data.columns"
                f" reads as {both[0]}",
                where=row.where,
                fix=ignore_fix(both[0]),
            )
        return replace(row, content=rest | renamed)

    def unknown_columns(self, path: str) -> list[Problem]:
        """Return the problem of each column that no record has; call it after all records."""
        return [
            Problem(
                message=f"no record has the column {theirs} of data.columns.{ours}; found"
                f" {', '.join(self._seen)}",
                where=path,
                fix=did_you_mean(theirs, self._seen) or "correct data.columns",
            )
            for ours, theirs in self.columns.items()
            if self._seen and theirs not in self._seen
        ]
