"""Print problems of the input."""

from dataclasses import replace

from trainers.foundation.errors import Problem


def problem_text(problem: Problem) -> str:
    """Return a problem on one line: a full stop before its fix is dropped."""
    message = problem.message
    if problem.fix and message.endswith(".") and not message.endswith(".."):
        problem = replace(problem, message=message.removesuffix("."))
    return str(problem)
