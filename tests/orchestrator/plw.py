"""Call `plw` in this process."""

import json
from typing import Any

from click.testing import CliRunner, Result

from orchestrator.cli.main import main


def plw(*arguments: object) -> Result:
    """What `plw ARGUMENTS` does, which must succeed."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


def plw_json(*arguments: object) -> Any:
    """What `plw ARGUMENTS --json` prints."""
    return json.loads(plw(*arguments, "--json").stdout)


def refused(*arguments: object) -> str:
    """What `plw ARGUMENTS` says when it refuses them, on one line."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())
