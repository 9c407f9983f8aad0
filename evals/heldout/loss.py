"""Held-out loss: next-token loss of completions and prompts."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from evals.engine.batching import ProgressCallback, sorted_batches
from evals.engine.loaded_model import LoadedModel
from evals.results.evaluation import EvaluationResult, Sample
from evals.results.intervals import ratio
from evals.results.scores import Score
from trainers.data.examples import Example
from trainers.data.roles import COMPLETION_ROLES, PROMPT_ROLES, EncodedExample, Role

Side = Literal["completion", "prompt"]
SIDE_ROLES: dict[Side, tuple[Role, ...]] = {
    "completion": COMPLETION_ROLES,
    "prompt": PROMPT_ROLES,
}
SCORED_ROLES = (*PROMPT_ROLES, *COMPLETION_ROLES)


def evaluate_heldout_loss(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    seed: int,
    on_progress: ProgressCallback,
) -> EvaluationResult:
    """Return `heldout_completion_loss` and `heldout_prompt_loss`, in nats per token.

    The next scores are both losses as `..._bits_per_byte`, then the loss of each role of the prompt
    if it has several.

    Each loss is the sum of next-token losses over all tokens of its side, divided by their number.
    So long examples have more weight. The end-of-sequence token counts as completion, and template
    tokens count as prompt. The first token of an example has no prediction and does not count. A
    side without tokens has no score.

    Bits per byte are relative to the UTF-8 bytes of the tokens' text, which makes models with
    different tokenizers comparable. Special tokens have no text, so they and their losses are
    excluded.

    A sample's `value` is the example's mean completion loss. The sample also contains the sums and
    counts of each role.
    """
    encoded = [
        loaded.template.encode(example.with_last_turn_as_completion(), loaded.max_length)
        for example in examples
    ]
    losses: list[list[float]] = [[]] * len(encoded)
    num_done = 0
    lengths = [len(item.input_ids) for item in encoded]
    # Two forward passes: one for the shared prefix of a batch, and one for the rest.
    forward_overhead = 2 * loaded.scorer.backbone.forward_overhead
    for batch in sorted_batches(lengths, batch_size, forward_overhead=forward_overhead):
        sequences = [list(encoded[i].input_ids) for i in batch]
        log_probs_BT = loaded.scorer.sequence_log_probs(sequences, [1] * len(batch))
        for index, row in zip(batch, (-log_probs_BT).tolist(), strict=True):
            losses[index] = row[: len(encoded[index].input_ids)]
        num_done += len(batch)
        on_progress(num_done, len(encoded))

    samples = [_sample(loaded, *item) for item in zip(examples, encoded, losses, strict=True)]
    return EvaluationResult(scores=_scores(samples, seed), samples=samples)


def _sample(
    loaded: LoadedModel, example: Example, encoded: EncodedExample, losses: list[float]
) -> Sample:
    loss_sum = dict.fromkeys(SCORED_ROLES, 0.0)
    text_loss_sum = dict.fromkeys(SCORED_ROLES, 0.0)
    num_tokens = dict.fromkeys(SCORED_ROLES, 0)
    num_bytes = dict.fromkeys(SCORED_ROLES, 0)
    ids = [int(id) for id in encoded.input_ids]
    for role, is_text, start, end in _spans(ids, encoded.roles, loaded.special_ids):
        loss = sum(losses[start:end])
        loss_sum[role] += loss
        num_tokens[role] += end - start
        if is_text:
            text_loss_sum[role] += loss
            num_bytes[role] += _num_bytes(loaded, ids, start, end)
    completion_loss = sum(loss_sum[role] for role in COMPLETION_ROLES)
    num_completion_tokens = sum(num_tokens[role] for role in COMPLETION_ROLES)
    return {
        "measure": "heldout",
        "id": example.id,
        "prompt": loaded.decode(list(encoded.input_ids[: encoded.num_prompt_tokens])),
        "target": example.completion,
        "output": None,
        "value": completion_loss / num_completion_tokens if num_completion_tokens else None,
        "loss_sum": _by_name(loss_sum),
        "num_tokens": _by_name(num_tokens),
        "text_loss_sum": _by_name(text_loss_sum),
        "num_bytes": _by_name(num_bytes),
        "num_truncated_tokens": encoded.num_truncated_tokens,
    }


def _spans(
    ids: Sequence[int], roles: Iterable[int], special_ids: Collection[int]
) -> list[tuple[Role, bool, int, int]]:
    """Return (role, is text, start, end) of each run of tokens with equal role and `is text`.

    The first token of the example has no prediction and belongs to no run.
    """
    kinds = [(Role(role), id not in special_ids) for id, role in zip(ids, roles, strict=True)]
    starts = [1, *(n for n in range(2, len(kinds)) if kinds[n] != kinds[n - 1])]
    ends = [*starts[1:], len(kinds)]
    return [
        (*kinds[start], start, end) for start, end in zip(starts, ends, strict=True) if start < end
    ]


def _num_bytes(loaded: LoadedModel, ids: Sequence[int], start: int, end: int) -> int:
    # The difference of two lengths is used, because some tokenizers drop a space at the start of a
    # text.
    return len(loaded.decode(ids[:end]).encode()) - len(loaded.decode(ids[:start]).encode())


def _by_name(values: Mapping[Role, float]) -> dict[str, float]:
    return {role.name.lower(): value for role, value in values.items()}


def _scores(samples: Sequence[Sample], seed: int) -> list[Score]:
    sides = [(side, [role.name.lower() for role in roles]) for side, roles in SIDE_ROLES.items()]
    scores = [_loss(side, names, samples, seed) for side, names in sides]
    scores += [_bits_per_byte(side, names, samples, seed) for side, names in sides]
    roles = [role.name.lower() for role in PROMPT_ROLES]
    role_scores = [score for role in roles if (score := _loss(role, [role], samples, seed))]
    # If the prompt has a single role, its loss equals that of the prompt.
    return [score for score in scores if score is not None] + role_scores * (len(role_scores) > 1)


def _loss(name: str, roles: Sequence[str], samples: Sequence[Sample], seed: int) -> Score | None:
    sums, counts = _totals(samples, "loss_sum", "num_tokens", roles)
    estimate = ratio(sums, counts, seed)
    if estimate is None:
        return None
    return estimate.to_score(
        f"heldout_{name}_loss", group=None, higher_is_better=False, unit="nats per token"
    )


def _bits_per_byte(
    name: str, roles: Sequence[str], samples: Sequence[Sample], seed: int
) -> Score | None:
    sums, counts = _totals(samples, "text_loss_sum", "num_bytes", roles)
    estimate = ratio([nats / math.log(2) for nats in sums], counts, seed)
    if estimate is None:
        return None
    return estimate.to_score(
        f"heldout_{name}_bits_per_byte", group=None, higher_is_better=False, unit="bits per byte"
    )


def _totals(
    samples: Sequence[Sample], sums: str, counts: str, roles: Sequence[str]
) -> tuple[list[float], list[int]]:
    """Return the totals over `roles` of each sample's fields `sums` and `counts`."""
    return (
        [sum(sample[sums][role] for role in roles) for sample in samples],
        [sum(sample[counts][role] for role in roles) for sample in samples],
    )
