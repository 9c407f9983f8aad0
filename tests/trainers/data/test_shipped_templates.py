# ruff: noqa: RUF001 (the tokens of DeepSeek R1 contain full-width bars)
"""Chat templates that we ship for models whose own one cannot be used for training."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_model import tiny_tokenizer
from tests.trainers.data.chat_templates import TEMPLATES, tokenizer_with
from tests.trainers.data.test_roles import chat, spans
from trainers.data.examples import Example, Message
from trainers.data.template import Template
from trainers.foundation.errors import InputError

QUESTION = ("user", "Hi")
THOUGHT = chat(QUESTION, ("assistant", "<think>\nHm.\n</think>\n\nHo"))
REASONED = Example(
    id="chats.jsonl:1",
    messages=(
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Ho", fields={"reasoning_content": "Hm."}),
    ),
)
LONG = chat(
    ("system", "S"),
    *((m.role, m.content) for m in THOUGHT.messages),
    ("user", "He"),
    ("assistant", "ok"),
)


def error_of(name: str, template: str, example: Example = THOUGHT) -> str:
    with pytest.raises(InputError) as caught:
        Template(template, tokenizer_with(name)).encode(example, 1000)
    return str(caught.value)


@pytest.mark.parametrize("example", [THOUGHT, REASONED])
def test_the_answer_of_deepseek_r1_is_thinking_then_text_then_end(example: Example) -> None:
    template = Template("deepseek-r1", tokenizer_with("deepseek-r1"))
    assert spans(template, template.encode(example, 1000)) == [
        ("TEMPLATE", "<bos><｜User｜>"),
        ("USER", "Hi"),
        ("TEMPLATE", "<｜Assistant｜><think>\n"),
        ("THINKING", "Hm.\n</think>\n\n"),
        ("COMPLETION", "Ho<｜end▁of▁sentence｜>"),
    ]


@pytest.mark.parametrize("example", [THOUGHT, REASONED, LONG])
def test_the_prompt_is_that_of_the_models_own_template(example: Example) -> None:
    tokenizer = tokenizer_with("deepseek-r1")
    own = tokenizer.apply_chat_template(
        [turn.to_template() for turn in example.messages[:-1]], add_generation_prompt=True
    )
    assert Template("deepseek-r1", tokenizer).encode_prompt(example) == own["input_ids"]


def test_the_error_of_the_models_own_template_names_the_shipped_one() -> None:
    assert error_of("deepseek-r1", "chat") == (
        "chats.jsonl:1: the chat template renders the prompt differently once the answer follows"
        ' it: the prompt continues with "<think>\\n", the whole chat with'
        ' "\\n\\nHo<\\uff5cend\\u2581of\\u2581sentence\\uff5c>"; set data.template to deepseek-r1,'
        " which has the same prompts"
    )
    assert "such as" in error_of("opens-thinking", "chat")


def test_a_shipped_template_for_another_model_is_rejected() -> None:
    assert error_of("chatml", "deepseek-r1") == (
        'data.template deepseek-r1 is for another model: it renders the prompt "<bos><｜User｜>a'
        "<｜Assistant｜><think>\\n\", and the model's chat template"
        ' "<|im_start|>user\\na<|im_end|>\\n<|im_start|>assistant\\n"; set data.template to chat'
    )


TOOL = {"type": "function", "function": {"name": "convert", "parameters": {"type": "object"}}}
WITH_TOOLS = Example(
    id="tools.jsonl:1",
    tools=(TOOL,),
    messages=(
        Message(role="system", content="Be short."),
        Message(role="user", content="2 km and 5 kg?"),
        Message(
            role="assistant",
            content="",
            fields={
                "tool_calls": [
                    {"type": "function", "function": {"name": "convert", "arguments": '{"km": 2}'}},
                    {"type": "function", "function": {"name": "convert", "arguments": {"kg": 5}}},
                ]
            },
        ),
        Message(role="tool", content="1.24 miles"),
        Message(role="tool", content="11.02 pounds"),
        Message(role="assistant", content="1.24 miles, 11.02 pounds."),
    ),
)


def test_chatml_tools_shows_tools_calls_and_results() -> None:
    template = Template("chatml-tools", tokenizer_with("chatml"))
    assert spans(template, template.encode(WITH_TOOLS, 10_000)) == [
        ("TEMPLATE", "<|im_start|>system\n"),
        ("SYSTEM", "Be short."),
        (
            "TEMPLATE",
            "\n\nYou can call these functions, one per line as JSON:\n<tools>\n"
            '{"type": "function", "function": {"name": "convert", "parameters": {"type": "object"}}'
            "}\n</tools>\n\n"
            "Write each call as JSON with the name of the function and its arguments:\n"
            '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call><|im_end|>\n'
            "<|im_start|>user\n",
        ),
        ("USER", "2 km and 5 kg?"),
        ("TEMPLATE", "<|im_end|>\n<|im_start|>assistant\n"),
        (
            "HISTORY",
            '<tool_call>\n{"name": "convert", "arguments": {"km": 2}}\n</tool_call>\n'
            '<tool_call>\n{"name": "convert", "arguments": {"kg": 5}}\n</tool_call><|im_end|>',
        ),
        ("TEMPLATE", "\n<|im_start|>user\n<tool_response>\n"),
        ("TOOL", "1.24 miles"),
        ("TEMPLATE", "\n</tool_response>\n<tool_response>\n"),
        ("TOOL", "11.02 pounds"),
        ("TEMPLATE", "\n</tool_response><|im_end|>\n<|im_start|>assistant\n"),
        ("COMPLETION", "1.24 miles, 11.02 pounds.<|im_end|>"),
    ]


def test_a_call_of_chatml_tools_is_a_completion_after_its_text() -> None:
    template = Template("chatml-tools", tokenizer_with("chatml"))
    calling = replace(WITH_TOOLS.messages[2], content="I convert both.")
    example = replace(WITH_TOOLS, messages=(*WITH_TOOLS.messages[:2], calling))
    assert spans(template, template.encode(example, 10_000))[-1] == (
        "COMPLETION",
        'I convert both.\n<tool_call>\n{"name": "convert", "arguments": {"km": 2}}\n</tool_call>\n'
        '<tool_call>\n{"name": "convert", "arguments": {"kg": 5}}\n</tool_call><|im_end|>',
    )


def test_all_turns_of_chatml_tools_can_be_completions() -> None:
    template = Template("chatml-tools", tokenizer_with("chatml"), "all")
    found = spans(template, template.encode(WITH_TOOLS, 10_000))
    assert [text[-10:] for role, text in found if role == "COMPLETION"] == ["<|im_end|>"] * 2


def test_chatml_tools_renders_chats_without_tools_as_chatml() -> None:
    ours = Template("chatml-tools", tokenizer_with("chatml"))
    assert ours.encode(LONG, 1000) == Template("chat", ours.tokenizer).encode(LONG, 1000)


def test_the_error_of_a_chatml_template_without_tools_names_chatml_tools() -> None:
    fix = "; set data.template to chatml-tools, which shows tools in ChatML"
    assert error_of("chatml", "chat", WITH_TOOLS) == (
        f"tools.jsonl:1: the chat template does not show messages[2].tool_calls{fix}"
    )
    without_calls = replace(WITH_TOOLS, messages=THOUGHT.messages)
    assert f"{fix}, or list tools in data.ignore" in error_of("chatml", "chat", without_calls)
    answer = replace(WITH_TOOLS, tools=None, messages=WITH_TOOLS.messages[:3])
    assert fix in error_of("chatml", "chat", answer)


def test_the_error_of_an_own_template_says_what_the_file_must_render(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(TEMPLATES["chatml"], encoding="utf-8")
    assert (
        f"; make {path} render `tools`, `message.tool_calls` with name and arguments, and messages"
        " with the role tool; docs/data.md"
    ) in error_of("chatml", str(path), WITH_TOOLS)


def test_chatml_tools_needs_the_tokens_of_chatml() -> None:
    with pytest.raises(InputError) as caught:
        Template("chatml-tools", tiny_tokenizer())
    assert str(caught.value) == (
        "data.template chatml-tools is for models with the tokens <|im_start|> and <|im_end|>,"
        " which the tokenizer does not have; set data.template to chat"
    )
