"""Help texts: every command fits 80 columns, shows its defaults, and is described."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli.main import main


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, groups included."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


COMMANDS = list(commands())


def help_of(path: tuple[str, ...], width: int | None = None) -> str:
    # A wide terminal: the width is limited by the command line, not by the terminal.
    runner = CliRunner(env={"COLUMNS": "200"})
    result = runner.invoke(main, [*path, "--help"], terminal_width=width)
    assert result.exit_code == 0
    return result.output


def unwrapped(text: str) -> str:
    """Return the text without spaces and line breaks, which are also added within words."""
    return "".join(text.split())


def command_of(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


def test_all_commands_are_found() -> None:
    assert {("sweep",), ("data", "show"), ("serve", "keys", "add")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_80_columns(path: tuple[str, ...]) -> None:
    assert [line for line in help_of(path).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_describes_every_option_and_shows_its_default(path: tuple[str, ...]) -> None:
    text = unwrapped(help_of(path))
    for parameter in command_of(path).params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        assert parameter.help, parameter.opts
        has_default = parameter.default is not None and parameter.to_info_dict()["default"]
        if has_default and not parameter.is_flag and not parameter.multiple:
            assert f"[default:{unwrapped(str(parameter.default))}" in text, parameter.opts


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_lists_of_commands_show_whole_sentences(path: tuple[str, ...]) -> None:
    if isinstance(command_of(path), click.Group):
        # Click leaves two of 80 columns free on a terminal, but none in its test runner.
        commands = help_of(path, width=78).split("Commands:")[1]
        # Longer sentences are cut.
        assert [line for line in commands.splitlines() if line.endswith("...")] == []
