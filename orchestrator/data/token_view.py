"""Examples token by token, as training sees them: text, role and loss weight of each."""

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from trainers.config import DataConfig, LossConfig
from trainers.data.examples import Example
from trainers.data.roles import Encoded, Role, Template
from trainers.loss import role_weights

# A character of UTF-8 has at most four bytes, so at most as many tokens.
_MAX_TOKENS_OF_CHARACTER = 4
_UNFINISHED = "\ufffd"


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenView(_View):
    """One token. The texts of an example's tokens back to back are what the model reads.

    `weight` is that of its prediction; the first token has no context, so nothing predicts it and
    its weight is 0. Of a character that several tokens make up, the last one has the text.
    """

    id: int
    text: str
    role: str
    weight: float


class ExampleView(_View):
    """An example as it is trained on, and what looks wrong with it, in words."""

    id: str
    num_truncated_tokens: int
    warnings: list[str]
    tokens: list[TokenView]


def view_examples(
    examples: Sequence[Example],
    data: DataConfig,
    loss: LossConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> list[ExampleView]:
    """All of the examples, also those that `data.too_long` would leave out.

    Raises:
        InputError: the template cannot show an example.
    """
    template = Template(data.template, tokenizer, data.completion_turns)
    return [
        _view(whole.cut_to(data.max_length), data, loss, tokenizer)
        for whole in template.tokenize(examples)
    ]


def _view(
    example: Encoded, data: DataConfig, loss: LossConfig, tokenizer: PreTrainedTokenizerBase
) -> ExampleView:
    weights = role_weights(loss)
    ids = [int(token) for token in example.input_ids]
    roles = [Role(int(role)) for role in example.roles]
    tokens = [
        TokenView(id=token, text=text, role=role.name.lower(), weight=weights[role] if index else 0)
        for index, (token, text, role) in enumerate(
            zip(ids, token_texts(ids, tokenizer), roles, strict=True)
        )
    ]
    return ExampleView(
        id=example.id,
        num_truncated_tokens=example.num_truncated_tokens,
        warnings=list(_warnings(example, ids, data, tokenizer, tokens)),
        tokens=tokens,
    )


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text. Decoded alone, some tokenizers' would lose their space."""
    texts: list[str] = []
    pending: list[int] = []
    before: list[int] = []
    for token in ids:
        pending.append(token)
        text = _decode([*before, *pending], tokenizer)
        shared = _decode(before, tokenizer)
        added = (
            text.removeprefix(shared) if text.startswith(shared) else _decode(pending, tokenizer)
        )
        if added.endswith(_UNFINISHED) and len(pending) < _MAX_TOKENS_OF_CHARACTER:
            texts.append("")
            continue
        texts.append(added)
        before, pending = pending[-1:], []
    if pending:
        texts[-1] = _decode(pending, tokenizer)
    return texts


def _decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert isinstance(text, str)
    return text


def _warnings(
    example: Encoded,
    ids: Sequence[int],
    data: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[TokenView],
) -> Iterator[str]:
    """What a wrong template, mask or length leaves to be seen."""
    if example.num_truncated_tokens:
        outcome = {
            "truncate": "they are cut off",
            "drop": "data.too_long is drop, so the example takes no part",
            "error": "data.too_long is error, so training will refuse the data",
        }[data.too_long]
        yield (
            f"{example.num_truncated_tokens} tokens do not fit data.max_length {data.max_length}:"
            f" {outcome}"
        )
    if ids[-1] != tokenizer.eos_token_id:
        yield "the completion lost its end-of-sequence token, so nothing teaches where to stop"
    start = tokenizer.bos_token_id
    if start is not None and list(ids[:2]) == [start, start]:
        yield "two start tokens: the template writes one that the tokenizer adds as well"
    if not np.isin(example.roles, (Role.USER, Role.SYSTEM)).any():
        yield "no token of a user or system turn: the template shows none, or it was cut off"
    if not any(token.weight for token in tokens):
        yield "no token counts: all weights are 0"
