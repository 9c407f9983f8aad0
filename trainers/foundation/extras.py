"""Packages that only some features need; the extras of plw-sweep install them."""

from importlib.util import find_spec

from trainers.foundation.errors import InputError, Problem


def require_package(module: str, *, feature: str, extra: str) -> None:
    """Check that `module` is installed, without importing it.

    Args:
        feature: what needs the module, such as `evals.tasks`.
        extra: the extra of plw-sweep that installs it.

    Raises:
        InputError: it is not installed; the fix names the extra.
    """
    if find_spec(module) is None:
        problem = Problem(
            message=f"{feature} needs {module}, which is not installed",
            fix=f"pip install 'plw-sweep[{extra}]'",
        )
        raise InputError(problem)
