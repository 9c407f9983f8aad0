"""/v1/files with the official client."""

import json

import openai
import pytest

from tests.orchestrator.serve.api import Server, chat_lines, jsonl


def test_a_file_is_stored_listed_read_and_deleted(client: openai.OpenAI) -> None:
    lines = chat_lines()
    file = client.files.create(file=jsonl(lines, "sums.jsonl"), purpose="fine-tune")
    assert (file.object, file.status, file.filename) == ("file", "processed", "sums.jsonl")
    assert file.bytes == len("".join(f"{line}\n" for line in lines))
    assert client.files.wait_for_processing(file.id).id == file.id
    assert client.files.retrieve(file.id) == file
    assert file.id in [one.id for one in client.files.list(purpose="fine-tune")]
    assert client.files.content(file.id).text.splitlines() == lines
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.retrieve(file.id)
    assert caught.value.body == {
        "message": f"No such File object: {file.id}",
        "type": "invalid_request_error",
        "param": "id",
        "code": None,
    }


def test_files_are_listed_in_pages_in_both_orders(server: Server) -> None:
    client = server.client()
    ids = [client.files.create(file=jsonl(chat_lines()), purpose="fine-tune").id for _ in range(5)]
    assert [one.id for one in client.files.list(limit=2)][:5] == ids[::-1]
    assert [one.id for one in client.files.list(limit=2, order="asc")][-5:] == ids


BAD_CONTENT = {
    "not JSON": ("{not json", "line 3: not valid JSON"),
    "not an object": ("[1]", "line 3: a record must be an object"),
    "no messages": ('{"text": "a"}', "line 3: the fields match no accepted form"),
    "empty answer": (
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": " "},
                ]
            }
        ),
        "line 3: ",
    ),
    "unknown role": (
        json.dumps({"messages": [{"role": "robot", "content": "a"}]}),
        "line 3: ",
    ),
    "bad weight": (
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b", "weight": -1},
                ]
            }
        ),
        "line 3: messages[1].weight must be",
    ),
    "an image": (
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
                    {"role": "assistant", "content": "b"},
                ]
            }
        ),
        "line 3: messages[0].content",
    ),
    "a name twice": ('{"messages": [], "messages": []}', "line 3: not valid JSON: an object has"),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_a_fault_has_its_line_in_the_status_and_in_the_error_of_a_job(
    client: openai.OpenAI, server: Server, name: str
) -> None:
    line, fault = BAD_CONTENT[name]
    lines = chat_lines()
    lines[2] = line
    file = client.files.create(file=jsonl(lines), purpose="fine-tune")
    assert file.status == "error"
    assert file.status_details is not None
    assert fault in file.status_details
    assert str(server.service.folder.root) not in file.status_details
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(model="tiny", training_file=file.id)
    error = caught.value
    assert (error.param, error.code) == ("training_file", "invalid_training_file")
    assert fault in error.message


def test_every_fault_of_a_file_is_listed(client: openai.OpenAI) -> None:
    lines = chat_lines()
    lines[1] = lines[4] = "{"
    file = client.files.create(file=jsonl(lines), purpose="fine-tune")
    assert file.status_details is not None
    assert "line 2: " in file.status_details
    assert "(also line 5)" in file.status_details


def test_a_file_with_nine_examples_is_too_short(client: openai.OpenAI) -> None:
    file = client.files.create(file=jsonl(chat_lines(9)), purpose="fine-tune")
    assert file.status_details == "the file has 9 examples, but at least 10 are needed"


def test_tools_weights_and_parallel_tool_calls_of_openai_are_accepted(
    client: openai.OpenAI,
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    record = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "no", "weight": 0},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "half", "weight": 0.5},
            {"role": "user", "content": "u"},
            {"role": "assistant", "tool_calls": [call], "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "parallel_tool_calls": False,
    }
    file = client.files.create(file=jsonl([json.dumps(record)] * 10), purpose="fine-tune")
    assert (file.status, file.status_details) == ("processed", None)


@pytest.mark.parametrize("name", ["../../serve.db.jsonl", "/etc/passwd.jsonl", "a\\b\n.jsonl"])
def test_a_path_as_file_name_is_only_a_name(client: openai.OpenAI, name: str) -> None:
    file = client.files.create(file=jsonl(chat_lines(), name), purpose="fine-tune")
    assert "/" not in file.filename
    assert "\\" not in file.filename
    assert client.files.content(file.id).text.splitlines() == chat_lines()
