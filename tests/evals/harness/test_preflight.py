"""Checks of benchmark settings and local files before training."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evals.config import BenchmarkConfig, EvalConfig, TaskConfig
from evals.harness.paper_suite import BENCHMARKS, expand_groups
from evals.harness.preflight import check_benchmarks
from tests.evals.benchmark_files import FILES, write_data_root, write_lines
from trainers.foundation.errors import InputError


def _config(**settings) -> EvalConfig:
    none = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))
    return EvalConfig.model_validate(none | settings)


def test_the_paper_suite_has_eleven_benchmarks_in_two_groups() -> None:
    groups = {name: benchmark.group for name, benchmark in BENCHMARKS.items()}
    assert groups == {
        "arc_challenge": "multiple_choice",
        "piqa": "multiple_choice",
        "truthfulqa_mc2": "multiple_choice",
        "winogrande": "multiple_choice",
        "truthfulqa_gen": "short_generation",
        "wmt14-en-fr": "short_generation",
        "wmt14-fr-en": "short_generation",
        "wmt16-en-de": "short_generation",
        "wmt16-de-en": "short_generation",
        "wmt16-en-ro": "short_generation",
        "wmt16-ro-en": "short_generation",
    }


def test_a_group_is_expanded_to_its_benchmarks() -> None:
    config = _config(tasks=[{"name": "multiple_choice", "num_fewshot": 3}, "my_task"])
    assert [(task.name, task.num_fewshot) for task in expand_groups(config.tasks)] == [
        ("arc_challenge", 3),
        ("piqa", 3),
        ("truthfulqa_mc2", 3),
        ("winogrande", 3),
        ("my_task", None),
    ]


def test_settings_survive_json_and_are_omitted_without_benchmarks() -> None:
    custom = {"name": "mine", "path": "mine.jsonl", "kind": "chrf"}
    config = _config(tasks=["piqa"], benchmarks=[custom], limit=3)
    assert EvalConfig.model_validate_json(config.model_dump_json()) == config
    assert EvalConfig.model_validate(config.scoring_settings()) == config
    assert "tasks" not in EvalConfig().scoring_settings()
    assert "limit" not in EvalConfig(limit=3).scoring_settings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "evals must configure at least one evaluation"),
        ({"tasks": ["piqa", "piqa"]}, "must be unique .*, got piqa twice"),
        (
            {"benchmarks": [{"name": "heldout", "path": "x", "kind": "bleu"}]},
            "not those of built-in evaluations, got heldout",
        ),
    ],
)
def test_names_must_exist_and_be_unique(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _config(**settings)


def test_the_documented_layout_of_local_files_is_valid(tmp_path: Path) -> None:
    write_data_root(tmp_path)
    check_benchmarks(
        _config(tasks=["multiple_choice", "short_generation"], data_root=str(tmp_path))
    )


def test_a_missing_file_is_reported_with_its_path_in_the_layout(tmp_path: Path) -> None:
    write_data_root(tmp_path)
    (tmp_path / "piqa/validation.jsonl").unlink()
    config = _config(tasks=["piqa", "winogrande"], data_root=str(tmp_path))
    with pytest.raises(InputError) as raised:
        check_benchmarks(config)
    assert str(raised.value) == (
        f"piqa needs piqa/validation.jsonl below evals.data_root, but it is not in {tmp_path}; "
        "add the file (layout: docs/benchmarks.md), or remove data_root to use the hub"
    )


@pytest.mark.parametrize(
    ("file", "task", "change", "message"),
    [
        (
            "arc_challenge/test.jsonl",
            "arc_challenge",
            {"answerKey": "E"},
            "answerKey must be one of",
        ),
        (
            "arc_challenge/test.jsonl",
            "arc_challenge",
            {"choices": []},
            "choices must have the form",
        ),
        ("piqa/validation.jsonl", "piqa", {"label": 2}, "label must be 0 or 1, got 2"),
        ("piqa/validation.jsonl", "piqa", {"goal": None}, "goal must be text, got None"),
        ("winogrande/validation.jsonl", "winogrande", {"answer": 1}, 'must be "1" or "2", got 1'),
        ("winogrande/validation.jsonl", "winogrande", {"sentence": "a"}, "must contain _"),
        (
            "truthfulqa/multiple_choice_v1.jsonl",
            "truthfulqa_mc2",
            {"mc2_targets": {"choices": ["a", "b"], "labels": [1]}},
            "mc2_targets.choices and labels must have the same length, got 2, 1",
        ),
        (
            "truthfulqa/generation_v1.jsonl",
            "truthfulqa_gen",
            {"correct_answers": []},
            "correct_answers must be a list of at least one text",
        ),
        (
            "wmt/wmt16-ro-en.test.jsonl",
            "wmt16-en-ro",
            {"translation": {"en": "a"}},
            "ro must be text, got None",
        ),
    ],
)
def test_an_invalid_item_is_reported_with_file_and_line(
    tmp_path: Path, file: str, task: str, change: dict, message: str
) -> None:
    write_data_root(tmp_path)
    rows = [FILES[file](n) for n in range(4)]
    rows[2] |= change
    write_lines(tmp_path / file, rows)
    with pytest.raises(InputError) as raised:
        check_benchmarks(_config(tasks=[task], data_root=str(tmp_path)))
    assert f"{tmp_path / file}:3: " in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("multiple_choice", {"prompt": "a", "choices": ["b", "c"], "label": 2},
         "label must be in [0, 1], got 2"),
        ("multiple_choice", {"prompt": "a", "choices": ["b"], "label": 0},
         "choices must be a list of at least two texts, got ['b']"),
        ("multiple_choice", {"choices": ["b", "c"], "label": 0}, "prompt must be text, got None"),
        ("exact_match", {"prompt": "a"}, "target must be text or a list of texts, got None"),
        ("chrf", {"prompt": "a", "target": [" "]}, "target must be text or a list of texts"),
        ("rouge_l", ["a"], "must be an object"),
        ("bleu", {"prompt": "a\ud83d", "target": "b"}, "contains half of a surrogate pair"),
    ],
)  # fmt: skip
def test_an_invalid_line_of_a_custom_benchmark_is_reported(
    tmp_path: Path, kind: str, row: object, message: str
) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [row])
    custom = BenchmarkConfig.model_validate({"name": "mine", "path": str(path), "kind": kind})
    with pytest.raises(InputError) as raised:
        check_benchmarks(_config(benchmarks=[custom.model_dump()]))
    assert f"{path}:1: {message}" in str(raised.value)
    assert f"a line of kind {kind} is" in str(raised.value)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "target": "b"}\r\n', encoding="utf-8-sig")
    custom = {"name": "mine", "path": str(tmp_path / "mine.jsonl"), "kind": "bleu"}
    check_benchmarks(_config(benchmarks=[custom]))


def test_all_problems_are_reported_at_once_but_at_most_five_per_file(tmp_path: Path) -> None:
    bad = write_lines(tmp_path / "bad.jsonl", [{"prompt": "a"}] * 9)
    (tmp_path / "none.jsonl").touch()
    benchmarks = [
        {"name": "bad", "path": str(bad), "kind": "bleu"},
        {"name": "none", "path": str(tmp_path / "none.jsonl"), "kind": "bleu"},
        {"name": "gone", "path": str(tmp_path / "gone.jsonl"), "kind": "bleu"},
    ]
    with pytest.raises(InputError) as raised:
        check_benchmarks(_config(benchmarks=benchmarks))
    messages = [problem.message for problem in raised.value.problems]
    assert len(messages) == 8
    assert messages[5] == "4 more invalid lines"
    assert messages[6] == "the file contains no items"
    assert messages[7].startswith("cannot read the file: ")


def test_a_task_is_a_name_or_a_section() -> None:
    config = _config(tasks=["piqa", {"name": "winogrande", "limit": 5}])
    assert config.tasks == [TaskConfig(name="piqa"), TaskConfig(name="winogrande", limit=5)]


def test_a_file_of_two_benchmarks_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_data_root(tmp_path)
    read: list[str] = []
    read_text = Path.read_text

    def counted(path: Path, *args: Any, **settings: Any) -> str:
        read.append(path.name)
        return read_text(path, *args, **settings)

    monkeypatch.setattr(Path, "read_text", counted)
    directions = ["wmt14-en-fr", "wmt14-fr-en"]
    check_benchmarks(_config(tasks=directions, data_root=str(root)))
    assert read.count("wmt14-fr-en.test.jsonl") == 1
    # A file that has changed is read again.
    path = root / "wmt" / "wmt14-fr-en.test.jsonl"
    path.write_text("{}\n")
    with pytest.raises(InputError, match="translation must have the form"):
        check_benchmarks(_config(tasks=directions, data_root=str(root)))
