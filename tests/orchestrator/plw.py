"""Run `plw` in the test process."""

import json
from typing import Any

from click.testing import CliRunner, Result

from orchestrator.cli.main import main


def plw(*arguments: object) -> Result:
    """Run `plw ARGUMENTS`, which must succeed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def plw_json(*arguments: object) -> Any:
    """Return the JSON output of `plw ARGUMENTS --json`."""
    return json.loads(plw(*arguments, "--json").stdout)


def refused(*arguments: object) -> str:
    """Return the error message of `plw ARGUMENTS`, which must exit with 2, on one line."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())
