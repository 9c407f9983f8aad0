"""A template's {% generation %} markers say which tokens the model generates."""

import logging

import pytest

from tests.trainers.data.chat_templates import MARKED, tokenizer_with
from tests.trainers.data.test_roles import chat, spans
from trainers.data.roles import COMPLETION_ROLES
from trainers.data.template import Template
from trainers.foundation.errors import InputError

TWO_TURNS = chat(("user", "Hi"), ("assistant", "Ho"), ("user", "He"), ("assistant", "ok<|im_end|>"))
OPEN, CLOSE = "{% generation %}", "{% endgeneration %}"
ANSWER = "{{ m.content }}<|im_end|>"


def marked(answer: str, *, turns: str = "all") -> Template:
    """A template that writes assistant turns as `answer`."""
    tokenizer = tokenizer_with("marked")
    tokenizer.chat_template = MARKED.replace(OPEN + ANSWER + CLOSE, answer)
    return Template("chat", tokenizer, "all" if turns == "all" else "last")


def completions(template: Template) -> list[str]:
    found = spans(template, template.encode(TWO_TURNS, 1000))
    return [text for role, text in found if role == "COMPLETION"]


def test_the_mask_covers_the_tokens_within_markers() -> None:
    template = marked(OPEN + ANSWER + CLOSE)
    found = template.generation_mask(TWO_TURNS)
    assert found is not None
    ids = [id for id, is_marked in zip(found.input_ids, found.mask, strict=True) if is_marked]
    assert template.tokenizer.decode(ids) == "Ho<|im_end|>ok<|im_end|>"


def test_a_template_without_markers_has_no_mask() -> None:
    assert Template("chat", tokenizer_with("chatml")).generation_mask(TWO_TURNS) is None
    assert Template("plain", tokenizer_with("marked")).generation_mask(TWO_TURNS) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OPEN + ANSWER + CLOSE, ["Ho<|im_end|>", "ok<|im_end|>"]),
        # What the author leaves out, the model does not write.
        ("Well: " + OPEN + ANSWER + CLOSE, ["Ho<|im_end|>", "ok<|im_end|>"]),
        (f"{OPEN}{{{{ m.content }}}}{CLOSE}<|im_end|>", ["Ho", "ok"]),
        # Two blocks in one answer.
        (
            f"{OPEN}{{{{ m.content[:1] }}}}{CLOSE}{{{{ m.content[1:] }}}}{OPEN}<|im_end|>{CLOSE}",
            ["H", "<|im_end|>", "o", "<|im_end|>"],
        ),
    ],
)
def test_only_marked_text_is_completion(answer: str, expected: list[str]) -> None:
    template = marked(answer)
    assert completions(template) == expected
    mask = template.generation_mask(TWO_TURNS)
    assert mask is not None
    encoded = template.encode(TWO_TURNS, 1000)
    ours = [role in COMPLETION_ROLES for role in encoded.roles]
    assert ours == mask.mask[: len(ours)]


def test_text_that_the_prompt_contains_at_inference_is_not_completion() -> None:
    tokenizer = tokenizer_with("marked")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}"
        "{% generation %}<|assistant|>{{ m.content }}<|im_end|>\n{% endgeneration %}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert completions(Template("chat", tokenizer, "all")) == ["Ho<|im_end|>", "ok<|im_end|>"]


def test_earlier_answers_are_history_with_markers_as_well() -> None:
    assert completions(marked(OPEN + ANSWER + CLOSE, turns="last")) == ["ok<|im_end|>"]


def test_an_unmarked_end_token_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        completions(marked(f"{OPEN}{{{{ m.content }}}}{CLOSE}<|im_end|>"))
        assert "leave the end token <|im_end|> out: the model does not learn to end" in caplog.text
        caplog.clear()
        completions(marked(OPEN + ANSWER + CLOSE))
        assert not caplog.text


def test_markers_around_nothing_of_the_answer_are_an_error() -> None:
    with pytest.raises(InputError) as caught:
        completions(marked(f"{ANSWER}{OPEN}\n{CLOSE}"))
    assert str(caught.value) == (
        "chats.jsonl:1: the chat template's {% generation %} markers leave the answer out: nothing"
        " of it would be trained on; put the markers around the answer in the template, or remove"
        " them"
    )
