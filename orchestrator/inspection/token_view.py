"""View training examples token by token: text, role and loss weight of each token."""

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from orchestrator.inspection.alignment import align
from trainers.data.examples import Example
from trainers.data.roles import EncodedExample, Role, UntruncatedExample
from trainers.data.template import Template
from trainers.data.truncation import TruncatedExample
from trainers.data_config import DataConfig
from trainers.foundation.counts import format_count
from trainers.loss_config import LossConfig
from trainers.token_weights import token_weights

# A UTF-8 character has at most four bytes, and so at most four tokens.
_MAX_TOKENS_PER_CHARACTER = 4
_REPLACEMENT_CHARACTER = "\ufffd"


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenView(_View):
    """One token. The concatenated texts of an example's tokens are the model's input.

    `weight` is the loss weight of predicting the token; it is 0 for the first token, which is not
    predicted. If a character consists of several tokens, the last one has its text. `piece` is the
    token in the tokenizer's vocabulary.
    """

    id: int
    piece: str
    text: str
    role: str
    weight: float


class RoleSummary(_View):
    """The tokens of one role in an example, and the sum of their loss weights."""

    role: str
    num_tokens: int
    weight_sum: float


class Cut(_View):
    """Tokens that truncation removes: `num_tokens` before the token at `position`."""

    position: int
    num_tokens: int
    text: str


class ExampleView(_View):
    """An example as used in training, with warnings about likely mistakes.

    `index` is the example's position in the data. `sample_weight` multiplies the weights of all its
    tokens; it is not part of theirs.
    """

    id: str
    index: int
    sample_weight: float
    num_truncated_tokens: int
    warnings: list[str]
    roles: list[RoleSummary]
    cuts: list[Cut]
    tokens: list[TokenView]


def view_examples(
    examples: Sequence[Example],
    indices: Sequence[int],
    template: Template,
    data: DataConfig,
    loss: LossConfig,
) -> list[ExampleView]:
    """Return views of the examples at `indices`.

    Examples that `data.too_long` would drop or reject are included.

    Raises:
        InputError: the template cannot render an example.
    """
    chosen = [examples[index] for index in indices]
    return [
        _view(index, example, whole, template, data, loss)
        for index, example, whole in zip(indices, chosen, template.tokenize(chosen), strict=True)
    ]


def _view(
    index: int,
    example: Example,
    whole: UntruncatedExample,
    template: Template,
    data: DataConfig,
    loss: LossConfig,
) -> ExampleView:
    tokenizer = template.tokenizer
    truncated = template.truncate(
        example,
        whole,
        data.max_length,
        cut_completion=data.too_long_completion == "truncate",
    )
    encoded = template.encode(example, data.max_length) if truncated is None else truncated.tokens
    ids = [int(token) for token in encoded.input_ids]
    roles = [Role(int(role)) for role in encoded.roles]
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    tokens = [
        TokenView(id=token, piece=piece, text=text, role=role.name.lower(), weight=weight)
        for token, piece, text, role, weight in zip(
            *(ids, pieces, token_texts(ids, tokenizer), roles, token_weights(encoded, loss)),
            strict=True,
        )
    ]
    return ExampleView(
        id=example.id,
        index=index,
        sample_weight=encoded.sample_weight,
        num_truncated_tokens=encoded.num_truncated_tokens,
        warnings=[
            *_length_warnings(encoded, truncated, data),
            *_warnings(encoded, tokenizer, tokens),
        ],
        roles=_summaries(tokens),
        cuts=_cuts(whole, ids, tokenizer) if encoded.num_truncated_tokens else [],
        tokens=tokens,
    )


def _summaries(tokens: Sequence[TokenView]) -> list[RoleSummary]:
    """Return the summaries of all roles that occur, in the order of `Role`."""
    weights: dict[str, list[float]] = {role.name.lower(): [] for role in Role}
    for token in tokens:
        weights[token.role].append(token.weight)
    return [
        RoleSummary(role=role, num_tokens=len(given), weight_sum=sum(given))
        for role, given in weights.items()
        if given
    ]


def _cuts(
    whole: UntruncatedExample, kept: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> list[Cut]:
    """Return what truncation removed, by comparing the tokens before and after it."""
    ids = whole.prompt_ids + whole.completion_ids
    return [
        Cut(
            position=block.second.start,
            num_tokens=len(block.first),
            text=decode(ids[block.first.start : block.first.stop], tokenizer),
        )
        for block in align(ids, kept)
        if block.first and not block.is_equal
    ]


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text that each token adds to the tokens before it.

    Tokens are decoded in context, because some lose their leading space if decoded alone.
    """
    texts: list[str] = []
    pending: list[int] = []
    before: list[int] = []
    for token in ids:
        pending.append(token)
        text = decode([*before, *pending], tokenizer)
        shared = decode(before, tokenizer)
        added = text.removeprefix(shared) if text.startswith(shared) else decode(pending, tokenizer)
        if added.endswith(_REPLACEMENT_CHARACTER) and len(pending) < _MAX_TOKENS_PER_CHARACTER:
            texts.append("")
            continue
        texts.append(added)
        before, pending = pending[-1:], []
    if pending:
        texts[-1] = decode(pending, tokenizer)
    return texts


def decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of tokens, special tokens included."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert isinstance(text, str)
    return text


def _length_warnings(
    encoded: EncodedExample, truncated: TruncatedExample | None, data: DataConfig
) -> Iterator[str]:
    """Yield what happens to an example that has more than data.max_length tokens."""
    num_tokens = encoded.num_truncated_tokens
    if not num_tokens:
        return
    too_much = (
        f"{format_count(num_tokens, 'token')} {'does' if num_tokens == 1 else 'do'} not fit"
        f" data.max_length {data.max_length}"
    )
    outcomes = {
        "drop": "so the example is not used",
        "error": "so training will reject the data",
    }
    if data.too_long != "truncate":
        yield f"{too_much}: data.too_long is {data.too_long}, {outcomes[data.too_long]}"
    elif truncated is None:
        outcome = outcomes.get(data.too_long_completion, outcomes["drop"])
        yield f"{too_much}: without them the completion has no end, {outcome}"
    else:
        yield f"{too_much}: {', '.join(_losses(truncated))}"
        if truncated.has_cut_completion:
            yield "the completion lost its end token, so the model does not learn to stop"


def _losses(truncated: TruncatedExample) -> Iterator[str]:
    if truncated.num_removed_turns:
        yield f"the oldest {format_count(truncated.num_removed_turns, 'turn')} removed"
    if truncated.has_cut_texts:
        yield "the prompt is cut"
    if truncated.has_cut_completion:
        yield "the completion is cut"


def _warnings(
    example: EncodedExample, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[TokenView]
) -> Iterator[str]:
    """Yield warnings about signs of a wrong template or mask."""
    start = tokenizer.bos_token_id
    if start is not None and list(example.input_ids[:2]) == [start, start]:
        yield "two start tokens: both the template and the tokenizer add one"
    if not np.isin(example.roles, (Role.USER, Role.SYSTEM)).any():
        yield "no token of a user or system turn: the template omits them"
    if not any(token.weight for token in tokens):
        yield "all loss weights are 0"
