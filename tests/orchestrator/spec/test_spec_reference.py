"""docs/spec.md lists every setting with type, default and description."""

from pathlib import Path

from orchestrator.spec.reference import spec_reference
from orchestrator.spec.setting_fields import setting_fields

PAGE = Path(__file__).parents[3] / "docs" / "spec.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == spec_reference(), (
        "run: python -m orchestrator.spec.reference > docs/spec.md"
    )


def test_a_row_has_type_default_and_description() -> None:
    lines = PAGE.read_text().splitlines()
    assert (
        "| `reduction_factor` | number above 1 | `3.0` "
        "| asha only: one in this many points continues after a round. |"
    ) in lines
    assert "| `method` | `grid`, `random`, `tpe`, `gp` | `grid` |" in PAGE.read_text()
    assert "## search.budget" in lines
    assert "## evals.benchmarks (each)" in lines


def test_every_searchable_setting_is_listed_with_a_description() -> None:
    rows: dict[str, str] = {}
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = f"{line.removeprefix('## ')}."
        elif line.startswith("| `"):
            name, *_, text = (cell.strip() for cell in line.strip("|").split(" | "))
            rows[section + name.strip("`")] = text.strip("| ")
    assert set(setting_fields()) - set(rows) == set()
    assert [name for name, text in rows.items() if not text] == []
