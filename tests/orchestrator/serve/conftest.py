"""One server for the tests of a module."""

from collections.abc import Iterator

import openai
import pytest

from tests.orchestrator.serve.api import Server, chat_lines, config_of, jsonl, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    with serving(config_of(folder / "no-model"), folder / "data") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def training_file(client: openai.OpenAI) -> str:
    return client.files.create(file=jsonl(chat_lines()), purpose="fine-tune").id
