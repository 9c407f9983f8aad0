"""Records of the common data formats: what becomes of each field, and which are rejected."""

from typing import Any

import pytest

from tests.trainers.data.chat_templates import tokenizer_with
from trainers.data.examples import Example
from trainers.data.record_fields import Row
from trainers.data.records import ACCEPTED_FORMS, OTHER_NAMES, RecordParser
from trainers.data.roles import Role
from trainers.data.template import Template
from trainers.data_config import DropReason
from trainers.foundation.errors import InputError

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Thun"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def user(content: Any = "Hi", **others: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **others}


def assistant(content: Any = "Ho", **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **others}


def parse(record: Any, **settings: Any) -> RecordParser:
    return RecordParser(Row("data.jsonl:7", "data.jsonl:7", record), **settings)


def parsed(record: Any, **settings: Any) -> Example:
    parser = parse(record, **settings)
    example = parser.example()
    assert example is not None, parser.problems
    return example


def turns(example: Example) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example.messages]


HI = [("user", "Hi"), ("assistant", "Ho")]
ACCEPTED: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
    ("alpaca", {"instruction": "Hi", "input": "", "output": "Ho", "text": "..."}, HI),
    (
        "alpaca with system and history",
        {
            "instruction": "And in winter?",
            "output": "Cold.",
            "system": "Be short.",
            "history": [["In summer?", "Warm."]],
        },
        [
            ("system", "Be short."),
            ("user", "In summer?"),
            ("assistant", "Warm."),
            ("user", "And in winter?"),
            ("assistant", "Cold."),
        ],
    ),
    (
        "dolly",
        {"instruction": "Sum", "context": "1, 2", "response": "3", "category": "qa"},
        [("user", "Sum\n\n1, 2"), ("assistant", "3")],
    ),
    (
        "alpaca with other names",
        {"instruction": "Sum", "input": "1, 2", "response": "3"},
        [("user", "Sum\n\n1, 2"), ("assistant", "3")],
    ),
    (
        "a preference of whole chats with a prompt as text",
        {"prompt": "Hi", "chosen": [user(), assistant()], "rejected": [user(), assistant("x")]},
        HI,
    ),
    ("prompt and completion", {"prompt": "Hi", "completion": "Ho"}, HI),
    ("question and answer", {"question": "Hi", "answer": "Ho", "id": 5}, HI),
    ("query and response", {"query": "Hi", "response": "Ho"}, HI),
    (
        "openorca",
        {"system_prompt": "Be short.", "question": "Hi", "response": "Ho"},
        [("system", "Be short."), *HI],
    ),
    ("preference as texts", {"prompt": "Hi", "chosen": "Ho", "rejected": "No"}, HI),
    (
        "preference as whole chats",
        {"chosen": [user(), assistant()], "rejected": [user(), assistant("No")]},
        HI,
    ),
    (
        "preference that repeats the prompt",
        {"prompt": [user()], "chosen": [user(), assistant()], "rejected": [user(), assistant("x")]},
        HI,
    ),
    ("ultrachat", {"prompt": "Hi", "prompt_id": "1", "messages": [user(), assistant()]}, HI),
    (
        "sharegpt with a system field",
        {
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}],
            "system": "Be short.",
        },
        [("system", "Be short."), *HI],
    ),
    (
        "the same system text twice",
        {
            "messages": [{"role": "system", "content": "S"}, user(), assistant()],
            "system": "S",
        },
        [("system", "S"), *HI],
    ),
    (
        "developer",
        {"messages": [{"role": "developer", "content": "S"}, user(), assistant()]},
        [("system", "S"), *HI],
    ),
    (
        "text parts",
        {
            "messages": [
                user([{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]),
                assistant([{"type": "text", "text": "Ho"}]),
            ]
        },
        HI,
    ),
    (
        "messages as a string of JSON",
        {"messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]'},
        HI,
    ),
    ("empty images", {"messages": [user(), assistant()], "images": []}, HI),
    ("a good answer", {"prompt": "Hi", "completion": "Ho", "label": True}, HI),
    ("fields without a meaning", {"prompt": "Hi", "completion": "Ho", "source": "a", "n": 3}, HI),
    (
        "a tool result",
        {
            "messages": [
                user(),
                assistant("", tool_calls=[CALL]),
                {"role": "tool", "content": "sunny", "tool_call_id": "1"},
                assistant(),
            ]
        },
        [("user", "Hi"), ("assistant", ""), ("tool", "sunny"), ("assistant", "Ho")],
    ),
    (
        "sharegpt's function calls and observations",
        {
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {}}'},
                {"from": "observation", "value": "sunny"},
                {"from": "gpt", "value": "Ho"},
            ]
        },
        [("user", "Hi"), ("assistant", ""), ("tool", "sunny"), ("assistant", "Ho")],
    ),
]


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*c[1:], id=c[0]) for c in ACCEPTED])
def test_record_becomes_a_chat(record: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert turns(parsed(record)) == expected


def test_tools_and_reasoning_reach_the_chat_template() -> None:
    record = {"messages": [user(), assistant(reasoning_content="Hm.")], "tools": [TOOL]}
    example = parsed(record)
    assert example.tools == (TOOL,)
    assert example.messages[-1].to_template() == assistant(reasoning_content="Hm.")
    assert parsed({**record, "tools": '[{"name": "weather"}]'}).tools == ({"name": "weather"},)
    template = Template("chat", tokenizer_with("thinking"))
    prompt = template.render_prompt(example)
    assert '"name": "weather"' in prompt
    encoded = template.encode(example, 1000)
    thinking = [
        token for token, role in zip(encoded.input_ids, encoded.roles, strict=True)
        if role == Role.THINKING
    ]  # fmt: skip
    assert template.tokenizer.decode(thinking) == "<think>\nHm.\n</think>\n\n"


def function_call() -> Example:
    return parsed(ACCEPTED[-1][1])


def test_a_function_call_turn_becomes_tool_calls() -> None:
    assert function_call().messages[1].fields == {
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {}}}]
    }


REJECTED: list[tuple[dict[str, Any], str]] = [
    (
        {"messages": [user(), {"role": "assistant", "content": "Ho", "tool_call": ["a"]}]},
        "messages[1].tool_call is not supported; did you mean tool_calls? If not, list tool_call in"
        " data.ignore to train without it",
    ),
    (
        {"messages": [user(), assistant()], "tool": [{"name": "a"}]},
        "the field tool is not supported; did you mean tools? If not, list tool in data.ignore to"
        " train without it",
    ),
    (
        {"messages": [user(), assistant()], "images": ["a.png"]},
        "images: only text can be trained on; list images in data.ignore to train without it",
    ),
    (
        {"messages": [user([{"type": "image_url", "image_url": {}}]), assistant()]},
        'messages[0].content[0] must be a part of type text, got {"type": "image_url",'
        ' "image_url": {}}',
    ),
    (
        {"messages": [user([{"type": "text", "text": "Hi", "cache": 0}]), assistant()]},
        "messages[0].content[0].cache is not supported; list cache in data.ignore to train"
        " without it",
    ),
    (
        {"messages": [user([{"type": "text", "text": "Hi", "weight": -1}]), assistant()]},
        "messages[0].content[0].weight must be 0 or a number from 1e-12 to 1e+12, got -1; list"
        " weight in data.ignore to train without it",
    ),
    (
        {"prompt": "Hi", "completion": "Ho", "label": False},
        "label is false: it marks a bad answer; add negative to data.drop, or remove the record",
    ),
    (
        {"messages": [user(), assistant("a", weight=float("nan")), user(), assistant()]},
        "messages[1].weight must be 0 or a number from 1e-12 to 1e+12, got NaN; list weight in"
        " data.ignore to train without it",
    ),
    (
        {"messages": [user(), assistant("a", train=0.5), user(), assistant()]},
        "messages[1].train must be true or false, got 0.5",
    ),
    (
        {"messages": [user(), assistant("a", weight=0.5, loss_scale=0.7), user(), assistant()]},
        "messages[1] has contradictory weights: weight 0.5, loss_scale 0.7; keep one of them",
    ),
    (
        {"messages": [user(), assistant(), user(), assistant(train=False)]},
        "the last assistant turn is not trained on (weight 0 or train false); end the chat with a"
        " turn that is, or remove the record",
    ),
    (
        {"messages": [user(), assistant("a", weight=0, train=True), user(), assistant()]},
        "messages[1] has contradictory weights: weight 0, train true; keep one of them",
    ),
    (
        {"prompt": "Hi", "completion": "Ho", "weight": "0.5"},
        'weight must be 0 or a number from 1e-12 to 1e+12, got "0.5"; list weight in data.ignore to'
        " train without it",
    ),
    (
        {"prompt": "Hi", "completion": "Ho", "loss_mask": [0, 1]},
        "the field loss_mask is not supported; list loss_mask in data.ignore to train without it",
    ),
    (
        {"messages": [{"role": "system", "content": "S"}, user(), assistant()], "system": "T"},
        "the record has two different system texts; list one of the fields in data.ignore",
    ),
    (
        {"instruction": "Hi", "output": "Ho", "history": "earlier"},
        'history must be a list of [user, assistant], got "earlier"',
    ),
    (
        {"messages": [user(), assistant()], "tools": {"name": "weather"}},
        'tools must be a list of objects, got {"name": "weather"}',
    ),
    (
        {"messages": [user(), {"role": "assistant", "content": "Ho", "reasoning_steps": ["a"]}]},
        "messages[1].reasoning_steps is not supported; list reasoning_steps in data.ignore to train"
        " without it",
    ),
    (
        {"instruction": "Hi", "output": "Ho", "query": "more"},
        "the field query is not supported; list query in data.ignore to train without it",
    ),
    (
        {"messages": [user(), assistant()], "prompt": "You are a pirate"},
        "the field prompt is not supported; list prompt in data.ignore to train without it",
    ),
    (
        {"messages": [user(), assistant("", tool_calls="x")]},
        'messages[1].tool_calls must be a list of calls with name and arguments, got "x"',
    ),
    (
        {"messages": [user(), assistant(reasoning_content="a", thinking="b")]},
        "messages[1] has its reasoning in two fields; list one in data.ignore",
    ),
    (
        {"messages": [user(value="other"), assistant()]},
        "messages[0] has both content and value; list one of them in data.ignore",
    ),
    (
        {"messages": "[not JSON", "id": 3},
        'messages is not valid JSON: Expecting value at column 2, got "[not JSON"',
    ),
    (
        {"instruction": "Hi", "output": ""},
        'output must not be empty, got ""; fill it in, or add empty to data.drop',
    ),
    (
        {
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "function_call", "value": "x"},
            ]
        },
        'conversations[1] must be a list of calls with name and arguments, got ["x"]',
    ),
    (
        {"instruction": "Add.", "question": "2 + 2?", "answer": "4"},
        "the fields match no accepted form: instruction, question, answer; "
        f"{ACCEPTED_FORMS}; {OTHER_NAMES}",
    ),
    (
        {"prompt": [user()], "completion": [user(weight=0.5), assistant()]},
        "completion repeats the turns of prompt with other weights, tool calls or reasoning; remove"
        " the turns of prompt from completion, or make them equal",
    ),
    (
        {"messages": [user(), assistant(refusal="I cannot.")]},
        "messages[1].refusal is not supported; list refusal in data.ignore to train without it",
    ),
    (
        {"messages": [user(), assistant(prefix=True)]},
        "messages[1].prefix is not supported; list prefix in data.ignore to train without it",
    ),
    (
        {"messages": [user(), assistant(end_turn=False)]},
        "messages[1].end_turn is not supported; list end_turn in data.ignore to train without it",
    ),
    (
        {"question": "Hi", "A": "Ho", "B": "Hu", "answer": "A"},
        "the field A is not supported; list A in data.ignore to train without it",
    ),
    (
        {"question": "Hi", "answer": "Ho", "option_a": "Ho"},
        "the field option_a is not supported; list option_a in data.ignore to train without it",
    ),
    (
        {"question": "Hi", "answer": "Ho", "evidence": "It says so."},
        "the field evidence is not supported; list evidence in data.ignore to train without it",
    ),
    (
        {"messages": [user(), assistant(None, tool_calls=[
            {"name": "weather", "arguments": '{"a":' * 20_000}])]},
        "messages[1].tool_calls[0].arguments is not valid JSON: it is nested too deeply, got "
        r'"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"...',
    ),
    (
        {"messages": [user(), assistant(None, tool_calls=[
            {"type": "function", "function": {"name": "weather", "arguments": 3}}])]},
        "messages[1].tool_calls[0].function.arguments must be an object, or the JSON of one, got 3",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("record", "problem"), REJECTED)
def test_record_whose_meaning_would_be_lost_is_rejected(
    record: dict[str, Any], problem: str
) -> None:
    parser = parse(record)
    assert parser.example() is None
    assert str(parser.problems[0]) == f"data.jsonl:7: {problem}"


def test_functions_of_openai_become_tools() -> None:
    definition = {"name": "weather", "parameters": {"type": "object"}}
    record = {
        "messages": [user(), assistant(None, function_call={"name": "weather", "arguments": "{}"})],
        "functions": [definition],
    }
    assert parsed(record).tools == ({"type": "function", "function": definition},)
    wrapped = {"type": "function", "function": definition}
    assert parsed({**record, "functions": [wrapped]}).tools == (wrapped,)


def test_a_deeply_nested_text_is_a_text() -> None:
    text = '[{"a":' * 20_000
    assert turns(parsed({"prompt": text, "completion": text}))[1] == ("assistant", text)


def test_a_record_with_an_answer_is_not_dropped_as_empty() -> None:
    record = {"instruction": "Add.", "question": "2 + 2?", "answer": "4"}
    parser = parse(record, drop=["empty"])
    assert parser.example() is None
    assert (len(parser.problems), parser.dropped) == (1, None)


def test_texts_in_parts_are_joined() -> None:
    def part(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}]

    alpaca = parsed({"instruction": part("Add."), "input": part("2 2"), "output": part("4")})
    assert (alpaca.instruction, alpaca.input) == ("Add.", "2 2")
    chat = parsed({"messages": [user(), assistant(reasoning_content=part("Short."))]})
    assert chat.messages[1].fields == {"reasoning_content": "Short."}


def test_a_flag_that_says_nothing_is_ignored() -> None:
    parser = parse({"messages": [user(), assistant(prefix=False, end_turn=True)]})
    assert parser.example() is not None
    assert parser.ignored == {"end_turn"}


def test_ignored_fields_are_not_used() -> None:
    record = {"messages": [user(), assistant(weight=0.3)], "images": ["a.png"]}
    assert turns(parsed(record, ignore=["images", "weight"])) == HI


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": "Hi", "output": " "}, "empty"),
        ({"messages": [user(), assistant("")]}, "empty"),
        ({"instruction": "Hi", "input": "", "output": None}, "empty"),
        ({"prompt": "Hi", "completion": None}, "empty"),
        ({"prompt": "Hi", "completion": "Ho", "label": False}, "negative"),
    ],
)
def test_records_are_dropped_for_the_reasons_in_data_drop(
    record: dict[str, Any], reason: DropReason
) -> None:
    parser = parse(record, drop=[reason])
    assert parser.example() is None
    assert (parser.problems, parser.dropped) == ([], reason)


def runs(example: Example, completion_turns: Any = "last") -> list[tuple[str, str]]:
    """(text, role) of each run of tokens with one role, without the template."""
    template = Template("chat", tokenizer_with("chatml"), completion_turns)
    encoded = template.encode(example, 1000)
    found: list[tuple[str, list[int]]] = []
    for token, role in zip(encoded.input_ids, encoded.roles, strict=True):
        name = Role(role).name
        if not found or found[-1][0] != name:
            found.append((name, []))
        found[-1][1].append(int(token))
    return [(template.tokenizer.decode(ids), name) for name, ids in found if name != "TEMPLATE"]


@pytest.mark.parametrize(
    ("turn", "completion_turns", "expected"),
    [
        ({}, "last", ("a", "HISTORY")),
        ({}, "all", ("a<|im_end|>", "COMPLETION")),
        ({"weight": 0}, "all", ("a<|im_end|>", "EXCLUDED")),
        ({"train": False}, "last", ("a<|im_end|>", "EXCLUDED")),
        ({"weight": 1}, "last", ("a<|im_end|>", "COMPLETION")),
        ({"loss": True}, "last", ("a<|im_end|>", "COMPLETION")),
        ({"loss_scale": 0.0}, "all", ("a<|im_end|>", "EXCLUDED")),
    ],
)
def test_the_data_says_which_assistant_turns_are_trained_on(
    turn: dict[str, Any], completion_turns: str, expected: tuple[str, str]
) -> None:
    record = {"messages": [user(), assistant("a", **turn), user("U"), assistant("b")]}
    assert runs(parsed(record), completion_turns) == [
        ("Hi", "USER"),
        expected,
        ("U", "USER"),
        ("b<|im_end|>", "COMPLETION"),
    ]


def test_a_user_turn_of_weight_0_has_no_loss() -> None:
    record = {"messages": [user(train=False), assistant()]}
    assert runs(parsed(record)) == [("Hi", "EXCLUDED"), ("Ho<|im_end|>", "COMPLETION")]


def test_all_answers_of_a_completion_of_several_messages_are_trained_on() -> None:
    record = {
        "prompt": [user()],
        "completion": [assistant("a"), user("U"), assistant("b")],
    }
    assert [role for _, role in runs(parsed(record))] == [
        *("USER", "COMPLETION", "USER", "COMPLETION")
    ]


def test_nulls_of_columnar_files_are_not_arguments() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"city": "Thun", "x": None}}}
    record = {"messages": [user(), assistant("", tool_calls=[call])]}
    row = Row("data.parquet[0]", "data.parquet[0]", record, is_columnar=True)
    example = RecordParser(row).example()
    assert example is not None
    [cleaned] = example.messages[1].fields["tool_calls"]
    assert cleaned["function"]["arguments"] == {"city": "Thun"}


@pytest.mark.parametrize("name", ["alpaca", "plain"])
def test_a_user_turn_of_weight_0_has_no_loss_in_other_templates(name: str) -> None:
    template = Template(name, tokenizer_with("chatml"))
    encoded = template.encode(parsed({"messages": [user(weight=0), assistant()]}), 1000)
    assert Role.USER not in encoded.roles
    assert Role.EXCLUDED in encoded.roles


@pytest.mark.parametrize("template", ["alpaca", "plain"])
def test_templates_that_show_one_text_reject_tools_and_reasoning(template: str) -> None:
    renderer = Template(template, tokenizer_with("chatml"))
    tools = parsed({"messages": [user(), assistant()], "tools": [TOOL]})
    with pytest.raises(InputError, match="does not render the record's tools"):
        renderer.encode(tools, 100)
    reasoning = parsed({"messages": [user(), assistant(reasoning_content="Hm.")]})
    with pytest.raises(InputError, match="does not render the answer's reasoning_content"):
        renderer.encode(reasoning, 100)


def tool_chat(call: dict[str, Any]) -> Example:
    return parsed(
        {
            "messages": [user(), call, {"role": "tool", "content": "sunny"}, assistant()],
            "tools": [TOOL],
        }
    )


def test_a_turn_of_tool_calls_of_weight_0_has_no_loss() -> None:
    template = Template("chat", tokenizer_with("thinking"))
    encoded = template.encode(tool_chat(assistant("", tool_calls=[CALL], weight=0)), 1000)
    excluded = [
        token for token, role in zip(encoded.input_ids, encoded.roles, strict=True)
        if role == Role.EXCLUDED
    ]  # fmt: skip
    assert '"arguments": {"city": "Thun"}}\n</tool_call><|im_end|>' in template.tokenizer.decode(
        excluded
    )


def test_tool_calls_of_weight_0_that_cannot_be_found_are_rejected() -> None:
    """The template changes the calls in a longer chat, so their tokens are unknown."""
    tokenizer = tokenizer_with("thinking")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<tool_call>", "<tool_call>{{ 'x' if messages | length > 2 else '' }}"
    )
    example = tool_chat(assistant("", tool_calls=[CALL], weight=0))
    with pytest.raises(InputError, match="its tool calls cannot be found in the rendered chat"):
        Template("chat", tokenizer).encode(example, 1000)
