"""Multiple choice: does a model find the true completion likelier than others' completions?"""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.engine.batching import Progress
from evals.engine.loading import LoadedModel
from evals.engine.loglikelihood import Continuation, score_continuations
from evals.heldout.examples import ChoiceItem
from evals.results.intervals import share
from evals.results.measurement import Measured, Sample


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
    likelihoods = score_continuations(
        loaded.scorer,
        [
            [Continuation(context_ids=prompt, ids=choice.ids) for choice in of_item]
            for prompt, of_item in zip(prompts, choices, strict=True)
        ],
        batch_size=batch_size * max(map(len, choices), default=1),
        on_progress=on_progress,
    )
    samples = [
        _sample(loaded, item, prompt, of_item, [likelihood.log_likelihood for likelihood in row])
        for item, prompt, of_item, row in zip(items, prompts, choices, likelihoods, strict=True)
    ]
    score = share([sample["value"] == 1.0 for sample in samples]).as_score(
        "multiple_choice_accuracy",
        group="multiple_choice",
        higher_is_better=True,
        unit="share of items",
    )
    return Measured(scores=[score], samples=samples)


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
