"""Score one checkpoint: held-out losses by role, benchmarks and judged comparisons.

`score_model(...)` of `run` runs every evaluation of an `EvalConfig` and returns a `ScoreCard`. Both
are imported on first use (docs/python.md).
evals imports neither orchestrator nor ray, mlflow or deepspeed. tests/test_layers.py declares the
order in which its packages may import each other.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evals.config import EvalConfig
    from evals.run import score_model

__all__ = ["EvalConfig", "score_model"]


def __getattr__(name: str) -> Any:
    if name == "EvalConfig":
        from evals.config import EvalConfig

        return EvalConfig
    if name == "score_model":
        from evals.run import score_model

        return score_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
