"""Multiple choice: does a model find the true completion likelier than others' completions?

Shapes: P prompts, R = P * C choices, T tokens, H hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evals.batches import Progress, pad, sorted_batches
from evals.items import ChoiceItem
from evals.log_probs import TokenScorer
from evals.measure import Measured, Sample
from evals.model import LoadedModel
from evals.scoring import share


@dataclass(frozen=True, kw_only=True)
class _Choice:
    text: str
    ids: list[int]
    num_bytes: int


def measure_multiple_choice(
    loaded: LoadedModel,
    items: Sequence[ChoiceItem],
    *,
    batch_size: int,
    on_progress: Progress,
) -> Measured:
    """`multiple_choice_accuracy`: the share of items whose true completion scores best.

    A choice's score is its log-likelihood after the prompt divided by its length in UTF-8 bytes.
    The end-of-sequence token is not part of it. A tie for the best counts as wrong.

    Source: acc_norm of EleutherAI/lm-evaluation-harness, which divides by bytes as well.
    """
    choices = [[_encode(loaded, text) for text in item.choices] for item in items]
    prompts = [
        loaded.template.encode_prompt(item.example)[-(loaded.max_length - _longest(of_item)) :]
        for item, of_item in zip(items, choices, strict=True)
    ]
    lengths = [
        len(prompt) + len(of_item) * _longest(of_item)
        for prompt, of_item in zip(prompts, choices, strict=True)
    ]
    samples: list[Sample] = [{}] * len(items)
    done = 0
    # Three passes: what a batch's prompts begin with, the rest of them, the choices.
    pass_cost = 3 * loaded.scorer.reader.pass_cost
    for batch in sorted_batches(lengths, batch_size, pass_cost=pass_cost):
        log_likelihoods = choice_log_likelihoods(
            loaded.scorer,
            [prompts[i] for i in batch],
            [[choice.ids for choice in choices[i]] for i in batch],
        )
        for index, row in zip(batch, log_likelihoods, strict=True):
            samples[index] = _sample(loaded, items[index], prompts[index], choices[index], row)
        done += len(batch)
        on_progress(done, len(items))
    score = share([sample["value"] == 1.0 for sample in samples]).as_score(
        "multiple_choice_accuracy",
        group="multiple_choice",
        higher_is_better=True,
        unit="share of items",
    )
    return Measured(scores=[score], samples=samples)


@torch.inference_mode()
def choice_log_likelihoods(
    scorer: TokenScorer, prompts: Sequence[list[int]], choices: Sequence[Sequence[list[int]]]
) -> list[list[float]]:
    """ln p(choice | prompt) in nats, for each of the P prompts a list of C.

    A prompt is run once and its key-value cache serves all of its choices, unless the model
    keeps a state that is no such cache, or does more to its logits than its output embedding.
    """
    can_share = scorer.head_alone and scorer.reader.keeps_context
    score = _with_shared_prompts if can_share else _one_by_one
    log_likelihoods_R = score(scorer, prompts, choices)
    values: list[list[float]] = log_likelihoods_R.view(len(prompts), -1).tolist()
    return values


def _with_shared_prompts(
    scorer: TokenScorer, prompts: Sequence[list[int]], choices: Sequence[Sequence[list[int]]]
) -> Tensor:
    reader, device = scorer.reader, scorer.model.device
    context, unread = reader.begin(prompts)
    prompt_ids_PT, prompt_mask_PT = pad(unread, side="left", device=device)
    _, context = reader.read(prompt_ids_PT, prompt_mask_PT, context)
    context = context.repeated(len(choices[0]))

    rows = [ids for of_prompt in choices for ids in of_prompt]
    choice_ids_RT, choice_mask_RT = pad(rows, side="right", device=device)
    hidden_RTH = context.last_hidden_RH[:, None]
    # The last token of a choice predicts nothing that is scored.
    if choice_ids_RT.shape[1] > 1:
        rest_RTH, _ = reader.read(choice_ids_RT[:, :-1], choice_mask_RT[:, :-1], context)
        hidden_RTH = torch.cat([hidden_RTH, rest_RTH], dim=1)
    scored_RT = choice_mask_RT.bool()
    log_probs_RT = torch.zeros(scored_RT.shape, device=device)
    log_probs_RT[scored_RT] = scorer.head_log_probs(hidden_RTH[scored_RT], choice_ids_RT[scored_RT])
    return log_probs_RT.sum(dim=1)


def _one_by_one(
    scorer: TokenScorer, prompts: Sequence[list[int]], choices: Sequence[Sequence[list[int]]]
) -> Tensor:
    pairs = [
        (prompt, ids)
        for prompt, of_prompt in zip(prompts, choices, strict=True)
        for ids in of_prompt
    ]
    log_probs_RT = scorer.sequence_log_probs(
        [prompt + ids for prompt, ids in pairs], [len(prompt) for prompt, _ in pairs]
    )
    return log_probs_RT.sum(dim=1)


def _longest(choices: Sequence[_Choice]) -> int:
    return max(len(choice.ids) for choice in choices)


def _encode(loaded: LoadedModel, text: str) -> _Choice:
    whole = loaded.template.encode_completion(text)[:-1]
    # One token of the prompt stays at least.
    ids = whole[: loaded.max_length - 1]
    scored_text = text if len(ids) == len(whole) else loaded.decode(ids)
    return _Choice(text=text, ids=ids, num_bytes=len(scored_text.encode("utf-8")))


def _sample(
    loaded: LoadedModel,
    item: ChoiceItem,
    prompt_ids: list[int],
    choices: Sequence[_Choice],
    log_likelihoods: Sequence[float],
) -> Sample:
    per_byte = [
        log_likelihood / choice.num_bytes
        for choice, log_likelihood in zip(choices, log_likelihoods, strict=True)
    ]
    return {
        "measure": "multiple_choice",
        "id": item.example.id,
        "prompt": loaded.decode(prompt_ids),
        "target": item.example.completion,
        "output": choices[per_byte.index(max(per_byte))].text,
        "value": float(per_byte[0] > max(per_byte[1:])),
        "choices": [
            {
                "text": choice.text,
                "log_likelihood": log_likelihood,
                "log_likelihood_per_byte": value,
                "num_bytes": choice.num_bytes,
                "num_tokens": len(choice.ids),
            }
            for choice, log_likelihood, value in zip(
                choices, log_likelihoods, per_byte, strict=True
            )
        ],
    }
