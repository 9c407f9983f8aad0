"""`python -m trainers CONFIG` and `torchrun --nproc-per-node N -m trainers CONFIG`."""

import argparse
import logging
import os
import sys
from pathlib import Path

from trainers.config import TrainConfig
from trainers.config_file import load_config
from trainers.errors import InputError, TrainingError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = load_config(TrainConfig, arguments.config, arguments.set)
        from trainers.sft import StepMetrics, train

        def show(metrics: StepMetrics) -> None:
            if os.environ.get("RANK", "0") == "0":
                print(step_line(metrics), flush=True)

        def step_line(m: StepMetrics) -> str:
            prompt = "-" if m.prompt_loss is None else f"{m.prompt_loss:.3f}"
            return (
                f"step {m.step}/{m.total_steps}  completion loss {m.completion_loss:.3f}  "
                f"prompt loss {prompt}  {m.tokens_per_second:.0f} tokens/s"
            )

        result = train(config, arguments.output_dir, on_step=show)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 1
    if os.environ.get("RANK", "0") == "0":
        print(f"model: {result.model_path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
