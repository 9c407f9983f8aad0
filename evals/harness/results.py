"""Convert the results of lm-eval's evaluator for one task to scores and samples."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evals.results.corpus_metrics import CORPUS_METRICS, Item, corpus_score
from evals.results.evaluation import Sample
from evals.results.intervals import Estimate, bootstrap_aggregate, mean
from evals.results.scores import Score

# Unless the suite or the spec names one, a task's main metric is the first of these that it has.
_MAIN_METRICS = ("acc_norm", "acc", "exact_match")
_UNITS = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "chrf++": "chrF++",
    "ter": "TER",
    "rouge_l": "ROUGE-L",
}
CHOICE_OUTPUTS = ("multiple_choice", "loglikelihood")


@dataclass(frozen=True, kw_only=True)
class MetricScore:
    """The score of one metric of a task or group, for the outputs of one filter.

    `item_values` are the values of the items that have the metric, by their position; a group has
    none.
    """

    metric: str
    filter: str
    score: Score
    item_values: dict[int, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """The scores of one task, the main one first, and its samples.

    `kind` is lm-eval's output type.
    """

    kind: str
    scores: list[MetricScore]
    samples: list[Sample]
    signature: dict[str, Any]


def task_result(
    task: Any,
    results: Mapping[str, Any],
    *,
    main_metric: str | None,
    main_filter: str | None,
    seed: int,
) -> TaskResult:
    """Return the scores and samples of one task, from the output of lm-eval's `evaluate`.

    The main score is that of `main_metric` (None: the first of `_MAIN_METRICS`) and `main_filter`
    (None: the first). The values are lm-eval's; the intervals are computed here.
    """
    name = str(task.task_name)
    logged: list[dict[str, Any]] = results["samples"][name]
    filters = list(dict.fromkeys(sample["filter"] for sample in logged))
    samples_of = {
        filter_name: [sample for sample in logged if sample["filter"] == filter_name]
        for filter_name in filters
    }
    metrics = [metric for metric in logged[0]["metrics"] if metric in logged[0]]
    main = main_metric or next((m for m in _MAIN_METRICS if m in metrics), metrics[0])
    filter = main_filter or filters[0]
    scores = [
        _metric_score(task, results["results"][name], metric, filter_name, samples, seed)
        for filter_name, samples in samples_of.items()
        for metric in metrics
    ]
    scores.sort(key=lambda one: (one.metric, one.filter) != (main, filter))
    chosen = samples_of[filter]
    kind = str(task.OUTPUT_TYPE)
    return TaskResult(
        kind=kind,
        scores=scores,
        samples=[
            _sample(name, sample, scores[0].item_values.get(position), kind)
            for position, sample in enumerate(chosen)
        ],
        signature={
            "version": task.VERSION,
            "prompts_sha256": _prompts_sha256(chosen),
            "num_fewshot": task.config.num_fewshot,
        },
    )


def _metric_score(
    task: Any,
    values: Mapping[str, Any],
    metric: str,
    filter: str,
    samples: Sequence[Mapping[str, Any]],
    seed: int,
) -> MetricScore:
    """Return the score of a metric; `values` are lm-eval's, by metric and filter."""
    positions = [position for position, sample in enumerate(samples) if metric in sample]
    outcomes = [samples[position][metric] for position in positions]
    estimate, item_values = _estimate(metric, outcomes, task.aggregation().get(metric), seed)
    score = estimate.to_score(
        score_name(str(task.task_name), metric, filter),
        group=None,
        higher_is_better=bool(task.higher_is_better().get(metric, True)),
        unit=_UNITS.get(metric, "share of items" if _are_proportions(outcomes) else metric),
    )
    value = float(values[f"{metric},{filter}"])
    return MetricScore(
        metric=metric,
        filter=filter,
        score=score.model_copy(update={"value": value}),
        item_values=dict(zip(positions, item_values, strict=True)),
    )


def _estimate(
    metric: str, outcomes: Sequence[Any], aggregate: Callable[[list[Any]], float] | None, seed: int
) -> tuple[Estimate, list[float | None]]:
    """Return the metric of all items, and of each item; None for an item without a value."""
    items = _corpus_items(metric, outcomes)
    if items is not None:
        corpus = corpus_score(metric, items, seed=seed)
        return corpus.estimate, list(corpus.sentence_scores)
    is_number = [isinstance(value, int | float | np.number) for value in outcomes]
    item_values = [
        float(value) if known and math.isfinite(value) else None
        for value, known in zip(outcomes, is_number, strict=True)
    ]
    is_mean = aggregate is None or getattr(aggregate, "__name__", "") == "mean"
    if is_mean and all(is_number):
        return mean([float(value) for value in outcomes], seed), item_values
    assert aggregate is not None
    return bootstrap_aggregate(outcomes, aggregate, seed), item_values


def _corpus_items(metric: str, values: Sequence[Any]) -> list[Item] | None:
    """Return the targets and output of each item of a corpus metric; None for other metrics."""
    if metric not in CORPUS_METRICS or not isinstance(values[0], tuple | list):
        return None
    return [
        ([targets] if isinstance(targets, str) else list(targets), output)
        for targets, output in values
    ]


def _sample(name: str, logged: dict[str, Any], value: float | None, kind: str) -> Sample:
    arguments = logged["arguments"]
    responses = [[_to_json(r) for r in request_responses] for request_responses in logged["resps"]]
    sample: Sample = {
        "measure": name,
        "id": str(logged["doc_id"]),
        "prompt": str(arguments[0][0]),
        "target": _to_json(logged["target"]),
        "output": _output(responses, arguments, kind),
        "value": value,
        "metrics": {metric: _to_json(logged[metric]) for metric in logged["metrics"]},
        "answers": responses,
        "doc": _to_json(logged["doc"]),
    }
    if kind in CHOICE_OUTPUTS:
        sample["choices"] = [
            {"context": context, "text": text, "log_likelihood": response[0][0]}
            for (context, text, *_), response in zip(arguments, responses, strict=True)
        ]
    return sample


def _output(responses: Sequence[Any], arguments: Sequence[Any], kind: str) -> Any:
    """Return the generated text, or the most likely choice."""
    if kind not in CHOICE_OUTPUTS:
        return responses[0][0]
    best = max(range(len(responses)), key=lambda n: responses[n][0][0])
    contexts = {context for context, *_ in arguments}
    return arguments[best][1] if len(contexts) == 1 else arguments[best][0]


def _prompts_sha256(logged: Sequence[dict[str, Any]]) -> str:
    prompts = json.dumps([sample["arguments"] for sample in logged], sort_keys=True, default=str)
    return hashlib.sha256(prompts.encode("utf-8", "surrogatepass")).hexdigest()


def score_name(task: str, metric: str, filter: str) -> str:
    """Return the name of a score: its task, its metric, and its filter, if any."""
    return f"{task}.{metric}" if filter == "none" else f"{task}.{metric}.{filter}"


def _are_proportions(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float | np.number) and 0 <= value <= 1 for value in values)


def _to_json(value: Any) -> Any:
    """Return `value` converted to JSON types."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such numbers.
    return value if isinstance(value, str | int | float | bool | None) else str(value)
