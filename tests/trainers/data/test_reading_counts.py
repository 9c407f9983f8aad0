"""Losses and inconsistencies of the data are counted, also when it comes from the cache."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.length_stats import DataStats, compute_data_stats
from trainers.data.tokenize import encode_examples, read_split
from trainers.data_config import DataConfig

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "ok"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "cache"))


def stats_of(
    path: Path, records: list[dict[str, Any]], *, max_length: int = 64, **settings: Any
) -> DataStats:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = DataConfig(path=str(path), heldout_examples=0, max_length=max_length, **settings)
    split = read_split(config)
    encoded = encode_examples(split.train, config, tiny_tokenizer(chat_template=CHAT_TEMPLATE))
    return compute_data_stats(encoded, config, split.reading)


def test_all_losses_are_counted_at_the_first_start_and_at_the_second(tmp_path: Path) -> None:
    long = {"role": "user", "content": "word " * 20}
    records: list[dict[str, Any]] = [
        {"messages": [USER, ANSWER], "source": "a", "images": ["i.png"]},
        {"messages": [{**USER, "timestamp": 1}, ANSWER], "source": "b", "images": None},
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, ANSWER], "source": ""},
        {"messages": [long, ANSWER]},
        {"messages": [USER, {"role": "assistant", "content": "long " * 20}]},
        {"messages": [USER, {"role": "assistant", "content": ""}]},
        {"messages": [USER, ANSWER], "label": False},
        {"messages": [USER, ANSWER], "weight": 0},
    ]
    path = tmp_path / "d.jsonl"
    settings = {"ignore": ["images"], "drop": ["empty", "negative"]}
    first = stats_of(path, records, **settings)
    assert list(first.loss_lines()) == [
        "4 examples",
        "truncated to 64 tokens: 2 examples (101 tokens removed, 2 turns removed, 1 prompt cut)",
        "dropped: 1 example whose completion does not end within 64 tokens (140 tokens)",
        "weight 0 in the data: 1 turn",
        "dropped: empty (1 record), negative (1 record), weight 0 (1 record)",
        "ignored fields: images (1 record), source (2 records), timestamp (1 record)",
    ]
    assert stats_of(path, records, **settings) == first


def test_names_that_the_template_does_not_show_are_counted(tmp_path: Path) -> None:
    named = {"messages": [{**USER, "name": "Ann"}, {**ANSWER, "name": "Bob"}]}
    stats = stats_of(tmp_path / "d.jsonl", [named, {"messages": [USER, ANSWER]}])
    assert list(stats.loss_lines()) == [
        "2 examples, none longer than 64 tokens",
        "ignored because the template does not show it: name of a message (1 example)",
    ]
    plain = stats_of(tmp_path / "d.jsonl", [named], template="plain")
    assert plain.num_chats_without_names == 1
    ignored = stats_of(tmp_path / "d.jsonl", [named], ignore=["name"])
    assert (ignored.num_chats_without_names, ignored.ignored_fields) == (0, {"name": 1})


def test_inconsistent_tool_calls_are_counted_with_the_first_record(tmp_path: Path) -> None:
    def call(name: str, id: str) -> dict[str, Any]:
        function = {"name": name, "arguments": {}}
        return {**ANSWER, "tool_calls": [{"id": id, "type": "function", "function": function}]}

    def result(id: str) -> dict[str, Any]:
        return {"role": "tool", "content": "4", "tool_call_id": id}

    system = {"role": "system", "content": "Be brief."}
    tools = [{"type": "function", "function": {"name": "add"}}]
    chats = [
        [USER, call("add", "a"), result("a"), ANSWER],
        [USER, call("add", "a")],
        [USER, call("sub", "a"), result("a"), ANSWER],
        [USER, call("sub", "a"), result("a"), ANSWER],
        [USER, call("add", "a"), result("b"), ANSWER],
        [USER, call("add", "a"), USER, ANSWER],
        [USER, call("add", "a"), system, result("a"), ANSWER],
        [USER, call("add", "a"), result("a"), system, USER, ANSWER],
    ]
    records: list[dict[str, Any]] = [{"messages": chat, "tools": tools} for chat in chats]
    # Without a list of tools, names are not compared.
    records.append({"messages": chats[2]})
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{{ tools }}{% for m in messages %}<|start|>{{ m.role }}{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    )
    settings = {"template": str(template), "max_length": 1000}
    first = stats_of(tmp_path / "d.jsonl", records, **settings)
    assert list(first.loss_lines()) == [
        "9 examples, none longer than 1000 tokens",
        "inconsistent tool calls, used as they are:"
        " call of a tool that the record does not list (2 records, first d.jsonl:3),"
        " call without a result before the next turn (1 record, first d.jsonl:6),"
        " result with an unknown tool_call_id (1 record, first d.jsonl:5),"
        " system turn between a call and its result (1 record, first d.jsonl:7)",
    ]
    assert stats_of(tmp_path / "d.jsonl", records, **settings) == first


def test_data_without_losses_has_one_line(tmp_path: Path) -> None:
    stats = stats_of(tmp_path / "d.jsonl", [{"prompt": "Hi", "completion": "ok"}])
    assert list(stats.loss_lines()) == ["1 example, none longer than 64 tokens"]


def test_fields_of_token_records_parts_and_other_columns_are_counted(tmp_path: Path) -> None:
    part = {"type": "text", "text": "Hi", "cache_control": {}}
    stats = stats_of(
        tmp_path / "d.jsonl",
        [
            {"messages": [{"role": "user", "content": [part]}, ANSWER], "id": 7},
            {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
            {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "id": 8},
        ],
        ignore=["cache_control"],
    )
    assert stats.ignored_fields == {"cache_control": 1, "id": 2, "rejected": 1}


def test_stats_of_records_without_these_counts_can_be_read(tmp_path: Path) -> None:
    older = stats_of(tmp_path / "d.jsonl", [{"prompt": "Hi", "completion": "ok"}]).to_json()
    for name in (
        *("dropped_records", "ignored_fields", "num_zero_weight_turns", "num_removed_turns"),
        *("tool_faults", "first_tool_faults"),
    ):
        del older[name]
    assert DataStats.model_validate(older).ignored_fields == {}


def test_read_examples_logs_what_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from trainers.data.readers import read_examples

    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "completion": "ok", "source": "a"}) + "\n")
    with caplog.at_level(logging.INFO):
        read_examples(str(path))
    assert caplog.messages == [f"{path}: ignored fields: source (1 record)"]
