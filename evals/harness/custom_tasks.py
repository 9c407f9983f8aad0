"""Benchmarks of one's own: JSONL files that become tasks of lm-eval without any Python.

An item has `prompt`, and either `choices` and `label` (the place of the right one, from 0) for
kind multiple_choice, or `target`, a text or a list of texts that are all right, for the others.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from evals.config import BenchmarkConfig
from evals.harness.paper_suite import Row
from evals.results.intervals import corpus_metric

# This module's first name. Settings of scores hold it, and those of old scores must still match.
_RECORDED_MODULE = "evals.own_benchmarks"


def task_definition(own: BenchmarkConfig) -> dict[str, Any]:
    """A benchmark as the content of a task file of lm-eval."""
    return _definition(own, module=__name__)


def recorded_definition(own: BenchmarkConfig) -> dict[str, Any]:
    """The definition as a score's settings hold it: without paths, functions by their first name.

    It decides whether an earlier score is used again, so it does not change when code moves.
    """
    definition = _definition(own, module=_RECORDED_MODULE)
    return {key: value for key, value in definition.items() if key != "dataset_kwargs"}


def _definition(own: BenchmarkConfig, *, module: str) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "task": own.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(Path(own.path).absolute())}},
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "prompt",
        "metadata": {"version": 1},
    }
    if own.kind == "multiple_choice":
        return definition | {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True}
                for name in ("acc_norm", "acc")
            ],
        }
    is_corpus = own.kind in ("bleu", "chrf")
    aggregation = Function(f"{module}.corpus_{own.kind}") if is_corpus else "mean"
    return definition | {
        "output_type": "generate_until",
        "doc_to_target": Function(f"{module}.first_target"),
        "process_results": Function(f"{module}.{own.kind}"),
        "generation_kwargs": {
            "until": own.stop,
            "max_gen_toks": own.max_new_tokens,
            "do_sample": False,
        },
        "metric_list": [{"metric": own.kind, "aggregation": aggregation, "higher_is_better": True}],
    }


class Function(str):
    """The dotted name of a function, which a task file of lm-eval marks as such."""


def exact_match(doc: Row, results: list[str]) -> dict[str, Any]:
    """1.0 where the output is one of the targets, white space around it aside."""
    output = results[0].strip()
    return {"exact_match": float(any(output == target.strip() for target in targets_of(doc)))}


def rouge_l(doc: Row, results: list[str]) -> dict[str, Any]:
    """ROUGE-L's F of the output and the nearest target, 0 to 1.

    Source: Lin 2004, as Google's rouge-score computes it, without stemming.
    """
    scorer = _rouge_scorer()
    return {
        "rouge_l": max(
            scorer.score(target, results[0])["rougeL"].fmeasure for target in targets_of(doc)
        )
    }


def bleu(doc: Row, results: list[str]) -> dict[str, Any]:
    """The targets and the output, for `corpus_bleu`."""
    return {"bleu": (targets_of(doc), results[0])}


def chrf(doc: Row, results: list[str]) -> dict[str, Any]:
    """The targets and the output, for `corpus_chrf`."""
    return {"chrf": (targets_of(doc), results[0])}


def corpus_bleu(items: list[tuple[list[str], str]]) -> float:
    """BLEU of all outputs, 0 to 100."""
    return corpus_metric("bleu", items, seed=0).value


def corpus_chrf(items: list[tuple[list[str], str]]) -> float:
    """chrF of all outputs, 0 to 100."""
    return corpus_metric("chrf", items, seed=0).value


def first_target(doc: Row) -> str:
    """The right output that an item is shown with as an example."""
    return targets_of(doc)[0]


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    # Imports nltk, which takes a second.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def targets_of(doc: Row) -> list[str]:
    """All right outputs of an item."""
    target = doc["target"]
    return [target] if isinstance(target, str) else list(target)
