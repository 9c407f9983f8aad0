"""Loss weights in records: of examples, turns and parts, down to the tokens."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.data.chat_templates import tokenizer_with
from trainers.data.encoding_counts import EncodingCounts
from trainers.data.examples import Example, Message, PartWeight
from trainers.data.readers import read_examples
from trainers.data.record_fields import Row
from trainers.data.records import RecordParser
from trainers.data.roles import Role
from trainers.data.template import Template
from trainers.data.token_records import TokenRecordParser
from trainers.data.tokenized import EncodedBatch, EncodedExamples
from trainers.data_config import CompletionTurns
from trainers.foundation.errors import InputError
from trainers.loss_config import LossConfig
from trainers.token_weights import check_data_weights


def parsed(record: dict[str, Any]) -> Example:
    parser = RecordParser(Row("d.jsonl:1", "d.jsonl:1", record))
    example = parser.example()
    assert parser.problems == []
    assert example is not None
    return example


def turn(role: str, content: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def part(text: str, weight: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "text", "text": text}
    return found if weight is None else {**found, "weight": weight}


def chat(*turns: dict[str, Any], **fields: Any) -> Example:
    return parsed({"messages": [*turns], **fields})


@pytest.mark.parametrize(
    ("fields", "train", "weight"),
    [
        ({}, None, None),
        ({"weight": 0.5}, True, 0.5),
        ({"loss_scale": 3}, True, 3.0),
        ({"weight": 1}, True, 1.0),
        ({"weight": 0.5, "train": True}, True, 0.5),
        # A flag selects the turn; its tokens keep the weights of their roles.
        ({"train": True}, True, None),
        ({"loss": False}, False, None),
        ({"weight": 0}, False, None),
    ],
)
def test_weight_of_an_assistant_turn(
    fields: dict[str, Any], train: bool | None, weight: float | None
) -> None:
    example = chat(turn("user"), turn("assistant", **fields), turn("user"), turn("assistant"))
    assert (example.messages[1].train, example.messages[1].weight) == (train, weight)


@pytest.mark.parametrize(
    ("fields", "train", "weight"),
    [
        ({"weight": 0.5}, None, 0.5),
        ({"train": True}, None, 1.0),
        ({"loss_scale": 0.0}, False, None),
    ],
)
def test_weight_of_a_user_turn(
    fields: dict[str, Any], train: bool | None, weight: float | None
) -> None:
    message = chat(turn("user", **fields), turn("assistant")).messages[0]
    assert (message.train, message.weight) == (train, weight)


def test_parts_are_joined_and_keep_their_weights() -> None:
    answer = turn("assistant", [part("ab", 0.5), part("c"), part("de", 0)])
    message = chat(turn("user"), answer, turn("user"), turn("assistant")).messages[1]
    assert message == Message(
        role="assistant",
        content="abcde",
        train=True,
        part_weights=(
            PartWeight(start=0, stop=2, weight=0.5),
            PartWeight(start=3, stop=5, weight=0.0),
        ),
    )


def test_records_of_weight_0_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": "p", "completion": "c", "weight": w} for w in (0, 1, 0.25, 0.0)]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.INFO):
        examples = read_examples(str(path))
    assert [one.sample_weight for one in examples] == [1.0, 0.25]
    assert caplog.messages == [f"{path}: dropped: weight 0 (2 records)"]


def runs(example: Example, template: Template | None = None) -> list[tuple[str, str, float | None]]:
    """Return the text, role and data weight of each run of equal tokens, without the template."""
    template = template or Template("chat", tokenizer_with("chatml"))
    encoded = template.encode(example, 1000)
    weights = encoded.weights or [math.nan] * len(encoded.roles)
    found: list[tuple[list[int], tuple[str, float | None]]] = []
    for token, role, weight in zip(encoded.input_ids, encoded.roles, weights, strict=True):
        kind = (Role(role).name, None if math.isnan(weight) else float(weight))
        if not found or found[-1][1] != kind:
            found.append(([], kind))
        found[-1][0].append(int(token))
    decode = template.tokenizer.decode
    return [(decode(ids), *kind) for ids, kind in found if kind[0] != "TEMPLATE"]


def test_the_weight_of_a_turn_covers_its_content_and_end_token() -> None:
    example = chat(
        turn("system", "S", weight=2),
        turn("user", "U", weight=0.5),
        turn("assistant", "A", weight=0.25),
        turn("user", "V"),
        turn("assistant", "B"),
    )
    assert runs(example) == [
        ("S", "SYSTEM", 2.0),
        ("U", "USER", 0.5),
        ("A<|im_end|>", "COMPLETION", 0.25),
        ("V", "USER", None),
        ("B<|im_end|>", "COMPLETION", None),
    ]


def test_the_weight_of_a_part_reaches_only_its_tokens() -> None:
    example = chat(
        turn("user", [part("Look: "), part("here", 0.5), part("!")]),
        turn("assistant", [part("He", 0.5), part("llo"), part(" there", 0)], weight=4),
    )
    assert runs(example) == [
        ("Look: ", "USER", None),
        ("here", "USER", 0.5),
        ("!", "USER", None),
        ("He", "COMPLETION", 2.0),
        ("llo", "COMPLETION", 4.0),
        (" there", "EXCLUDED", 0.0),
        ("<|im_end|>", "COMPLETION", 4.0),
    ]


def test_parts_keep_their_tokens_where_a_template_trims_the_text() -> None:
    """ChatML's variant trims; the white space at the borders of the parts disappears."""
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace("m.content", "m.content | trim")
    example = chat(
        turn("user", [part("  a ", 2), part("b ", 3), part("  ", 4)]),
        turn("assistant", [part(" "), part("e", 5), part("  ", 6)]),
    )
    assert runs(example, Template("chat", tokenizer)) == [
        ("a ", "USER", 2.0),
        ("b", "USER", 3.0),
        ("e", "COMPLETION", 5.0),
        ("<|im_end|>", "COMPLETION", None),
    ]


def test_thinking_in_the_content_can_be_a_part_of_its_own() -> None:
    tokenizer = tokenizer_with("thinking")
    answer = [part("<think>\nhm\n</think>\n\n", 0.5), part("Yes.", 2)]
    found = runs(chat(turn("user"), turn("assistant", answer)), Template("chat", tokenizer))
    assert found[-3:] == [
        ("<think>\nhm\n</think>\n\n", "THINKING", 0.5),
        ("Yes.", "COMPLETION", 2.0),
        ("<|im_end|>", "COMPLETION", None),
    ]


def test_a_turn_s_weight_covers_thinking_tool_calls_and_end_token() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    answer = turn("assistant", "", tool_calls=[call], reasoning_content="hm", weight=0.5)
    example = chat(
        turn("user", "U"),
        answer,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
    )
    found = runs(example, Template("chat", tokenizer_with("thinking")))
    assert [(role, weight) for _, role, weight in found] == [
        ("USER", None),
        ("THINKING", 0.5),
        ("COMPLETION", 0.5),
    ]
    assert found[-1][0].endswith("</tool_call><|im_end|>")


def test_parts_that_a_template_changes_are_rejected() -> None:
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "m.content", "m.content | replace('aa', 'b') if m.role == 'user' else m.content"
    )
    example = chat(turn("user", [part("xa", 0.5), part("ay")]), turn("assistant"))
    with pytest.raises(InputError, match=r"d.jsonl:1: messages\[0\] has parts with weights, but"):
        runs(example, Template("chat", tokenizer))


@pytest.mark.parametrize("name", ["plain", "alpaca"])
def test_weights_reach_the_tokens_of_templates_without_turns(name: str) -> None:
    example = chat(
        turn("user", [part("a", 0.5), part("b")], weight=3), turn("assistant", "ok", weight=2)
    )
    tokenizer = tokenizer_with("chatml")
    assert runs(example, Template(name, tokenizer)) == [
        ("a", "USER", 1.5),
        ("b", "USER", 3.0),
        (f"ok{tokenizer.eos_token}", "COMPLETION", 2.0),
    ]


def test_weights_reach_the_tokens_of_a_jinja_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}[{{ m.content }}<|im_end|>{% endfor %}]")
    example = chat(
        turn("user", "U", weight=0.5),
        turn("assistant", [part("a", 2), part("b")], weight=3),
        turn("user", "V"),
        turn("assistant", "B"),
    )
    tokenizer = tokenizer_with("chatml")
    assert runs(example, Template(str(path), tokenizer)) == [
        ("U", "USER", 0.5),
        ("a", "COMPLETION", 6.0),
        ("b<|im_end|>", "COMPLETION", 3.0),
        ("V", "USER", None),
        (f"B{tokenizer.eos_token}", "COMPLETION", None),
    ]


def test_weights_of_turns_that_a_jinja_file_changes_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}{{ m.content | replace('U', 'W') }}{% endfor %}")
    with pytest.raises(InputError, match="the template changes their texts"):
        runs(
            chat(turn("user", "U", weight=0.5), turn("assistant")),
            Template(str(path), tokenizer_with("chatml")),
        )


@pytest.mark.parametrize("completion_turns", ["last", "all"])
def test_the_end_token_of_an_answer_of_weight_0_has_weight_0_in_a_jinja_file(
    tmp_path: Path, completion_turns: CompletionTurns
) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")
    example = chat(
        turn("user", "U"), turn("assistant", "N", weight=0), turn("user"), turn("assistant")
    )
    template = Template(str(path), tokenizer_with("chatml"), completion_turns)
    assert runs(example, template)[:2] == [("U", "USER", None), ("N<|end|>", "EXCLUDED", None)]


def encoded(*examples: Example) -> EncodedExamples:
    template = Template("chat", tokenizer_with("chatml"))
    found = [template.encode(example, 1000) for example in examples]
    num_tokenised = sum(example.tokens is not None for example in examples)
    counts = EncodingCounts(num_examples=len(found), num_tokenised_examples=num_tokenised)
    return EncodedExamples.of([EncodedBatch.of(found, counts)])


def test_weight_1_of_a_user_turn_is_rejected_where_weights_multiply() -> None:
    examples = encoded(
        chat(turn("user", weight=0.5), turn("assistant", weight=1)),
        chat(turn("user"), turn("assistant")),
        chat(turn("user", train=True), turn("assistant")),
        chat(turn("user", weight=1), turn("assistant")),
    )
    with pytest.raises(InputError) as caught:
        check_data_weights(examples, LossConfig(prompt_loss_weight=0.1))
    assert str(caught.value) == (
        "d.jsonl:1: the data gives a user turn weight 1, which changes nothing while"
        " loss.data_weights is multiply: 1 is a factor of the weight of the role user (also in 1"
        " more record); set loss.data_weights to replace, or set loss.role_weights.user and remove"
        " weight 1 from user turns"
    )
    check_data_weights(examples, LossConfig(data_weights="replace"))


def test_advice_on_weight_1_of_tokenised_records_names_their_fields() -> None:
    record = {"input_ids": [5, 6, 7], "labels": [-100, -100, 7], "loss_weights": [1, 1, 1]}
    example = TokenRecordParser(Row("d.jsonl:1", "d.jsonl:1", record)).example()
    assert example is not None
    with pytest.raises(InputError) as caught:
        check_data_weights(encoded(example), LossConfig(prompt_loss_weight=0.1))
    assert str(caught.value) == (
        "d.jsonl:1: the data gives tokens of the prompt weight 1, which changes nothing while"
        " loss.data_weights is multiply: 1 is a factor of the weight of the role user; set"
        " loss.data_weights to replace, or list the field of token weights in data.ignore and mark"
        " the completion with labels or a mask, so that prompt tokens have the PLW"
    )


def test_held_out_examples_have_no_weights() -> None:
    example = chat(
        turn("user", [part("a", 2)]), turn("assistant", weight=0.5), weight=3
    ).with_last_turn_as_completion()
    assert Template("chat", tokenizer_with("chatml")).encode(example, 100).weights is None
    assert example.sample_weight == 1.0
