"""Command line for one fine-tune: `python -m trainers CONFIG`, or `torchrun ... -m trainers`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainers.config import TrainConfig
from trainers.foundation.errors import InputError, TrainingError
from trainers.foundation.settings_file import load_config
from trainers.runs.results import StepMetrics


def main() -> int:
    """Run one fine-tune from the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainers", description="Fine-tune a model.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    arguments = parser.parse_args()
    try:
        return run(arguments.config, arguments.output_dir, arguments.set)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1


def run(config_path: Path, output_dir: Path, overrides: Sequence[str]) -> int:
    """Train with the settings in a file and print a line for each logged step.

    Raises:
        InputError, TrainingError: see `trainers.sft.train`.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = load_config(TrainConfig, config_path, overrides)
    from trainers.sft import train

    is_main = os.environ.get("RANK", "0") == "0"
    result = train(config, output_dir, on_step=_print_step if is_main else None)
    if is_main:
        print(f"{result.steps} steps, {result.num_tokens} tokens; model: {result.model_path}")
    return 0


def _print_step(metrics: StepMetrics) -> None:
    losses = f"completion loss {_text(metrics.completion_loss)}"
    losses += f"  prompt loss {_text(metrics.prompt_loss)}"
    if metrics.heldout_completion_loss is not None:
        losses += f"  held-out completion loss {metrics.heldout_completion_loss:.3f}"
    print(
        f"step {metrics.step}/{metrics.total_steps}  {losses}  "
        f"{metrics.tokens_per_second:.0f} tokens/s",
        flush=True,
    )


def _text(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.3f}"


if __name__ == "__main__":
    sys.exit(main())
