"""Judged suites as files: MT-Bench's two turns and Arena-Hard's prompts, matched by question id."""

import json
from pathlib import Path
from typing import Any

import pytest

from evals.config import EvalConfig
from evals.judge.suites import load_judged_tasks
from evals.run import score_model
from tests.evals.benchmark_files import write_lines
from tests.evals.judge_endpoint import Endpoint, serving
from tests.tiny_model import save_tiny_model
from trainers.foundation.errors import InputError

MT_BENCH = [
    {
        "question_id": 81,
        "category": "writing",
        "turns": ["Write a post.", "Start with A."],
    },
    {"question_id": 82, "category": "math", "turns": ["Add 1 and 1.", "Double it."]},
]
MT_BENCH_ANSWERS = [
    {"question_id": id, "answer_id": "x", "model_id": "m", "tstamp": 1.0,
     "choices": [{"index": 0, "turns": [f"first {id}", f"second {id}"]}]}
    for id in (82, 81)
]  # fmt: skip
ARENA_HARD = [
    {"question_id": "a1", "category": "arena-hard-v0.1", "cluster": "c",
     "turns": [{"content": "Sort a list."}]},
    {"uid": "b2", "category": "coding", "subcategory": "s", "prompt": "Reverse a text."},
]  # fmt: skip
ARENA_HARD_ANSWERS = [
    {"question_id": "a1", "choices": [{"turns": [{"content": "sorted", "token_len": 1}]}]},
    {"uid": "b2", "model": "m", "messages": [
        {"role": "user", "content": "Reverse a text."},
        {"role": "assistant", "content": {"answer": "[::-1]"}},
    ]},
]  # fmt: skip


def load(tmp_path: Path, questions: list[Any], answers: list[Any]) -> Any:
    path = write_lines(tmp_path / "question.jsonl", questions)
    reference = write_lines(tmp_path / "answers.jsonl", answers)
    suite = {"name": "suite", "path": str(path), "reference": str(reference), "style": "verdict"}
    judge = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": None}
    [task] = load_judged_tasks(EvalConfig.model_validate({"judged": [suite], "judge": judge}))
    return task


def test_mt_bench_has_two_turns_and_answers_by_question_id(tmp_path: Path) -> None:
    task = load(tmp_path, MT_BENCH, MT_BENCH_ANSWERS)
    first = task.prompts[0]
    assert first.turns == ("Write a post.", "Start with A.")
    assert first.task == "[Turn 1]\nWrite a post.\n\n[Turn 2]\nStart with A."
    assert task.references[0] == "[Turn 1]\nfirst 81\n\n[Turn 2]\nsecond 81"
    assert [record.category for record in task.prompts] == ["writing", "math"]
    roles = [(m.role, m.content) for m in first.to_example(["A post."]).messages]
    assert roles == [
        ("user", "Write a post."), ("assistant", "A post."),
        ("user", "Start with A."), ("assistant", ""),
    ]  # fmt: skip
    assert first.to_example().prompt == "Write a post."


def test_arena_hard_has_prompts_of_both_versions(tmp_path: Path) -> None:
    task = load(tmp_path, ARENA_HARD, ARENA_HARD_ANSWERS)
    assert [record.task for record in task.prompts] == ["Sort a list.", "Reverse a text."]
    assert [record.turns for record in task.prompts] == [(), ()]
    assert task.references == ["sorted", "[::-1]"]


def test_a_question_without_an_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 of 2 outputs have no reference"):
        load(tmp_path, MT_BENCH, MT_BENCH_ANSWERS[:1])


def test_the_second_turn_of_a_model_follows_its_first_answer(tmp_path: Path) -> None:
    write_lines(tmp_path / "question.jsonl", MT_BENCH)
    write_lines(tmp_path / "answers.jsonl", MT_BENCH_ANSWERS)
    suite = {"name": "mt_bench", "path": str(tmp_path / "question.jsonl"), "style": "verdict",
             "reference": str(tmp_path / "answers.jsonl"), "max_new_tokens": 4}  # fmt: skip
    off = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))
    with serving(Endpoint()) as endpoint:
        judge = {"base_url": endpoint.base_url, "model": "m", "api_key_env": None,
                 "cache_dir": str(tmp_path / "replies")}  # fmt: skip
        card = score_model(
            model_path=save_tiny_model(tmp_path / "model"),
            examples=[],
            template="chat",
            max_length=64,
            config=EvalConfig.model_validate({**off, "judged": [suite], "judge": judge}),
            out_dir=tmp_path / "out",
        )
        seen = [request["messages"][-1]["content"] for request in endpoint.requests]
    assert card.by_name()["mt_bench_win_rate"].num_items == 2
    sample = json.loads((tmp_path / "out" / "samples.jsonl").read_text().splitlines()[0])
    first, _, second = sample["output"].partition("\n\n[Turn 2]\n")
    answer = first.removeprefix("[Turn 1]\n")
    assert len(second) <= 4 * len("\N{REPLACEMENT CHARACTER}")
    assert sample["prompt"] == (
        f"<|user|>Write a post.\n<|assistant|>{answer}\n<|user|>Start with A.\n<|assistant|>"
    )
    assert sample["num_new_tokens"] == 8
    assert sample["category"] == "writing"
    shown = "### Task:\n[Turn 1]\nWrite a post.\n\n[Turn 2]\nStart with A."
    assert sum(shown in content for content in seen) == 2
