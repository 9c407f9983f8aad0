"""Tokenise rendered examples: each token takes the role and weight of its first character."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from trainers.data.examples import Example
from trainers.data.role_spans import RoleSpan, TurnRoles, texts_to_cut, weight_of
from trainers.data.roles import Role, UntruncatedExample
from trainers.data.template_errors import changed_turn_error
from trainers.data.truncation import tokens_of_texts
from trainers.foundation.errors import InputError, Problem

_Encoding = tuple[list[int], list[tuple[int, int]]]
_Labelled = tuple[list[int], list[int], list[float], list[tuple[int, int]]]


class SpanTokenizer:
    """Tokenises texts that consist of spans with roles.

    `bos_ids` is the start token before each prompt, if the tokenizer adds one; chat templates write
    their own.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, turns: TurnRoles, *, is_chat: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._turns = turns
        self._is_chat = is_chat
        adds_bos = not is_chat and adds_bos_token(tokenizer)
        self.bos_ids: list[int] = [tokenizer.bos_token_id] if adds_bos else []
        self._marks_start = marks_start_of_text(tokenizer)
        self._end_ids = {tokenizer.eos_token_id} | {
            id for id, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    def tokenize(self, rendered: Sequence[Sequence[RoleSpan]]) -> list[_Labelled]:
        """Return token ids, roles, weights and character offsets of each text."""
        encoded = self._encode([_text(spans) for spans in rendered])
        return [
            _labelled(spans, ids, offsets)
            for spans, (ids, offsets) in zip(rendered, encoded, strict=True)
        ]

    def tokenize_completions(
        self,
        rendered: Sequence[Sequence[RoleSpan]],
        prompts: Sequence[Sequence[RoleSpan]],
        tokens: Sequence[UntruncatedExample],
    ) -> list[_Labelled]:
        """Return what `tokenize` returns, for texts that continue `prompts`.

        No token spans the boundary between the two.

        Args:
            tokens: the prompts as `tokenize_prompts` returned them.
        """
        if not self._marks_start:
            return self.tokenize(rendered)
        prompt_ids = [one.prompt_ids[len(self.bos_ids) :] for one in tokens]
        texts = [_text(spans) for spans in rendered]
        encoded = self._continue([_text(spans) for spans in prompts], prompt_ids, texts)
        return [
            _labelled(spans, ids, offsets)
            for spans, (ids, offsets) in zip(rendered, encoded, strict=True)
        ]

    def continuation_ids(self, prompt: str, text: str) -> list[int]:
        """Return the token ids of `text` after `prompt`, with no token that spans the boundary."""
        if not self._marks_start:
            return self._encode([text])[0][0]
        prompt_ids = self._encode([prompt])[0][0]
        return next(self._continue([prompt], [prompt_ids], [text]))[0]

    def _continue(
        self, prompts: Sequence[str], prompt_ids: Sequence[list[int]], texts: Sequence[str]
    ) -> Iterator[_Encoding]:
        """Yield the tokens and offsets of each text after its prompt.

        A tokenizer that writes a space at the start of a text would also write it at the start of
        the completion, where the model has none. So both are tokenised as one text, or, if a token
        spans the boundary, the completion after a line end.
        """
        whole = self._encode([a + b for a, b in zip(prompts, texts, strict=True)])
        for prompt, start, text, both in zip(prompts, prompt_ids, texts, whole, strict=True):
            if both[0][: len(start)] == start:
                yield _without_start(both, len(start), len(prompt))
                continue
            after_line_end = self._encode(["\n" + text])[0]
            num_tokens = bisect_left([start for start, _ in after_line_end[1]], 1)
            yield _without_start(after_line_end, num_tokens, 1)

    def _encode(self, texts: Sequence[str]) -> list[_Encoding]:
        encoding = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return list(zip(encoding["input_ids"], encoding["offset_mapping"], strict=True))

    def tokenize_prompts(
        self, examples: Sequence[Example], rendered: Sequence[Sequence[RoleSpan]]
    ) -> list[UntruncatedExample]:
        """Return each example with its prompt and an empty completion."""
        prompts = []
        num_added = len(self.bos_ids)
        for example, spans, (ids, roles, weights, offsets) in zip(
            examples, rendered, self.tokenize(rendered), strict=True
        ):
            if not self._is_chat:
                self._mark_ends_of_turns(example, spans, ids, offsets, roles, weights)
            text = "".join(span.text for span in spans)
            texts = tokens_of_texts(text, texts_to_cut(spans, example.messages), offsets)
            prompts.append(
                UntruncatedExample(
                    id=example.id,
                    prompt_ids=self.bos_ids + ids,
                    prompt_roles=[int(Role.TEMPLATE)] * num_added + roles,
                    completion_ids=[],
                    completion_roles=[],
                    weights=[math.nan] * num_added + weights,
                    prompt_texts=tuple(
                        range(tokens.start + num_added, tokens.stop + num_added) for tokens in texts
                    ),
                    prompt_offsets=[(0, 0)] * num_added + offsets,
                )
            )
        return prompts

    def _mark_ends_of_turns(
        self,
        example: Example,
        spans: Sequence[RoleSpan],
        ids: Sequence[int],
        offsets: Sequence[tuple[int, int]],
        roles: list[int],
        weights: list[float],
    ) -> None:
        """Give the end-of-turn token of an earlier assistant turn the role and weight of its turn.

        That is the role completion or excluded. White space before such a token is marked, too,
        because the model must generate both.
        """
        completions = self._turns.earlier_completions(example)
        last_span_of = {span.message: index for index, span in enumerate(spans)}
        if not last_span_of.keys() >= set(completions):
            raise changed_turn_error(example)
        text = "".join(span.text for span in spans)
        starts = [start for start, _ in offsets]
        for index in last_span_of.keys() & {*completions, *self._turns.excluded_answers(example)}:
            assert index is not None
            turn = example.messages[index]
            end_of_text = sum(len(span.text) for span in spans[: last_span_of[index] + 1])
            end = bisect_left(starts, end_of_text)
            while end < len(ids) and not text[slice(*offsets[end])].strip():
                end += 1
            if end < len(ids) and ids[end] in self._end_ids:
                marked = range(bisect_left(starts, end_of_text), end + 1)
                for token in marked:
                    roles[token] = int(self._turns.role_of(turn))
                    weights[token] = weight_of(turn)
            elif index in completions:
                raise self._missing_end_token_error(example)

    def _missing_end_token_error(self, example: Example) -> InputError:
        return InputError(
            Problem(
                message=(
                    "data.completion_turns is all, but the template writes no special token right"
                    " after an earlier assistant turn: the model would not learn to end it"
                ),
                where=example.id,
                fix=f"write {self._tokenizer.eos_token} there in the template, or set"
                " data.completion_turns to each",
            )
        )


def _without_start(encoded: _Encoding, num_tokens: int, num_characters: int) -> _Encoding:
    ids, offsets = encoded
    return ids[num_tokens:], [
        (max(0, start - num_characters), stop - num_characters)
        for start, stop in offsets[num_tokens:]
    ]


def _text(spans: Sequence[RoleSpan]) -> str:
    return "".join(span.text for span in spans)


def _labelled(
    spans: Sequence[RoleSpan], ids: list[int], offsets: list[tuple[int, int]]
) -> _Labelled:
    """Return tokens with the role and weight of the span that contains their first character."""
    starts = [start for start, _ in offsets]
    roles: list[int] = []
    weights: list[float] = []
    end = 0
    shown = [span for span in spans if span.text]
    for span in shown:
        end += len(span.text)
        stop = len(ids) if span is shown[-1] else bisect_left(starts, end)
        roles += [int(span.role)] * (stop - len(roles))
        weights += [span.weight] * (stop - len(weights))
    return ids, roles, weights, offsets


def marks_start_of_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a text has other tokens at the start than within another text.

    SentencePiece's tokenizers (Llama 2, Mistral, Phi 3) write a space there.
    """
    alone: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    within: list[int] = tokenizer("\na", add_special_tokens=False)["input_ids"]
    return within[-len(alone) :] != alone


def adds_bos_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer adds its start token to the beginning of every text."""
    ids: list[int] = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
