"""Prompt and completion ids equal those of transformers, or the chat is rejected.

The oracle is `apply_chat_template`, which shares no code with ours.
"""

import importlib.util
import re
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny_model import tiny_tokenizer
from tests.trainers.data.published_templates import CHATS, OUTCOMES, PUBLISHED, Published
from trainers.data.template import Template
from trainers.data.template_source import with_date
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

_SPECIAL_TOKEN = (
    r"<\|[^|<>]+\|>|<\|[a-z_]+>|<[a-z_]+\|>|<\uff5c[^\uff5c]+\uff5c>|\[/?[A-Z_]+\]"
    r"|<(?:start|end)_of_turn>"
)
TODAY = datetime(2026, 11, 29, tzinfo=UTC)
TRL = importlib.util.find_spec("trl")
FULL = [
    pytest.mark.full,
    pytest.mark.skipif(TRL is None, reason="TRL's package contains the published templates"),
]


class FixedClock(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "FixedClock":
        return cls(TODAY.year, TODAY.month, TODAY.day, tzinfo=tz)


def tokenizer_of(text: str, eos: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens that occur in a template."""
    special = {"<|user|>", "<|assistant|>", *re.findall(_SPECIAL_TOKEN, text)}
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": sorted(special), "bos_token": "<bos>", "eos_token": eos}
    )
    tokenizer.chat_template = text
    return tokenizer


def check(published: Published, text: str, situation: str) -> None:
    outcome = published.outcomes[list(CHATS).index(situation)]
    example = CHATS[situation]
    tokenizer = tokenizer_of(text, published.eos)
    turns = "all" if situation == "all turns" else "last"
    data = DataConfig(path="d", template=published.template)
    args = with_date(data, tokenizer, TODAY.date()).template_args
    template = Template(published.template, tokenizer, turns, args)
    if outcome != "y":
        with pytest.raises(InputError, match=OUTCOMES[outcome]):
            template.encode(example, 10**6)
        return
    encoded = [int(id) for id in template.encode(example, 10**6).input_ids]
    messages = [turn.to_template() for turn in example.messages]
    # The comment makes it another template for transformers, whose clock is its own.
    oracle = {"chat_template": text + "{# oracle #}", "tools": example.tools and [*example.tools]}
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **oracle)
    assert template.encode_prompt(example) == prompt["input_ids"]
    assert encoded[: len(prompt["input_ids"])] == prompt["input_ids"]
    if published.template != "chat":
        return  # The model's own template does not show the thinking.
    whole = tokenizer.apply_chat_template(messages, **oracle)["input_ids"]
    if template.end_token_id not in whole and encoded[-1] == tokenizer.eos_token_id:
        encoded.pop()  # GLM writes no end token, so the answer gets the tokenizer's.
    assert whole[: len(encoded)] == encoded
    assert tokenizer.decode(whole[len(encoded) :]).strip() in ("", tokenizer.eos_token)


@pytest.fixture
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", FixedClock)


@pytest.mark.parametrize("situation", CHATS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_tokens_equal_those_of_transformers(name: str, situation: str, fixed_clock: None) -> None:
    check(PUBLISHED[name], PUBLISHED[name].text, situation)


@pytest.mark.parametrize("situation", [pytest.param(one, marks=FULL) for one in CHATS])
@pytest.mark.parametrize("name", [name for name, one in PUBLISHED.items() if one.trl_file])
def test_the_published_templates_of_trl_give_the_same_outcomes(
    name: str, situation: str, fixed_clock: None
) -> None:
    assert TRL is not None
    assert TRL.origin is not None
    file = Path(TRL.origin).parent / "chat_templates" / f"{PUBLISHED[name].trl_file}.jinja"
    check(PUBLISHED[name], file.read_text(encoding="utf-8"), situation)


def test_the_documentation_shows_the_outcomes() -> None:
    words = {"y": "yes", "E": "as `each`"}
    lines = [
        f"| {name} | " + " | ".join(words.get(letter, "no") for letter in one.outcomes) + " |"
        for name, one in PUBLISHED.items()
    ]
    header = "| template | " + " | ".join(CHATS) + " |"
    table = "\n".join([header, "|---" * (len(CHATS) + 1) + "|", *lines])
    assert table in Path("docs/data.md").read_text(encoding="utf-8"), table
