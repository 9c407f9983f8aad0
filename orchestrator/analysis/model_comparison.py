"""Compare two scored models on the items that both answered."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evals.results.paired_samples import (
    PairedBenchmark,
    ScoredModel,
    category_of,
    pair_benchmarks,
    read_scored_model,
)
from orchestrator.analysis.comparison_answer import comparison_answers
from orchestrator.analysis.comparison_notes import comparison_notes
from orchestrator.analysis.comparison_rows import ComparisonRow, comparison_rows
from orchestrator.record.folder import SweepFolder
from orchestrator.record.reader import label
from trainers.foundation.errors import InputError, Problem


class DifferingItem(BaseModel):
    """An item for which the outputs or the values of the models differ.

    The outputs are None for measures without outputs, such as the held-out loss.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    id: str
    category: str | None
    prompt: str
    target: str
    output_a: str | None
    output_b: str | None
    value_a: float
    value_b: float


class ModelComparison(BaseModel):
    """All comparisons of two models.

    `name_a` and `name_b` are the folders `a` and `b`, for trials after their searched values.
    `answers` are sentences on the measures that differ and on those that do not. Of the `num_items`
    common items, `differing` has those that differ in output or value: items with an output come
    before those without, and in both groups the largest changes of value come first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: str
    b: str
    name_a: str
    name_b: str
    answers: list[str]
    rows: list[ComparisonRow]
    num_items: int
    differing: list[DifferingItem]
    notes: list[str]


def compare_models(a: Path, b: Path, *, seed: int) -> ModelComparison:
    """Return the comparison of the scores in or above the folders `a` and `b`.

    Args:
        seed: seed of the bootstrap.

    Raises:
        InputError: folders have no scores, both are the same, or the models have no items in
            common.
    """
    first, second = _read_models(a, b)
    if first.folder == second.folder:
        raise InputError(
            Problem(
                message=f"A and B are the same model, with the scores in {first.folder}",
                fix="give two models",
            )
        )
    benchmarks = pair_benchmarks(first, second)
    if not benchmarks:
        raise InputError(
            Problem(
                message=f"{a} and {b} have no scored items in common",
                fix="score both on the same tasks and items (plw eval --config with the same file)",
            )
        )
    rows = comparison_rows(benchmarks, seed)
    return ModelComparison(
        a=str(a),
        b=str(b),
        name_a=_name(a, first),
        name_b=_name(b, second),
        answers=comparison_answers(rows),
        rows=rows,
        num_items=sum(len(each.all_pairs) for each in benchmarks),
        differing=_differing(benchmarks),
        notes=comparison_notes(first, second, benchmarks, rows),
    )


def _name(path: Path, model: ScoredModel) -> str:
    """Return text such as `PLW 0.1, seed 2 (runs/demo/trials/3f7b03f0a0)`."""
    sweep = SweepFolder(model.folder.parent.parent)
    trial = sweep.read_trial(model.folder.name)
    return str(path) if trial is None else f"{label(trial.searched)} ({path})"


def _read_models(*paths: Path) -> list[ScoredModel]:
    """Return the scored models in `paths`; the error names all folders without scores."""
    models: list[ScoredModel] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            models.append(read_scored_model(path))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return models


def _differing(benchmarks: Sequence[PairedBenchmark]) -> list[DifferingItem]:
    found = [
        DifferingItem(
            benchmark=benchmark.score.name,
            id=str(one["id"]),
            category=category_of(one),
            prompt=str(one["prompt"]),
            target=_text(one["target"]) or "",
            output_a=_text(one["output"]),
            output_b=_text(other["output"]),
            value_a=float(one["value"]),
            value_b=float(other["value"]),
        )
        for benchmark in benchmarks
        for one, other in benchmark.all_pairs
        if (one["output"], one["value"]) != (other["output"], other["value"])
    ]
    return sorted(found, key=_rank)


def _rank(item: DifferingItem) -> tuple[bool, float]:
    """Return a sort key: items with outputs first, the largest changes of value first."""
    has_no_output = item.output_a is None and item.output_b is None
    return has_no_output, -abs(item.value_b - item.value_a)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
