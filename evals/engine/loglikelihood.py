"""Log-likelihoods of given continuations; a shared prefix is processed only once.

Shapes: R rows, T tokens, H hidden size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evals.engine.batching import (
    GroupShape,
    ProgressCallback,
    pad,
    prefix_batches,
    run_batches,
)
from evals.engine.helper_ranks import HelperRanks, split_evenly
from evals.engine.prefix_cache import shared_prefix
from evals.engine.token_logprobs import TokenScorer

# Row limits for automatic batch sizes. More rows are not faster on a CPU. On a GPU, a batch that is
# too large is halved.
AUTO_ROWS_CPU, AUTO_ROWS_GPU = 64, 512
AUTO_TOKENS_CPU, AUTO_TOKENS_GPU = 8192, 131_072
# Batches of each rank between two exchanges of results, after which scores are logged.
_BATCHES_PER_ROUND = 4


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """Tokens to score after a context of at least one token."""

    context_ids: list[int]
    ids: list[int]


@dataclass(frozen=True, kw_only=True)
class ContinuationScore:
    """ln p(continuation | context) in nats, and whether greedy decoding would generate it."""

    log_likelihood: float
    is_greedy: bool


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Tokens after the shared prefix; those from index `first_scored` on are scored."""

    ids: list[int]
    first_scored: int


@dataclass(frozen=True, kw_only=True)
class _PrefixGroup:
    """Rows that share a prefix, and the index of each row's continuation."""

    prefix_ids: list[int]
    rows: list[_Row]
    indices: list[int]


_GroupScores = list[list[float]]
"""Log-likelihood and number of greedy tokens of each row of a group."""


def score_continuations(
    scorer: TokenScorer,
    groups: Sequence[Sequence[Continuation]],
    *,
    batch_size: int | None,
    on_progress: ProgressCallback,
    on_score: Callable[[int, ContinuationScore], None] | None = None,
) -> list[list[ContinuationScore]]:
    """Return the score of each continuation, one list per group.

    The shared prefix of a group's contexts is processed once, and the whole group uses its
    key-value cache. There are two exceptions: models with a state other than keys and values, and
    models that change their logits after the output embedding. A batch has at most `batch_size`
    rows; None chooses the size. `on_score` is called as soon as a score is known, with the
    continuation's index (counted over all groups) and its score. The helper ranks of `scorer`
    score a part of the batches; the scores are the same.

    Raises:
        TrainingError: a log-probability is not finite.
    """
    on_cpu = scorer.model.device.type == "cpu"
    max_rows = batch_size or (AUTO_ROWS_CPU if on_cpu else AUTO_ROWS_GPU)
    max_tokens = None if batch_size else (AUTO_TOKENS_CPU if on_cpu else AUTO_TOKENS_GPU)
    flat = [continuation for group in groups for continuation in group]
    found: dict[int, ContinuationScore] = {}
    prefix_groups = _prefix_groups(groups, can_share=_can_share(scorer))
    group_indices = [number for number, group in enumerate(groups) for _ in group]
    num_missing = [len(group) for group in groups]

    def record(group: _PrefixGroup, scores: _GroupScores) -> None:
        for index, (log_likelihood, num_greedy) in zip(group.indices, scores, strict=True):
            found[index] = ContinuationScore(
                log_likelihood=log_likelihood, is_greedy=num_greedy == len(flat[index].ids)
            )
            if on_score is not None:
                on_score(index, found[index])
            num_missing[group_indices[index]] -= 1

    def report() -> None:
        on_progress(num_missing.count(0), len(groups))

    shapes = [
        GroupShape(
            num_prefix_tokens=len(group.prefix_ids),
            num_rows=len(group.rows),
            max_suffix_tokens=max(len(row.ids) for row in group.rows),
        )
        for group in prefix_groups
    ]
    # Three forward passes: the prefix of the whole batch, the groups' prefixes, and the rows.
    batches = prefix_batches(
        shapes,
        max_rows=max_rows,
        max_tokens=max_tokens,
        forward_overhead=3 * scorer.backbone.forward_overhead,
    )
    share = [[prefix_groups[index] for index in batch] for batch in batches]
    if scorer.helpers is None:
        _score_batches(scorer, share, record, report)
    else:
        _score_on_ranks(scorer, scorer.helpers, share, record, report)
    ordered = iter([found[index] for index in range(len(flat))])
    return [[next(ordered) for _ in group] for group in groups]


def score_share(
    scorer: TokenScorer, batches: Sequence[Sequence[_PrefixGroup]]
) -> list[_GroupScores]:
    """Return the scores of each group of a helper's share of the batches, in their order."""
    found: dict[int, _GroupScores] = {}
    _score_batches(scorer, batches, lambda group, scores: found.update({id(group): scores}))
    return [found[id(group)] for batch in batches for group in batch]


def _score_on_ranks(
    scorer: TokenScorer,
    helpers: HelperRanks,
    batches: Sequence[Sequence[_PrefixGroup]],
    record: Callable[[_PrefixGroup, _GroupScores], None],
    report: Callable[[], None],
) -> None:
    """Score the batches in rounds of a few for each rank."""
    size = _BATCHES_PER_ROUND * helpers.num_shares
    for start in range(0, len(batches), size):
        shares = split_evenly(batches[start : start + size], helpers.num_shares)
        results = helpers.run(
            "score", shares, lambda share: _score_batches(scorer, share, record, report)
        )
        for share, scores in zip(shares[1:], results, strict=True):
            groups = [group for batch in share for group in batch]
            for group, of_group in zip(groups, scores, strict=True):
                record(group, of_group)
        report()


def _score_batches(
    scorer: TokenScorer,
    batches: Sequence[Sequence[_PrefixGroup]],
    record: Callable[[_PrefixGroup, _GroupScores], None],
    report: Callable[[], None] = lambda: None,
) -> None:
    """Score batches in order; `record` gets each group's scores, then `report` is called."""
    groups = [group for batch in batches for group in batch]
    numbers = iter(range(len(groups)))
    score = _score_with_shared_prefixes if _can_share(scorer) else _score_separately

    def run(batch: list[int]) -> None:
        chosen = [groups[number] for number in batch]
        rows = iter(score(scorer, chosen).sum(dim=1).tolist())
        for group in chosen:
            record(group, [next(rows) for _ in group.rows])
        report()

    run_batches([[next(numbers) for _ in batch] for batch in batches], run)


def _can_share(scorer: TokenScorer) -> bool:
    return scorer.logits_are_head_output and scorer.backbone.supports_cache_reuse


def _prefix_groups(
    groups: Sequence[Sequence[Continuation]], *, can_share: bool
) -> list[_PrefixGroup]:
    """Return the groups that share a prefix; every other continuation is its own group."""
    prefix_groups: list[_PrefixGroup] = []
    num_before = 0
    for group in groups:
        indices = list(range(num_before, num_before + len(group)))
        num_before += len(group)
        prefix_ids = shared_prefix([continuation.context_ids for continuation in group])
        if can_share and prefix_ids:
            prefix_groups.append(_prefix_group(prefix_ids, group, indices))
        else:
            prefix_groups += [
                _prefix_group(continuation.context_ids, [continuation], [index])
                for continuation, index in zip(group, indices, strict=True)
            ]
    return prefix_groups


def _prefix_group(
    prefix_ids: list[int], group: Sequence[Continuation], indices: list[int]
) -> _PrefixGroup:
    rows = [
        _Row(
            ids=continuation.context_ids[len(prefix_ids) :] + continuation.ids,
            first_scored=len(continuation.context_ids) - len(prefix_ids),
        )
        for continuation in group
    ]
    return _PrefixGroup(prefix_ids=prefix_ids, rows=rows, indices=indices)


@torch.inference_mode()
def _score_with_shared_prefixes(scorer: TokenScorer, groups: Sequence[_PrefixGroup]) -> Tensor:
    """Return scores (R, T, 2) of the rows of all groups; 0 for tokens that are not scored."""
    backbone, device = scorer.backbone, scorer.model.device
    prefix, remaining = backbone.prefill([group.prefix_ids for group in groups])
    _, prefix = backbone.forward(*pad(remaining, side="left", device=device), prefix)
    prefix = prefix.select_rows([index for index, group in enumerate(groups) for _ in group.rows])
    rows = [row for group in groups for row in group.rows]
    row_ids_RT, row_mask_RT = pad([row.ids for row in rows], side="right", device=device)
    hidden_RTH = prefix.last_hidden_RH[:, None]
    # The last token of a row has no prediction that is scored.
    if row_ids_RT.shape[1] > 1:
        rest_RTH, _ = backbone.forward(row_ids_RT[:, :-1], row_mask_RT[:, :-1], prefix)
        hidden_RTH = torch.cat([hidden_RTH, rest_RTH], dim=1)
    columns_T = torch.arange(row_ids_RT.shape[1], device=device)
    firsts_R1 = torch.tensor([row.first_scored for row in rows], device=device)[:, None]
    scored_RT = row_mask_RT.bool() & (columns_T >= firsts_R1)
    scores_RT2 = torch.zeros((*scored_RT.shape, 2), device=device)
    scores_RT2[scored_RT] = scorer.head_scores(hidden_RTH[scored_RT], row_ids_RT[scored_RT])
    return scores_RT2


def _score_separately(scorer: TokenScorer, groups: Sequence[_PrefixGroup]) -> Tensor:
    pairs = [(group.prefix_ids, row) for group in groups for row in group.rows]
    return scorer.sequence_scores(
        [prefix_ids + row.ids for prefix_ids, row in pairs],
        [len(prefix_ids) + row.first_scored for prefix_ids, row in pairs],
    )
