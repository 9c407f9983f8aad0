"""Held-out loss: how well a model predicts completions, and how well prompts."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from evals.engine.batching import Progress, sorted_batches
from evals.engine.loading import LoadedModel
from evals.results.intervals import ratio
from evals.results.measurement import Measured, Sample
from evals.results.scores import Score
from trainers.data.examples import Example
from trainers.data.roles import PROMPT_ROLES, Encoded, Role

Side = Literal["completion", "prompt"]
ROLES_OF: dict[Side, tuple[Role, ...]] = {
    "completion": (Role.COMPLETION,),
    "prompt": PROMPT_ROLES,
}
SCORED_ROLES = (*PROMPT_ROLES, Role.COMPLETION)


def measure_heldout(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    seed: int,
    on_progress: Progress,
) -> Measured:
    """`heldout_completion_loss` and `heldout_prompt_loss` in nats per token, and the same two as
    `..._bits_per_byte`; the loss of each role that the prompt is made of, if it is of several.

    Each loss is the sum of next-token losses over all tokens of its side, divided by their
    number: long examples weigh more. The end-of-sequence token counts as completion, the
    template's tokens as prompt, the first token of an example as neither, since nothing predicts
    it. A side without tokens has no score.

    Bits per byte divide by the UTF-8 bytes that the tokens stand for, so that models with
    different tokenizers can be compared. Special tokens stand for no text: neither they nor their
    losses count there.

    A sample's `value` is the example's own mean completion loss, and it carries sums and counts
    for each role.
    """
    encoded = [loaded.template.encode(example, loaded.max_length) for example in examples]
    losses: list[list[float]] = [[]] * len(encoded)
    done = 0
    lengths = [len(item.input_ids) for item in encoded]
    # Two passes: one for what a batch's examples begin with, one for the rest.
    pass_cost = 2 * loaded.scorer.reader.pass_cost
    for batch in sorted_batches(lengths, batch_size, pass_cost=pass_cost):
        sequences = [list(encoded[i].input_ids) for i in batch]
        log_probs_BT = loaded.scorer.sequence_log_probs(sequences, [1] * len(batch))
        for index, row in zip(batch, (-log_probs_BT).tolist(), strict=True):
            losses[index] = row[: len(encoded[index].input_ids)]
        done += len(batch)
        on_progress(done, len(encoded))

    samples = [_sample(loaded, *item) for item in zip(examples, encoded, losses, strict=True)]
    return Measured(scores=_scores(samples, seed), samples=samples)


def _sample(loaded: LoadedModel, example: Example, encoded: Encoded, losses: list[float]) -> Sample:
    loss_sum = dict.fromkeys(SCORED_ROLES, 0.0)
    text_loss_sum = dict.fromkeys(SCORED_ROLES, 0.0)
    num_tokens = dict.fromkeys(SCORED_ROLES, 0)
    num_bytes = dict.fromkeys(SCORED_ROLES, 0)
    ids = [int(id) for id in encoded.input_ids]
    for role, is_text, start, end in _runs(ids, encoded.roles, loaded.special_ids):
        loss = sum(losses[start:end])
        loss_sum[role] += loss
        num_tokens[role] += end - start
        if is_text:
            text_loss_sum[role] += loss
            num_bytes[role] += _num_bytes(loaded, ids, start, end)
    num_completion_tokens = num_tokens[Role.COMPLETION]
    return {
        "measure": "heldout",
        "id": example.id,
        "prompt": loaded.decode(list(encoded.input_ids[: encoded.num_prompt_tokens])),
        "target": example.completion,
        "output": None,
        "value": (
            loss_sum[Role.COMPLETION] / num_completion_tokens if num_completion_tokens else None
        ),
        "loss_sum": _by_name(loss_sum),
        "num_tokens": _by_name(num_tokens),
        "text_loss_sum": _by_name(text_loss_sum),
        "num_bytes": _by_name(num_bytes),
        "num_truncated_tokens": encoded.num_truncated_tokens,
    }


def _runs(
    ids: Sequence[int], roles: Iterable[int], special_ids: Collection[int]
) -> list[tuple[Role, bool, int, int]]:
    """Role, whether they are text, start and end of tokens in a row that are alike in both.

    The first token of the example, which nothing predicts, is in none.
    """
    kinds = [(Role(role), id not in special_ids) for id, role in zip(ids, roles, strict=True)]
    starts = [1, *(n for n in range(2, len(kinds)) if kinds[n] != kinds[n - 1])]
    ends = [*starts[1:], len(kinds)]
    return [
        (*kinds[start], start, end) for start, end in zip(starts, ends, strict=True) if start < end
    ]


def _num_bytes(loaded: LoadedModel, ids: Sequence[int], start: int, end: int) -> int:
    # Not the tokens by themselves: some tokenizers drop a space at the start of a text.
    return len(loaded.decode(ids[:end]).encode()) - len(loaded.decode(ids[:start]).encode())


def _by_name(values: Mapping[Role, float]) -> dict[str, float]:
    return {role.name.lower(): value for role, value in values.items()}


def _scores(samples: Sequence[Sample], seed: int) -> list[Score]:
    sides = [(side, [role.name.lower() for role in roles]) for side, roles in ROLES_OF.items()]
    found = [_loss(side, names, samples, seed) for side, names in sides]
    found += [_bits_per_byte(side, names, samples, seed) for side, names in sides]
    parts = [role.name.lower() for role in PROMPT_ROLES]
    by_role = [score for name in parts if (score := _loss(name, [name], samples, seed))]
    # Of a single role it is the prompt's loss once more.
    return [score for score in found if score is not None] + by_role * (len(by_role) > 1)


def _loss(name: str, roles: Sequence[str], samples: Sequence[Sample], seed: int) -> Score | None:
    sums, counts = _totals(samples, "loss_sum", "num_tokens", roles)
    estimate = ratio(sums, counts, seed)
    if estimate is None:
        return None
    return estimate.as_score(
        f"heldout_{name}_loss", group=None, higher_is_better=False, unit="nats per token"
    )


def _bits_per_byte(
    name: str, roles: Sequence[str], samples: Sequence[Sample], seed: int
) -> Score | None:
    sums, counts = _totals(samples, "text_loss_sum", "num_bytes", roles)
    estimate = ratio([nats / math.log(2) for nats in sums], counts, seed)
    if estimate is None:
        return None
    return estimate.as_score(
        f"heldout_{name}_bits_per_byte", group=None, higher_is_better=False, unit="bits per byte"
    )


def _totals(
    samples: Sequence[Sample], sums: str, counts: str, roles: Sequence[str]
) -> tuple[list[float], list[int]]:
    """Of each sample the sum over `roles` of its field `sums`, and of its field `counts`."""
    return (
        [sum(sample[sums][role] for role in roles) for sample in samples],
        [sum(sample[counts][role] for role in roles) for sample in samples],
    )
