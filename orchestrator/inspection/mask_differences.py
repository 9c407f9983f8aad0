"""Compare our roles of one example with another tool's mask, and explain each difference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.inspection.alignment import Block, align
from orchestrator.inspection.token_view import decode
from trainers.data.chat_template import GenerationMask
from trainers.data.examples import Example
from trainers.data.roles import COMPLETION_ROLES, Role, UntruncatedExample
from trainers.data.template import Template
from trainers.data_config import DataConfig

Kind = Literal[
    "end token",
    "white space",
    "header",
    "earlier turn",
    "thinking",
    "weight 0",
    "truncated",
    "split",
    "unexplained",
]
# A model never writes tokens of these roles, so no tool should train on them as an answer.
_NOT_GENERATED = (Role.SYSTEM, Role.USER, Role.TOOL)
_THINKING_TAGS = ("<think>", "</think>")


@dataclass(frozen=True)
class Difference:
    """Consecutive tokens on which only one side trains: we if `is_ours`, else the other tool."""

    kind: Kind
    is_ours: bool
    num_tokens: int
    text: str


def find_differences(
    example: Example,
    whole: UntruncatedExample,
    reference: GenerationMask,
    template: Template,
    *,
    data: DataConfig,
    is_last_turn_only: bool,
) -> list[Difference]:
    """Return the differences between our mask of an example and the mask `reference`.

    We train on a token as an answer if its role is a completion's, the data does not give it weight
    0, and truncation keeps it. `is_last_turn_only` says that the other tool never trains on earlier
    turns.
    """
    masks = _AlignedMasks(example, whole, reference, template, data, is_last_turn_only)
    return list(masks.differences())


class _AlignedMasks:
    """Our mask and the other tool's; each token has its position in the other sequence, or -1."""

    def __init__(
        self,
        example: Example,
        whole: UntruncatedExample,
        reference: GenerationMask,
        template: Template,
        data: DataConfig,
        is_last_turn_only: bool,
    ) -> None:
        self._example = example
        self._template = template
        tokenizer = template.tokenizer
        self._tokenizer = tokenizer
        self._completion_turns = data.completion_turns
        self._is_last_turn_only = is_last_turn_only
        added = tokenizer.added_tokens_decoder.items()
        self._special = {*tokenizer.all_special_ids, *(id for id, t in added if t.special)}
        self._our_ids = whole.prompt_ids + whole.completion_ids
        self._roles = np.array(whole.prompt_roles + whole.completion_roles)
        self._is_zero = (self._roles == Role.EXCLUDED) | _has_zero_weight(whole)
        self._is_cut = _is_cut(example, self._our_ids, template, data.max_length)
        is_completion = np.isin(self._roles, COMPLETION_ROLES)
        self._ours = is_completion & ~self._is_zero & ~self._is_cut
        self._last = int(np.flatnonzero(self._ours).max(initial=-1))
        self._their_ids = reference.input_ids
        self._theirs = np.array(reference.mask, dtype=bool)
        self._blocks = list(align(self._our_ids, self._their_ids))
        self._our_position = np.full(len(self._their_ids), -1)
        self._their_position = np.full(len(self._our_ids), -1)
        for block in self._blocks:
            if block.is_equal:
                self._our_position[block.second] = block.first
                self._their_position[block.first] = block.second
        self._we_train = _at(self._ours, self._our_position)
        self._they_train = _at(self._theirs, self._their_position)

    def differences(self) -> Iterator[Difference]:
        """Yield the differences from left to right."""
        only_theirs = self._theirs & ~self._we_train
        only_ours = self._ours & ~self._they_train
        for block in self._blocks:
            if not block.is_equal and self._is_split(block):
                text = self._text(self._our_ids, block.first)
                yield Difference("split", True, len(block.first), text)
                continue
            for only, positions, ids, kind, is_ours in (
                (only_theirs, block.second, self._their_ids, self._kind_of_theirs, False),
                (only_ours, block.first, self._our_ids, self._kind_of_ours, True),
            ):
                kinds = ((kind(i) if only[i] else None, i) for i in positions)
                for found, group in groupby(kinds, key=lambda item: item[0]):
                    run = [i for _, i in group]
                    if found is not None:
                        text = self._text(ids, range(run[0], run[-1] + 1))
                        yield Difference(found, is_ours, len(run), text)

    def _is_split(self, block: Block) -> bool:
        """Return whether only the tokens differ, because theirs cross the end of the prompt."""
        starts = self._ours[1:] & ~self._ours[:-1]
        return bool(starts[max(block.first.start - 1, 0) : block.first.stop].any()) and (
            self._text(self._our_ids, block.first) == self._text(self._their_ids, block.second)
        )

    def _kind_of_theirs(self, position: int) -> Kind:
        """Return why only the other tool trains on its token at `position`."""
        ours = int(self._our_position[position])
        if ours < 0:
            return self._kind_of_extra(position)
        kind = self._kind_of_data(ours)
        run = _run_around(self._theirs, position)
        trained = [i for i in run if self._we_train[i]]
        if kind is not None:
            return kind
        if not trained:
            return self._kind_of_turn(run)
        if position < trained[0]:
            return self._kind_of_opening(self._their_ids, range(run[0], trained[0]))
        if position < trained[-1]:
            return "unexplained"
        return self._kind_after_end(position, int(self._our_position[trained[-1]]))

    def _kind_of_extra(self, position: int) -> Kind:
        """Return the kind of a token that only the other tool's text has."""
        block = next(block for block in self._blocks if position in block.second)
        text = self._text(self._their_ids, block.second)
        if any(tag in text for tag in _THINKING_TAGS):
            return "thinking"
        return self._kind_after_end(position, self._last)

    def _kind_of_data(self, ours: int) -> Kind | None:
        """Return the kind of our token if its role, weight or truncation explains a difference."""
        if self._is_cut[ours]:
            return "truncated"
        if self._roles[ours] in _NOT_GENERATED:
            return "unexplained"
        return "weight 0" if self._is_zero[ours] else None

    def _kind_of_turn(self, run: range) -> Kind:
        """Return why we do not train on a turn on which the other tool trains."""
        ours = self._our_position[run]
        ours = ours[ours >= 0]
        if self._is_zero[ours].any():
            return "weight 0"
        is_earlier = self._completion_turns != "all" and ours[-1] < self._last
        return "earlier turn" if is_earlier else "unexplained"

    def _kind_after_end(self, position: int, end: int) -> Kind:
        """Return why the other tool trains on a token after `end`, our last token of a turn."""
        has_end = self._our_ids[end] in self._special or self._is_outside_markers(position)
        return self._kind_of_surrounding(self._their_ids[position]) if has_end else "unexplained"

    def _is_outside_markers(self, position: int) -> bool:
        """Return whether the template's markers, which our labels follow, leave a token out."""
        marked = self._template.generation_mask(self._example)
        if marked is None or marked.input_ids != self._their_ids:
            return False
        return not marked.mask[position]

    def _kind_of_ours(self, position: int) -> Kind:
        """Return why only we train on our token at `position`."""
        run = _run_around(self._ours, position)
        if self._is_last_turn_only and run[-1] < self._last:
            return "earlier turn"
        if self._roles[position] == Role.THINKING:
            return "thinking"
        shared = [i for i in run if self._they_train[i]]
        if shared and position < shared[0]:
            return self._kind_of_opening(self._our_ids, range(run[0], shared[0]))
        return self._kind_of_surrounding(self._our_ids[position])

    def _kind_of_surrounding(self, token: int) -> Kind:
        """Return the kind of a token that a template writes after an answer."""
        if token in self._special:
            return "end token"
        text = decode([token], self._tokenizer)
        return "unexplained" if text.strip() else "white space"

    def _kind_of_opening(self, ids: Sequence[int], positions: range) -> Kind:
        """Return the kind of tokens before an answer: a template's text, or a message's."""
        text = self._text(ids, positions).strip()
        is_content = text and any(text in turn.content for turn in self._example.messages)
        return "unexplained" if is_content else "header"

    def _text(self, ids: Sequence[int], positions: range) -> str:
        return decode(ids[positions.start : positions.stop], self._tokenizer)


def _has_zero_weight(whole: UntruncatedExample) -> NDArray[np.bool_]:
    """Return whether the data gives a weight of 0 to each token, or to the whole example."""
    if whole.sample_weight == 0:
        return np.ones(whole.num_tokens, dtype=bool)
    is_zero: NDArray[np.bool_] = np.equal(whole.weights or [np.nan] * whole.num_tokens, 0)
    return is_zero


def _is_cut(
    example: Example, ids: Sequence[int], template: Template, max_length: int
) -> NDArray[np.bool_]:
    """Return whether truncation removes each token."""
    is_cut = np.zeros(len(ids), dtype=bool)
    if len(ids) > max_length:
        kept = [int(id) for id in template.encode(example, max_length).input_ids]
        for block in align(ids, kept):
            is_cut[block.first] = not block.is_equal
    return is_cut


def _at(values: NDArray[np.bool_], positions: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Return `values` at `positions`; False at -1."""
    return np.where(positions >= 0, values[positions], False)


def _run_around(mask: NDArray[np.bool_], position: int) -> range:
    """Return the positions of the run of True around `position`."""
    unset = np.flatnonzero(~mask)
    index = int(np.searchsorted(unset, position))
    start = unset[index - 1] + 1 if index else 0
    return range(start, unset[index] if index < len(unset) else len(mask))
