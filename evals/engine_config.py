"""Settings of the engine that generates a model's outputs."""

import shutil
from typing import Annotated, Literal, Self

from pydantic import Field

from evals.config_base import EvalSettings, PositiveInt, absolute_path
from trainers.foundation.errors import InputError, Problem

Engine = Literal["auto", "padded", "continuous", "vllm"]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class VllmConfig(EvalSettings):
    """vLLM as a server, in an environment of its own, for `evals.engine: vllm`."""

    command: Annotated[list[str], Field(min_length=1)] = Field(
        default=["vllm", "serve"],
        description="Program and first arguments that start the server, such as "
        "[/opt/vllm/bin/vllm, serve]; model, address and port are added.",
    )
    arguments: list[str] = Field(
        default=[],
        description="More arguments of the server, such as [--gpu-memory-utilization, '0.7'].",
    )
    concurrency: PositiveInt = Field(
        default=256, description="Maximum number of requests at the same time."
    )
    start_timeout_s: _Seconds = Field(
        default=900.0, description="Deadline for the server to load the model and answer."
    )
    timeout_s: _Seconds = Field(default=1800.0, description="Deadline of one request.")

    def with_absolute_paths(self) -> Self:
        """Return a copy with an absolute path, for a process with another working directory."""
        program, *arguments = self.command
        if "/" not in program:  # A program of PATH.
            return self
        return self.model_copy(update={"command": [absolute_path(program), *arguments]})


def check_program(config: VllmConfig) -> None:
    """Check that this machine has the program that starts the server.

    Raises:
        InputError: it does not.
    """
    program = config.command[0]
    if shutil.which(program) is None:
        raise InputError(
            Problem(
                message=f"there is no program {program} on this machine",
                where="evals.vllm.command",
                fix="set it to the vllm program of vLLM's environment, followed by serve",
            )
        )
