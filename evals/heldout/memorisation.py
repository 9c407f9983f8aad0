"""Memorisation: how much training data a model reproduces, and the length of its outputs.

Source: arXiv 2401.13586, which uses both to explain the effect of the prompt loss weight.
"""

from collections.abc import Sequence

from evals.config import GenerationConfig, MemorisationConfig
from evals.engine.batching import ProgressCallback
from evals.engine.loaded_model import LoadedModel
from evals.heldout.examples import examples_sha256
from evals.heldout.reference_match import generate_samples, score_samples
from evals.results.evaluation import EvaluationResult, Sample
from evals.results.intervals import mean
from trainers.data.examples import Example


def evaluate_memorisation(
    loaded: LoadedModel,
    training: Sequence[Example],
    heldout: Sequence[Example],
    config: MemorisationConfig,
    *,
    batch_size: int | None,
    seed: int,
    on_progress: ProgressCallback,
) -> EvaluationResult:
    """Return BLEU and length of greedy completions of training prompts and held-out prompts.

    A high `training_bleu` means that the model memorised its training data or is good in general.
    An excess over `heldout_bleu` is evidence for memorisation. Both compare outputs with the true
    completions, cut to the maximum number of output tokens. `training_generation_length` and
    `heldout_generation_length` are mean numbers of new tokens, without the end token.

    For these scores, neither high nor low is better. They belong to no group and are not used for
    selection. A sample's `source` is training or heldout; its `value` is the BLEU of its output.
    """
    total = len(training) + len(heldout)

    def evaluate(source: str, examples: Sequence[Example], num_before: int) -> EvaluationResult:
        def report(num_done: int, _: int) -> None:
            on_progress(num_before + num_done, total)

        samples = _generate_samples(loaded, examples, config, batch_size, report)
        return _score(source, samples, seed)

    on_training = evaluate("training", training, 0)
    on_heldout = evaluate("heldout", heldout, len(training))
    return EvaluationResult(
        scores=on_training.scores + on_heldout.scores,
        samples=on_training.samples + on_heldout.samples,
        signature={**on_training.signature, "training_items_sha256": examples_sha256(training)},
    )


def _generate_samples(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: MemorisationConfig,
    batch_size: int | None,
    on_progress: ProgressCallback,
) -> list[Sample]:
    generation = GenerationConfig(
        examples=len(examples), max_new_tokens=config.max_new_tokens, invert=False
    )
    samples = generate_samples(
        loaded, "memorisation", examples, generation, batch_size, on_progress
    )
    for sample in samples:
        target = loaded.template.encode_completion(sample["target"])[:-1]
        if len(target) > config.max_new_tokens:
            sample["target"] = loaded.decode(target[: config.max_new_tokens])
    return samples


def _score(source: str, samples: list[Sample], seed: int) -> EvaluationResult:
    # Completions may be shorter than four words.
    result = score_samples("bleu_effective_order", samples, seed)
    for sample in samples:
        sample["source"] = source
    length = mean([sample["num_new_tokens"] for sample in samples], seed)
    scores = [
        result.estimate.to_score(f"{source}_bleu", group=None, higher_is_better=False, unit="BLEU"),
        length.to_score(
            f"{source}_generation_length", group=None, higher_is_better=False, unit="tokens"
        ),
    ]
    return EvaluationResult(scores=scores, samples=samples, signature={"bleu": result.signature})
