"""InputError for input that the user must fix; TrainingError for a run that failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Divergence repeats with the same settings. Running out of memory may not: the memory of new
# processes is not fragmented, and another process may have used the device.
FailureKind = Literal["crash", "out_of_memory", "divergence"]


# Phrases in messages of CUDA, NCCL, cuBLAS, cuDNN and torch's CPU allocator. torch raises several
# of them as a plain RuntimeError.
_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: ",
)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem of the input: the broken rule, its location and the fix.

    `where` is a location that the user can open, such as `sweep.yaml:12` or `train.jsonl:37`.
    """

    message: str
    where: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        message = self.message
        if self.fix and message.endswith(".") and not message.endswith(".."):
            message = message.removesuffix(".")
        fix = f"; {self.fix}" if self.fix else ""
        return f"{place}{message}{fix}"


class InputError(ValueError):
    """Invalid input, with all its problems. The command line prints them and exits with 2."""

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type["InputError"], tuple[list[Problem]]]:
        # Pickle rebuilds an exception from its args; Ray sends our exceptions between processes.
        return (InputError, (self.problems,))


class TrainingError(RuntimeError):
    """A run that failed after it started, for example because its loss is not finite."""

    def __init__(self, message: str, kind: FailureKind = "crash") -> None:
        self.kind = kind
        super().__init__(message)

    def __reduce__(self) -> tuple[type["TrainingError"], tuple[str, FailureKind]]:
        return (TrainingError, (str(self), self.kind))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error means that host or device memory ran out."""
    # Compare the name: torch and Ray each have such a class, and importing them is slow.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        phrase in str(error) for phrase in _OUT_OF_MEMORY
    )
