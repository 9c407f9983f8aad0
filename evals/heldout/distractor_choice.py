"""Multiple choice: rank the true completion among completions of other examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from evals.engine.batching import ProgressCallback
from evals.engine.loaded_model import LoadedModel
from evals.engine.loglikelihood import Continuation, score_continuations
from evals.heldout.examples import ChoiceItem
from evals.results.evaluation import EvaluationResult, Sample
from evals.results.intervals import proportion
from trainers.data.examples import Example


@dataclass(frozen=True, kw_only=True)
class _Choice:
    text: str
    ids: list[int]
    num_bytes: int


def evaluate_choice(
    loaded: LoadedModel,
    items: Sequence[ChoiceItem],
    *,
    batch_size: int,
    on_progress: ProgressCallback,
) -> EvaluationResult:
    """Return `heldout.choice`: the share of items whose true completion ranks first.

    Choices are ranked by their log-likelihood after the prompt, divided by their length in UTF-8
    bytes, without the end-of-sequence token. A tie for the first rank counts as wrong.

    Source: acc_norm of EleutherAI/lm-evaluation-harness. Deviation: acc_norm divides by the length
    in characters (its acc_bytes divides by bytes).
    """
    choices = [_encode_choices(loaded, item) for item in items]
    prompts = [
        _prompt(loaded, item.example, loaded.max_length - _max_tokens(item_choices))
        for item, item_choices in zip(items, choices, strict=True)
    ]
    scores = score_continuations(
        loaded.scorer,
        [
            [Continuation(context_ids=prompt, ids=choice.ids) for choice in item_choices]
            for prompt, item_choices in zip(prompts, choices, strict=True)
        ],
        batch_size=batch_size * max(map(len, choices), default=1),
        on_progress=on_progress,
    )
    samples = [
        _sample(loaded, item, prompt, item_choices, [score.log_likelihood for score in row])
        for item, prompt, item_choices, row in zip(items, prompts, choices, scores, strict=True)
    ]
    score = proportion([sample["value"] == 1.0 for sample in samples]).to_score(
        "heldout.choice",
        group="heldout",
        higher_is_better=True,
        unit="share of items",
    )
    return EvaluationResult(scores=[score], samples=samples)


def _prompt(loaded: LoadedModel, example: Example, max_length: int) -> list[int]:
    return list(loaded.template.truncate_prompt(example, max_length).input_ids)


def _max_tokens(choices: Sequence[_Choice]) -> int:
    return max(len(choice.ids) for choice in choices)


def _encode_choices(loaded: LoadedModel, item: ChoiceItem) -> list[_Choice]:
    prompt = loaded.template.render_prompt(item.example)
    return [_encode(loaded, text, prompt) for text in item.choices]


def _encode(loaded: LoadedModel, text: str, prompt: str) -> _Choice:
    whole = loaded.template.encode_completion(text, prompt)[:-1]
    # Keep at least one token of the prompt.
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
        "measure": "heldout.choice",
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
