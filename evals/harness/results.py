"""From what lm-eval's evaluator hands back to our scores and samples."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evals.config import Group
from evals.results.intervals import (
    Estimate,
    corpus_metric,
    corpus_metrics,
    mean,
    resampled,
    sentence_scores,
)
from evals.results.measurement import Measured, Sample
from evals.results.scores import Score

# A task that is none of the paper's counts by the first of these that it has.
_MAIN_METRICS = ("acc_norm", "acc", "exact_match")
_UNITS = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "chrf++": "chrF++",
    "ter": "TER",
    "rouge_l": "ROUGE-L",
}
_CHOICE_OUTPUTS = ("multiple_choice", "loglikelihood")


def task_measured(
    task: Any,
    results: dict[str, Any],
    *,
    name: str,
    group: Group | None,
    main_metric: str | None,
    seed: int,
    signature: dict[str, Any],
) -> Measured:
    """Scores and samples of one task, from `evaluate` of lm-eval with its samples.

    The first score is of `main_metric` (None: the first that is known to be one) and counts for
    `group` (None: by the kind of task); the others are `secondary`. Values are lm-eval's own; the
    intervals around them are ours.
    """
    logged: list[dict[str, Any]] = results["samples"][name]
    filters = list(dict.fromkeys(sample["filter"] for sample in logged))
    of_filter = {one: [s for s in logged if s["filter"] == one] for one in filters}
    metrics = [metric for metric in logged[0]["metrics"] if metric in logged[0]]
    main = main_metric or next((m for m in _MAIN_METRICS if m in metrics), metrics[0])
    kind = str(task.OUTPUT_TYPE)
    scores = [
        _score(
            task,
            name=score_name(name, metric, one),
            metric=metric,
            values=[sample[metric] for sample in of_filter[one] if metric in sample],
            value=results["results"][name][f"{metric},{one}"],
            group=(group or _group_of(kind)) if (metric, one) == (main, filters[0]) else None,
            seed=seed,
        )
        for one in filters
        for metric in metrics
    ]
    scores.sort(key=lambda score: score.name != score_name(name, main, filters[0]))
    first = of_filter[filters[0]]
    verdicts = _verdicts(main, [sample.get(main) for sample in first])
    return Measured(
        scores=scores[:1],
        secondary=scores[1:],
        samples=[
            _sample(name, sample, verdict, kind)
            for sample, verdict in zip(first, verdicts, strict=True)
        ],
        signature={
            "tasks": {
                name: {
                    "version": task.VERSION,
                    "prompts_sha256": _prompts_sha256(first),
                    **signature,
                }
            }
        },
    )


def _score(
    task: Any,
    *,
    name: str,
    metric: str,
    values: Sequence[Any],
    value: Any,
    group: Group | None,
    seed: int,
) -> Score:
    aggregate = task.aggregation().get(metric)
    estimate = _estimate(metric, values, aggregate, seed)
    score = estimate.as_score(
        name,
        group=group,
        higher_is_better=bool(task.higher_is_better().get(metric, True)),
        unit=_UNITS.get(metric, "share of items" if _is_share(values) else metric),
    )
    return score.model_copy(update={"value": float(value)})


def _estimate(
    metric: str, values: Sequence[Any], aggregate: Callable[[list[Any]], float] | None, seed: int
) -> Estimate:
    if metric in corpus_metrics() and isinstance(values[0], tuple | list):
        items = [_corpus_item(*value) for value in values]
        return corpus_metric(metric, items, seed=seed)
    is_mean = aggregate is None or getattr(aggregate, "__name__", "") == "mean"
    if is_mean and all(isinstance(value, int | float | np.number) for value in values):
        return mean([float(value) for value in values], seed)
    assert aggregate is not None
    return resampled(values, aggregate, seed)


def _corpus_item(targets: Any, output: str) -> tuple[list[str], str]:
    return [targets] if isinstance(targets, str) else list(targets), output


def _verdicts(metric: str, values: Sequence[Any]) -> list[float | None]:
    """The main metric of each item by itself, where there is such a thing."""
    if metric in corpus_metrics() and isinstance(values[0], tuple | list):
        return list(sentence_scores(metric, [_corpus_item(*value) for value in values]))
    return [float(v) if isinstance(v, int | float | np.number) else None for v in values]


def _sample(name: str, logged: dict[str, Any], value: float | None, kind: str) -> Sample:
    arguments = logged["arguments"]
    answers = [[_plain(answer) for answer in of_request] for of_request in logged["resps"]]
    sample: Sample = {
        "measure": name,
        "id": str(logged["doc_id"]),
        "prompt": str(arguments[0][0]),
        "target": _plain(logged["target"]),
        "output": _output(answers, arguments, kind),
        "value": value,
        "metrics": {metric: _plain(logged[metric]) for metric in logged["metrics"]},
        "answers": answers,
    }
    if kind in _CHOICE_OUTPUTS:
        sample["choices"] = [
            {"context": context, "text": text, "log_likelihood": of_request[0][0]}
            for (context, text, *_), of_request in zip(arguments, answers, strict=True)
        ]
    return sample


def _output(answers: Sequence[Any], arguments: Sequence[Any], kind: str) -> Any:
    """What the model wrote, or the continuation that it finds likeliest."""
    if kind not in _CHOICE_OUTPUTS:
        return answers[0][0]
    best = max(range(len(answers)), key=lambda n: answers[n][0][0])
    contexts = {context for context, *_ in arguments}
    return arguments[best][1] if len(contexts) == 1 else arguments[best][0]


def _prompts_sha256(logged: Sequence[dict[str, Any]]) -> str:
    asked = json.dumps([sample["arguments"] for sample in logged], sort_keys=True, default=str)
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


def score_name(task: str, metric: str, filter: str) -> str:
    """The name of a score: its task, its metric and, where there is one, its filter."""
    return f"{task}.{metric}" if filter == "none" else f"{task}.{metric}.{filter}"


def _group_of(kind: str) -> Group | None:
    if kind in _CHOICE_OUTPUTS:
        return "multiple_choice"
    return "short_generation" if kind == "generate_until" else None


def _is_share(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float | np.number) and 0 <= value <= 1 for value in values)


def _plain(value: Any) -> Any:
    """`value` as JSON has it."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
