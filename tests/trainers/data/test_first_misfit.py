"""The error for chats that a template cannot render names the first one in the data."""

import json
from pathlib import Path

import pytest

from tests.trainers.data.chat_templates import tokenizer_with
from trainers.data.tokenize import encode_examples, read_split
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

FINE = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "ok"}]
SYSTEM = [{"role": "system", "content": "Be short."}, *FINE]


def error_of(folder: Path, chats: list[list[dict[str, str]]], **settings: object) -> str:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in chats), "utf-8")
    config = DataConfig(path=str(path), heldout_examples=0, **settings)
    with pytest.raises(InputError) as caught:
        encode_examples(read_split(config).train, config, tokenizer_with("no-system"))
    return str(caught.value)


def test_the_first_misfit_of_the_file_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    # The split shuffles the examples.
    assert error_of(tmp_path, [FINE, FINE, *[SYSTEM] * 28]).startswith(
        "chats.jsonl:3: the chat template rejects the chat: System role not supported"
        " (27 more records cannot be rendered either); "
    )
    error = error_of(tmp_path, [*[FINE] * 10, SYSTEM, FINE], completion_turns="each")
    assert error.startswith("chats.jsonl:11")
    assert "more record" not in error


def test_examples_that_are_not_in_a_file_are_ordered_by_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text((json.dumps({"messages": SYSTEM}) + "\n") * 12, "utf-8")
    config = DataConfig(path=str(path), heldout_examples=0)
    examples = sorted(read_split(config).train, key=lambda one: one.id)[1:]
    assert [one.id for one in examples][:2] == ["chats.jsonl:10", "chats.jsonl:11"]
    with pytest.raises(InputError, match=r"^chats.jsonl:2: .*\(10 more records cannot be"):
        encode_examples(examples, config, tokenizer_with("no-system"))
