"""What a report shows on request: values of points, log odds, and outputs of two trials."""

import json
from pathlib import Path

import pytest

from orchestrator.analysis.findings import Panel, Point, Series
from orchestrator.analysis.sample_table import MAX_MODELS, sample_table
from orchestrator.record.folder import SweepFolder
from orchestrator.report.log_odds import in_log_odds
from orchestrator.report.pages import write_report
from tests.orchestrator.report_page import Page, read_page
from tests.orchestrator.sweeps import (
    card,
    hill,
    trial,
    write_card,
    write_demo,
    write_hill,
    write_sweep,
)


@pytest.fixture(scope="module")
def demo_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read_page(write_demo(tmp_path_factory.mktemp("report") / "demo"))


def test_each_point_has_its_value_and_interval(demo_page: Page) -> None:
    # Five panels of four weights, four of them also in log odds.
    assert len(demo_page.points) == 36
    assert "PLW 0.01: 78.0, 95% interval 66.4 to 86.6" in demo_page.points


def test_log_odds_are_those_of_the_shares(demo_page: Page) -> None:
    titles = [image["alt"].partition(" over ")[0] for image in demo_page.log_odds_images]
    assert titles == ["Overall", "Multiple choice", "Short generation", "Long generation"]
    # ln(0.75 / 0.25), ln(0.632 / 0.368), ln(0.840 / 0.160)
    assert "PLW 0: 1.10, 95% interval 0.54 to 1.66;" in demo_page.log_odds_images[1]["alt"]


def test_an_untuned_model_at_0_is_left_out_of_the_log_odds(demo_page: Page) -> None:
    assert "untuned: 0.0" in demo_page.images[2]["alt"]
    assert "untuned" not in demo_page.log_odds_images[2]["alt"]


def point(value: float, low: float, high: float) -> Point:
    return Point(
        value=value, ci_low=low, ci_high=high, interval="items", num_items=64,
        prompt_loss_weight=0.1, w_p=0.5, other_settings={}, values=[value], seeds=[0],
        trial_ids=["a"],
    )  # fmt: skip


def panel(unit: str, one: Point, *, is_relative: bool = False) -> Panel:
    return Panel(
        id="p", kind="answer", title="P", unit=unit, higher_is_better=True,
        is_relative=is_relative, series=[Series(label="", cell=None, points=[one])],
    )  # fmt: skip


def test_panels_without_finite_log_odds_have_none() -> None:
    assert in_log_odds(panel("nats per token", point(2, 1, 3))) is None
    assert in_log_odds(panel("points", point(2, 1, 3), is_relative=True)) is None
    assert in_log_odds(panel("points", point(2, 0, 3))) is None
    assert in_log_odds(panel("points", point(99, 98, 100))) is None
    found = in_log_odds(panel("points", point(50, 25, 75)))
    assert found is not None
    [shown] = found.points
    assert (shown.value, shown.ci_low, shown.ci_high) == pytest.approx(
        (0, -1.0986, 1.0986), abs=1e-4
    )
    assert shown.values == [0]


def test_a_sweep_without_weights_to_compare_has_points_but_no_log_odds(tmp_path: Path) -> None:
    rates = (1e-5, 2e-5, 4e-5)
    trials = [trial(0.1, searched={"optimizer.learning_rate": rate}) for rate in rates]
    cards = {
        one.id: card({"quiz.acc": (0.5 + n / 10, 0.4 + n / 10, 0.6 + n / 10)})
        for n, one in enumerate(trials)
    }
    page = read_page(write_sweep(tmp_path / "s", trials, cards))
    assert page.log_odds_images == []
    assert any("learning_rate 4e-05" in text for text in page.points)


def samples_of(trial_id: str, values: list[float], **changes: object) -> str:
    rows = [
        {"measure": "essays.chrf", "id": str(item), "prompt": f"Prompt {item}", "target": "t",
         "output": f"<b>{trial_id}</b> {item}", "value": value} | changes
        for item, value in enumerate(values)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_samples(folder: Path, text: str) -> Path:
    write_card(folder, card({"essays.chrf": (30.0, 29.0, 31.0)}))
    (folder / "samples.jsonl").write_text(text)
    return folder


def test_items_with_the_largest_spread_come_first(tmp_path: Path) -> None:
    folders = {
        name: write_samples(tmp_path / name, samples_of(name, values))
        for name, values in {"a": [1, 2, 3], "b": [1, 5, 4], "c": [1, 2, 9]}.items()
    }
    table = sample_table(folders)
    assert table is not None
    assert table.models == ["a", "b", "c"]
    assert [item.id for item in table.items] == ["2", "1", "0"]
    assert table.items[0].values == [3, 4, 9]
    assert table.items[0].outputs == ["<b>a</b> 2", "<b>b</b> 2", "<b>c</b> 2"]


def test_only_items_with_the_same_prompt_are_shown(tmp_path: Path) -> None:
    one = write_samples(tmp_path / "a", samples_of("a", [1, 2]))
    other = write_samples(tmp_path / "b", samples_of("b", [1, 2], prompt="Prompt 1"))
    table = sample_table({"a": one, "b": other})
    assert table is not None
    assert [item.id for item in table.items] == ["1"]


def test_models_with_invalid_samples_are_left_out(tmp_path: Path) -> None:
    folders = {name: write_samples(tmp_path / name, samples_of(name, [1])) for name in "ab"}
    folders["broken"] = write_samples(tmp_path / "broken", '{"id": ')
    folders["missing"] = tmp_path / "missing"
    table = sample_table(folders)
    assert table is not None
    assert table.models == ["a", "b"]
    assert sample_table({"a": folders["a"]}) is None


def test_a_page_has_twelve_models_at_most(tmp_path: Path) -> None:
    names = [f"m{n}" for n in range(15)]
    folders = {name: write_samples(tmp_path / name, samples_of(name, [1])) for name in names}
    table = sample_table(folders)
    assert table is not None
    assert table.models == names[:12]
    assert MAX_MODELS == 12


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    folder = write_hill(tmp_path_factory.mktemp("samples") / "demo")
    for number, one in enumerate(folder.read_trials()):
        text = samples_of(one.id, [number / 10, number / 20])
        (folder.trial(one.id) / "samples.jsonl").write_text(text)
    write_report(folder)
    return folder


def test_the_first_seed_of_each_weight_is_among_the_samples(sampled: SweepFolder) -> None:
    page = Page(sampled.report_html)
    header = page.tables["samples"][0]
    assert header == ["Item", "A: PLW 0, seed 0, 00", "B: PLW 0.01, seed 0, 03"]
    models = json.loads(page.html.split("const models = ")[1].split(";\n")[0])
    weights = [name.split(",")[0] for name in models]
    assert weights[:7] == [f"PLW {plw}" for plw in ("0", "0.01", "0.05", "0.1", "0.25", "0.5", "1")]
    assert "Samples" in page.headings


def test_outputs_cannot_end_the_script(sampled: SweepFolder) -> None:
    script = sampled.report_html.read_text().split("<script>")[1].split("</script>")[0]
    assert "\\u003cb\\u003e00\\u003c/b\\u003e 0" in script
    assert "<b>" not in script


def test_a_sweep_without_samples_has_no_such_section(tmp_path: Path) -> None:
    trials, cards = hill(seeds=1)
    page = read_page(write_sweep(tmp_path / "s", trials, cards))
    assert "Samples" not in page.headings
    assert "<script" not in page.html
