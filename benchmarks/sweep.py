"""Overhead of a trial beyond training and scoring, compared with Ray's documented pattern.

Both sides run the same fine-tunes, one after another on the same number of workers, in alternating
rounds. Ray's pattern is a Tune function that builds a `TorchTrainer` for each trial. Our side keeps
Tune's actors and the trainer's workers warm. A trial's overhead is the time from the end of the
previous trial to its own end, minus training and, on our side, scoring. It includes imports, the
start of workers, and loading and export of the model. The first trial of each side is excluded.

With `--noop`, trials do nothing and use every part of a sweep except the workers: search, queue,
Tune, records, MLflow and the display thread.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from benchmarks.program import Options, command_line, log_progress, run_python
from trainers.foundation.files import read_json

PLWS = (0, 0.01, 0.1, 0.242, 0.5, 1)


def spec_of(arguments: argparse.Namespace, num_trials: int) -> dict[str, Any]:
    """Return a spec of short trials that are scored on a single example."""
    return {
        "name": "overhead",
        "model": {"path": arguments.model},
        "data": {"path": arguments.data, "template": "plain", "max_length": 64,
                 "heldout_examples": 8},
        "schedule": {"steps": arguments.steps},
        "batch": {"global_batch_size": 2 * arguments.workers, "micro_batch_size": 2},
        "deepspeed": {"zero_stage": 1, "precision": "float32"},
        "search": {"space": {"loss.prompt_loss_weight": list(PLWS[:num_trials])}},
        "evals": {"heldout": {"examples": 1}, "heldout_choice": None, "heldout_exact_match": None,
                  "heldout_chrf": None},
        "resources": {"workers_per_trial": arguments.workers, "max_concurrent_trials": 1},
    }  # fmt: skip


def our_overheads(arguments: argparse.Namespace, folder: Path) -> list[float]:
    """Return the overhead in seconds of each trial after the first, with `plw sweep`."""
    path = folder / "overhead.yaml"
    with path.open("w") as file:
        YAML().dump(spec_of(arguments, arguments.trials), file)
    run_python(["-m", "orchestrator.cli.main", "sweep", path.name], folder=folder)
    sweep = folder / "runs" / "overhead"
    trials = [
        sweep / "trials" / trial_id for trial_id in read_json(sweep / "sweep.json")["trial_ids"]
    ]
    records = [read_json(trial / "trial.json") for trial in trials]
    ends = [(trial / "scores.json").stat().st_mtime for trial in trials]
    work = [record["train_seconds"] + record["eval_seconds"] for record in records]
    return overheads(ends, work)


def ray_overheads(arguments: argparse.Namespace, folder: Path) -> list[float]:
    """Return the overhead in seconds of each trial after the first, with Ray's pattern."""
    from orchestrator.plan.planner import trial_config
    from orchestrator.spec.sweep_spec import SweepSpec

    spec = SweepSpec.model_validate(spec_of(arguments, arguments.trials))
    settings = [
        trial_config(spec, {"loss.prompt_loss_weight": plw}).model_dump(mode="json")
        for plw in PLWS[: arguments.trials]
    ]
    job = {"folder": str(folder), "workers": arguments.workers, "settings": settings}
    (folder / "job.json").write_text(json.dumps(job))
    run_python(["-m", "benchmarks.ray_pattern", "job.json"], folder=folder)
    paths = [folder / f"trial{index}" / "train.json" for index in range(arguments.trials)]
    seconds = [read_json(path)["result"]["seconds"] for path in paths]
    return overheads([path.stat().st_mtime for path in paths], seconds)


def overheads(ends: Sequence[float], work: Sequence[float]) -> list[float]:
    """Return the time between consecutive ends of trials minus their work, in seconds."""
    return [
        after - before - seconds
        for (before, after), seconds in zip(pairwise(ends), work[1:], strict=True)
    ]


def overhead_row(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure both sides in alternating rounds, each in a new folder and process."""
    ours: list[float] = []
    pattern: list[float] = []
    for turn in range(arguments.rounds):
        for name, measure, found in (
            ("ours", our_overheads, ours),
            ("ray", ray_overheads, pattern),
        ):
            place = folder / f"{name}{turn}"
            place.mkdir()
            found.extend(measure(arguments, place))
            log_progress(
                f"{name}, round {turn + 1}: {', '.join(f'{s:.1f}' for s in found)} s of overhead"
            )
    return {
        "overhead_s": fmean(ours),
        "ray_pattern_overhead_s": fmean(pattern),
        "overhead_ratio": fmean(ours) / fmean(pattern),
        "workers": arguments.workers,
        "trials": len(ours),
    }


def noop_rows(counts: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Run a sweep of no-op trials for each of `counts`."""
    from tests.tiny_model import save_tiny_model
    from tests.trainers.tiny_runs import write_data

    rows = []
    for count in counts:
        place = folder / f"noop{count}"
        place.mkdir()
        save_tiny_model(place / "model")
        write_data(place / "data.jsonl", 40)
        run_python(["-m", "benchmarks.noop", "result.json", str(count)], folder=place)
        rows.append(read_json(place / "result.json"))
        log_progress(f"{count} trials that do nothing: {rows[-1]['noop_s_per_trial']:.3f} s each")
    return rows


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    options: Options = {
        "--model": (str, "demo:smollm2-135m-instruct", "as model.path"),
        "--data": (str, "demo:python-docs-short", "as data.path"),
        "--workers": (int, 2, "workers of each trial"),
        "--steps": (int, 2, "steps of each trial"),
        "--rounds": (int, 1, "runs of each side"),
    }
    shown = command_line("benchmarks.sweep", __doc__, options)
    shown.add_argument(
        "--trials", type=int, default=4, choices=range(2, 7), help="trials of each side"
    )
    shown.add_argument(
        "--noop",
        type=int,
        nargs="*",
        metavar="TRIALS",
        help="run no-op trials instead (default numbers: 100 and 1000)",
    )
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the results, and return the exit code."""
    options = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="plw-bench-") as name:
        folder = Path(name)
        if options.noop is None:
            rows = [overhead_row(options, folder)]
        else:
            rows = noop_rows(options.noop or (100, 1000), folder)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table()
    for key in rows[0]:
        table.add_column(key, justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
