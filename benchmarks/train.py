"""Compare with TRL's `SFTTrainer`: tokens per second, peak memory, share of matmul peak.

Both sides fine-tune the same model on the same token ids with a loss on completion tokens only.
Every step covers all of `--examples`, so neither their order nor packing can change a step, and the
per-step losses must agree. The sides alternate, each in a new process; imports, loading,
tokenisation and the first step are not timed. Each data token counts once; padding does not count.

    share of matmul peak = useful FLOP per second / FLOP per second of one large matrix product
    useful FLOP of a step = 6 (non-embedding parameters) (tokens)
                          + 6 (hidden size) (vocabulary) (completion tokens)

Both use `--precision` and the same threads. Six is two (multiplication and addition) times three
(the forward pass and two products in the backward pass); attention scores are not counted.
"""

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from rich import box
from rich.table import Table

from benchmarks.program import Options, command_line, log_progress, run_job_process, wide_console
from trainers.data.readers import read_examples
from trainers.foundation.errors import InputError, Problem

# "defaults": our padded side against TRL with its default settings, except task and precision.
# These are gradient checkpointing, micro-batches of 8, and linear decay of the learning rate.
Comparison = Literal["padded", "packed", "defaults"]
Side = Literal["ours", "trl", "trl_defaults"]
DEMO_DATA = ("demo:python-docs-short", "demo:python-docs-long")
LOSS_TOLERANCE = 1e-3  # relative, of each step's loss


@dataclass(frozen=True, kw_only=True)
class Job:
    """The job of one child process; `config` is a `TrainConfig` as JSON."""

    side: Side | Literal["reference"]
    packing: bool
    threads: int
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One fine-tune: end time (s) and loss of each step, and peak memory of the process."""

    step_ends_s: list[float]
    losses: list[float]
    peak_memory_bytes: int

    def tokens_per_s(self, tokens_per_step: int) -> float:
        """Return the tokens per second over all steps except the first."""
        seconds = self.step_ends_s[-1] - self.step_ends_s[0]
        return tokens_per_step * (len(self.step_ends_s) - 1) / seconds


@dataclass(frozen=True, kw_only=True)
class MatmulReference:
    """The useful FLOP of a step, and the speed of a matrix product on this machine."""

    matmul_flops_per_s: float
    flops_per_step: float
    num_examples: int
    tokens_per_step: int
    completion_tokens_per_step: int


def row(
    data: str,
    comparison: Comparison,
    ours: Sequence[Measured],
    trl: Sequence[Measured],
    y: MatmulReference,
) -> dict[str, Any]:
    """Return a row of the table: medians over the rounds, ratios within each round.

    A ratio is ours over TRL's: higher is better for tokens per second, lower for memory.
    """
    our_speeds = [run.tokens_per_s(y.tokens_per_step) for run in ours]
    trl_speeds = [run.tokens_per_s(y.tokens_per_step) for run in trl]
    speed_ratios = [a / b for a, b in zip(our_speeds, trl_speeds, strict=True)]
    memory = [(a.peak_memory_bytes, b.peak_memory_bytes) for a, b in zip(ours, trl, strict=True)]
    per_token = y.flops_per_step / y.tokens_per_step / y.matmul_flops_per_s
    difference = max(loss_difference(a, b) for a, b in zip(ours, trl, strict=True))
    return {
        "data": data,
        "tokens_per_example": y.tokens_per_step / y.num_examples,
        "packing": comparison,
        "tokens_per_s_ratio": median(speed_ratios),
        "peak_memory_ratio": median(a / b for a, b in memory),
        "share_of_matmul_peak": median(our_speeds) * per_token,
        "trl_share_of_matmul_peak": median(trl_speeds) * per_token,
        "tokens_per_s": median(our_speeds),
        "trl_tokens_per_s": median(trl_speeds),
        "tokens_per_s_ratio_min": min(speed_ratios),
        "tokens_per_s_ratio_max": max(speed_ratios),
        "peak_memory_bytes": median(a for a, _ in memory),
        "trl_peak_memory_bytes": median(b for _, b in memory),
        "loss_difference": difference,
        "losses_agree": difference <= LOSS_TOLERANCE,
        "rounds": len(ours),
        **asdict(y),
    }


def loss_difference(ours: Measured, trl: Measured) -> float:
    """Return the largest relative difference between the losses of a step."""
    pairs = zip(ours.losses, trl.losses, strict=True)
    return max(abs(a - b) / abs(b) for a, b in pairs)


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Format the rows as a table, those least favourable to our side first.

    Cells contain ours : TRL's; unequal losses are flagged.
    """
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("data")
    shown.add_column("tokens", justify="right")
    shown.add_column("TRL")
    for name in ("tokens/s ratio", "from-to", "tokens/s", "memory ratio", "GB", "matmul peak"):
        shown.add_column(name, justify="right")
    shown.add_column("loss diff", justify="right")
    for r in sorted(rows, key=lambda r: float(r["tokens_per_s_ratio"])):
        shown.add_row(
            r["data"],
            f"{r['tokens_per_example']:.0f}",
            r["packing"],
            f"{r['tokens_per_s_ratio']:.2f}",
            f"{r['tokens_per_s_ratio_min']:.2f}-{r['tokens_per_s_ratio_max']:.2f}",
            f"{r['tokens_per_s']:.0f}:{r['trl_tokens_per_s']:.0f}",
            f"{r['peak_memory_ratio']:.2f}",
            f"{r['peak_memory_bytes'] / 1e9:.1f}:{r['trl_peak_memory_bytes'] / 1e9:.1f}",
            f"{r['share_of_matmul_peak']:.0%}:{r['trl_share_of_matmul_peak']:.0%}",
            f"{r['loss_difference']:.0e}" + ("" if r["losses_agree"] else " DISAGREE"),
        )
    return shown


def write_examples(path: str, count: int, written: Path, *, invert: bool = False) -> Path:
    """Write `count` examples drawn from `path`, plus one held-out example.

    Args:
        invert: exchange prompts and completions.
    """
    examples = read_examples(path)
    if len(examples) <= count:
        fix = f"set --examples to at most {len(examples) - 1}"
        raise InputError(Problem(message=f"holds {len(examples)} examples", where=path, fix=fix))
    drawn = random.Random(0).sample(examples, count + 1)
    pairs = [(e.completion, e.prompt) if invert else (e.prompt, e.completion) for e in drawn]
    lines = [json.dumps({"prompt": prompt, "completion": answer}) for prompt, answer in pairs]
    written.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return written


class Bench:
    """Runs the child processes one after another and prints progress to stderr."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.files: dict[str, Path] = {}
        for path in options.data:
            for invert in (False, True) if options.invert else (False,):
                name = Path(path).stem.removeprefix("demo:") + (", inverted" if invert else "")
                written = folder / f"{len(self.files)}.jsonl"
                self.files[name] = write_examples(path, options.examples, written, invert=invert)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each data set and comparison."""
        rows: list[dict[str, Any]] = []
        for data in self.files:
            references: list[MatmulReference] = []
            done: dict[tuple[Side, bool], list[Measured]] = {}
            for number in range(self.options.rounds):
                references.append(MatmulReference(**self._run(data, "reference", packing=False)))
                turns = self._turns()
                # Alternate the order to cancel drift of the machine's speed.
                for side, packing in turns if number % 2 == 0 else reversed(turns):
                    run = Measured(**self._run(data, side, packing=packing))
                    done.setdefault((side, packing), []).append(run)
                    speed = run.tokens_per_s(references[0].tokens_per_step)
                    log_progress(
                        f"{data} {'packed' if packing else 'padded'} {side}, round {number + 1}"
                        f" of {self.options.rounds}: {speed:.1f} tokens/s,"
                        f" {run.peak_memory_bytes / 1e9:.2f} GB"
                    )
            # Use the fastest round, because other load can only slow the measurement down.
            reference = max(references, key=lambda one: one.matmul_flops_per_s)
            for comparison in self.options.against:
                is_packed = comparison == "packed"
                trl = done["trl_defaults" if comparison == "defaults" else "trl", is_packed]
                rows.append(row(data, comparison, done["ours", is_packed], trl, reference))
        return rows

    def _turns(self) -> list[tuple[Side, bool]]:
        turns: list[tuple[Side, bool]] = []
        for comparison in self.options.against:
            turns.append(("ours", comparison == "packed"))
            other: Side = "trl_defaults" if comparison == "defaults" else "trl"
            turns.append((other, comparison == "packed"))
        return list(dict.fromkeys(turns))

    def _run(self, data: str, side: Side | Literal["reference"], *, packing: bool) -> Any:
        """Run the child process of `side` and return its measurements."""
        options = self.options
        batch = {
            "global_batch_size": options.examples,
            "micro_batch_size": options.micro_batch_size,
        }
        # Our side reads `batch.packing`; TRL's side reads the job.
        if side == "ours":
            batch["packing"] = packing
            if options.max_tokens is not None:
                batch["max_tokens"] = options.max_tokens
        config = {
            "model": {"path": options.model},
            "data": {
                "path": str(self.files[data]),
                "template": options.template,
                "max_length": options.max_length,
                "heldout_examples": 1,
            },
            "loss": {"prompt_loss_weight": 0.0},
            # Constant, because the two trainers implement other schedules differently.
            "schedule": {"kind": "constant", "warmup_ratio": 0.0, "steps": options.steps + 1},
            "batch": batch,
            "deepspeed": {
                "zero_stage": 0 if options.precision == "float32" else 1,
                "precision": options.precision,
            },
        }
        job = Job(side=side, packing=packing, threads=options.threads, config=config)
        return run_job_process(["-m", "benchmarks.sides"], asdict(job), threads=options.threads)


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    options: Options = {
        "--model": (str, "demo:smollm2-135m-instruct", "as model.path of a config"),
        "--template": (str, "chat", "as data.template"),
        "--examples": (int, 16, "examples drawn from each data set; a step uses all of them"),
        "--micro-batch-size": (int, 4, "examples per forward pass; packed rows with TRL's packing"),
        "--max-tokens": (int, None, "as batch.max_tokens, for our sides"),
        "--max-length": (int, 512, "tokens of an example and of TRL's packed row"),
        "--steps": (int, 2, "timed steps, after one untimed step"),
        "--rounds": (int, 3, "runs of each side"),
        "--threads": (int, os.cpu_count(), "threads of each side"),
    }  # fmt: skip
    shown = command_line("benchmarks.train", __doc__, options)
    shown.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    shown.add_argument("--data", nargs="+", metavar="PATH", default=list(DEMO_DATA),
                       help=f"as data.path (default: {' '.join(DEMO_DATA)})")  # fmt: skip
    shown.add_argument("--invert", action="store_true",
                       help="also with prompts and completions exchanged")  # fmt: skip
    comparisons = get_args(Comparison)
    shown.add_argument("--against", nargs="+", choices=comparisons, default=comparisons,
                       help="TRL padded, packed, or padded with its own defaults")  # fmt: skip
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the results, and return the exit code."""
    options = parser().parse_args(arguments)
    if importlib.util.find_spec("trl") is None:
        print(
            "TRL is not installed: run"
            " `pip install --constraint constraints.txt --editable '.[dev]'`",
            file=sys.stderr,
        )
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="plw-bench-") as folder:
            rows = Bench(options, Path(folder)).rows()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    title = (
        f"{options.model}, {options.precision}, {options.threads} threads, {options.examples}"
        f" examples a step, micro-batch {options.micro_batch_size}, {options.rounds} rounds"
    )
    wide_console(110).print(table(rows, title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
