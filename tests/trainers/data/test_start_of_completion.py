"""A completion has the tokens that follow its prompt, not those of the start of a text."""

import math
from typing import Any

import pytest

from tests.trainers.data.sentencepiece_tokenizer import Kind, spaced_tokenizer
from trainers.data.examples import Example, Message, PartWeight, pair
from trainers.data.roles import Role
from trainers.data.template import Template

# Zephyr's: the answer follows a line end.
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Mistral's: the answer follows a space, which is part of the completion.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# The answer follows a special token.
BARE = (
    "{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}{% endif %}"
)
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "one two"},
    {"role": "assistant", "content": "Yes it is"},
    {"role": "user", "content": "and"},
    {"role": "assistant", "content": "No."},
]
EXAMPLE = Example(id="chat", messages=tuple(Message(**turn) for turn in CHAT))


@pytest.mark.parametrize("kind", ["metaspace", "prepend"])
@pytest.mark.parametrize("template", [ZEPHYR, MISTRAL, BARE])
def test_tokens_of_a_chat_are_those_of_transformers(kind: Kind, template: str) -> None:
    tokenizer = spaced_tokenizer(kind, template)
    options = {"tokenize": True, "return_dict": False}
    whole = tokenizer.apply_chat_template(CHAT, **options)
    prompt = tokenizer.apply_chat_template(CHAT[:-1], add_generation_prompt=True, **options)
    encoded = Template("chat", tokenizer).tokenize([EXAMPLE])[0]
    assert encoded.prompt_ids == prompt
    ours = encoded.prompt_ids + encoded.completion_ids
    assert ours == whole[: len(ours)]
    assert tokenizer.convert_ids_to_tokens(encoded.completion_ids[-1]) == "</s>"


@pytest.mark.parametrize("kind", ["metaspace", "prepend"])
def test_an_answer_after_a_line_end_has_no_space_before_it(kind: Kind) -> None:
    tokenizer = spaced_tokenizer(kind, ZEPHYR)
    template = Template("chat", tokenizer)
    encoded = template.tokenize([EXAMPLE])[0]
    expected = ["N", "o", ".", "</s>"]
    assert tokenizer.convert_ids_to_tokens(encoded.completion_ids) == expected
    assert encoded.completion_roles == [int(Role.COMPLETION)] * 4
    # A choice after the same prompt, as at scoring.
    ids = template.encode_completion("No.", template.render_prompt(EXAMPLE))
    assert tokenizer.convert_ids_to_tokens(ids) == expected
    plain = Template("plain", tokenizer).tokenize([pair("a", prompt="Why", completion="So it is")])
    assert tokenizer.convert_ids_to_tokens(plain[0].completion_ids) == [
        *("S", "o", "\u2581i", "t", "\u2581i", "s", "</s>")
    ]


def test_a_token_that_would_span_the_border_is_split() -> None:
    """The prompt ends with a space, which is one token with the letter after it."""
    tokenizer = spaced_tokenizer("metaspace", ZEPHYR)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    encoded = Template("chat", tokenizer).tokenize([EXAMPLE])[0]
    tokens = tokenizer.convert_ids_to_tokens(encoded.prompt_ids + encoded.completion_ids)
    assert tokens[-6:] == [":", "\u2581", "N", "o", ".", "</s>"]


def test_weights_of_parts_are_at_their_characters() -> None:
    parts = (PartWeight(start=0, stop=3, weight=0.5),)
    answer = Message(role="assistant", content="Yes it is", part_weights=parts, train=True)
    example = Example(id="a", messages=(Message(role="user", content="one"), answer))
    template = Template("chat", spaced_tokenizer("metaspace", ZEPHYR))
    encoded = template.tokenize([example])[0]
    assert encoded.weights is not None
    weights = encoded.weights[len(encoded.prompt_ids) :]
    assert [None if math.isnan(one) else one for one in weights] == [0.5] * 3 + [None] * 5
