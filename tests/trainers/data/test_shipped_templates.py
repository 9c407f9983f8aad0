# ruff: noqa: RUF001 (the tokens of DeepSeek R1 contain full-width bars)
"""Chat templates that we ship for models whose own one cannot be used for training."""

import pytest

from tests.trainers.data.chat_templates import tokenizer_with
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
