"""The official client for Node.js against `plw serve`."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.serve import Serve
from tests.orchestrator.serve.api import chat_lines

NODE, NPM = shutil.which("node"), shutil.which("npm")
SOURCE = Path(__file__).parent / "openai_node"
PARTS = ["upload", "weights", "events", "pause", "pages", "chat", "delete"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        NODE is None or NPM is None, reason="no Node.js: install Debian's nodejs and npm"
    ),
]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the script beside an installed package `openai`."""
    folder = tmp_path_factory.mktemp("node")
    for path in SOURCE.iterdir():
        shutil.copy(path, folder)
    try:
        done = subprocess.run(
            [str(NPM), "install", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer within 120 s")
    if done.returncode:
        pytest.skip(f"npm cannot install openai: {done.stderr.strip()[-300:]}")
    return folder / "client.mjs"


@pytest.mark.timeout(900)
def test_the_node_client_runs_through_the_whole_api(script: Path, tmp_path: Path) -> None:
    training = tmp_path / "train.jsonl"
    training.write_text("".join(f"{line}\n" for line in chat_lines(40)))
    serve = Serve(tmp_path)
    serve.start()
    try:
        done = subprocess.run(
            [str(NODE), "--no-warnings", str(script), f"{serve.url}/v1", str(training)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        serve.close()
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["part"] for line in done.stdout.splitlines()] == PARTS
    assert done.stderr == ""
