"""Sweeps over the prompt loss weight: plan, run, track, analyse, report.

The names in `__all__` are the Python API (`orchestrator.api`, docs/python.md). They are imported on
first use, because `plw --help` imports this package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import (
        Sweep,
        build_spec,
        list_sweeps,
        load_spec,
        plan_sweep,
        run_sweep,
    )

__version__ = "0.2.0"
__all__ = ["Sweep", "build_spec", "list_sweeps", "load_spec", "plan_sweep", "run_sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator import api

    return getattr(api, name)
