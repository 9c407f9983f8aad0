import base64
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import report_json, write_report
from tests.orchestrator.report_page import Page, read_page
from tests.orchestrator.sweeps import (
    BASE,
    DEMO,
    OTHER_BASE,
    UNTUNED,
    card,
    hill,
    score,
    sweep_record,
    trial,
    write_demo,
    write_hill,
    write_sweep,
    write_two_models,
)

ACCURACY = "quiz.acc"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    folder = write_demo(tmp_path_factory.mktemp("report") / "demo")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def demo_page(demo: SweepFolder) -> Page:
    return Page(demo.report_html)


@pytest.fixture(scope="module")
def hill_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read_page(write_hill(tmp_path_factory.mktemp("report") / "hill"))


def test_sections_are_in_order(
    hill_page: Page,
) -> None:
    assert hill_page.ids["headline"].startswith("Overall: best PLW 0.2")
    assert hill_page.ids["headline"].endswith("3 seeds each).")
    assert hill_page.headings == [
        "PLW sweep: demo",
        "Verdicts by group",
        "Pareto front over the groups",
        "Mechanism",
        "Trials",
        "Caveats",
        "Cost",
        "Reproduction",
    ]
    html = hill_page.html
    places = [
        html.index(f'id="{name}"') for name in ("headline", "plots", "verdicts", "front", "trials")
    ]
    assert places == sorted(places)


def test_page_is_self_contained(demo_page: Page) -> None:
    assert len(demo_page.images) == 5
    assert all(address.startswith("data:image/svg+xml;base64,") for address in demo_page.addresses)
    assert "<script" not in demo_page.html
    assert "url(" not in demo_page.html
    assert "@import" not in demo_page.html


def test_plots_are_svg_with_values_in_their_alt_text(demo_page: Page) -> None:
    for image in demo_page.images:
        svg = base64.b64decode(image["src"].partition(",")[2])
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    # With one seed, the intervals are those of the scores, as in the table of trials.
    assert demo_page.images[1]["alt"] == (
        "Multiple choice over prompt loss weight. "
        "PLW 0: 75.0, 95% interval 63.2 to 84.0; PLW 0.01: 78.0, 95% interval 66.4 to 86.6; "
        "PLW 0.1: 77.0, 95% interval 65.0 to 85.5; PLW 1: 64.0, 95% interval 51.8 to 74.6; "
        "untuned: 56.0, 95% interval 44.1 to 67.7."
    )


def test_every_group_has_a_verdict_row(hill_page: Page) -> None:
    header, *rows = hill_page.tables["verdicts"]
    assert header == ["Scores", "Verdict", "Gain (95%)", "p", "Untuned model"]
    assert hill_page.ids["basis"] == "All verdicts use 21 trials (7 weights, 3 seeds each)."
    assert [row[0] for row in rows] == [
        "Overallin points",
        "Multiple choicequiz.acc, in points",
        "Short generationanswers.exact_match, in points",
        "Long generationessays.chrf, in points",
        "Held-out completion lossin nats per token",
    ]
    assert all(row[1].startswith("best PLW 0.") for row in rows)
    # The intervals of the untuned model are those of the table of trials.
    assert rows[1][3:] == ["< 0.001", "56.0, 95% interval 44.1 to 67.7"]
    assert rows[4][4] == "5.301, 95% interval 4.900 to 5.720"
    assert "nearest tried: 0.25" in rows[0][1]
    assert hill_page.html.count('class="claims"') == 5
    assert "next" not in hill_page.ids


def test_undecided_verdicts_make_no_claim_and_list_the_next_trials(demo_page: Page) -> None:
    rows = demo_page.tables["verdicts"][1:]
    assert rows[0][1].startswith("cannot say: 1 residual degree of freedom to estimate noise")
    assert [row[2] for row in rows] == ["-"] * 5
    assert demo_page.html.count('class="claims"') == 0
    assert demo_page.ids["next"].strip().split("\n") == [
        "PLW 0, seed 1",
        "PLW 0.01, seed 1",
        "PLW 0.1, seed 1",
        "PLW 1, seed 1",
    ]
    assert "<p>Reason: one more seed at every weight.</p>" in demo_page.html


def test_conditions_are_between_headline_and_plots(tmp_path: Path) -> None:
    trials, cards = hill(seeds=1)
    failed = trial(0.7, seed=2, state="failed", error="the gradient of step 3 is not finite")
    page = read_page(write_sweep(tmp_path / "s", [*trials, failed], cards))
    assert page.ids["headline"].startswith("Overall: best PLW 0.")
    assert "(7 weights, 1 seed each), assuming a parabola in w_p." in page.ids["headline"]
    assert page.ids["conditions"].strip().split("\n") == [
        "Too few weights are repeated to test the parabola and equal noise at all weights; "
        "run a second seed of each.",
        "Diverged: trial 07s2 (PLW 0.7, seed 2). It has no scores; the result excludes it.",
    ]
    places = [page.html.index(f'id="{name}"') for name in ("headline", "conditions", "plots")]
    assert places == sorted(places)
    # A shared assumption is not repeated in each row.
    assert page.html.count("parabola") == 2


def test_no_effect_has_no_gain(tmp_path: Path) -> None:
    trials, cards = hill(bend=0.0, noise=0.003)
    page = read_page(write_sweep(tmp_path / "s", trials, cards))
    assert page.ids["headline"].startswith("Overall: no effect: between PLW 0 and 1, scores")
    assert "Gain" not in page.ids["headline"]
    rows = page.tables["verdicts"][1:]
    assert {row[2] for row in rows if row[1].startswith("no effect")} == {"-"}


def test_prospect_of_the_next_trials_is_shown(tmp_path: Path) -> None:
    trials, cards = hill(bend=0.0, noise=0.3, seeds=2)
    page = read_page(write_sweep(tmp_path / "s", trials, cards))
    assert page.ids["headline"].startswith("Overall: cannot say: no significant difference")
    assert " simulated studies name a best weight" in page.ids["prospect"]


def test_note_on_means_within_seeds_appears_once(hill_page: Page) -> None:
    assert hill_page.html.count("common effect on all weights is subtracted") == 1


def test_unmeasured_groups_and_missing_untuned_scores_are_caveats(
    tmp_path: Path,
) -> None:
    trials = [trial(plw) for plw in (0.0, 0.1, 1.0)]
    cards = {t.id: card({ACCURACY: (0.6, 0.55, 0.65)}) for t in trials}
    page = read_page(write_sweep(tmp_path / "s", trials, cards))
    assert "front" not in page.tables
    assert "Not measured: short generation, long generation." in page.ids["caveats"]
    assert "The untuned model was not scored" in page.ids["caveats"]


def test_front_has_a_row_for_each_weight(hill_page: Page) -> None:
    header, *rows = hill_page.tables["front"]
    assert header == [
        "PLW",
        "multiple choice",
        "short generation",
        "long generation",
        "On the front",
    ]
    assert [row[0] for row in rows] == ["0", "0.01", "0.05", "0.1", "0.25", "0.5", "1"]
    assert rows[0][1:] == ["+0.0", "+0.0", "+0.0", "no, certain (probability 0%)"]
    assert rows[4][4].startswith("yes")


def test_recorded_mechanism_is_shown(tmp_path: Path) -> None:
    trials, cards = hill()
    trials = [t.model_copy(update={"loss_rsd": 0.05 + t.prompt_loss_weight}) for t in trials]
    page = read_page(write_sweep(tmp_path / "s", trials, cards))
    header, *rows = page.tables["mechanism"]
    assert header == ["PLW", "Loss stability (relative sd of the training loss)"]
    assert rows[0] == ["0", "0.05"]
    assert page.images[-1]["alt"].startswith("Loss stability over prompt loss weight. PLW 0: 0.05")
    assert "Memorisation was not recorded: set evals.memorisation." in page.html


def test_report_of_constant_plw(tmp_path: Path) -> None:
    trials = [trial(0.1, searched={"optimizer.learning_rate": rate}) for rate in (1e-5, 1e-4)]
    cards = {t.id: card(DEMO[0.1]) for t in trials}
    page = read_page(write_sweep(tmp_path / "s", trials, cards, card(UNTUNED)))
    assert page.ids["headline"].startswith("PLW was 0.1 in every trial, so this sweep does not")
    assert page.headings[1] == "Scores by setting"
    assert "verdicts" not in page.tables
    assert [row[:2] for row in page.tables["means"][1:]] == [
        ["0.1", "optimizer.learning_rate 0.0001"],
        ["0.1", "optimizer.learning_rate 1e-05"],
    ]
    assert "cannot say" not in page.html
    assert "next" not in page.ids


def test_searched_regularisers_are_compared(tmp_path: Path) -> None:
    trials = [
        trial(plw, searched={"model.dropout": dropout})
        for plw in (0.0, 1.0)
        for dropout in (0, 0.1)
    ]
    cards = {t.id: card(DEMO[0.1]) for t in trials}
    rows = read_page(write_sweep(tmp_path / "s", trials, cards)).tables["regularisers"][1:]
    assert [row[:3] + row[4:] for row in rows] == [
        ["none", "0", "1", "-"],
        ["none", "1", "1", "+0.0, no interval"],
        ["dropout 0.1", "0", "1", "+0.0, no interval"],
        ["dropout 0.1", "1", "1", "+0.0, no interval"],
    ]


def test_cost_is_in_gpu_hours_and_money(tmp_path: Path) -> None:
    trials, cards = hill()
    trials = [t.model_copy(update={"busy_seconds": 1800}) for t in trials]
    spec = sweep_record([]).spec | {"resources": {"workers_per_trial": 2, "price_per_gpu_hour": 3}}
    page = read_page(write_sweep(tmp_path / "s", trials, cards, spec=spec))
    assert page.ids["cost"] == (
        "Trials held their workers for 10.50 h, over all attempts. That is 21.00 GPU-hours. "
        "Cost: 63.00, at 3 per GPU-hour."
    )


def test_trials_table_has_every_score_and_the_untuned_row(demo_page: Page) -> None:
    header, *rows = demo_page.tables["trials"]
    assert header == [
        "PLW",
        "Seed",
        "State",
        "Training completion loss (nats per token)",
        "Training prompt loss (nats per token)",
        "Multiple choice quiz.acc (share of items)",
        "Short generation answers.exact match (share of items)",
        "Long generation essays.chrF",
        "Held-out completion loss (nats per token)",
        "Held-out prompt loss (nats per token)",
        "Aggregate relative (log odds above the untuned model's)",
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
    arc = score("quiz.acc", (0.4, 0.3, 0.5)).model_copy(update={"name": "arc"})
    scores = card({"quiz.acc": (0.8, 0.7, 0.9)})
    scores = scores.model_copy(update={"scores": [*scores.scores, arc]})
    done = trial(0.0)
    folder = write_sweep(tmp_path / "s", [done], {done.id: scores}, scores)
    header, row, untuned = read_page(folder).tables["trials"]
    index = header.index("Aggregate multiple choice (points)")
    # Errors of 5 points each: the mean's is 5 / sqrt(2).
    assert row[index] == untuned[index] == "60.0 (53.1 to 66.9)"
    relative = header.index("Aggregate relative (log odds above the untuned model's)")
    assert row[relative].startswith("0.00 (-")
    content = report_json(folder)
    names = [one["name"] for one in content["trials"][0]["scores"]]
    assert names[-2:] == ["aggregate_multiple_choice", "aggregate_relative"]
    assert content["untuned"][BASE][-1]["name"] == "aggregate_multiple_choice"


def test_time_of_a_trial_with_two_attempts_is_that_of_the_last_and_of_all(tmp_path: Path) -> None:
    changes = {"attempts": 2, "train_seconds": 6.6, "eval_seconds": 2.4, "busy_seconds": 40.6}
    again = trial(0.0).model_copy(update=changes)
    failed = trial(1.0, state="failed", error="out of memory")
    failed = failed.model_copy(update={"attempts": 3, "busy_seconds": 61.0})
    folder = write_sweep(tmp_path / "s", [again, failed], {again.id: card(DEMO[0.0])})
    header, *rows = read_page(folder).tables["trials"]
    times = {row[2]: row[header.index("Time")] for row in rows}
    assert times["done, 2 attempts"] == "9 s (last attempt; 41 s in all)"
    assert times["failed, 3 attempts"] == "1 min 01 s in all attempts"


def test_train_test_overlap_is_a_caveat(tmp_path: Path) -> None:
    done = trial(0.0)
    scores = card(DEMO[0.0])
    counts = {"quiz.acc": 16, "heldout_prompt_loss": 16, "essays.chrf": 0}
    scores = scores.model_copy(
        update={
            "scores": [
                s.model_copy(update={"num_overlapping": counts.get(s.name)}) for s in scores.scores
            ]
        }
    )
    page = read_page(write_sweep(tmp_path / "s", [done], {done.id: scores}))
    assert (
        "Overlap with the training data: 16 of 64 items of quiz.acc (25%). Such an item shares 13 "
        "words in a row, its prompt or its whole text with a training example. A model may have "
        "memorised it, or only its wording may be common (docs/method.md)." in page.ids["caveats"]
    )
    clean = read_page(write_sweep(tmp_path / "clean", [done], {done.id: card(DEMO[0.0])}))
    assert "Overlap with the training data" not in clean.ids["caveats"]


def test_single_seed_model_note_and_data_ratio_are_caveats(demo_page: Page) -> None:
    caveats = demo_page.ids["caveats"]
    assert "over items only; the spread over training seeds may be larger." in caveats
    assert "Some weights have a single seed, so their own variance is unknown." in caveats
    assert "Model: dequantised from a 4-bit file, already instruction-tuned." in caveats
    assert "R_g (completion tokens over prompt tokens) is 0.0421" in caveats


def test_reproduction_has_command_spec_versions_and_fingerprints(demo_page: Page) -> None:
    assert demo_page.ids["command"] == "plw sweep sweep.yaml"
    assert "loss.prompt_loss_weight:\n    - 0\n    - 0.01" in demo_page.ids["spec"]
    rows = [row for table in demo_page.tables.values() for row in table]
    assert ["fingerprint", "0f1e2d3c"] in rows
    assert ["fingerprint", "a1b2c3d4"] in rows
    assert ["commit", "57793e2"] in rows
    assert ["versions.torch", "2.9.0"] in rows
    assert ["hardware.cpus", "2"] in rows
    assert ["NVIDIA H200", "4"] in rows


def test_failed_and_unfinished_trials_are_listed(tmp_path: Path) -> None:
    done = trial(0.0)
    failed = trial(0.1, state="failed", error="loss is nan <script>alert(1)</script> | step 3")
    running = trial(1.0, state="training")
    pending = trial(0.5, state="pending")
    folder = write_sweep(
        tmp_path / "s", [done, failed, running, pending], {done.id: card(DEMO[0.0])}, card(UNTUNED)
    )
    page = read_page(folder)
    assert page.ids["headline"].endswith("Of 4 trials: 1 failed, 2 unfinished.")
    assert page.ids["counts"].startswith("1 of 4 done, 1 failed, 2 unfinished.")
    assert page.ids["failures"].split("\n")[1:3] == [
        "PLW 0.1 (01s0)",
        "loss is nan <script>alert(1)</script> | step 3",
    ]
    assert "<script" not in page.html
    assert [row[2] for row in page.tables["trials"][1:]] == ["done", "failed", "training", "scored"]
    assert page.tables["trials"][2][5:8] == ["-", "-", "-"]
    assert "1 of 4 trials failed and 2 did not finish" in page.ids["caveats"]


def test_report_without_scores(tmp_path: Path) -> None:
    page = read_page(write_sweep(tmp_path / "s", [trial(0.1, state="training")], {}))
    assert page.ids["headline"] == ("No result yet: no trial has scores. Of 1 trial: 1 unfinished.")
    assert page.images == []
    assert "verdicts" not in page.tables
    assert not (tmp_path / "s" / "plots").exists()


def test_unscored_sweep_has_no_not_measured_caveat(
    tmp_path: Path,
) -> None:
    folder = write_sweep(tmp_path / "s", [trial(0.1, state="training")], {}, card(UNTUNED))
    caveats = read_page(folder).ids["caveats"]
    assert "No trial has been scored yet." in caveats
    assert "Not measured" not in caveats


def test_several_seeds_and_another_setting_are_shown(tmp_path: Path) -> None:
    trials = [
        trial(plw, seed=seed, searched={"optimizer.learning_rate": rate})
        for plw in (0.0, 0.1)
        for rate in (1e-5, 1e-4)
        for seed in (0, 1)
    ]
    cards = {
        t.id: card({ACCURACY: (0.5 + (7 * index) % 5 / 100, 0.4, 0.7)})
        for index, t in enumerate(trials)
    }
    page = read_page(write_sweep(tmp_path / "s", trials, cards))
    assert page.tables["trials"][0][1] == "Other settings"
    assert page.tables["trials"][1][1] == "optimizer.learning_rate 1e-05"
    assert page.tables["verdicts"][1][4] == "8 (2 weights, 2 seeds each)"
    assert "single seed" not in page.ids["caveats"]
    assert "over training seeds (Student's t)" in page.ids["caveats"]


def test_markdown_has_the_same_content_and_valid_tables(tmp_path: Path) -> None:
    done = trial(0.0)
    failed = trial(0.1, state="failed", error="bad | pipe\nand a second line")
    folder = write_sweep(tmp_path / "s", [done, failed], {done.id: card(DEMO[0.0])}, card(UNTUNED))
    write_report(folder)
    text = folder.report_md.read_text(encoding="utf-8")
    assert text.startswith(
        "# PLW sweep: demo\n\n**Overall: cannot say: at least two weights with scores are needed"
    )
    assert (
        "\n\nFailed: trial 01s0 (PLW 0.1, seed 0). It has no scores; the result excludes it."
        "\n\n![Scores"
    ) in text
    assert "![Scores over prompt loss weight](plots/scores.png)" in text
    assert "    bad | pipe\n    and a second line\n" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 7
    for table in tables:
        pipes = {line.replace("\\|", "").count("|") for line in table.strip().splitlines()}
        assert len(pipes) == 1, table


def test_report_json_has_no_password(tmp_path: Path) -> None:
    spec = sweep_record([]).spec | {"tracking": {"uri": "http://ann:s3cret@host"}}
    done = trial(0.0)
    folder = write_sweep(tmp_path / "s", [done], {done.id: card(DEMO[0.0])}, spec=spec)
    content = report_json(folder)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert sorted(content) == ["conditions", "findings", "headline", "sweep", "trials", "untuned"]
    assert content["headline"].startswith("Overall: cannot say: at least two weights with scores")
    assert content["trials"][0]["scores"][0]["value"] == 0.75
    assert content["untuned"] == {BASE: None}
    assert content["sweep"]["spec"]["tracking"]["uri"] == "http://host"
    write_report(folder)
    for path in (folder.report_md, folder.report_html):
        assert "s3cret" not in path.read_text(encoding="utf-8")


def test_every_model_has_a_row_for_its_untuned_scores(tmp_path: Path) -> None:
    folder = write_two_models(tmp_path / "s")
    page = read_page(folder)
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
    assert len(page.images) == 1
    assert (folder.plots / "multiple_choice.svg").exists()
    assert report_json(folder)["untuned"][OTHER_BASE][0]["value"] == 0.68
