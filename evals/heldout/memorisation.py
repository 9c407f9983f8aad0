"""Memorisation: how much of its training data a model writes down again, and how long it writes.

Source: arXiv 2401.13586, which explains by these what the prompt loss weight does.
"""

from collections.abc import Sequence

from evals.config import GenerationConfig, MemorisationConfig
from evals.engine.batching import Progress
from evals.engine.loading import LoadedModel
from evals.heldout.examples import digest
from evals.heldout.reference_match import generated_samples
from evals.results.intervals import bleu, mean
from evals.results.measurement import Measured, Sample
from trainers.data.examples import Example


def measure_memorisation(
    loaded: LoadedModel,
    training: Sequence[Example],
    heldout: Sequence[Example],
    config: MemorisationConfig,
    *,
    batch_size: int,
    seed: int,
    on_progress: Progress,
) -> Measured:
    """BLEU of greedy completions of training prompts, and of held-out ones, and their lengths.

    `training_bleu` is high where the model knows its training data by heart, or is just good:
    what it has above `heldout_bleu` speaks for memory. Both compare with the true completions,
    cut to as many tokens as the outputs may have. `training_generation_length` and
    `heldout_generation_length` are mean numbers of new tokens, without the end token.

    None of these makes a model better or worse; they belong to no group and select nothing.
    A sample's `source` tells where its prompt is from, its `value` is the BLEU of it alone.
    """
    total = len(training) + len(heldout)

    def taken(source: str, examples: Sequence[Example], num_before: int) -> Measured:
        def progress(done: int, _: int) -> None:
            on_progress(num_before + done, total)

        samples = _samples(loaded, examples, config, batch_size, progress)
        return _scored(source, samples, seed)

    of_training = taken("training", training, 0)
    of_heldout = taken("heldout", heldout, len(training))
    return Measured(
        scores=of_training.scores + of_heldout.scores,
        samples=of_training.samples + of_heldout.samples,
        signature={**of_training.signature, "training_items_sha256": digest(training)},
    )


def _samples(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: MemorisationConfig,
    batch_size: int,
    on_progress: Progress,
) -> list[Sample]:
    generation = GenerationConfig(
        examples=len(examples), max_new_tokens=config.max_new_tokens, invert=False
    )
    samples = generated_samples(
        loaded, "memorisation", examples, generation, batch_size, on_progress
    )
    for sample in samples:
        target = loaded.template.encode_completion(sample["target"])[:-1]
        if len(target) > config.max_new_tokens:
            sample["target"] = loaded.decode(target[: config.max_new_tokens])
    return samples


def _scored(source: str, samples: list[Sample], seed: int) -> Measured:
    result = bleu(
        [sample["output"].strip() for sample in samples],
        [sample["target"].strip() for sample in samples],
        seed,
    )
    for sample, value in zip(samples, result.sentence_scores, strict=True):
        sample |= {"source": source, "value": value}
    length = mean([sample["num_new_tokens"] for sample in samples], seed)
    scores = [
        result.estimate.as_score(f"{source}_bleu", group=None, higher_is_better=False, unit="BLEU"),
        length.as_score(
            f"{source}_generation_length", group=None, higher_is_better=False, unit="tokens"
        ),
    ]
    return Measured(scores=scores, samples=samples, signature={"bleu": result.signature})
