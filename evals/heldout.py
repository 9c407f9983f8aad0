"""Held-out loss: how well a model predicts completions, and how well prompts."""

from collections.abc import Sequence
from typing import Literal

from evals.batches import Progress, sorted_batches
from evals.measure import Measured, Sample
from evals.model import LoadedModel
from evals.scores import Score
from evals.scoring import ratio
from trainers.examples import Example
from trainers.roles import PROMPT_ROLES, Encoded, Role

Side = Literal["completion", "prompt"]
ROLES_OF: dict[Side, tuple[Role, ...]] = {
    "completion": (Role.COMPLETION,),
    "prompt": PROMPT_ROLES,
}


def measure_heldout(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    seed: int,
    on_progress: Progress,
) -> Measured:
    """`heldout_completion_loss` and `heldout_prompt_loss` in nats per token.

    Each is the sum of next-token losses over all tokens of its side, divided by their number:
    long examples weigh more. The end-of-sequence token counts as completion, the template's
    tokens as prompt, the first token of an example as neither, since nothing predicts it. A side
    without tokens has no score.

    A sample's `value` is the example's own mean completion loss, and it carries
    (sum, count) for each role.
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
    scores = [_score(side, samples, seed) for side in ROLES_OF]
    return Measured(scores=[score for score in scores if score is not None], samples=samples)


def _sample(loaded: LoadedModel, example: Example, encoded: Encoded, losses: list[float]) -> Sample:
    loss_sum: dict[Role, float] = {role: 0.0 for role in Role if role != Role.PADDING}
    num_tokens: dict[Role, int] = dict.fromkeys(loss_sum, 0)
    for role, loss in list(zip(encoded.roles, losses, strict=True))[1:]:
        loss_sum[Role(role)] += loss
        num_tokens[Role(role)] += 1
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
        "loss_sum": {role.name.lower(): value for role, value in loss_sum.items()},
        "num_tokens": {role.name.lower(): value for role, value in num_tokens.items()},
        "num_truncated_tokens": encoded.num_truncated_tokens,
    }


def _score(side: Side, samples: Sequence[Sample], seed: int) -> Score | None:
    names = [role.name.lower() for role in ROLES_OF[side]]
    estimate = ratio(
        [sum(sample["loss_sum"][name] for name in names) for sample in samples],
        [sum(sample["num_tokens"][name] for name in names) for sample in samples],
        seed,
    )
    if estimate is None:
        return None
    return estimate.as_score(
        f"heldout_{side}_loss", group=None, higher_is_better=False, unit="nats per token"
    )
