"""docs/spec.md names every setting, and says of it what the models say."""

from pathlib import Path

from orchestrator.spec.reference import spec_reference
from orchestrator.spec.setting_fields import setting_fields

PAGE = Path(__file__).parents[3] / "docs" / "spec.md"


def test_the_page_is_what_the_models_make_of_it() -> None:
    assert PAGE.read_text() == spec_reference(), (
        "run: python -m orchestrator.spec.reference > docs/spec.md"
    )


def test_a_setting_has_its_values_its_default_and_a_word() -> None:
    lines = PAGE.read_text().splitlines()
    assert (
        "| `prompt_loss_weight` | number at least 0 at most 1 | `0.0` "
        "| Weight of a prompt token beside 1 for a completion token. |"
    ) in lines
    assert "| `method` | `grid`, `random`, `tpe`, `gp` | `grid` |" in PAGE.read_text()
    assert "## search.budget" in lines
    assert "## evals.benchmarks (each)" in lines


def test_every_setting_that_can_be_searched_stands_there_and_is_explained() -> None:
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
