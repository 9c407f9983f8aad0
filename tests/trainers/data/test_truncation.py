"""Truncated examples fit, and keep the structure of their chat."""

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.trainers.data.chat_templates import tokenizer_with
from tests.trainers.data.test_roles import chat, jinja_file, letters, spans, tokens
from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.examples import Example, Message, pair
from trainers.data.roles import Role
from trainers.data.template import Template
from trainers.data_config import TruncationSide

# Start token, tools and system turn first: the order of most published templates.
CHATML = (
    "{{ bos_token }}{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n?", re.DOTALL)


@cache
def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with merges, and characters of several tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<bos>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = ["word words long longer 日本語 the then system user tool"] * 9
    backend.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )


@dataclass(frozen=True)
class ParsedChat:
    """A chat read back from its tokens; `turns` are role and text, the last is the answer."""

    system: list[str]
    turns: list[tuple[str, str]]


def parse(ids: list[int]) -> ParsedChat:
    """Parse tokens that must be a complete chat in the format of CHATML."""
    text = chatml_tokenizer().decode(ids, clean_up_tokenization_spaces=False)
    assert text.startswith("<bos>"), text
    assert re.fullmatch(f"(?:{TURN.pattern})+", text.removeprefix("<bos>"), re.DOTALL), text
    turns = TURN.findall(text)
    return ParsedChat(
        [content for role, content in turns if role == "system"],
        [turn for turn in turns if turn[0] != "system"],
    )


words = st.lists(
    st.sampled_from(["word", "longer", "x", "the", "é", "日本語", "🦊", "a.b"]),
    min_size=1,
    max_size=12,
)
texts = words.map(" ".join)


@st.composite
def chats(draw: st.DrawFn) -> Example:
    """Return a chat with an optional system turn, tools, and one to four exchanges."""
    messages: list[tuple[str, str]] = []
    if draw(st.booleans()):
        messages.append(("system", draw(texts)))
    for _ in range(draw(st.integers(1, 4))):
        messages.append(("user", draw(texts)))
        if draw(st.booleans()):
            messages += [("assistant", draw(texts)), ("tool", draw(texts))]
        messages.append(("assistant", draw(texts)))
    tools = ({"name": "add"},) if draw(st.booleans()) else None
    return Example(
        id="chats.jsonl:1",
        messages=tuple(Message(role=role, content=text) for role, text in messages),
        tools=tools,
    )


def reference_ids(turns: list[tuple[str, str]]) -> list[int]:
    """Return the tokens of a chat, from a text that is written by hand."""
    text = "<bos>" + "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return tokenize(text.removesuffix("\n"))


def tokenize(text: str) -> list[int]:
    ids: list[int] = chatml_tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


def num_tokens(text: str) -> int:
    return len(tokenize(text))


def exchanges_of(example: Example) -> tuple[list[tuple[str, str]], list[list[tuple[str, str]]]]:
    """Return system turns, and the other turns from each user turn to the next."""
    system = [("system", '[{"name": "add"}]')] if example.tools else []
    exchanges: list[list[tuple[str, str]]] = []
    for message in example.messages:
        turn = (message.role, message.content)
        if message.role == "system":
            system.append(turn)
        elif message.role == "user":
            exchanges.append([turn])
        else:
            exchanges[-1].append(turn)
    return system, exchanges


@settings(max_examples=150, deadline=None)
@given(example=chats(), max_length=st.integers(10, 160), side=st.sampled_from(["left", "right"]))
def test_a_truncated_chat_is_a_complete_chat_without_the_start_of_the_whole_one(
    example: Example, max_length: int, side: TruncationSide
) -> None:
    template = Template("chat", chatml_tokenizer(), truncation_side=side)
    [whole] = template.tokenize([example])
    truncated = template.truncate(example, whole, max_length, cut_completion=False)
    system, exchanges = exchanges_of(example)
    last = exchanges[-1]
    if truncated is None:
        event("does not fit")
        num_cut = sum(num_tokens(text) - 1 for role, text in last if role in ("user", "tool"))
        # The first and last characters of the texts have up to four tokens.
        assert len(reference_ids([*system, *last])) - num_cut > max_length - 3 * len(last)
        return
    ids = [int(id) for id in truncated.tokens.input_ids]
    parsed = parse(ids)
    assert len(ids) <= max_length
    assert parsed.system == [text for _, text in system]

    given_turns = [turn for exchange in exchanges for turn in exchange]
    kept = given_turns[len(given_turns) - len(parsed.turns) :]
    num_kept = next(n for n in range(1, 5) if sum(map(len, exchanges[-n:])) == len(kept))
    assert [role for role, _ in parsed.turns] == [role for role, _ in kept]
    assert truncated.num_removed_turns == len(given_turns) - len(kept)
    assert parsed.turns[-1] == kept[-1]

    whole_ids = reference_ids([*system, *kept])
    rest = iter(whole_ids)
    assert all(id in rest for id in ids)  # A subsequence: no token is new.
    num_given = len(reference_ids([*system, *given_turns]))
    assert truncated.tokens.num_truncated_tokens == num_given - len(ids)
    cut = [(a[0], a[1], b[1]) for a, b in zip(parsed.turns, kept, strict=True) if a != b]
    assert truncated.has_cut_texts == bool(cut)
    for role, text, original in cut:
        assert role in ("user", "tool")
        assert original.endswith(text) if side == "left" else original.startswith(text)
    if cut:
        event("cut")
        assert num_kept == 1
        # A character has up to four tokens, and all or none of them remain.
        assert len(ids) > max_length - 4 * len(cut)
        uncut = [
            text
            for (role, text), given_turn in zip(parsed.turns, kept, strict=True)
            if (role, text) == given_turn and role in ("user", "tool")
        ]
        longest = max(map(num_tokens, uncut), default=0)
        assert all(num_tokens(text) > longest - 5 for _, text, _ in cut)
    else:
        event("exchanges removed" if truncated.num_removed_turns else "whole")
        assert ids == whole_ids
        if num_kept < len(exchanges):
            more = [turn for exchange in exchanges[-num_kept - 1 :] for turn in exchange]
            assert len(reference_ids([*system, *more])) > max_length


@settings(max_examples=60, deadline=None)
@given(example=chats(), max_length=st.integers(10, 160), side=st.sampled_from(["left", "right"]))
def test_a_prompt_is_cut_for_generation_as_in_training(
    example: Example, max_length: int, side: TruncationSide
) -> None:
    template = Template("chat", chatml_tokenizer(), truncation_side=side)
    [whole] = template.tokenize([example])
    truncated = template.truncate(example, whole, max_length, cut_completion=False)
    assume(truncated is not None)
    assert truncated is not None
    num_completion_tokens = truncated.tokens.num_completion_tokens
    prompt = template.truncate_prompt(example, max_length - num_completion_tokens)
    assert prompt.input_ids == truncated.tokens.input_ids[:-num_completion_tokens]
    assert template.encode(example, max_length) == truncated.tokens


@settings(max_examples=30, deadline=None)
@given(example=chats(), max_length=st.integers(1, 60))
def test_every_example_can_be_scored_within_its_limit(example: Example, max_length: int) -> None:
    template = Template("chat", chatml_tokenizer())
    prompt = template.truncate_prompt(example, max_length)
    assert 1 <= len(prompt.input_ids) <= max_length
    encoded = template.encode(example, max_length + 1)
    assert len(encoded.input_ids) <= max_length + 1
    assert encoded.num_completion_tokens >= 1
    for one in (prompt, encoded):
        has_start = one.input_ids[0] == chatml_tokenizer().bos_token_id
        assert has_start or one.num_prompt_tokens == 1


@pytest.mark.parametrize(
    "name", ["chatml", "merging", "two-ends", "end-in-two", "thinking", "no-end"]
)
def test_long_chats_keep_start_and_end_in_every_template(name: str) -> None:
    template = Template("chat", tokenizer_with(name))
    system, answer = ("system", "Be kind."), ("assistant", "second")
    question = ("user", "second question " * 9)
    example = chat(system, ("user", "first question"), ("assistant", "first"), question, answer)
    [whole] = template.tokenize([example])
    truncated = template.truncate(example, whole, 130, cut_completion=False)
    assert truncated is not None
    ids = truncated.tokens.input_ids
    assert len(ids) == 130
    assert (ids[0], ids[-1]) == (whole.prompt_ids[0], whole.completion_ids[-1])
    # All that is not the user's text is that of the shorter chat.
    [shorter] = template.tokenize([chat(system, question, answer)])
    expected, found = (
        "".join(text for role, text in spans(template, one) if role != "USER")
        for one in (shorter.encoded(), truncated.tokens)
    )
    assert found == expected


def test_exchanges_are_removed_as_if_they_had_never_been() -> None:
    # The first user turn contains the system turn, the last one the tools: Llama 2, Mistral.
    template = Template(
        "chat",
        tiny_tokenizer(
            chat_template=(
                "{% if messages[0].role == 'system' %}"
                "{% set system = '{' + messages[0].content + '}' %}"
                "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
                "{% for m in messages %}{% if m.role == 'user' %}"
                "{% if tools and loop.index >= loop.length - 1 %}"
                "<{{ tools[0].function.name }}>{% endif %}"
                "[{% if loop.first %}{{ system }}{% endif %}{{ m.content }}]"
                "{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
            )
        ),
    )
    example = Example(
        id="a",
        messages=(
            Message(role="system", content="S"),
            *(Message(role="user", content="1"), Message(role="assistant", content="a")),
            *(Message(role="user", content="2"), Message(role="assistant", content="b")),
        ),
        tools=({"type": "function", "function": {"name": "t"}},),
    )
    [whole] = template.tokenize([example])
    assert whole.num_tokens == len("[{S}1]a.<t>[2]b.")
    truncated = template.truncate(example, whole, whole.num_tokens - 1, cut_completion=False)
    assert truncated is not None
    assert "".join(tokens(template, truncated.tokens)) == "<t>[{S}2]b<|end|>"


def test_all_answers_of_the_remaining_turns_are_completions() -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE), "all")
    turns = [("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b")]
    example = chat(*turns, ("user", "3"), ("assistant", "c"))
    [whole] = template.tokenize([example])
    truncated = template.truncate(example, whole, whole.num_tokens - 1, cut_completion=False)
    assert truncated is not None
    assert truncated.num_removed_turns == 2
    shown = [text for role, text in spans(template, truncated.tokens) if role != "TEMPLATE"]
    assert shown == ["2", "b<|end|>", "3", "c<|end|>"]


def test_a_completion_that_must_lose_its_end_is_cut_like_a_text() -> None:
    template = Template("plain", tiny_tokenizer())
    example = pair("a", prompt="abcdef", completion="0123456789")
    [whole] = template.tokenize([example])
    assert template.truncate(example, whole, 13, cut_completion=False) is None
    for max_length, text in ((13, "bcdef..012345"), (8, "def..012"), (4, "f..0")):
        cut = template.truncate(example, whole, max_length, cut_completion=True)
        assert cut is not None
        assert "".join(tokens(template, cut.tokens)) == text.replace(".", "\n")
        assert cut.has_cut_completion
    assert template.truncate(example, whole, 3, cut_completion=True) is None
    [fits] = [template.truncate(example, whole, 14, cut_completion=True)]
    assert fits is not None
    assert letters(fits.tokens) == "UTT" + "C" * 11


@pytest.mark.parametrize(
    ("side", "text"),
    [("left", "Add.\n\n### Input:\n56789"), ("right", "Add.\n\n### Input:\n12345")],
)
def test_the_longer_field_of_an_alpaca_record_is_cut_first(side: TruncationSide, text: str) -> None:
    template = Template("alpaca", tiny_tokenizer(), truncation_side=side)
    messages = pair("a", prompt="Add.\n\n123456789", completion="45").messages
    example = Example(id="a", messages=messages, instruction="Add.", input="123456789")
    [whole] = template.tokenize([example])
    truncated = template.truncate(example, whole, whole.num_tokens - 4, cut_completion=False)
    assert truncated is not None
    assert f"Instruction:\n{text}\n\n### Response:" in "".join(tokens(template, truncated.tokens))


def test_a_templates_space_in_the_first_word_goes_with_the_word(tmp_path: Path) -> None:
    template = Template(
        jinja_file(tmp_path, "Q: {{ prompt }} A:"),
        tiny_tokenizer(("a word word",) * 9, vocab_size=300),
    )
    example = pair("a", prompt="word word", completion="b")
    [whole] = template.tokenize([example])
    assert tokens(template, whole.encoded()) == [
        *("Q", ":", " word", " word", " ", "A", ":", "b", "<|end|>")
    ]
    truncated = template.truncate(example, whole, 8, cut_completion=False)
    assert truncated is not None
    assert tokens(template, truncated.tokens) == ["Q", ":", " word", " ", "A", ":", "b", "<|end|>"]


def test_weights_of_tokens_are_cut_with_them() -> None:
    template = Template("plain", tiny_tokenizer())
    example = pair("a", prompt="abc", completion="0")
    [whole] = template.tokenize([example])
    weighted = replace(whole, weights=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], sample_weight=2.0)
    truncated = template.truncate(example, weighted, 6, cut_completion=False)
    assert truncated is not None
    assert truncated.tokens.weights == [0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert truncated.tokens.sample_weight == 2.0
    assert truncated.tokens.roles[0] == Role.USER
