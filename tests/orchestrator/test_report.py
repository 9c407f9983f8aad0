import base64
import json
import struct
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from orchestrator.analysis import analyse
from orchestrator.plots import draw_panel, tick_weights
from orchestrator.record import SweepFolder
from orchestrator.report import report_json, write_report
from orchestrator.transform import w_p
from tests.orchestrator.sweeps import (
    BASE,
    DEMO,
    OTHER_BASE,
    UNTUNED,
    base_record,
    card,
    score,
    sweep_record,
    trial,
    write_demo,
    write_sweep,
    write_two_models,
)

ACCURACY = "multiple_choice_accuracy"
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """What a page says: text by element id, tables by id, pictures, and addresses it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[dict[str, str]] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self._open: list[tuple[str, str | None]] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.addresses += [values[key] for key in ("src", "href", "srcset") if key in values]
        if tag == "img":
            self.images.append(values)
        if tag in VOID:
            return
        self._open.append((tag, values.get("id")))
        if tag == "table":
            self.tables[values.get("id", f"table {len(self.tables)}")] = []
        if tag == "tr":
            list(self.tables.values())[-1].append([])
        if tag in ("td", "th"):
            list(self.tables.values())[-1][-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1][0] == tag
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for tag, element_id in self._open:
            if element_id:
                self.ids[element_id] = self.ids.get(element_id, "") + data
            if tag in ("td", "th"):
                list(self.tables.values())[-1][-1][-1] += data
            if tag in ("h1", "h2"):
                self.headings[-1] += data


def page_of(folder: SweepFolder) -> Page:
    return Page(write_report(folder))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    folder = write_demo(tmp_path_factory.mktemp("report") / "demo")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def demo_page(demo: SweepFolder) -> Page:
    return Page(demo.report_html)


def test_answer_comes_first_then_plots_table_trials_caveats_and_how_to_repeat(
    demo_page: Page,
) -> None:
    assert demo_page.ids["headline"] == (
        "Single-seed demo: PLW 0.01 had the highest multiple-choice accuracy (0.78, 95% interval "
        "0.66 to 0.87), but the intervals overlap, so no PLW is named best, and no other measure "
        "names one."
    )
    assert demo_page.headings == [
        "PLW sweep: demo",
        "Best PLW per measure",
        "Trials",
        "Caveats",
        "How to repeat",
    ]
    html = demo_page.html
    places = [html.index(f'id="{name}"') for name in ("headline", "plots", "best", "trials")]
    assert places == sorted(places)


def test_page_asks_the_network_for_nothing(demo_page: Page) -> None:
    assert len(demo_page.images) == 4
    assert all(address.startswith("data:image/svg+xml;base64,") for address in demo_page.addresses)
    assert "<script" not in demo_page.html
    assert "url(" not in demo_page.html
    assert "@import" not in demo_page.html


def test_each_plot_is_a_readable_svg_and_says_its_values_in_its_alt_text(demo_page: Page) -> None:
    for image in demo_page.images:
        svg = base64.b64decode(image["src"].partition(",")[2])
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert demo_page.images[0]["alt"] == (
        "Multiple choice, accuracy over prompt loss weight. "
        "PLW 0: 0.75, 95% interval 0.63 to 0.84; PLW 0.01: 0.78, 95% interval 0.66 to 0.87; "
        "PLW 0.1: 0.77, 95% interval 0.65 to 0.85; PLW 1: 0.64, 95% interval 0.52 to 0.75; "
        "untuned: 0.56, 95% interval 0.44 to 0.68."
    )


def test_overlapping_intervals_name_no_plw(demo_page: Page) -> None:
    row = demo_page.tables["best"][1]
    assert row == [
        "Multiple choice, accuracyhigher is better",
        "PLW 0.01",
        "0.78, 95% interval 0.66 to 0.8764 items, 1 seed",
        "no PLW stands out: intervals overlap (0.66 to 0.87 at PLW 0.01 with PLW 0, 0.1 and 1)",
        "0.56, 95% interval 0.44 to 0.68the best observed is not clearly better",
    ]
    assert 'class="named"' not in demo_page.html


def test_separated_intervals_name_the_plw(tmp_path: Path) -> None:
    scores = {0.0: (0.60, 0.55, 0.65), 0.1: (0.80, 0.75, 0.85), 1.0: (0.70, 0.66, 0.74)}
    trials = [trial(plw) for plw in scores]
    cards = {t.id: card({ACCURACY: scores[t.prompt_loss_weight]}) for t in trials}
    page = page_of(write_sweep(tmp_path / "s", trials, cards))
    assert page.ids["headline"] == (
        "Single-seed demo: the best is PLW 0.1 for multiple-choice accuracy (0.80, 95% interval "
        "0.75 to 0.85), apart from every other PLW."
    )
    assert page.tables["best"][1][3] == (
        "PLW 0.1 is best: its interval, 0.75 to 0.85, overlaps no other PLW's"
    )
    assert 'class="named"' in page.html
    assert "Not measured: short generation, long generation." in page.ids["caveats"]
    assert "The untuned model was not scored" in page.ids["caveats"]


def test_trials_table_has_every_score_and_the_untuned_row(demo_page: Page) -> None:
    header, *rows = demo_page.tables["trials"]
    assert header == [
        "PLW",
        "Seed",
        "State",
        "Training completion loss",
        "Training prompt loss",
        "Multiple choice accuracy",
        "Short generation exact match",
        "Long generation chrF",
        "Held-out completion loss",
        "Held-out prompt loss",
        "Aggregate relative",
        "Tokens/s",
        "Time",
        "Trial",
    ]
    assert rows[2] == [
        "0.1",
        "0",
        "done",
        "1.950",
        "2.750",
        "0.77 (0.65 to 0.85)",
        "0.28 (0.19 to 0.40)",
        "29.8 (26.4 to 33.0)",
        "2.104 (1.880 to 2.330)",
        "2.650 (2.480 to 2.830)",
        rows[2][10],
        "1,234",
        "3 min 53 s",
        "01s0",
    ]
    # Log odds of 0.77 to 0.56 are 0.95, of 0.28 to none 3.93, of 29.8 to 12 points 1.10.
    assert rows[2][10].startswith("1.99 (")
    assert rows[-1][10] == "-"
    assert rows[-1][:6] == ["untuned", "", "scored", "-", "-", "0.56 (0.44 to 0.68)"]


def test_means_of_several_benchmarks_are_columns_and_in_the_json(tmp_path: Path) -> None:
    arc = score("multiple_choice_accuracy", (0.4, 0.3, 0.5)).model_copy(update={"name": "arc"})
    scores = card({"multiple_choice_accuracy": (0.8, 0.7, 0.9)})
    scores = scores.model_copy(update={"scores": [*scores.scores, arc]})
    done = trial(0.0)
    folder = write_sweep(tmp_path / "s", [done], {done.id: scores}, scores)
    header, row, untuned = page_of(folder).tables["trials"]
    place = header.index("Aggregate multiple choice")
    # Errors of 5 points each: the mean's is 5 / sqrt(2).
    assert row[place] == untuned[place] == "60.0 (53.1 to 66.9)"
    assert row[header.index("Aggregate relative")].startswith("0.00 (-")
    content = report_json(folder)
    names = [one["name"] for one in content["trials"][0]["scores"]]
    assert names[-2:] == ["aggregate_multiple_choice", "aggregate_relative"]
    assert content["untuned"][BASE][-1]["name"] == "aggregate_multiple_choice"


def test_items_that_stand_in_the_training_data_are_a_caveat(tmp_path: Path) -> None:
    done = trial(0.0)
    scores = card(DEMO[0.0])
    counts = {"multiple_choice_accuracy": 16, "heldout_prompt_loss": 16, "long_generation_chrf": 0}
    scores = scores.model_copy(
        update={
            "scores": [
                s.model_copy(update={"num_overlapping": counts.get(s.name)}) for s in scores.scores
            ]
        }
    )
    page = page_of(write_sweep(tmp_path / "s", [done], {done.id: scores}))
    assert (
        "The training data holds 16 of 64 items of multiple_choice_accuracy (25%), by 13 words in "
        "a row or as a whole: a model may know them by heart." in page.ids["caveats"]
    )
    clean = page_of(write_sweep(tmp_path / "clean", [done], {done.id: card(DEMO[0.0])}))
    assert "The training data holds" not in clean.ids["caveats"]


def test_single_seed_model_note_and_data_ratio_are_caveats(demo_page: Page) -> None:
    caveats = demo_page.ids["caveats"]
    assert "SINGLE SEED: at least one PLW was trained with one seed only." in caveats
    assert "Intervals are over items: another draw of items, not another training seed." in caveats
    assert "Model: dequantised from a 4-bit file, already instruction-tuned." in caveats
    assert "R_g (completion tokens over prompt tokens) is 0.0421" in caveats


def test_how_to_repeat_has_command_spec_versions_and_fingerprints(demo_page: Page) -> None:
    assert demo_page.ids["command"] == "plw sweep sweep.yaml"
    assert "loss.prompt_loss_weight:\n    - 0\n    - 0.01" in demo_page.ids["spec"]
    rows = [row for table in demo_page.tables.values() for row in table]
    assert ["fingerprint", "0f1e2d3c"] in rows
    assert ["fingerprint", "a1b2c3d4"] in rows
    assert ["commit", "57793e2"] in rows
    assert ["versions.torch", "2.9.0"] in rows
    assert ["hardware.cpus", "2"] in rows


def test_failed_and_unfinished_trials_are_told_with_their_reason(tmp_path: Path) -> None:
    done = trial(0.0)
    failed = trial(0.1, state="failed", error="loss is nan <script>alert(1)</script> | step 3")
    running = trial(1.0, state="training")
    pending = trial(0.5, state="pending")
    folder = write_sweep(
        tmp_path / "s", [done, failed, running, pending], {done.id: card(DEMO[0.0])}, card(UNTUNED)
    )
    page = page_of(folder)
    assert page.ids["headline"].endswith("Of 4 trials, 1 failed and 2 unfinished.")
    assert page.ids["counts"].startswith("1 of 4 done, 1 failed, 2 unfinished.")
    assert page.ids["failures"].split("\n")[1:3] == [
        "PLW 0.1 (01s0)",
        "loss is nan <script>alert(1)</script> | step 3",
    ]
    assert "<script" not in page.html
    assert [row[2] for row in page.tables["trials"][1:]] == ["done", "failed", "training", "scored"]
    assert page.tables["trials"][2][5:8] == ["-", "-", "-"]
    assert "1 of 4 trials failed and 2 did not finish" in page.ids["caveats"]


def test_sweep_without_any_score_says_so(tmp_path: Path) -> None:
    page = page_of(write_sweep(tmp_path / "s", [trial(0.1, state="training")], {}))
    assert page.ids["headline"] == (
        "No PLW can be recommended: no trial has scores yet. Of 1 trial, 1 unfinished."
    )
    assert page.images == []
    assert "best" not in page.tables
    assert not (tmp_path / "s" / "plots").exists()


def test_an_interrupted_sweep_does_not_say_that_its_measures_were_not_taken(
    tmp_path: Path,
) -> None:
    folder = write_sweep(tmp_path / "s", [trial(0.1, state="training")], {}, card(UNTUNED))
    caveats = page_of(folder).ids["caveats"]
    assert "No trial has been scored yet." in caveats
    assert "Not measured" not in caveats


def caveats_with(folder: Path, **counts: int) -> str:
    stats = {
        "num_examples": 1000,
        "max_length": 512,
        "num_truncated_examples": 0,
        "num_truncated_tokens": 0,
        "num_cut_completions": 0,
        "num_dropped_examples": 0,
        "num_dropped_tokens": 0,
    }
    sweep = write_sweep(folder / "s", [trial(0.1)], {}, bases=[base_record(stats=stats | counts)])
    return page_of(sweep).ids["caveats"]


def test_much_data_that_was_cut_is_a_caveat(tmp_path: Path) -> None:
    caveats = caveats_with(tmp_path, num_truncated_examples=51, num_truncated_tokens=12345)
    assert (
        "5% of the training examples (51 of 1,000) were cut to 512 tokens, which lost 12,345 "
        "tokens: R_g and all findings are those of the cut data."
    ) in caveats


def test_little_data_that_was_cut_is_none(tmp_path: Path) -> None:
    caveats = caveats_with(tmp_path, num_truncated_examples=50, num_truncated_tokens=12345)
    assert "512 tokens" not in caveats


def test_cut_completions_and_dropped_examples_are_always_told(tmp_path: Path) -> None:
    caveats = caveats_with(
        tmp_path,
        num_truncated_examples=1,
        num_cut_completions=1,
        num_dropped_examples=1,
        num_dropped_tokens=700,
    )
    assert (
        "1 training example lost the end of the completion with its end-of-sequence token: "
        "nothing there teaches where to stop."
    ) in caveats
    assert (
        "1 training example of 1,001 had more than 512 tokens and was dropped, with 700 tokens."
    ) in caveats


def test_several_seeds_and_a_second_setting_are_shown(tmp_path: Path) -> None:
    trials = [
        trial(plw, seed=seed, searched={"optimizer.learning_rate": rate})
        for plw in (0.0, 0.1)
        for rate in (1e-5, 1e-4)
        for seed in (0, 1)
    ]
    cards = {
        t.id: card({ACCURACY: (0.5 + index / 100, 0.4, 0.7)}) for index, t in enumerate(trials)
    }
    page = page_of(write_sweep(tmp_path / "s", trials, cards))
    assert page.tables["trials"][0][1] == "Other settings"
    assert page.tables["trials"][1][1] == "optimizer.learning_rate 1e-05"
    assert page.tables["best"][1][2].endswith("64 items, 2 seeds")
    assert "SINGLE SEED" not in page.ids["caveats"]
    assert "over training seeds (Student t)" in page.ids["caveats"]


def test_markdown_says_the_same_and_keeps_its_tables_whole(tmp_path: Path) -> None:
    done = trial(0.0)
    failed = trial(0.1, state="failed", error="bad | pipe\nand a second line")
    folder = write_sweep(tmp_path / "s", [done, failed], {done.id: card(DEMO[0.0])}, card(UNTUNED))
    write_report(folder)
    text = folder.report_md.read_text(encoding="utf-8")
    assert text.startswith("# PLW sweep: demo\n\n**Single-seed demo: only PLW 0 has scores")
    assert "![Scores over prompt loss weight](plots/scores.png)" in text
    assert "    bad | pipe\n    and a second line\n" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        pipes = {line.replace("\\|", "").count("|") for line in table.strip().splitlines()}
        assert len(pipes) == 1, table


def test_plots_are_written_as_svg_and_png(demo: SweepFolder) -> None:
    stems = [
        "heldout_completion_loss",
        "long_generation_chrf",
        "multiple_choice_accuracy",
        "scores",
        "short_generation_exact_match",
    ]
    names = sorted(path.name for path in demo.plots.iterdir())
    assert names == sorted(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))
    png = (demo.plots / "scores.png").read_bytes()
    assert struct.unpack(">II", png[16:24]) == (1500, 1110)
    svg = (demo.plots / "multiple_choice_accuracy.svg").read_text(encoding="utf-8")
    for text in ("Multiple choice, accuracy", "untuned model", "95% interval over items"):
        assert f">{text}</text>" in svg


def test_all_plws_that_tie_are_ringed_under_one_label() -> None:
    scores = {0.0: 0.8, 0.01: 0.8, 0.1: 0.6, 1.0: 0.8}
    trials = [trial(plw) for plw in scores]
    cards = {t.id: card({ACCURACY: (scores[t.prompt_loss_weight], 0.5, 0.9)}) for t in trials}
    [measure] = analyse(sweep_record([t.id for t in trials]), trials, cards, {}).measures
    axes = Figure().add_subplot()
    draw_panel(axes, measure)
    [rings] = [line for line in axes.lines if line.get_label() == "best observed"]
    assert list(rings.get_xdata()) == [w_p(0.0), w_p(0.01), w_p(1.0)]
    assert list(rings.get_ydata()) == [0.8, 0.8, 0.8]


def test_ties_of_several_series_are_ringed_where_their_points_stand() -> None:
    trials = [
        trial(plw, searched={"optimizer.learning_rate": rate})
        for plw in (0.0, 0.1)
        for rate in (1e-5, 1e-4)
    ]
    cards = {t.id: card({ACCURACY: (0.8, 0.5, 0.9)}) for t in trials}
    [measure] = analyse(sweep_record([t.id for t in trials]), trials, cards, {}).measures
    axes = Figure().add_subplot()
    draw_panel(axes, measure)
    [rings] = [line for line in axes.lines if line.get_label() == "best observed"]
    places = {x for line in axes.lines if line is not rings for x in line.get_xdata()}
    assert sorted(rings.get_xdata()) == sorted(places)
    assert len(places) == 4


def test_untuned_model_far_off_is_told_and_not_drawn(demo: SweepFolder) -> None:
    svg = (demo.plots / "heldout_completion_loss.svg").read_text(encoding="utf-8")
    assert ">untuned model: 5.301, above the panel</text>" in svg


def test_tick_labels_never_touch_and_both_ends_are_labelled() -> None:
    paper = [0, 5e-4, 2.236e-3, 1e-2, 2.463e-2, 5e-2, 1e-1, 2.463e-1, 5e-1, 1]
    ticks = tick_weights(paper)
    assert ticks == [0, 5e-4, 1e-2, 5e-2, 2.463e-1, 5e-1, 1]
    gaps = [w_p(b) - w_p(a) for a, b in pairwise(ticks)]
    assert min(gaps) > 0.09
    assert tick_weights([0.1]) == [0, 0.001, 0.01, 0.1, 0.5, 1]


def test_report_json_holds_headline_findings_trials_and_no_password(tmp_path: Path) -> None:
    spec = sweep_record([]).spec | {"tracking": {"uri": "http://ann:s3cret@host"}}
    done = trial(0.0)
    folder = write_sweep(tmp_path / "s", [done], {done.id: card(DEMO[0.0])}, spec=spec)
    content = report_json(folder)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert sorted(content) == ["findings", "headline", "sweep", "trials", "untuned"]
    assert content["headline"].startswith("Single-seed demo: only PLW 0 has scores")
    assert content["trials"][0]["scores"][0]["value"] == 0.75
    assert content["untuned"] == {BASE: None}
    assert content["sweep"]["spec"]["tracking"]["uri"] == "http://host"
    write_report(folder)
    for path in (folder.report_md, folder.report_html):
        assert "s3cret" not in path.read_text(encoding="utf-8")


def test_every_model_has_a_row_for_its_untuned_scores_and_a_plot(tmp_path: Path) -> None:
    folder = write_two_models(tmp_path / "s")
    page = page_of(folder)
    rows = page.tables["trials"]
    assert [row[:2] + row[-1:] for row in rows[1:]] == [
        ["0", "model.path /models/weak", f"0-{BASE}"],
        ["0", "model.path /models/strong", f"0-{OTHER_BASE}"],
        ["0.1", "model.path /models/weak", f"0.1-{BASE}"],
        ["0.1", "model.path /models/strong", f"0.1-{OTHER_BASE}"],
        ["untuned", "model weak", BASE],
        ["untuned", "model strong", OTHER_BASE],
    ]
    assert [row[6] for row in rows[5:]] == ["0.40 (0.35 to 0.44)", "0.68 (0.60 to 0.80)"]
    assert len(page.images) == 2
    assert (folder.plots / f"multiple_choice_accuracy-{OTHER_BASE}.svg").exists()
    assert report_json(folder)["untuned"][OTHER_BASE][0]["value"] == 0.68


def test_an_untuned_model_without_scores_is_a_caveat(tmp_path: Path) -> None:
    folder = write_two_models(tmp_path / "s")
    (folder.base(OTHER_BASE) / "scores.json").unlink()
    assert "Not every untuned model was scored" in page_of(folder).ids["caveats"]


def test_data_sets_are_told_apart_in_the_caveats(tmp_path: Path) -> None:
    bases = [
        base_record(data="/d/short.jsonl", stats={"generation_ratio": {"of_means": 0.2}}),
        base_record(
            OTHER_BASE,
            data="/d/long.jsonl",
            stats={"generation_ratio": {"of_means": 3.5}, "num_cut_completions": 2},
        ),
    ]
    caveats = page_of(write_sweep(tmp_path / "s", [trial(0.1)], {}, bases=bases)).ids["caveats"]
    assert "is 0.2 for data short.jsonl, 3.5 for data long.jsonl; the best PLW" in caveats
    assert "data long.jsonl: 2 training examples lost the end of the completion" in caveats
    assert caveats.count("Model: dequantised") == 1
