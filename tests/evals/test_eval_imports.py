import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def _imported_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_evals_leave_the_other_stages_and_their_libraries_alone() -> None:
    imported = _imported_by("import evals.run")
    assert {"evals", "trainers", "torch", "transformers"} <= imported
    assert imported.isdisjoint({"ray", "mlflow", "deepspeed", "orchestrator", "datasets"})


def test_choosing_items_needs_no_model_library() -> None:
    imported = _imported_by("import evals.items, evals.config, evals.scores")
    assert imported.isdisjoint({"torch", "transformers", "sacrebleu", "numpy"})
