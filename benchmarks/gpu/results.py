"""Results of all sections, as JSON and as a Markdown table for each section."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainers.foundation.files import write_json, write_text


@dataclass(kw_only=True)
class SectionResult:
    """The rows of a section so far. `error` is None if it ended without one."""

    name: str
    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    error: str | None = None

    @property
    def has_failed(self) -> bool:
        """Return whether the section ended early or missed a target."""
        missed = any(row.get("passed") is False or "error" in row for row in self.rows)
        return self.error is not None or missed


RESULTS = "results.json"


def write_results(folder: Path, machine: dict[str, Any], results: Sequence[SectionResult]) -> None:
    """Write results.json and results.md."""
    content = {"machine": machine, "sections": [asdict(result) for result in results]}
    write_json(folder / RESULTS, content)
    shown = ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None)
    parts = ["# GPU checks", f"{shown}.", *(_section(result) for result in results)]
    write_text(folder / "results.md", "\n\n".join(parts) + "\n")


def _section(result: SectionResult) -> str:
    passed = [row["passed"] for row in result.rows if "passed" in row]
    notes = [f"{sum(passed)} of {len(passed)} targets met"] if passed else []
    if result.seconds is not None:
        notes.append(f"{result.seconds:.0f} s")
    lines = [f"## {result.title}", ", ".join(notes) + "." if notes else ""]
    if result.error is not None:
        lines.append(f"**Failed: {_cell(result.error)}**")
    if result.rows:
        lines.append(_table(result.rows))
    return "\n\n".join(line for line in lines if line)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [[_cell(row.get(name)) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return " ".join(str(value).replace("|", "\\|").split())
