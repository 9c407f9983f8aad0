"""The paper's benchmarks in lm-eval: groups, metrics and the layout of local files.

lm-eval is not imported, because a sweep checks its data before it loads anything. AlpacaEval and
PandaLM, the paper's long generation, are in `evals.judge`.

Source: arXiv 2401.13586, section 4, for the list of benchmarks. Its BLEURT metric for
TruthfulQA-Gen does not load with transformers 5. We use the BLEU accuracy of the same lm-eval task
instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from evals.config import BenchmarkConfig, EvalConfig, Group, TaskConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_file

Split = Literal["train", "validation", "test"]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """An lm-eval task with the settings of the paper.

    `definition` is the path of the task file below lm_eval/tasks. The score of `main_metric` counts
    for `group`. `files` are the accepted names, below evals.data_root, of the file with the
    evaluation split; the first name is the documented one. `fewshot_files` are the accepted names
    for few-shot examples, by split. `find_error` returns the error of an invalid row.
    """

    name: str
    group: Group
    definition: str
    main_metric: str
    split: Split
    files: tuple[str, ...]
    fewshot_files: tuple[tuple[Split, str], ...]
    find_error: Callable[[Row], str | None]

    def data_file(self, data_root: Path) -> Path:
        """Return the local file of the items.

        Raises:
            InputError: the file does not exist.
        """
        for name in self.files:
            if (data_root / name).is_file():
                return data_root / name
        raise InputError(
            Problem(
                message=f"{self.name} needs {' or '.join(self.files)} below evals.data_root, "
                f"but it is not in {data_root}",
                fix="add the file (layout: docs/benchmarks.md), or remove data_root to use the hub",
            )
        )

    def fewshot_file(self, data_root: Path) -> tuple[Split, Path] | None:
        """Return the split and the local file of few-shot examples; None if there is none."""
        for split, name in self.fewshot_files:
            if (data_root / name).is_file():
                return split, data_root / name
        return None


def _text_error(row: Row, *names: str) -> str | None:
    invalid = [name for name in names if not isinstance(row.get(name), str)]
    return f"{invalid[0]} must be text, got {row.get(invalid[0])!r}" if invalid else None


def _choices_error(row: Row, name: str, texts: str, labels: str) -> str | None:
    choices = row.get(name)
    if not isinstance(choices, dict) or not all(
        isinstance(choices.get(key), list) for key in (texts, labels)
    ):
        return f"{name} must have the form {{{texts}: [...], {labels}: [...]}}"
    num_texts, num_labels = len(choices[texts]), len(choices[labels])
    if num_texts != num_labels:
        return (
            f"{name}.{texts} and {labels} must have the same length, got {num_texts}, {num_labels}"
        )
    return None


def _arc_error(row: Row) -> str | None:
    error = _choices_error(row, "choices", "text", "label")
    if error is not None:
        return error
    if row.get("answerKey") not in row["choices"]["label"]:
        return f"answerKey must be one of {row['choices']['label']}, got {row.get('answerKey')!r}"
    return _text_error(row, "question")


def _piqa_error(row: Row) -> str | None:
    if row.get("label") not in (0, 1) or isinstance(row.get("label"), bool):
        return f"label must be 0 or 1, got {row.get('label')!r}"
    return _text_error(row, "goal", "sol1", "sol2")


def _winogrande_error(row: Row) -> str | None:
    if row.get("answer") not in ("1", "2"):
        return f'answer must be "1" or "2", got {row.get("answer")!r}'
    error = _text_error(row, "sentence", "option1", "option2")
    if error is None and "_" not in row["sentence"]:
        return "sentence must contain _ in the place of the option"
    return error


def _truthful_choice_error(row: Row) -> str | None:
    for name in ("mc1_targets", "mc2_targets"):
        error = _choices_error(row, name, "choices", "labels")
        if error is not None:
            return error
        labels = row[name]["labels"]
        if not set(labels) <= {0, 1} or 1 not in labels:
            return f"{name}.labels must be 0 or 1 with at least one 1, got {labels}"
    return _text_error(row, "question")


def _truthful_generation_error(row: Row) -> str | None:
    for name in ("correct_answers", "incorrect_answers"):
        answers = row.get(name)
        if not isinstance(answers, list) or not any(str(answer).strip() for answer in answers):
            return f"{name} must be a list of at least one text, got {answers!r}"
    return _text_error(row, "question")


def _translation_error(row: Row, *, languages: tuple[str, str]) -> str | None:
    translation = row.get("translation")
    if not isinstance(translation, dict):
        return f"translation must have the form {{{languages[0]}: ..., {languages[1]}: ...}}"
    return _text_error(translation, *languages)


def _wmt(year: str, pair: str, source: str, target: str) -> Benchmark:
    return Benchmark(
        name=f"wmt{year}-{source}-{target}",
        group="short_generation",
        definition=f"translation/wmt{year}_{source}-{target}.yaml",
        main_metric="ter",
        split="test",
        files=(f"wmt/wmt{year}-{pair}.test.jsonl",),
        fewshot_files=(("validation", f"wmt/wmt{year}-{pair}.validation.jsonl"),),
        find_error=partial(_translation_error, languages=(source, target)),
    )


def _choice(
    name: str,
    definition: str,
    main_metric: str,
    split: Split,
    find_error: Callable[[Row], str | None],
) -> Benchmark:
    fewshot_splits: tuple[Split, ...] = ("train", "validation") if split == "test" else ("train",)
    return Benchmark(
        name=name,
        group="multiple_choice",
        definition=definition,
        main_metric=main_metric,
        split=split,
        files=(f"{name}/{split}.jsonl",),
        fewshot_files=tuple((s, f"{name}/{s}.jsonl") for s in fewshot_splits),
        find_error=find_error,
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        _choice("arc_challenge", "arc/arc_challenge.yaml", "acc_norm", "test", _arc_error),
        _choice("piqa", "piqa/piqa.yaml", "acc_norm", "validation", _piqa_error),
        Benchmark(
            name="truthfulqa_mc2",
            group="multiple_choice",
            definition="truthfulqa/truthfulqa_mc2.yaml",
            main_metric="acc",
            split="validation",
            files=("truthfulqa/multiple_choice_v1.jsonl", "truthfulqa/multiple_choice.jsonl"),
            fewshot_files=(),
            find_error=_truthful_choice_error,
        ),
        _choice("winogrande", "winogrande/default.yaml", "acc", "validation", _winogrande_error),
        Benchmark(
            name="truthfulqa_gen",
            group="short_generation",
            definition="truthfulqa/truthfulqa_gen.yaml",
            main_metric="bleu_acc",
            split="validation",
            files=("truthfulqa/generation_v1.jsonl", "truthfulqa/generation.jsonl"),
            fewshot_files=(),
            find_error=_truthful_generation_error,
        ),
        _wmt("14", "fr-en", "en", "fr"),
        _wmt("14", "fr-en", "fr", "en"),
        _wmt("16", "de-en", "en", "de"),
        _wmt("16", "de-en", "de", "en"),
        _wmt("16", "ro-en", "en", "ro"),
        _wmt("16", "ro-en", "ro", "en"),
    )
}


def expand_groups(tasks: Sequence[TaskConfig]) -> list[TaskConfig]:
    """Return `tasks` with the paper's groups replaced by their benchmarks."""
    expanded: list[TaskConfig] = []
    for task in tasks:
        group = [b.name for b in BENCHMARKS.values() if b.group == task.name]
        expanded += [task.model_copy(update={"name": name}) for name in group or [task.name]]
    return expanded


def include_files(include_path: str | None) -> list[Path]:
    """Return all files in the folder of task files, sorted; they may refer to each other."""
    if include_path is None:
        return []
    files = (path for path in Path(include_path).rglob("*") if path.is_file())
    return sorted(path for path in files if "__pycache__" not in path.parts)


def data_files(config: EvalConfig) -> list[Path]:
    """Return the local files of the configured benchmarks."""
    files = [Path(custom.path) for custom in config.benchmarks]
    files += include_files(config.include_path)
    if config.data_root is not None:
        for task in expand_groups(config.tasks):
            benchmark = BENCHMARKS.get(task.name)
            if benchmark is not None:
                files.append(benchmark.data_file(Path(config.data_root)))
    return files


def file_digests(files: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file; a file that has not changed is read once per process."""
    stats = [file.stat() for file in files]
    return [
        _digest(file, stat.st_size, stat.st_mtime_ns)
        for file, stat in zip(files, stats, strict=True)
    ]


@lru_cache(maxsize=1024)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(file)


def benchmark_group(benchmark: BenchmarkConfig) -> Group:
    """Return the benchmark group to which a custom benchmark's score belongs."""
    is_choice = benchmark.kind == "multiple_choice"
    return benchmark.group or ("multiple_choice" if is_choice else "short_generation")
