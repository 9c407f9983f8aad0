"""Check this machine for `plw doctor`: packages, compiler, Ray, MLflow, disk and memory."""

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from orchestrator.foundation.packages import check_packages
from orchestrator.trials.ray_address import short_temp_dir
from trainers.foundation.errors import InputError

Verdict = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The result of one check; `fix` says how to solve a warning or an error."""

    subject: str
    verdict: Verdict
    detail: str
    fix: str | None = None


def run_checks(folder: Path, tracking_uri: str | None) -> list[Finding]:
    """Run all checks for sweeps in `folder`, and return the results."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _torch,
        _compiler,
        check_deepspeed_op,
        _ray,
        lambda: _mlflow(folder, tracking_uri),
        lambda: _disk(folder),
        _memory,
    ]
    return [check() for check in checks]


def _python() -> Finding:
    version = platform.python_version()
    return Finding("Python", "ok", f"{version} at {sys.executable}")


def _packages() -> Finding:
    try:
        home = check_packages()
    except InputError as error:
        [problem] = error.problems
        return Finding("packages", "error", problem.message, problem.fix or "")
    return Finding("plw-sweep", "ok", f"{importlib.metadata.version('plw-sweep')} at {home}")


def _torch() -> Finding:
    import torch

    if torch.cuda.is_available():
        devices = ", ".join(
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        )
        return Finding("torch", "ok", f"{torch.__version__} on CUDA: {devices}")
    return Finding(
        "torch",
        "ok",
        f"{torch.__version__} on {os.cpu_count()} CPU cores (no CUDA device: small models only)",
    )


def _compiler() -> Finding:
    path = shutil.which("g++") or shutil.which("c++")
    if path is None:
        return Finding("compiler", "error", "no C++ compiler", "install g++ (apt install g++)")
    found = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return Finding("compiler", "ok", found.stdout.splitlines()[0] if found.stdout else path)


def check_deepspeed_op() -> Finding:
    """Check that DeepSpeed's CPU operation loads; DeepSpeed compiles it at first use.

    In a process of its own: it imports torch, which starts threads.
    """
    command = [sys.executable, "-m", "trainers.engine.compile_ops"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    version = importlib.metadata.version("deepspeed")
    if found.returncode != 0:
        lines = found.stderr.strip().splitlines()
        return Finding(
            "DeepSpeed",
            "error",
            f"{version}; its CPU operation does not load: {lines[-1] if lines else 'no message'}",
            f"install g++ and ninja, then run {shlex.join(command)}",
        )
    return Finding("DeepSpeed", "ok", f"{version}; {found.stdout.strip().splitlines()[-1]}")


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    version = importlib.metadata.version("ray")
    if address:
        return Finding("Ray", "ok", f"{version}; cluster at {address}")
    try:
        folder = short_temp_dir()
    except InputError as error:
        [problem] = error.problems
        return Finding("Ray", "error", f"{version}; {problem.message}", problem.fix)
    note = f" in {folder}, because TMPDIR is too long for its sockets" if folder else ""
    return Finding("Ray", "ok", f"{version}; starts on this machine with each sweep{note}")


def _mlflow(folder: Path, tracking_uri: str | None) -> Finding:
    from orchestrator.foundation.redaction import redact
    from orchestrator.tracking.uri import check_reachable, choose_uri

    version = importlib.metadata.version("mlflow")
    # All sweeps in the folder share one store, so the sweep's name does not matter.
    uri = choose_uri(folder / "sweep", tracking_uri)
    try:
        check_reachable(uri)
    except InputError as error:
        problem = error.problems[0]
        return Finding("MLflow", "error", f"{version}; {problem.message}", problem.fix)
    return Finding("MLflow", "ok", f"{version}; {redact(uri)}")


def _disk(folder: Path) -> Finding:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    if free < 10:
        return Finding(
            "disk",
            "warning",
            f"{free:.1f} GiB free at {folder}",
            "the demo needs about 6 GiB; set output_dir to a larger disk",
        )
    return Finding("disk", "ok", f"{free:.0f} GiB free at {folder}")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    available = memory.available / 2**30
    detail = f"{available:.1f} GiB available of {memory.total / 2**30:.1f}"
    if available < 14:
        return Finding(
            "memory", "warning", detail, "the demo needs up to 14 GiB; close other programs"
        )
    return Finding("memory", "ok", detail)
