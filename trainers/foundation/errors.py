"""The error that a user can mend, and the one that only a rerun can."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# A crash may pass; the same numbers diverge again, and the same sizes need the same memory.
FailureKind = Literal["crash", "out_of_memory", "divergence"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with the input: what rule it breaks, where it stands and how to mend it.

    `where` is a place a person can open, such as `sweep.yaml:12` or `train.jsonl:37`.
    """

    message: str
    where: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{place}{self.message}{fix}"


class InputError(ValueError):
    """Bad input, with all of its problems at once. The command line prints it and exits with 2."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type["InputError"], tuple[list[Problem]]]:
        # Exceptions pickle by their args; ours cross process boundaries inside Ray.
        return (InputError, (self.problems,))


class TrainingError(RuntimeError):
    """A run that started and could not go on, such as a loss that is not finite."""

    def __init__(self, message: str, kind: FailureKind = "crash") -> None:
        self.kind = kind
        super().__init__(message)

    def __reduce__(self) -> tuple[type["TrainingError"], tuple[str, FailureKind]]:
        return (TrainingError, (str(self), self.kind))
