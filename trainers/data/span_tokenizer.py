"""Tokenise rendered examples: each token takes the role and weight of its first character."""

import math
from bisect import bisect_left
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from trainers.data.examples import Example
from trainers.data.role_spans import RoleSpan, TurnRoles, texts_to_cut, weight_of
from trainers.data.roles import Role, UntruncatedExample
from trainers.data.template_errors import changed_turn_error
from trainers.data.truncation import tokens_of_texts
from trainers.foundation.errors import InputError, Problem


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
        self._end_ids = {tokenizer.eos_token_id} | {
            id for id, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    def tokenize(
        self, rendered: Sequence[Sequence[RoleSpan]]
    ) -> list[tuple[list[int], list[int], list[float], list[tuple[int, int]]]]:
        """Return token ids, roles, weights and character offsets of each text."""
        encoding = self._tokenizer(
            ["".join(span.text for span in spans) for spans in rendered],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        result = []
        for spans, ids, offsets in zip(
            rendered, encoding["input_ids"], encoding["offset_mapping"], strict=True
        ):
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
            result.append((ids, roles, weights, offsets))
        return result

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


def adds_bos_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer adds its start token to the beginning of every text."""
    ids: list[int] = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
