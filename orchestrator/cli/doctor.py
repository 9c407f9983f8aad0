"""`plw doctor`: what of this machine is fine for sweeps, what is not, and how to mend it."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from orchestrator.foundation.packages import check_packages
from trainers.foundation.errors import InputError

Verdict = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `fix` is what to do where the verdict is not ok."""

    subject: str
    verdict: Verdict
    detail: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(folder: Path, tracking_uri: str | None) -> list[Finding]:
    """Look at everything that sweeps whose folders are in `folder` would need."""
    looks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _torch,
        _compiler,
        _deepspeed_op,
        _ray,
        lambda: _mlflow(folder, tracking_uri),
        lambda: _disk(folder),
        _memory,
    ]
    return [look() for look in looks]


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


def _deepspeed_op() -> Finding:
    """The one operation that DeepSpeed compiles on first use on a CPU."""
    command = [sys.executable, "-m", "trainers.engine.compile_ops"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    version = importlib.metadata.version("deepspeed")
    if found.returncode != 0:
        lines = found.stderr.strip().splitlines()
        return Finding(
            "DeepSpeed",
            "error",
            f"{version}; its CPU operation does not load: {lines[-1] if lines else 'no message'}",
            f"install g++ and ninja, then run {' '.join(command)}",
        )
    return Finding("DeepSpeed", "ok", f"{version}; {found.stdout.strip().splitlines()[-1]}")


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    version = importlib.metadata.version("ray")
    where = f"cluster at {address}" if address else "starts on this machine when a sweep does"
    return Finding("Ray", "ok", f"{version}; {where}")


def _mlflow(folder: Path, tracking_uri: str | None) -> Finding:
    from orchestrator.foundation.redaction import redact
    from orchestrator.tracking.uri import check_reachable, choose_uri
    from trainers.foundation.errors import InputError

    version = importlib.metadata.version("mlflow")
    # Any sweep in the folder: they all share the store beside them.
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
    if available < 8:
        return Finding("memory", "warning", detail, "the demo needs about 8 GiB; close something")
    return Finding("memory", "ok", detail)
