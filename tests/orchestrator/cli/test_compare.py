"""`plw compare`: two score folders, item by item."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from click.testing import CliRunner

from evals.results.scores import Score
from orchestrator.cli.main import main
from tests.evals.benchmark_files import write_lines
from tests.orchestrator.plw import refused
from tests.orchestrator.sweeps import trial, write_sweep

TARGETS = ["the cat sat on the mat", "a dog barks at night", "birds fly south in the fall"]


def score(name: str, group: str | None, unit: str = "share of items") -> dict[str, Any]:
    return Score.model_validate(
        {
            "name": name, "group": group, "value": 0.0, "standard_error": None, "ci_low": None,
            "ci_high": None, "num_items": 1, "unit": unit, "interval_method": "",
            "higher_is_better": unit != "nats per token",
        }
    ).model_dump(mode="json")  # fmt: skip


def quiz(measure: str, number: int, value: float, output: str = "yes") -> dict[str, Any]:
    doc = {"question": f"Question {number}?", "category": "even" if number % 2 == 0 else "odd"}
    return {
        "measure": measure, "id": str(number), "prompt": doc["question"], "target": "yes",
        "output": output, "value": value, "doc": doc,
    }  # fmt: skip


def translation(number: int, output: str) -> dict[str, Any]:
    return {
        "measure": "wmt", "id": str(number), "prompt": "p", "target": TARGETS[number],
        "output": output, "value": 1.0, "metrics": {"bleu": [TARGETS[number], output]},
        "doc": {"number": number},
    }  # fmt: skip


def loss(number: int, total: float, num_tokens: int) -> dict[str, Any]:
    return {
        "measure": "heldout", "id": f"d:{number}", "prompt": "p", "target": "t", "output": None,
        "value": total / num_tokens, "loss_sum": {"completion": total, "thinking": 0.0},
        "num_tokens": {"completion": num_tokens, "thinking": 0},
    }  # fmt: skip


def write_scores(folder: Path, samples: list[dict[str, Any]], **signature: Any) -> Path:
    folder.mkdir()
    scores = [
        score("heldout_completion_loss", None, "nats per token"),
        score("heldout_prompt_loss", None, "nats per token"),
        score("quiz.acc", "multiple_choice"),
        score("exam.acc", "multiple_choice"),
        score("wmt.bleu", "short_generation", "BLEU"),
    ]
    card = {"model_path": "m", "scores": scores, "signature": signature, "seconds": 1.0}
    (folder / "scores.json").write_text(json.dumps(card))
    write_lines(folder / "samples.jsonl", samples)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """B answers 8 of 40 quiz items that A misses, misses 2 of its own, and translates better."""
    groups = {"exam": {"tasks": ["exam_one", "exam_two"], "weight_by_size": False}}
    both = [quiz("exam_one", 0, 1.0), quiz("exam_two", 0, 0.0), quiz("exam_two", 1, 1.0)]
    a = [quiz("quiz", n, float(n >= 10)) for n in range(40)]
    b = [quiz("quiz", n, float(n in range(8) or n >= 12)) for n in range(40)]
    first = [loss(0, 2.0, 1), loss(1, 3.0, 9)]
    second = [loss(0, 1.0, 1), loss(1, 3.0, 9)]
    bad = [translation(n, "the cat sat on the hat") for n in range(3)]
    good = [translation(n, target) for n, target in enumerate(TARGETS)]
    good[0] = translation(0, "the cat sat on a mat")
    return (
        write_scores(tmp_path / "a", [*a, *both, *first, *bad], groups=groups, template="plain"),
        write_scores(
            tmp_path / "b", [*b, *both[:2], *second, *good], groups=groups, template="chat"
        ),
    )


def compare(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["compare", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_scores_are_compared_on_the_common_items(folders: tuple[Path, Path]) -> None:
    found = json.loads(compare(*folders, "--json"))
    rows = {(row["level"], row["name"]): row for row in found["rows"]}
    assert list(rows) == [
        ("benchmark", "heldout_completion_loss"), ("benchmark", "quiz.acc"),
        ("benchmark", "exam.acc"), ("benchmark", "wmt.bleu"), ("group", "multiple_choice"),
        ("category", "even"), ("category", "odd"), ("category", "exam_one"),
        ("category", "exam_two"),
    ]  # fmt: skip
    accuracy = rows["benchmark", "quiz.acc"]
    assert (accuracy["a"], accuracy["b"], accuracy["num_items"]) == (0.75, 0.9, 40)
    assert (accuracy["num_only_a"], accuracy["num_only_b"]) == (2, 8)
    # 2 * (1 + 10 + 45) / 2^10, the binomial probability of at most 2 of 10.
    assert accuracy["mcnemar_p_value"] == pytest.approx(0.109375)
    assert accuracy["ci_low"] <= 0.15 <= accuracy["ci_high"]
    # The second item of exam_two is missing in B; each task has half of the weight.
    exam = rows["benchmark", "exam.acc"]
    assert (exam["a"], exam["b"], exam["num_items"]) == (0.5, 0.5, 2)
    assert rows["group", "multiple_choice"]["difference"] == pytest.approx(7.5)
    assert rows["category", "even"]["num_items"] == 20
    held_out = rows["benchmark", "heldout_completion_loss"]
    assert (held_out["a"], held_out["b"]) == pytest.approx((5 / 10, 4 / 10))
    bleu = sacrebleu.corpus_bleu(["the cat sat on a mat", *TARGETS[1:]], [TARGETS]).score
    assert rows["benchmark", "wmt.bleu"]["b"] == pytest.approx(bleu)
    assert rows["benchmark", "quiz.acc"]["p_holm"] >= rows["benchmark", "quiz.acc"]["p_value"]


def test_the_notes_say_what_the_comparison_does_not_show(folders: tuple[Path, Path]) -> None:
    output = " ".join(compare(*folders).split())
    assert "note: Two checkpoints are not two weights" in output
    assert "different settings: template plain and chat" in output
    assert "exam.acc: 1 item left out" in output
    fewer = "4 of 4 rows have fewer than 30 items, so their intervals are too narrow"
    assert f"By category: {fewer}" in output


def test_the_answer_says_which_measures_differ_and_by_how_much(tmp_path: Path) -> None:
    # B is right in 30 items that A misses, and its loss is higher by 0.5 or 1.5.
    a = [quiz("quiz", n, 0.0) for n in range(40)] + [loss(n, 1.0, 1) for n in range(40)]
    b = [quiz("quiz", n, float(n < 30)) for n in range(40)]
    b += [loss(n, 1.5 + n % 2, 1) for n in range(40)]
    same = [quiz("exam", n, float(n % 2)) for n in range(40)]
    lines = compare(
        write_scores(tmp_path / "a", [*a, *same]), write_scores(tmp_path / "b", [*b, *same])
    ).splitlines()
    answers = [line.partition(" (95% interval ")[0] for line in lines]
    assert "quiz.acc: B is better than A by 0.750" in answers
    assert "heldout_completion_loss: B is worse than A by 1.000" in answers
    assert "No significant difference between A and B: exam.acc." in lines
    content = json.loads(compare(tmp_path / "a", tmp_path / "b", "--json"))
    assert content["answers"] == [line for line in lines if "A" in line and line.endswith(").")] + [
        "No significant difference between A and B: exam.acc."
    ]
    page = tmp_path / "page.html"
    compare(tmp_path / "a", tmp_path / "b", "--html", page)
    assert "quiz.acc: B is better than A by 0.750" in page.read_text(encoding="utf-8")


def test_a_sweep_in_place_of_a_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "runs" / "my", [trial(0.1)], {})
    assert refused("compare", "my", "01s0") == (
        "error: 2 models must be given, and my is a sweep; give 2 trials after my, by id or "
        "untuned; plw status my lists them"
    )


def test_the_page_shows_differing_outputs_side_by_side(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert f"wrote {page}" in compare(*folders, "--html", page)
    html = page.read_text()
    assert "<pre>the cat sat on the hat</pre>" in html
    assert "<pre>birds fly south in the fall</pre>" in html
    assert "Of 47 items, 14 differ in output or value. Items with an output come before" in html
    assert "page.html: file exists" in refused("compare", *map(str, folders), "--html", str(page))


def test_models_are_named_and_trials_by_their_searched_values(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    one = trial(0.1, seed=2, searched={"seed": 2})
    folder = write_sweep(tmp_path / "runs" / "demo", [one], {}).trial(one.id)
    for name in ("scores.json", "samples.jsonl"):
        shutil.copy(folders[0] / name, folder / name)
    page = tmp_path / "page.html"
    lines = compare(folder, folders[1], "--html", page).splitlines()
    names = [f"A: PLW 0.1, seed 2 ({folder})", f"B: {folders[1]}"]
    assert lines[:2] == names
    assert "<br>".join(names) in page.read_text()


def test_items_without_an_output_are_shown_if_their_values_differ(tmp_path: Path) -> None:
    a = write_scores(tmp_path / "a", [loss(0, 2.0, 2), loss(1, 3.0, 2), loss(2, 1.0, 2)])
    b = write_scores(tmp_path / "b", [loss(0, 2.5, 2), loss(1, 1.0, 2), loss(2, 1.0, 2)])
    assert compare(a, b).splitlines()[-2:] == [
        "of 3 items, 2 differ in output or value",
        "next: --html PAGE shows them side by side",
    ]
    found = json.loads(compare(a, b, "--json"))
    assert found["num_items"] == 3
    assert [(item["id"], item["output_a"], item["value_b"]) for item in found["differing"]] == [
        ("d:1", None, 0.5),
        ("d:0", None, 1.25),
    ]
    page = tmp_path / "page.html"
    compare(a, b, "--html", page)
    html = page.read_text()
    assert "Of 3 items, 2 differ in output or value. Items with" in html
    assert '<td>1.5<p class="note">no output</p></td><td>0.5<p class="note">no output</p>' in html


def test_items_with_outputs_come_first(tmp_path: Path) -> None:
    a = write_scores(tmp_path / "a", [loss(0, 9.0, 1), quiz("quiz", 0, 0.0, "no")])
    b = write_scores(tmp_path / "b", [loss(0, 1.0, 1), quiz("quiz", 0, 1.0)])
    found = json.loads(compare(a, b, "--json"))["differing"]
    assert [item["benchmark"] for item in found] == ["quiz.acc", "heldout_completion_loss"]


def test_scores_without_common_items_are_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    b = write_scores(tmp_path / "c", [*(quiz("quiz", n, 1.0) for n in range(40))])
    output = " ".join(compare(folders[0], b).split())
    assert "Not compared, because the models have no common items: exam.acc, wmt.bleu" in output


def test_many_rows_have_a_smallest_corrected_p_value(tmp_path: Path) -> None:
    folders = []
    for name, value in (("a", 0.0), ("b", 1.0)):
        samples = [quiz("quiz", n, value) for n in range(300)]
        for number, sample in enumerate(samples):
            sample["doc"]["category"] = str(number % 30)
        folders.append(write_scores(tmp_path / name, samples))
    output = " ".join(compare(*folders).split())
    # 30 * 2 / 1001
    assert "p (Holm) of the smallest p is at least 0.06" in output


def test_models_without_scores_get_a_command_with_an_output_folder_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "train.json").write_text("{}")
    a, b = tmp_path / "a", tmp_path / "b"
    output = refused("compare", str(a), str(b / "model"))
    assert f"plw eval {a} --config SPEC -o {a}-scores" in output
    assert f"plw eval {b} --config SPEC -o {b}-scores" in output


def test_a_trial_is_found_by_its_model_and_other_folders_are_rejected(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (folders[0] / "model").mkdir()
    assert json.loads(compare(folders[0] / "model", folders[1], "--json"))["rows"]
    missing = tmp_path / "nowhere" / "deep"
    output = refused("compare", str(folders[0]), str(missing))
    assert f"{missing}: folder does not exist" in output
    output = refused("compare", str(missing), str(tmp_path / "none"))
    assert f"{missing}: folder does not exist" in output
    assert f"{tmp_path / 'none'}: folder does not exist" in output
    missing.mkdir(parents=True)
    output = refused("compare", str(folders[0]), str(missing))
    assert f"{missing}: there are no scores: no scores.json and no samples.jsonl" in output
    output = refused("compare", str(folders[0]), str(folders[0] / "model"))
    assert "A and B are the same model" in output
    (missing / "scores.json").write_text('{"model_path": "m"}')
    (missing / "samples.jsonl").write_text('{"id": 1, "value": 0}\n')
    output = refused("compare", str(folders[0]), str(missing))
    assert f"{missing / 'scores.json'}: not a file of scores: scores: field required" in output
    (missing / "scores.json").write_bytes((folders[0] / "scores.json").read_bytes())
    output = refused("compare", str(folders[0]), str(missing))
    assert "samples.jsonl:1: not a sample of plw eval: no field measure" in output
    other = write_scores(tmp_path / "other", [quiz("quiz", 99, 1.0)])
    output = refused("compare", str(folders[0]), str(other))
    assert "have no scored items in common" in output
