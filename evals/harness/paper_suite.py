"""The benchmarks of the paper that lm-eval holds: groups, metrics, and the layout of local files.

Needs no lm-eval: a sweep can check its data before anything is loaded. AlpacaEval and PandaLM, the
paper's long generation, are judged instead.

Source: arXiv 2401.13586, section 4, for which benchmarks there are. Its BLEURT for TruthfulQA-Gen
does not load with transformers 5: the BLEU accuracy of the same lm-eval task stands in for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from evals.config import BenchmarkConfig, EvalConfig, Group, TaskConfig
from trainers.foundation.errors import InputError, Problem

Split = Literal["train", "validation", "test"]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One of lm-eval's tasks as the paper has it.

    `definition` is the task's file below lm_eval/tasks. `main_metric` is the one that counts for
    its group. `files` are the names below evals.data_root under which the items of its evaluation
    split may stand, the first being the documented one; `shots_files` those that few-shot examples
    may come from, by split.
    """

    name: str
    group: Group
    definition: str
    main_metric: str
    split: Split
    files: tuple[str, ...]
    shots_files: tuple[tuple[Split, str], ...]
    fault_of: Callable[[Row], str | None]

    def data_file(self, data_root: Path) -> Path:
        """The local file of the items.

        Raises:
            InputError: there is none.
        """
        for name in self.files:
            if (data_root / name).is_file():
                return data_root / name
        raise InputError(
            Problem(
                message=f"{self.name} needs {' or '.join(self.files)} below evals.data_root, "
                f"and {data_root} does not have it",
                fix="put the file there (docs/benchmarks.md has the layout), or leave data_root "
                "out to take the hub's",
            )
        )

    def shots_file(self, data_root: Path) -> tuple[Split, Path] | None:
        """The split and local file of few-shot examples; None if there is none."""
        for split, name in self.shots_files:
            if (data_root / name).is_file():
                return split, data_root / name
        return None


def _text(row: Row, *names: str) -> str | None:
    wrong = [name for name in names if not isinstance(row.get(name), str)]
    return f"{wrong[0]} must be a text, got {row.get(wrong[0])!r}" if wrong else None


def _arc_fault(row: Row) -> str | None:
    choices = row.get("choices")
    if not isinstance(choices, dict) or not all(
        isinstance(choices.get(key), list) for key in ("text", "label")
    ):
        return "choices must be {text: [...], label: [...]}"
    if len(choices["text"]) != len(choices["label"]):
        return f"choices has {len(choices['text'])} texts for {len(choices['label'])} labels"
    if row.get("answerKey") not in choices["label"]:
        return f"answerKey must be one of {choices['label']}, got {row.get('answerKey')!r}"
    return _text(row, "question")


def _piqa_fault(row: Row) -> str | None:
    if row.get("label") not in (0, 1) or isinstance(row.get("label"), bool):
        return f"label must be 0 or 1, got {row.get('label')!r}"
    return _text(row, "goal", "sol1", "sol2")


def _winogrande_fault(row: Row) -> str | None:
    if row.get("answer") not in ("1", "2"):
        return f'answer must be "1" or "2", got {row.get("answer")!r}'
    fault = _text(row, "sentence", "option1", "option2")
    if fault is None and "_" not in row["sentence"]:
        return "sentence must have a _ where the option belongs"
    return fault


def _truthful_choice_fault(row: Row) -> str | None:
    for name in ("mc1_targets", "mc2_targets"):
        targets = row.get(name)
        if not isinstance(targets, dict) or not all(
            isinstance(targets.get(key), list) for key in ("choices", "labels")
        ):
            return f"{name} must be {{choices: [...], labels: [...]}}"
        if len(targets["choices"]) != len(targets["labels"]):
            return (
                f"{name} has {len(targets['choices'])} choices for {len(targets['labels'])} labels"
            )
        if not set(targets["labels"]) <= {0, 1} or 1 not in targets["labels"]:
            return f"{name}.labels must be 0s and at least one 1, got {targets['labels']}"
    return _text(row, "question")


def _truthful_generation_fault(row: Row) -> str | None:
    for name in ("correct_answers", "incorrect_answers"):
        answers = row.get(name)
        if not isinstance(answers, list) or not any(str(answer).strip() for answer in answers):
            return f"{name} must be a list with at least one text, got {answers!r}"
    return _text(row, "question")


def _translation_fault(row: Row, *, languages: tuple[str, str]) -> str | None:
    translation = row.get("translation")
    if not isinstance(translation, dict):
        return f"translation must be {{{languages[0]}: ..., {languages[1]}: ...}}"
    return _text(translation, *languages)


def _wmt(year: str, pair: str, source: str, target: str) -> Benchmark:
    return Benchmark(
        name=f"wmt{year}-{source}-{target}",
        group="short_generation",
        definition=f"translation/wmt{year}_{source}-{target}.yaml",
        main_metric="ter",
        split="test",
        files=(f"wmt/wmt{year}-{pair}.test.jsonl",),
        shots_files=(("validation", f"wmt/wmt{year}-{pair}.validation.jsonl"),),
        fault_of=partial(_translation_fault, languages=(source, target)),
    )


def _choice(
    name: str,
    definition: str,
    main_metric: str,
    split: Split,
    fault_of: Callable[[Row], str | None],
) -> Benchmark:
    shots: tuple[Split, ...] = ("train", "validation") if split == "test" else ("train",)
    return Benchmark(
        name=name,
        group="multiple_choice",
        definition=definition,
        main_metric=main_metric,
        split=split,
        files=(f"{name}/{split}.jsonl",),
        shots_files=tuple((shot, f"{name}/{shot}.jsonl") for shot in shots),
        fault_of=fault_of,
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        _choice("arc_challenge", "arc/arc_challenge.yaml", "acc_norm", "test", _arc_fault),
        _choice("piqa", "piqa/piqa.yaml", "acc_norm", "validation", _piqa_fault),
        Benchmark(
            name="truthfulqa_mc2",
            group="multiple_choice",
            definition="truthfulqa/truthfulqa_mc2.yaml",
            main_metric="acc",
            split="validation",
            files=("truthfulqa/multiple_choice_v1.jsonl", "truthfulqa/multiple_choice.jsonl"),
            shots_files=(),
            fault_of=_truthful_choice_fault,
        ),
        _choice("winogrande", "winogrande/default.yaml", "acc", "validation", _winogrande_fault),
        Benchmark(
            name="truthfulqa_gen",
            group="short_generation",
            definition="truthfulqa/truthfulqa_gen.yaml",
            main_metric="bleu_acc",
            split="validation",
            files=("truthfulqa/generation_v1.jsonl", "truthfulqa/generation.jsonl"),
            shots_files=(),
            fault_of=_truthful_generation_fault,
        ),
        _wmt("14", "fr-en", "en", "fr"),
        _wmt("14", "fr-en", "fr", "en"),
        _wmt("16", "de-en", "en", "de"),
        _wmt("16", "de-en", "de", "en"),
        _wmt("16", "ro-en", "en", "ro"),
        _wmt("16", "ro-en", "ro", "en"),
    )
}


def expanded(tasks: Sequence[TaskConfig]) -> list[TaskConfig]:
    """`tasks` with the paper's groups replaced by their benchmarks; what comes twice comes once."""
    found: dict[str, TaskConfig] = {}
    for task in tasks:
        of_group = [b.name for b in BENCHMARKS.values() if b.group == task.name]
        for name in of_group or [task.name]:
            found.setdefault(name, task.model_copy(update={"name": name}))
    return list(found.values())


def data_files(config: EvalConfig) -> list[Path]:
    """The local files that the configured benchmarks are read from."""
    files = [Path(own.path) for own in config.benchmarks]
    if config.data_root is not None:
        for task in expanded(config.tasks):
            benchmark = BENCHMARKS.get(task.name)
            if benchmark is not None:
                files.append(benchmark.data_file(Path(config.data_root)))
    return files


def group_of(own: BenchmarkConfig) -> Group:
    """Where the score of a benchmark of one's own counts."""
    return own.group or ("multiple_choice" if own.kind == "multiple_choice" else "short_generation")
