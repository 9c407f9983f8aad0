"""`plw serve`: the fine-tuning API, and its API keys."""

from pathlib import Path

import click

from orchestrator.cli.options import PATH
from orchestrator.foundation.shell_words import shell_path

data_option = click.option(
    "--data",
    type=PATH,
    default=Path("plw-serve"),
    help="Folder of files, jobs, models and keys.",
)


@click.group(invoke_without_command=True)
@click.option("--config", "config_path", type=PATH, help="Models and settings; default: the demo.")
@data_option
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, help="Port.")
@click.option("--init", "init_path", type=PATH, help="Write a configuration here and exit.")
@click.pass_context
def serve(
    context: click.Context,
    config_path: Path | None,
    data: Path,
    host: str,
    port: int,
    init_path: Path | None,
) -> None:
    """Serve an OpenAI-compatible fine-tuning API.

    Its jobs take `prompt_loss_weight`; see docs/serve.md.
    """
    if context.invoked_subcommand is not None:
        return
    from orchestrator.serve.config import default_config, load_serve_config, write_example

    if init_path is not None:
        write_example(init_path)
        click.echo(f"wrote {init_path}")
        click.echo(f"next: plw serve --config {shell_path(init_path)}")
        return
    config = default_config() if config_path is None else load_serve_config(config_path)
    from orchestrator.serve.paths import DataFolder
    from orchestrator.serve.server import serve as run_server

    shown = f"[{host}]" if ":" in host else host

    def show_address() -> None:
        click.echo(f"models: {', '.join(config.models)}; data: {data}")
        click.echo(f"OpenAI client: base_url=http://{shown}:{port}/v1   (Ctrl-C stops the server)")

    run_server(config, DataFolder(data), host, port, show_address)


@serve.group()
def keys() -> None:
    """Add, list and remove API keys."""


@keys.command()
@click.argument("name")
@data_option
def add(name: str, data: Path) -> None:
    """Create the API key NAME and show it; it cannot be shown again."""
    from orchestrator.serve.keys import Keys

    click.echo(Keys(data).add(name))


@keys.command("list")
@data_option
def list_keys(data: Path) -> None:
    """List the names of the keys."""
    from orchestrator.serve.keys import Keys

    for record in Keys(data).all():
        click.echo(record.name)


@keys.command()
@click.argument("name")
@data_option
def remove(name: str, data: Path) -> None:
    """Remove the key NAME; its files, jobs and models stay on disk."""
    from orchestrator.serve.keys import Keys

    Keys(data).remove(name)
    click.echo(f"removed {name}")
