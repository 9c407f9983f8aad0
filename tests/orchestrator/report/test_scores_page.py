"""The page of `plw report --scores --html`."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator.report.scores_page import write_scores_page
from orchestrator.statistics.conclusions import draw_conclusions
from orchestrator.statistics.table import ScoreRow
from tests.orchestrator.report_page import Page
from tests.orchestrator.statistics.scores import make_rows

GROUPS = {"multiple_choice": (45.0, 50.0), "short_generation": (50.0,)}


def hill(**same: str) -> list[ScoreRow]:
    """Return scores that a parabola fits (lack of fit: p = 0.5) in both groups and overall."""
    return make_rows(lambda at: -25 * (at - 0.6) ** 2, groups=GROUPS, trial_sd=1.2, seed=1, **same)


def write_page(folder: Path, rows: Sequence[ScoreRow], *, shares: bool = True) -> Page:
    path = folder / "page.html"
    unit = None if shares else "nats per token"
    found = draw_conclusions(rows, shares=shares, higher_is_better=shares, margin=0.5, unit=unit)
    write_scores_page(path, rows, found, source=Path("my scores.csv"), margin=0.5)
    return Page(path)


def decode_svg(image: dict[str, str]) -> str:
    return base64.b64decode(image["src"].partition(",")[2]).decode()


@pytest.fixture(scope="module")
def hill_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write_page(tmp_path_factory.mktemp("scores"), hill())


def test_page_has_the_sections_of_a_report(hill_page: Page) -> None:
    assert hill_page.headings == [
        "PLW scores: my scores.csv",
        "Verdicts by group",
        "Pareto front over the groups",
        "Notes",
        "Input",
    ]
    header, *rows = hill_page.tables["verdicts"]
    assert header == ["Scores", "Verdict", "Gain, points (95%)", "p"]
    assert hill_page.ids["basis"] == "All verdicts use 21 trials (7 weights, 3 seeds each)."
    assert [row[0] for row in rows] == ["Overall", "Multiple choice", "Short generation"]
    assert "learning rates are unknown" in hill_page.ids["notes"]
    assert hill_page.tables["facts"] == [
        ["File", "my scores.csv"],
        ["Scores", "63, shares of the best possible, higher is better"],
        ["Benchmarks", "3"],
        ["Trials", "21"],
        ["Weights", "0, 0.01, 0.05, 0.1, 0.25, 0.5, 1"],
        ["Margin: a difference that does not matter", "0.5 points"],
    ]


def test_page_is_self_contained(hill_page: Page) -> None:
    assert len(hill_page.images) == 3
    assert all(address.startswith("data:image/svg+xml;base64,") for address in hill_page.addresses)
    for word in ("<script", "url(", "@import"):
        assert word not in hill_page.html


def test_each_group_has_a_plot_with_points_curve_and_band(hill_page: Page) -> None:
    titles = [image["alt"].partition(" over ")[0] for image in hill_page.images]
    assert titles == ["Overall", "Multiple choice", "Short generation"]
    for image in hill_page.images:
        texts = {
            element.text
            for element in ElementTree.fromstring(decode_svg(image)).iter()
            if element.tag.endswith("}text")
        }
        assert {"mean of seeds", "fitted curve", "95% band of its shape"} <= texts
    assert "PLW 0.25: " in hill_page.images[0]["alt"]


def test_points_are_group_means_and_losses_have_enough_digits(
    tmp_path: Path,
) -> None:
    rows = [replace(row, score=2 + row.score / 1000) for row in hill()]
    scores = [row.score for row in rows if row.plw == 0.25 and row.group == "short_generation"]
    page = write_page(tmp_path, rows, shares=False)
    header, *means = page.tables["means"]
    assert header[3] == "Short generation (nats per token)"
    assert means[4][0] == "0.25"
    assert means[4][3].startswith(f"{sum(scores) / 3:.7f} (2.000")
    assert page.tables["verdicts"][0][2] == "Gain, nats per token (95%)"
    assert ["Scores", "63, lower is better"] in page.tables["facts"]
    assert "lower is better" in decode_svg(page.images[0])


def test_models_and_learning_rates_are_separate_settings(tmp_path: Path) -> None:
    two = [*hill(model="weak"), *hill(model="strong")]
    page = write_page(tmp_path, two)
    assert {row[1] for row in page.tables["means"][1:]} == {"weak", "strong"}
    rates = [replace(row, learning_rate=rate) for rate in (1e-5, 1e-4) for row in hill()]
    page = write_page(tmp_path, rates)
    assert page.tables["means"][1][1] == "learning_rate 0.0001"
    image = decode_svg(page.images[0])
    assert ">learning rate 1e-05</text>" in image
    assert ">learning rate 0.0001</text>" in image
    # With two seeds, the rate is a covariate, and one line is for all rates.
    other = make_rows(
        lambda at: -25 * (at - 0.6) ** 2, groups=GROUPS, trial_sd=1.2, seed=2, learning_rate=1e-4
    )
    both = [*(replace(row, learning_rate=1e-5) for row in hill()), *other]
    page = write_page(tmp_path, [row for row in both if row.seed != "2"])
    assert ", all settings</text>" in decode_svg(page.images[0])


def test_conditions_are_separate_settings(tmp_path: Path) -> None:
    page = write_page(tmp_path, [*hill(condition="tokens"), *hill(condition="weights")])
    assert len(page.tables["means"]) == 1 + 2 * len({row.plw for row in hill()})
    assert {row[1] for row in page.tables["means"][1:]} == {"condition tokens", "condition weights"}


def test_next_trials_are_listed_without_a_command(tmp_path: Path) -> None:
    rows = [row for row in hill() if row.seed == "0" and row.plw in (0.0, 1.0)]
    page = write_page(tmp_path, rows)
    assert "What to run next" in page.html
    assert "Command:" not in page.html


def test_names_are_escaped(tmp_path: Path) -> None:
    rows = [replace(row, group=f"<script>$x^{{2$ {row.group}") for row in hill(model="a$b$<c>")]
    page = write_page(tmp_path, rows)
    assert "<script" not in page.html
    assert page.tables["verdicts"][2][0] == "<script>$x^{2$ multiple choice"
    assert "&lt;script&gt;$x^{2$ multiple" in decode_svg(page.images[1])


def test_seeds_and_trials_may_have_any_name(tmp_path: Path) -> None:
    rows = [replace(row, trial=f"run-{row.plw}-{row.seed}", seed=f"s{row.seed}") for row in hill()]
    page = write_page(tmp_path, rows)
    assert page.ids["basis"] == "All verdicts use 21 trials (7 weights, 3 seeds each)."
    assert ["Trials", "21"] in page.tables["facts"]
