"""Convert custom JSONL benchmarks to lm-eval tasks; users write no Python code.

An item has `prompt` and its answer. For kind multiple_choice, the answer is `choices` and `label`
(the index of the correct choice, from 0). For the other kinds, it is `target`: a text or a list of
correct texts.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from evals.config import BenchmarkConfig
from evals.harness.paper_suite import Row
from evals.results.corpus_metrics import corpus_value

# The original name of this module. It is part of the settings of scores, which must not change.
_RECORDED_MODULE = "evals.own_benchmarks"


def task_definition(benchmark: BenchmarkConfig) -> dict[str, Any]:
    """Return the content of an lm-eval task file for a benchmark."""
    return _definition(benchmark, module=__name__)


def recorded_definition(benchmark: BenchmarkConfig) -> dict[str, Any]:
    """Return the definition for a score's settings, without paths, with the module's original name.

    Earlier scores are reused if the definition is equal, so it must not change when code moves.
    """
    definition = _definition(benchmark, module=_RECORDED_MODULE)
    return {key: value for key, value in definition.items() if key != "dataset_kwargs"}


def _definition(benchmark: BenchmarkConfig, *, module: str) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "task": benchmark.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(Path(benchmark.path).absolute())}},
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "prompt",
        "metadata": {"version": 1},
    }
    if benchmark.kind == "multiple_choice":
        return definition | {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
            "metric_list": [
                {"metric": name, "aggregation": "mean", "higher_is_better": True}
                for name in ("acc_norm", "acc")
            ],
        }
    is_corpus = benchmark.kind in ("bleu", "chrf")
    aggregation = FunctionTag(f"{module}.corpus_{benchmark.kind}") if is_corpus else "mean"
    return definition | {
        "output_type": "generate_until",
        "doc_to_target": FunctionTag(f"{module}.first_target"),
        "process_results": FunctionTag(f"{module}.{benchmark.kind}"),
        "generation_kwargs": {
            "until": benchmark.stop,
            "max_gen_toks": benchmark.max_new_tokens,
            "do_sample": False,
        },
        "metric_list": [
            {"metric": benchmark.kind, "aggregation": aggregation, "higher_is_better": True}
        ],
    }


class FunctionTag(str):
    """The dotted name of a function, written with the tag `!function` in a task file."""


def exact_match(doc: Row, results: list[str]) -> dict[str, Any]:
    """Return 1.0 if the output equals one of the targets, ignoring surrounding white space."""
    output = results[0].strip()
    return {"exact_match": float(any(output == target.strip() for target in all_targets(doc)))}


def rouge_l(doc: Row, results: list[str]) -> dict[str, Any]:
    """Return the highest ROUGE-L F-measure of the output over the targets, in [0, 1].

    Source: Lin 2004, as implemented by Google's rouge-score, without stemming.
    """
    scorer = _rouge_scorer()
    return {
        "rouge_l": max(
            scorer.score(target, results[0])["rougeL"].fmeasure for target in all_targets(doc)
        )
    }


def bleu(doc: Row, results: list[str]) -> dict[str, Any]:
    """Return the targets and the output, for `corpus_bleu`."""
    return {"bleu": (all_targets(doc), results[0])}


def chrf(doc: Row, results: list[str]) -> dict[str, Any]:
    """Return the targets and the output, for `corpus_chrf`."""
    return {"chrf": (all_targets(doc), results[0])}


def corpus_bleu(items: list[tuple[list[str], str]]) -> float:
    """Return the corpus BLEU of all outputs, 0 to 100."""
    return corpus_value("bleu", items)


def corpus_chrf(items: list[tuple[list[str], str]]) -> float:
    """Return the corpus chrF of all outputs, 0 to 100."""
    return corpus_value("chrf", items)


def first_target(doc: Row) -> str:
    """Return the correct output of an item for use in a few-shot example."""
    return all_targets(doc)[0]


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    # This imports nltk, which takes one second.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


def all_targets(doc: Row) -> list[str]:
    """Return all correct outputs of an item."""
    target = doc["target"]
    return [target] if isinstance(target, str) else list(target)
