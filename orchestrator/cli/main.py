"""`plw`: plan, run, monitor and analyse sweeps over the prompt loss weight.

Commands import heavy packages when they run, so that `plw --help` takes less than 0.5 s. A command
prints the files it wrote and the next command. `orchestrator.cli.signals` lists the exit codes.
"""

import logging
import os
from typing import Any

import click

from orchestrator import __version__
from orchestrator.cli.clean import clean
from orchestrator.cli.compare import compare
from orchestrator.cli.data import data
from orchestrator.cli.demo import demo
from orchestrator.cli.doctor import doctor
from orchestrator.cli.eval import evaluate
from orchestrator.cli.export import export
from orchestrator.cli.init import init
from orchestrator.cli.judge import judge
from orchestrator.cli.logs import logs
from orchestrator.cli.ls import list_sweeps
from orchestrator.cli.power import power
from orchestrator.cli.report import report
from orchestrator.cli.samples import samples
from orchestrator.cli.serve import serve
from orchestrator.cli.signals import BAD_INPUT, FAILURE, INTERRUPTED
from orchestrator.cli.status import status
from orchestrator.cli.stop import stop
from orchestrator.cli.submit import submit
from orchestrator.cli.sweep import plan, sweep
from orchestrator.cli.sync import sync
from orchestrator.cli.train import train
from orchestrator.cli.ui import ui

CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 80,
    "show_default": True,
}
COMMANDS: tuple[click.Command, ...] = (
    *(clean, compare, data, demo, doctor, evaluate, export, init, judge, list_sweeps, logs),
    *(plan, power, report, samples, serve, status, stop, submit, sweep, sync, train, ui),
)


class Plw(click.Group):
    """A command group that prints each user error on one line and sets the exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        from trainers.foundation.errors import InputError, TrainingError

        try:
            return super().invoke(ctx)
        except InputError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            ctx.exit(BAD_INPUT)
        except TrainingError as error:
            click.echo(f"failed: {error}", err=True)
            ctx.exit(FAILURE)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Plw, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="plw")
def main() -> None:
    """Find the best prompt loss weight (PLW) for instruction fine-tuning.

    Start with `plw demo`, or with `plw init`, `plw plan SPEC` and `plw sweep SPEC`;
    `plw doctor` checks this machine.
    """
    from orchestrator.foundation.packages import check_packages

    check_packages()
    # Keep progress bars, retry messages, tokenizer warnings and the advice of bitsandbytes to
    # download kernels off the terminal.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # On two cores, spinning OpenMP threads made a step 10 to 20 times slower as soon as a third
    # process was busy. Sleeping threads make a step about a third slower on idle cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
