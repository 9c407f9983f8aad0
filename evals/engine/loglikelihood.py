"""How likely a model finds given continuations; what several begin with is read once.

Shapes: P shared beginnings, R rows, T tokens, H hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evals.engine.batching import Progress, Shape, pad, run_batches, shaped_batches
from evals.engine.prefix_cache import common_beginning
from evals.engine.token_logprobs import TokenScorer

# What a batch may remember when its size is found by itself: on a CPU more brings no speed, on a
# GPU a batch that is too large is halved.
AUTO_ROWS_CPU, AUTO_ROWS_GPU = 64, 512
AUTO_TOKENS_CPU, AUTO_TOKENS_GPU = 8192, 131_072


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """Tokens to score behind a context of at least one token."""

    context_ids: list[int]
    ids: list[int]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """ln p(continuation | context) in nats, and whether greedy generation would write it."""

    log_likelihood: float
    is_greedy: bool


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A continuation behind a shared beginning: `ids` are read, those from `first` on scored."""

    ids: list[int]
    first: int


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Rows of one beginning, and which continuations they are."""

    shared_ids: list[int]
    rows: list[_Row]
    numbers: list[int]


def score_continuations(
    scorer: TokenScorer,
    groups: Sequence[Sequence[Continuation]],
    *,
    batch_size: int | None,
    on_progress: Progress,
    on_found: Callable[[int, Likelihood], None] | None = None,
) -> list[list[Likelihood]]:
    """The likelihood of each continuation, for each group a list.

    What the contexts of a group begin with is run once and its key-value cache serves all of the
    group, unless the model keeps a state that is no such cache, or does more to its logits than
    its output embedding. A batch has at most `batch_size` rows; None finds a size by itself.
    `on_found` is told each continuation's number, counted through all groups, and its likelihood
    as soon as it is there.

    Raises:
        TrainingError: a log-probability is not finite.
    """
    on_cpu = scorer.model.device.type == "cpu"
    max_rows = batch_size or (AUTO_ROWS_CPU if on_cpu else AUTO_ROWS_GPU)
    max_tokens = None if batch_size else (AUTO_TOKENS_CPU if on_cpu else AUTO_TOKENS_GPU)
    flat = [continuation for group in groups for continuation in group]
    found: list[Likelihood | None] = [None] * len(flat)
    can_share = scorer.head_alone and scorer.reader.keeps_context
    parts = _grouped(groups, scorer.reader.pass_cost if can_share else None)
    group_of = [number for number, group in enumerate(groups) for _ in group]
    missing = [len(group) for group in groups]

    def run(batch: list[int]) -> None:
        chosen = [parts[index] for index in batch]
        scores_RT2 = (_with_shared_beginnings if can_share else _one_by_one)(scorer, chosen)
        numbers = [number for part in chosen for number in part.numbers]
        for number, (log_likelihood, num_best) in zip(
            numbers, scores_RT2.sum(dim=1).tolist(), strict=True
        ):
            likelihood = Likelihood(
                log_likelihood=log_likelihood, is_greedy=num_best == len(flat[number].ids)
            )
            found[number] = likelihood
            if on_found is not None:
                on_found(number, likelihood)
            missing[group_of[number]] -= 1
        on_progress(missing.count(0), len(groups))

    shapes = [
        Shape(
            num_shared=len(part.shared_ids),
            num_rows=len(part.rows),
            longest_rest=max(len(row.ids) for row in part.rows),
        )
        for part in parts
    ]
    # Three passes: what all of a batch begins with, the rest of the beginnings, the rows.
    pass_cost = 3 * scorer.reader.pass_cost
    run_batches(
        shaped_batches(shapes, max_rows=max_rows, max_tokens=max_tokens, pass_cost=pass_cost), run
    )
    answers = iter(found)
    return [[_known(next(answers)) for _ in group] for group in groups]


def _grouped(groups: Sequence[Sequence[Continuation]], pass_cost: int | None) -> list[_Group]:
    """Groups whose rows share enough to be read together; the others' rows are their own."""
    parts: list[_Group] = []
    number = 0
    for group in groups:
        numbers = list(range(number, number + len(group)))
        number += len(group)
        contexts = [continuation.context_ids for continuation in group]
        shared = common_beginning(contexts)
        if pass_cost is not None and shared:
            parts.append(_group(shared, group, numbers))
        else:
            parts += [
                _group(continuation.context_ids, [continuation], [own])
                for continuation, own in zip(group, numbers, strict=True)
            ]
    return parts


def _group(shared: list[int], group: Sequence[Continuation], numbers: list[int]) -> _Group:
    rows = [
        _Row(
            ids=continuation.context_ids[len(shared) :] + continuation.ids,
            first=len(continuation.context_ids) - len(shared),
        )
        for continuation in group
    ]
    return _Group(shared_ids=shared, rows=rows, numbers=numbers)


@torch.inference_mode()
def _with_shared_beginnings(scorer: TokenScorer, groups: Sequence[_Group]) -> Tensor:
    """Scores (R, T, 2) of the rows of all groups; 0 for what is not scored."""
    reader, device = scorer.reader, scorer.model.device
    context, unread = reader.begin([group.shared_ids for group in groups])
    _, context = reader.read(*pad(unread, side="left", device=device), context)
    context = context.rows([index for index, group in enumerate(groups) for _ in group.rows])
    rows = [row for group in groups for row in group.rows]
    row_ids_RT, row_mask_RT = pad([row.ids for row in rows], side="right", device=device)
    hidden_RTH = context.last_hidden_RH[:, None]
    # The last token of a row predicts nothing that is scored.
    if row_ids_RT.shape[1] > 1:
        rest_RTH, _ = reader.read(row_ids_RT[:, :-1], row_mask_RT[:, :-1], context)
        hidden_RTH = torch.cat([hidden_RTH, rest_RTH], dim=1)
    columns_T = torch.arange(row_ids_RT.shape[1], device=device)
    firsts_R1 = torch.tensor([row.first for row in rows], device=device)[:, None]
    scored_RT = row_mask_RT.bool() & (columns_T >= firsts_R1)
    scores_RT2 = torch.zeros((*scored_RT.shape, 2), device=device)
    scores_RT2[scored_RT] = scorer.head_scores(hidden_RTH[scored_RT], row_ids_RT[scored_RT])
    return scores_RT2


def _one_by_one(scorer: TokenScorer, groups: Sequence[_Group]) -> Tensor:
    pairs = [(group.shared_ids, row) for group in groups for row in group.rows]
    return scorer.sequence_scores(
        [shared + row.ids for shared, row in pairs],
        [len(shared) + row.first for shared, row in pairs],
    )


def _known(likelihood: Likelihood | None) -> Likelihood:
    assert likelihood is not None
    return likelihood
