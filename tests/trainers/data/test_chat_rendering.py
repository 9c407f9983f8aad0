"""Chats are rendered exactly as the template does, and each part has its role."""

from typing import Any

import pytest

from tests.trainers.data.chat_templates import tokenizer_with
from trainers.data.chat_answers import ChatRenderingError
from trainers.data.chat_rendering import ChatRenderer, RenderedChat

Chat = list[dict[str, Any]]
USER = {"role": "user", "content": "help"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Thun"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def assistant(content: str | None, **others: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **others}


def rendered(template: str, chat: Chat, *, tools: Any = None) -> RenderedChat:
    """The rendered chat, whose prompt and completion are checked against the template itself."""
    tokenizer = tokenizer_with(template)
    result = ChatRenderer(tokenizer).render(chat, tools)
    prompt = "".join(span.text for span in result.prompt)
    completion = "".join(span.text for span in result.completion)
    options = {"tools": tools, "tokenize": False}
    assert prompt == tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, **options)
    assert tokenizer.apply_chat_template(chat, **options).startswith(prompt + completion)
    return result


def texts(spans: Any) -> list[tuple[str, str]]:
    return [(span.text, span.part) for span in spans if span.part != "template"]


COMPLETIONS: list[tuple[str, Chat, list[tuple[str, str]], str | None]] = [
    ("chatml", [USER, assistant("Thun.")], [("Thun.<|im_end|>", "completion")], "<|im_end|>"),
    # The template trims the answer, so training must not show the model the spaces.
    (
        "merging",
        [USER, assistant(" Thun. \n")],
        [("Thun.<end_of_turn>", "completion")],
        "<end_of_turn>",
    ),
    ("two-ends", [USER, assistant("Thun.")], [("Thun.<|end|>", "completion")], "<|end|>"),
    ("joined-ends", [USER, assistant("Thun.")], [("Thun.<|end|>", "completion")], "<|end|>"),
    ("plain-end", [USER, assistant("Thun.")], [("Thun.<end>", "completion")], "<end>"),
    (
        "end-in-two",
        [USER, assistant("Thun.")],
        [("Thun.<|text_end|><|turn_end|>", "completion")],
        "<|turn_end|>",
    ),
    ("no-end", [USER, assistant("Thun.")], [("Thun.", "completion")], None),
    # An end token that the data holds already is not doubled.
    (
        "chatml",
        [USER, assistant("Thun.<|im_end|>\n")],
        [("Thun.<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    (
        "chatml",
        [USER, assistant("Thun.<|im_end|>\n<|im_end|>")],
        [("Thun.<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    # What the template writes before an answer without thinking must be learned.
    (
        "thinking",
        [USER, assistant("Thun.")],
        [("<think>\n\n</think>\n\nThun.<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    (
        "thinking",
        [USER, assistant("<think>\nadd\n</think>\n\nFour.")],
        [("<think>\nadd\n</think>\n\n", "thinking"), ("Four.<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    (
        "thinking",
        [USER, assistant("Four.", reasoning_content="add")],
        [("<think>\nadd\n</think>\n\n", "thinking"), ("Four.<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    (
        "thinking",
        [USER, assistant("", tool_calls=[CALL])],
        [
            (
                "<think>\n\n</think>\n\n<tool_call>\n"
                '{"name": "weather", "arguments": {"city": "Thun"}}\n</tool_call><|im_end|>',
                "completion",
            )
        ],
        "<|im_end|>",
    ),
    (
        "thinking",
        [USER, assistant("Let me see.", reasoning_content="call it", tool_calls=[CALL])],
        [
            ("<think>\ncall it\n</think>\n\n", "thinking"),
            (
                "Let me see.<tool_call>\n"
                '{"name": "weather", "arguments": {"city": "Thun"}}\n</tool_call><|im_end|>',
                "completion",
            ),
        ],
        "<|im_end|>",
    ),
    # Answers that occur in the end token, and in the thinking.
    ("chatml", [USER, assistant("e")], [("e<|im_end|>", "completion")], "<|im_end|>"),
    ("chatml", [USER, assistant("<|")], [("<|<|im_end|>", "completion")], "<|im_end|>"),
    ("two-ends", [USER, assistant("end")], [("end<|end|>", "completion")], "<|end|>"),
    (
        "thinking",
        [USER, assistant("e", reasoning_content="see")],
        [("<think>\nsee\n</think>\n\n", "thinking"), ("e<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    (
        "chatml",
        [USER, assistant("<think>because</think> Paris")],
        [("<think>because</think>", "thinking"), (" Paris<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    (
        "chatml",
        [USER, assistant("Use <think> or </think> tags")],
        [("Use <think> or </think> tags<|im_end|>", "completion")],
        "<|im_end|>",
    ),
    (
        "thinking",
        [USER, assistant("", reasoning_content="call it", tool_calls=[CALL])],
        [
            ("<think>\ncall it\n</think>\n\n", "thinking"),
            (
                '<tool_call>\n{"name": "weather", "arguments": {"city": "Thun"}}\n</tool_call>'
                "<|im_end|>",
                "completion",
            ),
        ],
        "<|im_end|>",
    ),
    # Only the template's end token is taken from the end of an answer.
    (
        "chatml",
        [USER, assistant("a<|user|>")],
        [("a<|user|><|im_end|>", "completion")],
        "<|im_end|>",
    ),
    # An answer whose text occurs in the prompt as well.
    ("chatml", [USER, assistant("help")], [("help<|im_end|>", "completion")], "<|im_end|>"),
    (
        "chatml",
        [USER, assistant("Ω 漢字 🙂 é")],
        [("Ω 漢字 🙂 é<|im_end|>", "completion")],
        "<|im_end|>",
    ),
]


@pytest.mark.parametrize(("template", "chat", "expected", "end_token"), COMPLETIONS)
def test_the_completion_is_what_the_answer_adds_up_to_the_end_of_its_turn(
    template: str, chat: Chat, expected: list[tuple[str, str]], end_token: str | None
) -> None:
    result = rendered(template, chat, tools=[TOOL] if "tool_calls" in chat[-1] else None)
    assert texts(result.completion) == expected
    assert result.end_token == end_token


SYSTEM = {"role": "system", "content": "Be short."}
PROMPTS: list[tuple[str, Chat, list[tuple[str, str]]]] = [
    ("chatml", [SYSTEM, USER], [("Be short.", "system"), ("help", "user")]),
    ("merging", [SYSTEM, USER], [("Be short.", "system"), ("help", "user")]),
    # Texts that occur elsewhere in the prompt: in the template and in another message.
    (
        "chatml",
        [{"role": "system", "content": "user"}, {"role": "user", "content": "user"}],
        [("user", "system"), ("user", "user")],
    ),
    (
        "chatml",
        [USER, assistant("help"), {"role": "user", "content": "again"}],
        [("help", "user"), ("help", "history"), ("again", "user")],
    ),
    (
        "merging",
        [{"role": "user", "content": "  help\n"}],
        [("help", "user")],
    ),
    # Thinking that the template drops from an earlier turn is no error: that turn is prompt.
    (
        "thinking",
        [USER, assistant("<think>\nadd\n</think>\n\nFour."), {"role": "user", "content": "more"}],
        [("help", "user"), ("Four.", "history"), ("more", "user")],
    ),
    (
        "thinking",
        [
            USER,
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "content": "sunny"},
        ],
        [
            ("help", "user"),
            (
                "<think>\n\n</think>\n\n<tool_call>\n"
                '{"name": "weather", "arguments": {"city": "Thun"}}\n</tool_call><|im_end|>',
                "history",
            ),
            ("sunny", "tool"),
        ],
    ),
    (
        "named-roles",
        [{"role": "developer", "content": "Be short."}, USER],
        [("Be short.", "system"), ("help", "user")],
    ),
    (
        "role-tokens",
        [USER, assistant("Call."), {"role": "observation", "content": "sunny"}],
        [("help", "user"), ("Call.", "history"), ("sunny", "tool")],
    ),
]


@pytest.mark.parametrize(("template", "prompt", "expected"), PROMPTS)
def test_each_part_of_the_prompt_has_its_role(
    template: str, prompt: Chat, expected: list[tuple[str, str]]
) -> None:
    has_calls = any("tool_calls" in turn for turn in prompt)
    result = rendered(template, [*prompt, assistant("Yes.")], tools=[TOOL] if has_calls else None)
    assert texts(result.prompt) == expected


def test_the_index_of_a_message_comes_with_its_text() -> None:
    chat = [SYSTEM, USER, assistant("Hello"), {"role": "user", "content": "more"}]
    result = rendered("chatml", [*chat, assistant("Yes.")])
    spans = [*result.prompt, *result.completion]
    assert [span.message for span in spans if span.part != "template"] == [0, 1, 2, 3, 4]


REJECTED: list[tuple[str, Chat, Any, str]] = [
    ("no-system", [SYSTEM, USER, assistant("a")], None, "System role not supported"),
    ("merging", [USER, USER, assistant("a")], None, "Roles must alternate"),
    ("opens-thinking", [USER, assistant("Four.")], None, "renders the prompt differently"),
    ("chatml", [USER, assistant("a", reasoning_content="b")], None, "the answer's reasoning"),
    ("chatml", [USER, assistant("", tool_calls=[CALL])], None, "the answer's tool_calls"),
    (
        "chatml",
        [USER, assistant("Wait.", tool_calls=[CALL]), USER, assistant("a")],
        None,
        r"messages\[1\].tool_calls",
    ),
    ("chatml", [USER, assistant("a")], [TOOL], "the record's tools"),
    # The name of the function and the reasoning occur in the text.
    ("chatml", [USER, assistant("weather", tool_calls=[CALL])], None, "the answer's tool_calls"),
    ("chatml", [USER, assistant("Paris!", reasoning_content="Paris")], None, "answer's reasoning"),
    (
        "opens-thinking",
        [USER, assistant("<think>\nadd\n</think>\n\nFour.")],
        None,
        "renders the prompt differently",
    ),
]


@pytest.mark.parametrize(("template", "chat", "tools", "message"), REJECTED)
def test_a_chat_that_the_template_does_not_show_is_rejected(
    template: str, chat: Chat, tools: Any, message: str
) -> None:
    with pytest.raises(ChatRenderingError, match=message):
        ChatRenderer(tokenizer_with(template)).render(chat, tools)


def test_a_template_that_drops_thinking_of_the_answer_is_rejected() -> None:
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"
    )
    chat = [USER, assistant("<think>add</think>Four.")]
    with pytest.raises(ChatRenderingError, match="leaves the answer's thinking out"):
        ChatRenderer(tokenizer).render(chat)


@pytest.mark.parametrize(
    ("template", "end"),
    [("joined-ends", "<|end|>"), ("plain-end", "<end>"), ("two-ends", "<|end|>")],
)
def test_earlier_answers_end_as_the_last_one(template: str, end: str) -> None:
    tokenizer = tokenizer_with(template)
    chat = [USER, assistant("Thun."), USER, assistant("Bern.")]
    renderer = ChatRenderer(tokenizer)
    result = renderer.render(chat, earlier_completions=[1])
    spans = [*texts(result.prompt), *texts(result.completion)]
    assert spans == [
        ("help", "user"),
        (f"Thun.{end}", "completion"),
        ("help", "user"),
        (f"Bern.{end}", "completion"),
    ]
    assert renderer.end_token() == end


def test_a_role_has_the_name_in_the_data_only_if_the_template_or_a_token_has_it() -> None:
    def written(template: str, role: str) -> str:
        chat = [USER, assistant("Call."), {"role": role, "content": "sunny"}, assistant("Yes.")]
        result = ChatRenderer(tokenizer_with(template)).render(chat)
        before, _, _ = "".join(span.text for span in result.prompt).partition("\nsunny")
        return before.rpartition("\n")[2]

    assert written("role-tokens", "observation") == "<|observation|>"
    assert written("role-tokens", "function") == "<|tool|>"
    assert written("chatml", "function") == "<|im_start|>tool"
    assert written("named-roles", "developer") == "<|im_start|>developer"
    assert written("chatml", "developer") == "<|im_start|>system"


def test_arguments_that_the_template_does_not_show_are_an_error() -> None:
    renderer = ChatRenderer(tokenizer_with("hidden-arguments"))
    call = assistant("", tool_calls=[CALL])
    with pytest.raises(ChatRenderingError, match="the arguments of the answer's tool_calls"):
        renderer.render([USER, call])
    result = {"role": "tool", "content": "sunny"}
    with pytest.raises(ChatRenderingError, match=r"the arguments of messages\[1\].tool_calls"):
        renderer.render([USER, call, result, assistant("Yes.")])
    no_arguments = {"type": "function", "function": {"name": "now", "arguments": {}}}
    shown = renderer.render([USER, assistant("", tool_calls=[no_arguments])])
    assert texts(shown.completion) == [("now<|im_end|>", "completion")]
