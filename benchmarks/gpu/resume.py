"""Section: a run that is killed with SIGKILL and resumed ends like an uninterrupted one."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.small_runs import run_settings
from trainers.foundation.files import write_json
from trainers.runs.checkpoint import CHECKPOINTS, MARKER

_POLL_S = 0.02


def check_resume(bench: Bench) -> Iterator[Row]:
    """Yield a row with deterministic algorithms, where bits must be equal, and one without."""
    folder = bench.folder / "resume"
    # On a CPU, both modes use the same algorithms.
    modes = (True,) if bench.is_small else (True, False)
    steps, every = (12, 3) if bench.is_small else (40, 8)
    configs: dict[bool, Path] = {}
    for mode in modes:
        settings = run_settings(
            bench, folder, steps=steps, checkpoint={"every_steps": every}, deterministic=mode
        )
        configs[mode] = folder / f"deterministic-{mode}.yaml"
        write_json(configs[mode], settings)
    with ExitStack() as runs:
        # All at once, because most of their time is imports.
        whole = {mode: runs.enter_context(_run(path, "whole")) for mode, path in configs.items()}
        cut = {mode: runs.enter_context(_run(path, "cut")) for mode, path in configs.items()}
        # At the same time: a run must not end while another is waited for.
        with ThreadPoolExecutor() as threads:
            kills = threads.map(
                partial(_kill_after_checkpoint, bench), cut.values(), configs.values()
            )
        killed = dict(zip(configs, kills, strict=True))
        resumed = {mode: runs.enter_context(_run(path, "cut")) for mode, path in configs.items()}
        for mode, path in configs.items():
            for run in (whole[mode], resumed[mode]):
                if run.wait(timeout=max(1.0, bench.deadline - time.monotonic())) != 0:
                    raise RuntimeError(f"a run failed: {_log_end(path)}")
            yield {"deterministic": mode, **killed[mode], **_comparison(path, must_be_equal=mode)}


def _output(config: Path, name: str) -> Path:
    return config.with_suffix("") / name


@contextmanager
def _run(config: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a fine-tune; kill it at the end, if it still runs."""
    output = ["--output-dir", str(_output(config, name))]
    with config.with_suffix(".log").open("ab") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "trainers", str(config), *output], stdout=log, stderr=log
        )
    try:
        yield run
    finally:
        run.kill()
        run.wait()


def _log_end(config: Path) -> str:
    return config.with_suffix(".log").read_text(encoding="utf-8", errors="replace")[-2000:]


def _kill_after_checkpoint(bench: Bench, run: subprocess.Popen[bytes], config: Path) -> Row:
    """Kill the run once it has a checkpoint; return its last logged step and the checkpoint's."""
    output = _output(config, "cut")
    while not any((output / CHECKPOINTS).glob(f"*/{MARKER}")):
        if run.poll() is not None:
            raise RuntimeError(f"a run ended before it was killed: {_log_end(config)}")
        if bench.is_late():
            raise TimeoutError("the run wrote no checkpoint in time")
        time.sleep(_POLL_S)
    run.kill()
    run.wait()
    if (output / "train.json").exists():
        raise RuntimeError("the run had ended before it was killed")
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    newest = max((output / CHECKPOINTS).glob(f"*/{MARKER}")).parent.name
    return {
        "killed after step": json.loads(lines[-1])["step"] if lines else 0,
        "resumed after step": int(newest.rpartition("-")[2]),
    }


def _comparison(config: Path, *, must_be_equal: bool) -> dict[str, Any]:
    whole, cut = (
        load_file(_output(config, name) / "model" / "model.safetensors")
        for name in ("whole", "cut")
    )
    difference = sum(
        float((whole[name].double() - cut[name].double()).square().sum()) for name in whole
    )
    size = sum(float(weight.double().square().sum()) for weight in whole.values())
    is_equal = all(bool((whole[name] == cut[name]).all()) for name in whole)
    return {
        "bits equal": is_equal,
        "relative difference": (difference / size) ** 0.5,
        **({"passed": is_equal} if must_be_equal else {}),
    }
