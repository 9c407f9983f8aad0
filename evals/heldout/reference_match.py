"""Generation: compare greedy outputs with the true completions."""

from collections.abc import Sequence
from typing import Literal

from evals.config import GenerationConfig
from evals.engine.batching import ProgressCallback
from evals.engine.generation import generate
from evals.engine.loaded_model import LoadedModel
from evals.results.corpus_metrics import CorpusScore, corpus_score
from evals.results.evaluation import EvaluationResult, Sample
from evals.results.intervals import proportion
from trainers.data.examples import Example

GenerationName = Literal["heldout.exact_match", "heldout.chrf", "memorisation"]


def evaluate_exact_match(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: GenerationConfig,
    *,
    batch_size: int | None,
    on_progress: ProgressCallback,
) -> EvaluationResult:
    """Return `heldout.exact_match`: the share of outputs equal to the true completion.

    Surrounding white space is ignored; letter case is not.
    """
    samples = generate_samples(
        loaded, "heldout.exact_match", examples, config, batch_size, on_progress
    )
    for sample in samples:
        sample["value"] = float(sample["output"].strip() == sample["target"].strip())
    score = proportion([sample["value"] == 1.0 for sample in samples]).to_score(
        "heldout.exact_match",
        group="heldout",
        higher_is_better=True,
        unit="share of items",
    )
    return EvaluationResult(scores=[score], samples=samples)


def evaluate_chrf(
    loaded: LoadedModel,
    examples: Sequence[Example],
    config: GenerationConfig,
    *,
    batch_size: int | None,
    seed: int,
    on_progress: ProgressCallback,
) -> EvaluationResult:
    """Return `heldout.chrf`: corpus chrF of the outputs against the true completions.

    A sample's `value` is the chrF of its output; the score is not their mean.
    """
    samples = generate_samples(loaded, "heldout.chrf", examples, config, batch_size, on_progress)
    result = score_samples("chrf", samples, seed)
    score = result.estimate.to_score(
        "heldout.chrf", group="heldout", higher_is_better=True, unit="chrF"
    )
    return EvaluationResult(scores=[score], samples=samples, signature={"chrf": result.signature})


def score_samples(metric: str, samples: Sequence[Sample], seed: int) -> CorpusScore:
    """Return a corpus metric of `samples`, and set each sample's `value` to its output's metric."""
    items = [([sample["target"].strip()], sample["output"].strip()) for sample in samples]
    result = corpus_score(metric, items, seed=seed)
    for sample, value in zip(samples, result.sentence_scores, strict=True):
        sample["value"] = value
    return result


def generate_samples(
    loaded: LoadedModel,
    name: GenerationName,
    examples: Sequence[Example],
    config: GenerationConfig,
    batch_size: int | None,
    on_progress: ProgressCallback,
) -> list[Sample]:
    """Return one sample per example; `value` is None until it is scored."""
    oriented = [example.inverted() if config.invert else example for example in examples]
    # At most `max_length` tokens, as in training.
    capacity = min(loaded.max_length, loaded.prompt_capacity(config.max_new_tokens, name=name))
    prompts = [loaded.template.truncate_prompt(example, capacity) for example in oriented]
    outputs = generate(
        loaded,
        [list(prompt.input_ids) for prompt in prompts],
        max_new_tokens=config.max_new_tokens,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    return [
        {
            "measure": name,
            "id": example.id,
            "prompt": loaded.decode(list(prompt.input_ids)),
            "target": example.completion,
            "output": loaded.tokenizer.decode(
                output, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
            "value": None,
            "num_new_tokens": len(output),
            "stopped": len(output) < config.max_new_tokens,
            "num_truncated_tokens": prompt.num_truncated_tokens,
        }
        for example, prompt, output in zip(oriented, prompts, outputs, strict=True)
    ]
