"""Compare time and scores of our inference engine with lm-eval's HFLM on the same task files.

    python -m benchmarks.evals --data-root DATA [--limit 100] [--json]

Each side runs in a separate process, all tasks of a group in one run. The time is measured from the
loaded model to the scores and their standard errors; imports and loading are reported separately.
lm-eval's side is `evaluator.evaluate` with an `HFLM`, as `lm-eval run --model hf` calls it.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from benchmarks.program import Options, command_line, log_progress, run_job_process, wide_console
from evals.config import EvalConfig, Group
from evals.harness.paper_suite import BENCHMARKS
from evals.harness.preflight import check_benchmarks
from trainers.foundation.errors import InputError

if TYPE_CHECKING:
    from evals.harness.planning import PlannedTask

Side = Literal["ours", "lm_eval"]
Scores = dict[str, float]
Outcomes = dict[str, list[list[Any]]]
GROUPS: tuple[Group, ...] = ("multiple_choice", "short_generation")
_NO_EXAMPLES = dict.fromkeys(("heldout", "heldout_choice", "heldout_exact_match", "heldout_chrf"))


@dataclass(frozen=True, kw_only=True)
class Job:
    """The job of one child process; `evals` is an `EvalConfig` as JSON."""

    side: Side
    model: str
    evals: dict[str, Any]
    threads: int
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class SideResult:
    """Time and results of one side.

    `scores` are by metric. `answers` are log-likelihoods or texts by task, item and request.
    """

    startup_s: float
    seconds: float
    cpu_s: float
    scores: Scores
    answers: Outcomes


def row(group: Group, ours: Sequence[SideResult], theirs: Sequence[SideResult]) -> dict[str, Any]:
    """Return a row of the table: medians over the rounds, ratios within each round."""
    ratios = [a.seconds / b.seconds for a, b in zip(ours, theirs, strict=True)]
    cpu_ratios = [a.cpu_s / b.cpu_s for a, b in zip(ours, theirs, strict=True)]
    likelihood, num_texts, num_other = differences(ours[0].answers, theirs[0].answers)
    return {
        "group": group,
        "ratio": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "cpu_ratio": median(cpu_ratios),
        "seconds": median(taken.seconds for taken in ours),
        "lm_eval_seconds": median(taken.seconds for taken in theirs),
        "startup_s": median(taken.startup_s for taken in ours),
        "lm_eval_startup_s": median(taken.startup_s for taken in theirs),
        "largest_score_difference": max(
            abs(ours[0].scores[name] - value) for name, value in theirs[0].scores.items()
        ),
        "largest_log_likelihood_difference": likelihood,
        "num_outputs": num_texts,
        "num_other_outputs": num_other,
        "rounds": len(ours),
    }


def differences(ours: Outcomes, theirs: Outcomes) -> tuple[float, int, int]:
    """Return the largest log-likelihood difference and the numbers of texts and unequal texts."""
    largest, num_texts, num_other = 0.0, 0, 0
    for name, items in theirs.items():
        for item, own in zip(items, ours[name], strict=True):
            for answer, mine in zip(item, own, strict=True):
                if isinstance(answer, str):
                    num_texts += 1
                    num_other += answer != mine
                else:
                    largest = max(largest, abs(answer - mine))
    return largest, num_texts, num_other


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the results to track over time, with their rows."""
    of_group = {row["group"]: row for row in rows}
    choice, generation = (of_group.get(group) for group in GROUPS)
    return {
        "multiple_choice_ratio": choice and choice["ratio"],
        "generation_ratio": generation and generation["ratio"],
        "largest_score_difference": max(row["largest_score_difference"] for row in rows),
        "rows": list(rows),
    }


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Format the rows as a table; cells contain ours : lm-eval's."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("group")
    for name in ("time ratio", "from-to", "CPU ratio", "seconds", "start-up", "score diff",
                 "log-lik diff", "other outputs"):  # fmt: skip
        shown.add_column(name, justify="right")
    for r in rows:
        shown.add_row(
            r["group"],
            f"{r['ratio']:.2f}",
            f"{r['ratio_min']:.2f}-{r['ratio_max']:.2f}",
            f"{r['cpu_ratio']:.2f}",
            f"{r['seconds']:.1f}:{r['lm_eval_seconds']:.1f}",
            f"{r['startup_s']:.1f}:{r['lm_eval_startup_s']:.1f}",
            f"{r['largest_score_difference']:.0e}",
            f"{r['largest_log_likelihood_difference']:.0e}",
            f"{r['num_other_outputs']} of {r['num_outputs']}",
        )
    return shown


def run_job(job: Job, began: float) -> SideResult:
    """Run the tasks of a job in this process; `began` is its start time (`time.time()`)."""
    import torch

    from evals.engine.loading import load_model
    from evals.harness.planning import plan_tasks
    from evals.harness.registry import suppress_lm_eval_output
    from trainers.models.transformers_output import suppress_transformers_output

    torch.set_num_threads(job.threads)
    planned = plan_tasks(EvalConfig.model_validate(job.evals))
    with (
        suppress_transformers_output(),
        suppress_lm_eval_output(),
        tempfile.TemporaryDirectory() as folder,
    ):
        model: Any
        if job.side == "ours":
            model = load_model(job.model, template="plain", max_length=512)
        else:
            from lm_eval.models.huggingface import HFLM

            on_gpu = torch.cuda.is_available()
            model = HFLM(
                pretrained=job.model,
                dtype="bfloat16" if on_gpu else "float32",
                device="cuda" if on_gpu else "cpu",
                batch_size=job.batch_size,
            )
        startup_s = time.time() - began
        start, cpu = time.monotonic(), _cpu_seconds()
        evaluate = _evaluate_ours if job.side == "ours" else _evaluate_lm_eval
        scores, answers = evaluate(model, planned, Path(folder))
        seconds, cpu_s = time.monotonic() - start, _cpu_seconds() - cpu
    return SideResult(
        startup_s=startup_s, seconds=seconds, cpu_s=cpu_s, scores=scores, answers=answers
    )


def _evaluate_ours(
    model: Any, planned: Sequence["PlannedTask"], folder: Path
) -> tuple[Scores, Outcomes]:
    """Evaluate task by task, like `evals.run`, with the interval of every score."""
    from evals.harness.tasks import evaluate_task
    from evals.results.response_log import ResponseLog

    found = {
        task.name: evaluate_task(
            model,
            task,
            batch_size=None,
            responses=ResponseLog(None, {}),
            definitions=folder,
            on_progress=lambda done, total: None,
        )
        for task in planned
    }
    return (
        {
            score.name: score.value
            for measured in found.values()
            for score in (*measured.scores, *measured.secondary)
        },
        {
            name: [[_answer(r[0]) for r in sample["answers"]] for sample in measured.samples]
            for name, measured in found.items()
        },
    )


def _evaluate_lm_eval(
    model: Any, planned: Sequence["PlannedTask"], folder: Path
) -> tuple[Scores, Outcomes]:
    """Evaluate all tasks in one call, with lm-eval's standard errors."""
    from lm_eval import evaluator

    from evals.harness.loading import load_tasks
    from evals.harness.results import score_name

    tasks = {
        name: loaded for task in planned for name, loaded in load_tasks(task, folder).tasks.items()
    }
    found = evaluator.evaluate(model, {"tasks": tasks}, limit=planned[0].limit, log_samples=True)
    return (
        {
            score_name(name, *metric.split(",")): float(value)
            for name, of_task in found["results"].items()
            for metric, value in of_task.items()
            if isinstance(value, int | float) and "," in metric and "stderr" not in metric
        },
        {
            name: [[_answer(r[0]) for r in sample["resps"]] for sample in samples]
            for name, samples in found["samples"].items()
        },
    )


class Bench:
    """Runs the child processes one after another and prints progress to stderr."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each group."""
        rows = []
        for group in self.options.groups:
            taken: dict[Side, list[SideResult]] = {"ours": [], "lm_eval": []}
            for number in range(self.options.rounds):
                # Alternate the order to cancel drift of the machine's speed.
                sides: tuple[Side, Side] = ("ours", "lm_eval")
                for side in sides if number % 2 == 0 else sides[::-1]:
                    run = self._run(group, side)
                    taken[side].append(run)
                    log_progress(f"{group} {side}, round {number + 1}: {run.seconds:.1f} s")
            rows.append(row(group, taken["ours"], taken["lm_eval"]))
        return rows

    def _run(self, group: Group, side: Side) -> SideResult:
        options = self.options
        job = Job(
            side=side,
            model=options.model,
            evals=config_of(group, options).model_dump(mode="json"),
            threads=options.threads,
            batch_size=options.batch_size,
        )
        command = ["-m", "benchmarks.evals", "--child"]
        return SideResult(**run_job_process(command, asdict(job), threads=options.threads))


def config_of(group: Group, options: argparse.Namespace) -> EvalConfig:
    """Return the configuration of a group's benchmarks."""
    chosen = [b.name for b in BENCHMARKS.values() if b.group == group]
    is_choice = group == "multiple_choice"
    return EvalConfig.model_validate(
        {
            **_NO_EXAMPLES,
            "tasks": chosen,
            "data_root": options.data_root,
            "limit": options.limit if is_choice else options.generation_limit or options.limit,
        }
    )


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    options: Options = {
        "--model": (str, "demo:smollm2-135m-instruct", "folder, hub name or demo:..."),
        "--data-root": (str, None, "folder of local files, as evals.data_root"),
        "--limit": (int, 100, "items of each benchmark"),
        "--generation-limit": (int, None, "items of each generation benchmark; None: as --limit"),
        "--rounds": (int, 1, "runs of each side"),
        "--threads": (int, os.cpu_count(), "threads of each side"),
        "--batch-size": (int, 16, "lm-eval's batch size; ours chooses its own"),
    }
    shown = command_line("benchmarks.evals", __doc__, options)
    shown.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    shown.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the results, and return the exit code."""
    began = time.time()
    options = parser().parse_args(arguments)
    if options.child:
        job_file, result_file = map(Path, options.child)
        taken = run_job(Job(**json.loads(job_file.read_text())), began)
        result_file.write_text(json.dumps(asdict(taken)))
        return 0
    from trainers.models.loading import resolve_model_path

    try:
        for group in options.groups:
            check_benchmarks(config_of(group, options))
        options.model = resolve_model_path(options.model)
        rows = Bench(options).rows()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(summary(rows), indent=2))
        return 0
    title = (
        f"{options.model}, {options.limit} items a benchmark, {options.threads} threads,"
        f" lm-eval's batches of {options.batch_size}, {options.rounds} rounds"
    )
    wide_console(120).print(table(rows, title))
    return 0


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _answer(response: Any) -> Any:
    return response if isinstance(response, str) else float(response[0])


if __name__ == "__main__":
    sys.exit(main())
