"""Commands on one thing that is already there: a model or a data set."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from evals.config import EvalConfig
from evals.scores import ScoreCard
from orchestrator.spec import load_spec
from trainers.config import DataConfig, ModelConfig
from trainers.data import encode_all, read_split
from trainers.errors import InputError, Problem
from trainers.models import load_tokenizer, resolve_model_path
from trainers.records import read_examples
from trainers.stats import DataStats, data_stats


def stats_of(config: DataConfig, *, model: str) -> DataStats:
    """Counts and tokens by role of all examples of a data set under a model's tokenizer.

    Raises:
        InputError: data, model or template do not fit.
    """
    tokenizer = load_tokenizer(ModelConfig(path=model))
    examples = read_examples(config.path, split=config.split)
    return data_stats(encode_all(examples, config, tokenizer), config)


def evaluate_model(
    model: str,
    data_path: str | None,
    *,
    spec_path: Path | None,
    template: str | None,
    max_length: int | None,
    output_dir: Path,
    on_kept: Callable[[Sequence[str]], None] | None = None,
) -> ScoreCard:
    """Score a model on examples, or on the held-out part of a spec's data.

    A spec also gives the measures, the template and the length, as far as they are not given.
    `on_kept` is told the measures that an earlier run has left in `output_dir`.

    Raises:
        InputError: neither examples nor a spec were given, or model, data or template do not fit.
    """
    from evals.run import score_model

    untuned = None
    if spec_path is not None:
        spec = load_spec(spec_path)
        evals, data = spec.evals, spec.data
        untuned = resolve_model_path(spec.model.path)
    elif data_path:
        evals, data = EvalConfig(), DataConfig(path=data_path)
    else:
        raise InputError(
            Problem(message="nothing to score on", fix="give --data, or a sweep spec as --config")
        )
    examples = read_examples(data_path) if data_path else read_split(data).heldout
    return score_model(
        model_path=resolve_model_path(model),
        examples=examples,
        template=data.template if template is None else template,
        max_length=data.max_length if max_length is None else max_length,
        config=evals,
        out_dir=output_dir,
        untuned_path=untuned,
        num_threads=os.cpu_count(),
        on_kept=on_kept,
    )
