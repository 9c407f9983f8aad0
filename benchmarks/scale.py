"""Sweep on a large simulated cluster: utilization of its slots, and resources of the head.

By default 64 nodes of 8 GPUs, each a raylet on this machine (benchmarks/simulated_cluster.py). The
ranks of a trial hold 16 GPUs for about 30 s and report; none trains (benchmarks/idle_ranks.py).
The rest is a normal sweep. docs/scale.md has the results and a projection to 10,000 GPUs.

The measured period starts when all slots are first busy and ends at the start of the last trial.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console

from benchmarks.program import Options, command_line, log_progress, run_python
from trainers.foundation.files import read_json, write_json


def full_since(trials: Sequence[dict[str, float]], num_slots: int) -> float | None:
    """Return the first time at which `num_slots` trials held their GPUs at once; None if never."""
    changes = sorted(
        [(trial["held"], 1) for trial in trials] + [(trial["released"], -1) for trial in trials]
    )
    num_held = 0
    for when, change in changes:
        num_held += change
        if num_held >= num_slots:
            return when
    return None


def busy_share(
    trials: Sequence[dict[str, float]], num_slots: int, since: float, until: float
) -> float:
    """Return the share of slot time from `since` to `until` in which trials held their GPUs."""
    held_s = sum(
        max(0.0, min(trial["released"], until) - max(trial["held"], since)) for trial in trials
    )
    return held_s / (num_slots * (until - since))


def turnarounds(trials: Sequence[dict[str, float]]) -> list[float]:
    """Return the seconds from each trial's end until the next trial of its ranks starts."""
    of_group: dict[float, list[dict[str, float]]] = {}
    for trial in sorted(trials, key=lambda trial: trial["held"]):
        of_group.setdefault(trial["group"], []).append(trial)
    return [
        after["held"] - before["released"]
        for own in of_group.values()
        for before, after in pairwise(own)
    ]


def growth_mb(samples: Sequence[dict[str, Any]], since: float, until: float) -> float | None:
    """Return the growth of the head's memory from the first fifth of the period to the last."""
    sizes = [sum(one["memory_mb"].values()) for one in samples if since <= one["time"] <= until]
    fifth = len(sizes) // 5
    return fmean(sizes[-fifth:]) - fmean(sizes[:fifth]) if fifth else None


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the results of a run.

    Results that require full slots are None if the slots were never full.
    """
    job, trials, samples = measured["job"], measured["trials"], measured["samples"]
    num_slots = job["nodes"] * job["gpus_per_node"] // job["gpus_per_trial"]
    found: dict[str, Any] = {
        **{key: job[key] for key in ("nodes", "gpus_per_node", "gpus_per_trial", "seconds")},
        "slots": num_slots,
        "trials": len(trials),
        "trials_failed": measured["num_failed"],
        "nodes_lost": job["nodes"] - measured["nodes_alive"],
        **dict.fromkeys(("full_after_s", "minutes_full", "slots_busy", "trials_per_minute")),
        **dict.fromkeys(("median_turnaround_s", "longest_turnaround_s", "trials_per_slot")),
        **dict.fromkeys(("head_growth_mb", "cpu_s_per_trial", "highest_load")),
        "head_memory_mb": [
            {"s": round(one["time"] - measured["began"], 1),
             "total": round(sum(one["memory_mb"].values())),
             **{part: round(size) for part, size in one["memory_mb"].items()}}
            for one in samples
        ],
    }  # fmt: skip
    since = full_since(trials, num_slots)
    until = max((trial["held"] for trial in trials), default=0.0)
    if since is None or until <= since:
        return found
    within = [trial for trial in trials if since <= trial["held"] <= until]
    ended = [trial for trial in trials if since <= trial["released"] <= until]
    waits = turnarounds([trial for trial in trials if trial["released"] >= since])
    per_slot = {one["group"]: 0 for one in trials}
    for trial in within:
        per_slot[trial["group"]] += 1
    during = [one for one in samples if since <= one["time"] <= until]
    minutes = (until - since) / 60
    return found | {
        "full_after_s": since - measured["began"],
        "minutes_full": minutes,
        "slots_busy": busy_share(trials, num_slots, since, until),
        "trials_per_minute": len(ended) / minutes,
        "median_turnaround_s": median(waits) if waits else None,
        "longest_turnaround_s": max(waits, default=None),
        "trials_per_slot": [min(per_slot.values()), max(per_slot.values())],
        "head_growth_mb": growth_mb(samples, since, until),
        "cpu_s_per_trial": _cpu_per_trial(during, len(ended)),
        "highest_load": max((one["load"] for one in during), default=None),
    }


def _cpu_per_trial(samples: Sequence[dict[str, Any]], num_trials: int) -> dict[str, float] | None:
    if len(samples) < 2 or not num_trials:
        return None
    first, last = samples[0]["cpu_s"], samples[-1]["cpu_s"]
    return {part: (last[part] - first[part]) / num_trials for part in last}


def measure(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the sweep in a separate process, in `folder`."""
    from tests.tiny_model import save_tiny_model
    from tests.trainers.tiny_runs import write_data

    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl", 40)
    write_json(folder / "job.json", job)
    run_python(["-m", "benchmarks.held_sweep", "job.json", "result.json"], folder=folder)
    return dict(read_json(folder / "result.json"))


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    options: Options = {
        "--nodes": (int, 64, "nodes"),
        "--gpus-per-node": (int, 8, "GPUs of each"),
        "--gpus-per-trial": (int, 16, "GPUs that a trial holds"),
        "--seconds": (float, 30, "seconds for which it holds them"),
        "--minutes": (float, 15, "minutes after which no further trial starts"),
    }
    return command_line("benchmarks.scale", __doc__, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, print the results, and return the exit code."""
    options = vars(parser().parse_args(arguments))
    is_json = options.pop("json")
    if options["nodes"] * options["gpus_per_node"] < options["gpus_per_trial"]:
        print("no trial fits: raise --nodes or lower --gpus-per-trial", file=sys.stderr)
        return 2
    log_progress(f"{options['nodes']} nodes for {options['minutes']:g} minutes, plus start and end")
    # Libraries print during import; only the result is printed to standard output.
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="plw-scale-") as name:
        found = summary(measure(options, Path(name)))
    if is_json:
        print(json.dumps(found, indent=2))
        return 0
    sizes = [one["total"] for one in found.pop("head_memory_mb")]
    for key, value in found.items():
        Console().print(f"{key}: {value:.3f}" if isinstance(value, float) else f"{key}: {value}")
    if sizes:
        Console().print(f"head_memory_mb: {sizes[0]} first, {max(sizes)} highest, {sizes[-1]} last")
    return 0


if __name__ == "__main__":
    sys.exit(main())
