from pathlib import Path

import pytest
from pydantic import ValidationError

from evals.config import BenchmarkConfig, EvalConfig, TaskConfig
from evals.harness.paper_suite import BENCHMARKS, expanded
from evals.harness.preflight import check_data
from tests.evals.benchmark_files import FILES, write_data_root, write_lines
from trainers.foundation.errors import InputError


def _config(**settings) -> EvalConfig:
    none = dict.fromkeys(("heldout", "multiple_choice", "short_generation", "long_generation"))
    return EvalConfig.model_validate(none | settings)


def test_the_papers_benchmarks_are_eleven_in_two_groups() -> None:
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


def test_a_name_stands_for_a_task_and_a_group_for_all_of_its_own() -> None:
    config = _config(tasks=["piqa", {"name": "multiple_choice", "num_fewshot": 3}, "my_task"])
    assert [(task.name, task.num_fewshot) for task in expanded(config.tasks)] == [
        ("piqa", None),
        ("arc_challenge", 3),
        ("truthfulqa_mc2", 3),
        ("winogrande", 3),
        ("my_task", None),
    ]


def test_settings_survive_json_and_are_left_out_where_there_are_no_benchmarks() -> None:
    own = {"name": "mine", "path": "mine.jsonl", "kind": "chrf"}
    config = _config(tasks=["piqa"], benchmarks=[own], limit=3)
    assert EvalConfig.model_validate_json(config.model_dump_json()) == config
    assert EvalConfig.model_validate(config.described()) == config
    assert "tasks" not in EvalConfig().described()
    assert "limit" not in EvalConfig(limit=3).described()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "evals must keep at least one measure"),
        ({"tasks": ["piqa", "piqa"]}, "got piqa twice"),
        (
            {"benchmarks": [{"name": "heldout", "path": "x", "kind": "bleu"}]},
            "got heldout which is a measure",
        ),
    ],
)
def test_names_must_be_there_and_differ(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _config(**settings)


def test_the_layout_of_local_files_is_accepted(tmp_path: Path) -> None:
    write_data_root(tmp_path)
    check_data(_config(tasks=["multiple_choice", "short_generation"], data_root=str(tmp_path)))


def test_a_missing_file_is_named_with_its_place_in_the_layout(tmp_path: Path) -> None:
    write_data_root(tmp_path)
    (tmp_path / "piqa/validation.jsonl").unlink()
    config = _config(tasks=["piqa", "winogrande"], data_root=str(tmp_path))
    with pytest.raises(InputError) as refused:
        check_data(config)
    assert str(refused.value) == (
        f"piqa needs piqa/validation.jsonl below evals.data_root, and {tmp_path} does not "
        "have it; put the file there (docs/benchmarks.md has the layout), or leave data_root "
        "out to take the hub's"
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
        ("arc_challenge/test.jsonl", "arc_challenge", {"choices": []}, "choices must be"),
        ("piqa/validation.jsonl", "piqa", {"label": 2}, "label must be 0 or 1, got 2"),
        ("piqa/validation.jsonl", "piqa", {"goal": None}, "goal must be a text, got None"),
        ("winogrande/validation.jsonl", "winogrande", {"answer": 1}, 'must be "1" or "2", got 1'),
        ("winogrande/validation.jsonl", "winogrande", {"sentence": "a"}, "must have a _"),
        (
            "truthfulqa/multiple_choice_v1.jsonl",
            "truthfulqa_mc2",
            {"mc2_targets": {"choices": ["a", "b"], "labels": [1]}},
            "mc2_targets has 2 choices for 1 labels",
        ),
        (
            "truthfulqa/generation_v1.jsonl",
            "truthfulqa_gen",
            {"correct_answers": []},
            "correct_answers must be a list with at least one text",
        ),
        (
            "wmt/wmt16-ro-en.test.jsonl",
            "wmt16-en-ro",
            {"translation": {"en": "a"}},
            "ro must be a text, got None",
        ),
    ],
)
def test_an_item_at_fault_is_named_with_file_and_line(
    tmp_path: Path, file: str, task: str, change: dict, message: str
) -> None:
    write_data_root(tmp_path)
    rows = [FILES[file](n) for n in range(4)]
    rows[2] |= change
    write_lines(tmp_path / file, rows)
    with pytest.raises(InputError) as refused:
        check_data(_config(tasks=[task], data_root=str(tmp_path)))
    assert f"{tmp_path / file}:3: " in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("multiple_choice", {"prompt": "a", "choices": ["b", "c"], "label": 2},
         "label must be in [0, 1], got 2"),
        ("multiple_choice", {"prompt": "a", "choices": ["b"], "label": 0},
         "choices must be a list of at least two texts, got ['b']"),
        ("multiple_choice", {"choices": ["b", "c"], "label": 0}, "prompt must be a text, got None"),
        ("exact_match", {"prompt": "a"}, "target must be a text or a list of texts, got None"),
        ("chrf", {"prompt": "a", "target": [" "]}, "target must be a text or a list of texts"),
        ("rouge_l", ["a"], "must be an object"),
        ("bleu", {"prompt": "a\ud83d", "target": "b"}, "holds half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_line_of_ones_own_benchmark_at_fault_is_named(
    tmp_path: Path, kind: str, row: object, message: str
) -> None:
    path = write_lines(tmp_path / "mine.jsonl", [row])
    own = BenchmarkConfig.model_validate({"name": "mine", "path": str(path), "kind": kind})
    with pytest.raises(InputError) as refused:
        check_data(_config(benchmarks=[own.model_dump()]))
    assert f"{path}:1: {message}" in str(refused.value)
    assert f"a line of kind {kind} is" in str(refused.value)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "target": "b"}\r\n', encoding="utf-8-sig")
    own = {"name": "mine", "path": str(tmp_path / "mine.jsonl"), "kind": "bleu"}
    check_data(_config(benchmarks=[own]))


def test_all_problems_are_told_at_once_but_no_file_floods_the_screen(tmp_path: Path) -> None:
    bad = write_lines(tmp_path / "bad.jsonl", [{"prompt": "a"}] * 9)
    (tmp_path / "none.jsonl").touch()
    benchmarks = [
        {"name": "bad", "path": str(bad), "kind": "bleu"},
        {"name": "none", "path": str(tmp_path / "none.jsonl"), "kind": "bleu"},
        {"name": "gone", "path": str(tmp_path / "gone.jsonl"), "kind": "bleu"},
    ]
    with pytest.raises(InputError) as refused:
        check_data(_config(benchmarks=benchmarks))
    messages = [problem.message for problem in refused.value.problems]
    assert len(messages) == 8
    assert messages[5] == "4 more lines are at fault"
    assert messages[6] == "no items in the file"
    assert messages[7].startswith("cannot read the items: ")


def test_a_task_in_a_spec_is_a_name_or_a_section() -> None:
    config = _config(tasks=["piqa", {"name": "winogrande", "limit": 5}])
    assert config.tasks == [TaskConfig(name="piqa"), TaskConfig(name="winogrande", limit=5)]
