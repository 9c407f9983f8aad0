"""Maps of prompt and completion weight in findings, page, Markdown and JSON."""

import json
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from orchestrator.analysis.findings import Findings, WeightMap
from orchestrator.analysis.headline import headline
from orchestrator.analysis.sweep_findings import analyse
from orchestrator.export.best_setting import best_setting
from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import report_json, write_report
from orchestrator.report.weight_map_plot import draw_map, drawn_ratios, is_table
from orchestrator.statistics.weight_trials import WeightTrial
from tests.orchestrator.report_page import Page
from tests.orchestrator.sweeps import base_record, sweep_record, trial, write_hill
from tests.orchestrator.two_weights import (
    COMPLETION,
    grid_trials,
    make_records,
    product,
    ratio_alone,
    write_two_weights,
)
from trainers.foundation.errors import InputError

BEST = (
    "Prompt 0.2 with completion 1 has the highest mean of 12 pairs of prompt and completion "
    "weight: +4.1 points relative to prompt 0 with completion 1 (95% interval +3.2 to +5.0, "
    "corrected for selection)."
)
OTHERS = (
    "1 other pair is not significantly worse than the best (Holm, 5%): prompt 0.1 with completion "
    "0.5."
)
RATIO = (
    "No significant effect beyond the ratio prompt / completion (F(6, 22) = 0.269, p = 0.95): "
    "pairs of equal ratio differ by at most 1.1 points (95%, jointly over all such pairs)."
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    found = write_two_weights(tmp_path_factory.mktemp("maps") / "ratio", grid_trials(ratio_alone))
    write_report(found)
    return found


@pytest.fixture(scope="module")
def page(folder: SweepFolder) -> Page:
    return Page(folder.report_html)


def findings_of(trials: list[WeightTrial], **searched: object) -> Findings:
    records, cards = make_records(trials, **searched)
    return analyse(sweep_record([record.id for record in records]), records, cards, {})


def get_map(trials: list[WeightTrial], **searched: object) -> WeightMap:
    [found] = findings_of(trials, **searched).weight_maps
    return found


def test_page_has_the_map_with_sentences_tests_and_pairs(page: Page) -> None:
    assert page.headings[1:3] == ["Verdicts by group", "Two weights"]
    assert page.ids["headline"] == f"{BEST} {OTHERS}"
    for sentence in (BEST, OTHERS, RATIO):
        assert sentence in page.ids["weight-maps"]
    tests = page.tables["weight-tests-1"]
    assert tests[0] == ["F test", "F", "Degrees of freedom", "p", "p, Holm"]
    assert [row[0] for row in tests[1:]] == [
        "Any difference",
        "Prompt weight",
        "Completion weight",
        "Interaction",
        "More than the ratio",
    ]
    assert tests[5][1:] == ["0.269", "6, 22", "0.95", "0.95"]
    header, *rows = page.tables["weight-pairs-1"]
    assert header[5] == "Difference from prompt 0 with completion 1 (95%)"
    assert len(rows) == 12
    assert rows[0] == ["0.2", "1", "0.2", "3", "39.4", "+4.1 (+3.5 to +4.7)", "best mean"]
    assert [row[6] for row in rows[1:3]] == ["yes", "no"]
    assert ["0", "1", "0", "3", "35.3", "reference", "no"] in rows
    assert "Lines without a completion weight are means over the tried ones." in page.html


def test_map_is_svg_with_values_in_its_alt_text(page: Page, folder: SweepFolder) -> None:
    [image] = [each for each in page.images if "over prompt weight and" in each["alt"]]
    assert image["alt"].startswith(
        "Multiple choice over prompt weight and completion weight, in points relative to prompt 0 "
        "with completion 1. prompt 0 with completion 0.25: -0.1; "
    )
    svg = (folder.plots / "two_weights.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    for text in ("reference", "+4.1", "best mean", "not significantly worse", "prompt weight"):
        assert f">{text}</text>" in svg
    width, height = struct.unpack(">II", (folder.plots / "two_weights.png").read_bytes()[16:24])
    assert 800 < width < 1100
    assert 550 < height < 800


def test_markdown_and_json_have_the_same_content(folder: SweepFolder) -> None:
    text = folder.report_md.read_text(encoding="utf-8")
    section = text[text.index("## Two weights") : text.index("## Mechanism")]
    assert f"- {BEST}\n- {OTHERS}\n" in section
    assert "![Multiple choice by prompt and completion weight](plots/two_weights.png)" in section
    assert (folder.plots / "two_weights.png").exists()
    for block in (block for block in section.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in block.strip().splitlines()}) == 1, block
    content = report_json(folder)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    [found] = content["findings"]["weight_maps"]
    assert found["sentences"][0] == BEST
    assert found["grid"]["best"] == [0.2, 1.0]
    assert len(found["grid"]["cells"]) == 12
    assert len(found["trial_ids"]) == 36


def test_cells_are_coloured_framed_and_crossed_by_lines_of_equal_ratio() -> None:
    found = get_map(grid_trials(ratio_alone))
    axes = Figure().add_subplot()
    draw_map(axes, found)
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    frames = [patch for patch in cells if not patch.get_fill()]
    assert (len(cells), len(frames)) == (12 + 2, 2)
    widths = {frame.get_linewidth(): frame.get_xy() for frame in frames}
    assert widths[2.4] == pytest.approx((2 - 0.44, 2 - 0.42))
    assert widths[1.1] == pytest.approx((1 - 0.44, 1 - 0.42))
    assert drawn_ratios(found) == [0.2, 0.4, 0.8]
    # Both pairs of ratio 0.2 are on its line: (0.1, 0.5) at (1, 1) and (0.2, 1) at (2, 2).
    points = list(zip(*axes.lines[0].get_data(), strict=True))
    for place in ((1, 1), (2, 2)):
        assert min(abs(x - place[0]) + abs(y - place[1]) for x, y in points) < 0.05
    values = [text.get_text() for text in axes.texts]
    assert values.count("reference") == 1
    assert values[-3:] == ["0.2", "0.4", "0.8"]


def test_weights_from_ranges_are_drawn_as_points_over_w_p() -> None:
    pairs = [(0.013, 0.59), (0.05, 0.64), (0.14, 0.77), (0.26, 0.24), (0.44, 0.63), (1.0, 0.52)]
    trials = [
        WeightTrial(
            prompt_weight=prompt,
            completion_weight=completion,
            seed=str(seed),
            score=ratio_alone(prompt, completion) + seed + 0.1 * (prompt * 100 % 3) * (seed - 1),
        )
        for prompt, completion in pairs
        for seed in range(3)
    ]
    found = get_map(trials)
    assert not is_table(found)
    axes = Figure().add_subplot()
    draw_map(axes, found)
    points = [each for each in axes.collections if isinstance(each, PathCollection)]
    places = sorted(tuple(each.get_offsets()[0]) for each in points)
    assert len(places) == 6
    # 1 is at w_p 1, and 0.05 at 0.05 ** 0.30103 = 0.406.
    assert places[-1] == pytest.approx((1.0, 0.52))
    assert places[1] == pytest.approx((0.4058, 0.64), abs=1e-3)
    assert drawn_ratios(found) == [0.03, 0.1, 0.3, 1.0]


def test_no_map_if_one_weight_is_constant(tmp_path: Path) -> None:
    for searched in (
        grid_trials(product, completions=(0.5,)),
        grid_trials(product, prompts=(0.1,)),
    ):
        assert findings_of(searched).weight_maps == []
    hill = write_hill(tmp_path / "hill")
    write_report(hill)
    assert "Two weights" not in hill.report_html.read_text()
    assert "Two weights" not in hill.report_md.read_text()
    assert "completion weight" not in hill.report_md.read_text()
    assert not (hill.plots / "two_weights.svg").exists()


def test_single_seed_has_no_noise_and_no_marks(tmp_path: Path) -> None:
    sweep = write_two_weights(tmp_path / "one", grid_trials(product, seeds=1))
    write_report(sweep)
    page = Page(sweep.report_html)
    reason = (
        "No conclusion about the 12 pairs of prompt and completion weight: no pair has a second "
        "seed, so noise cannot be estimated and nothing is tested."
    )
    assert page.ids["headline"].endswith(reason)
    assert "which is biased as the best of several" in page.ids["weight-maps"]
    assert "weight-tests-1" not in page.tables
    rows = page.tables["weight-pairs-1"][1:]
    assert rows[0][5:] == ["+3.0, no interval", "-"]
    assert "not significantly worse" not in (sweep.plots / "two_weights.svg").read_text()
    with pytest.raises(InputError, match="the sweep names no best PLW"):
        best_setting(sweep, None, None)


def test_equal_pairs_give_no_recommendation(tmp_path: Path) -> None:
    sweep = write_two_weights(tmp_path / "flat", grid_trials(lambda prompt, completion: 40.0))
    text = report_json(sweep)["headline"]
    assert text.startswith("No significant difference between the 12 pairs of prompt and")
    assert text.endswith("possibly by chance.")
    with pytest.raises(InputError, match="the sweep names no best PLW: No significant difference"):
        best_setting(sweep, None, None)


def test_best_setting_has_both_weights_of_the_best_pair(folder: SweepFolder) -> None:
    best = best_setting(folder, None, None)
    assert best.prompt_loss_weight == 0.2
    assert best.settings["loss"]["role_weights"]["completion"] == 1.0
    assert len(best.trial_ids) == 3
    assert best.reason == BEST.rstrip(".")


def test_other_settings_have_separate_maps() -> None:
    first, one = make_records(grid_trials(product))
    second, other = make_records(grid_trials(ratio_alone), **{"loss.normalization": "tokens"})
    renamed = [record.model_copy(update={"id": f"t{record.id}"}) for record in second]
    records = [*first, *renamed]
    cards = one | {f"t{key}": card for key, card in other.items()}
    found = analyse(sweep_record([r.id for r in records]), records, cards, {})
    assert [each.label for each in found.weight_maps] == [
        "loss.normalization completion",
        "loss.normalization tokens",
    ]
    assert [each.grid.best for each in found.weight_maps] == [(0.4, 1.0), (0.2, 1.0)]
    # Several maps: the headline is the verdict on PLW.
    assert headline(found).startswith("Multiple choice: ")


def test_models_have_separate_maps() -> None:
    bases = [base_record("a" * 8, model="/models/weak"), base_record("b" * 8, model="/models/big")]
    records, cards = [], {}
    for base in bases:
        own, scored = make_records(grid_trials(product), **{"model.path": base.model["path"]})
        for record in own:
            name = f"{base.key}-{record.id}"
            records.append(record.model_copy(update={"id": name, "base": base.key}))
            cards[name] = scored[record.id]
    found = analyse(sweep_record([r.id for r in records], bases=bases), records, cards, {})
    assert [each.label for each in found.weight_maps] == ["model weak", "model big"]


def test_normalization_by_weights_allows_only_the_ratio_to_matter() -> None:
    found = get_map(grid_trials(ratio_alone), **{"loss.normalization": "weights"})
    assert found.sentences[3] == (
        "With loss.normalization weights a common factor of both weights cancels, so only the "
        "ratio prompt / completion can matter, regardless of the scores."
    )


def test_effect_beyond_the_ratio_mentions_clipping() -> None:
    found = get_map(grid_trials(product))
    assert found.sentences[3].startswith(
        "More than the ratio prompt / completion matters (F(6, 22) = 26.5, p < 0.001): pairs of "
        "equal ratio differ by up to 2.9 points."
    )
    assert "Gradients were clipped (optimizer.max_grad_norm 1)" in found.sentences[4]
    free = get_map(grid_trials(product), **{"optimizer.max_grad_norm": 0.0})
    assert len(free.sentences) == 4


def test_a_completion_weight_of_null_is_1_and_counts_once() -> None:
    records, cards = make_records(grid_trials(product))
    null = trial(0.0, seed=0, searched={COMPLETION: None, "loss.normalization": "completion"})
    null = null.model_copy(update={"id": "null"})
    everything = [*records, null]
    again = {**cards, "null": cards["000"]}
    [found] = analyse(sweep_record([]), everything, again, {}).weight_maps
    assert found.grid.cell((0.0, 1.0)).num_trials == 3
