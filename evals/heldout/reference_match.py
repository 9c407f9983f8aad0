"""Generation: does a model write the true completion, or something like it?"""

from collections.abc import Sequence
from typing import Literal

from evals.config import GenerationConfig
from evals.engine.batching import Progress
from evals.engine.generation import generate
from evals.engine.loading import LoadedModel
from evals.results.intervals import chrf, share
from evals.results.measurement import Measured, Sample
from trainers.data.examples import Example
from trainers.foundation.errors import InputError, Problem

GenerationMeasure = Literal["short_generation", "long_generation", "memorisation"]


def measure_short_generation(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: GenerationConfig,
    *,
    batch_size: int,
    on_progress: Progress,
) -> Measured:
    """`short_generation_exact_match`: the share of outputs equal to the true completion.

    White space around either does not count, letter case does.
    """
    samples = generated_samples(
        loaded, "short_generation", examples, config, batch_size, on_progress
    )
    for sample in samples:
        sample["value"] = float(sample["output"].strip() == sample["target"].strip())
    score = share([sample["value"] == 1.0 for sample in samples]).as_score(
        "short_generation_exact_match",
        group="short_generation",
        higher_is_better=True,
        unit="share of items",
    )
    return Measured(scores=[score], samples=samples)


def measure_long_generation(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: GenerationConfig,
    *,
    batch_size: int,
    seed: int,
    on_progress: Progress,
) -> Measured:
    """`long_generation_chrf`: corpus chrF of the outputs against the true completions.

    A sample's `value` is the chrF of that output alone; the score is not their mean.
    """
    samples = generated_samples(
        loaded, "long_generation", examples, config, batch_size, on_progress
    )
    result = chrf(
        [sample["output"].strip() for sample in samples],
        [sample["target"].strip() for sample in samples],
        seed,
    )
    for sample, value in zip(samples, result.sentence_scores, strict=True):
        sample["value"] = value
    score = result.estimate.as_score(
        "long_generation_chrf", group="long_generation", higher_is_better=True, unit="chrF"
    )
    return Measured(scores=[score], samples=samples, signature={"chrf": result.signature})


def generated_samples(
    loaded: LoadedModel,
    measure: GenerationMeasure,
    examples: Sequence[Example],
    config: GenerationConfig,
    batch_size: int,
    on_progress: Progress,
) -> list[Sample]:
    """One sample per example, whose `value` is still to be filled in."""
    asked = [example.inverted() if config.invert else example for example in examples]
    room = _prompt_room(loaded, measure, config)
    whole = [loaded.template.encode_prompt(example) for example in asked]
    prompts = [ids[-room:] for ids in whole]
    outputs = generate(
        loaded,
        prompts,
        max_new_tokens=config.max_new_tokens,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    return [
        {
            "measure": measure,
            "id": example.id,
            "prompt": loaded.decode(prompt),
            "target": example.completion,
            "output": loaded.tokenizer.decode(
                output, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
            "value": None,
            "num_new_tokens": len(output),
            "stopped": len(output) < config.max_new_tokens,
            "num_truncated_tokens": len(ids) - len(prompt),
        }
        for example, ids, prompt, output in zip(asked, whole, prompts, outputs, strict=True)
    ]


def _prompt_room(loaded: LoadedModel, measure: GenerationMeasure, config: GenerationConfig) -> int:
    """Tokens of a prompt that are kept: as in training, and so that the output has positions."""
    if loaded.max_positions is None:
        return loaded.max_length
    room = min(loaded.max_length, loaded.max_positions - config.max_new_tokens)
    if room < 1:
        raise InputError(
            Problem(
                message=(
                    f"evals.{measure}.max_new_tokens must leave room for a prompt in the model's"
                    f" {loaded.max_positions} positions, got {config.max_new_tokens}"
                ),
                fix=f"set evals.{measure}.max_new_tokens to a smaller number",
            )
        )
    return room
