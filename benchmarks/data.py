"""Compare preparing a large JSONL file with `datasets`: time and memory of two starts.

Both sides get the same Alpaca records, tokenise the same texts with the same tokenizer and must
arrive at the same number of tokens. `datasets` runs as users write it: `load_dataset("json")` and
`map`, in one process. Ours runs on `--ranks` processes at once, of which one prepares the data. The
second start finds the files of the first. Each start is a set of new processes; time counts from
the end of the imports until the first global batch is read.

Memory is the peak of private memory (RssAnon of Linux). Pages of mapped files do not count: the
system shares them between processes, and takes them back when it needs memory.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table

from benchmarks.program import Options, command_line, log_progress, run_job_process, wide_console
from trainers.demo.data import python_docs
from trainers.models.loading import resolve_model_path

Side = Literal["ours", "datasets"]
MAX_WORD_LETTERS = 11


@dataclass(frozen=True, kw_only=True)
class Job:
    """The job of one process; `folder` has the files that a start leaves for the next."""

    side: Side
    data: str
    model: str
    folder: str
    is_main: bool


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One process: time until the data was ready, CPU time, peak private memory, tokens."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    num_tokens: int


def write_records(path: Path, num_examples: int) -> None:
    """Write Alpaca records of random words, about 1.06 kB and 240 tokens each."""
    generator = random.Random(0)
    words = sorted(
        {
            word
            for doc, _ in python_docs()
            for word in doc.split()
            if word.isalpha() and len(word) <= MAX_WORD_LETTERS
        }
    )
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num_examples):
            prompt = " ".join(generator.choices(words, k=generator.randrange(60, 180)))
            output = " ".join(generator.choices(words, k=generator.randrange(5, 45)))
            record = {"instruction": prompt, "input": "", "output": output}
            file.write(json.dumps(record) + "\n")


def start(jobs: Sequence[Job], threads: int) -> list[Measured]:
    """Run the jobs at the same time, each in a new process."""

    def run(job: Job) -> Measured:
        found = run_job_process(["-m", "benchmarks.data_sides"], asdict(job), threads=threads)
        return Measured(**found)

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def measure(
    folder: Path, *, examples: int, model: str, ranks: int, threads: int
) -> list[dict[str, Any]]:
    """Return a row for each start and side."""
    data = folder / "data.jsonl"
    log_progress(f"write {examples:,} records")
    write_records(data, examples)
    folder_of_model = resolve_model_path(model)
    rows = []
    sides: list[tuple[Side, int]] = [("ours", ranks), ("datasets", 1)]
    for number in (1, 2):
        for side, num_processes in sides:
            log_progress(f"start {number} of {side}")
            jobs = [
                Job(
                    side=side,
                    data=str(data),
                    model=folder_of_model,
                    folder=str(folder / side),
                    is_main=rank == 0,
                )
                for rank in range(num_processes)
            ]
            rows.append(row(number, side, data.stat().st_size, start(jobs, threads)))
    return rows


def row(number: int, side: Side, data_bytes: int, runs: Sequence[Measured]) -> dict[str, Any]:
    """Return the slowest time and the highest memory of the processes of one start."""
    return {
        "start": number,
        "side": side,
        "processes": len(runs),
        "seconds": max(run.seconds for run in runs),
        "cpu_seconds": [run.cpu_seconds for run in runs],
        "peak_memory_bytes": max(run.peak_memory_bytes for run in runs),
        "data_bytes": data_bytes,
        "num_tokens": runs[0].num_tokens,
    }


def tokens_agree(rows: Sequence[dict[str, Any]]) -> bool:
    """Return whether all starts of both sides have the same number of tokens."""
    return len({one["num_tokens"] for one in rows}) == 1


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return ours over datasets' of time and memory for each start: lower is better."""
    of = {(one["start"], one["side"]): one for one in rows}
    return {
        f"{key}_ratio_start_{number}": of[number, "ours"][key] / of[number, "datasets"][key]
        for number in (1, 2)
        for key in ("seconds", "peak_memory_bytes")
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows as a table."""
    shown = Table(box=box.SIMPLE)
    for name in (
        "start",
        "side",
        "processes",
        "seconds",
        "CPU seconds",
        "private memory",
        "tokens",
    ):
        shown.add_column(name, justify="left" if name == "side" else "right")
    for one in rows:
        shown.add_row(
            f"{one['start']} {one['side']}",
            str(one["processes"]),
            f"{one['seconds']:.1f}",
            ", ".join(f"{seconds:.1f}" for seconds in one["cpu_seconds"]),
            f"{one['peak_memory_bytes'] / 1e9:.2f} GB",
            f"{one['num_tokens']:,}",
        )
    return shown


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    options: Options = {
        "--examples": (int, 1_000_000, "records in the file"),
        "--model": (str, "demo:smollm2-135m-instruct", "model whose tokenizer is used"),
        "--ranks": (int, 2, "processes of our side"),
        "--threads": (int, 2, "threads of each process"),
        "--folder": (Path, None, "folder for data and caches, which take three times the data"),
    }
    return command_line("benchmarks.data", __doc__, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the results, and return the exit code."""
    options = vars(parser().parse_args(arguments))
    is_json, parent = options.pop("json"), options.pop("folder")
    # Libraries print during import; only the result is printed to standard output.
    with (
        redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory(prefix="plw-data-", dir=parent) as name,
    ):
        rows = measure(Path(name), **options)
    if is_json:
        print(json.dumps({"rows": rows, **ratios(rows)}, indent=2))
    else:
        console = wide_console(100)
        console.print(table(rows))
        for name, value in ratios(rows).items():
            console.print(f"{name}: {value:.3f}")
    if not tokens_agree(rows):
        print("the sides have different numbers of tokens", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
