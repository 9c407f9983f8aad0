"""Specs that someone else wrote to steal files, to write elsewhere, or to block the machine.

Each is submitted to a listening socket: it must be rejected without a connection and without a
file written.
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator.plw import refused

MODEL, DATA = "model: {path: model}\n", "data: {path: mine.jsonl, template: plain}\n"
SEARCH = "search: {space: {loss.prompt_loss_weight: [0, 1]}}\n"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n"


def bomb(first: str, each: str) -> str:
    """Return anchors a0 to a8, each with ten aliases to the one before."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} " + each.format(", ".join([f"*a{i - 1}"] * 10)) for i in range(1, 9)]
    return "\n".join(lines) + "\n"


MERGES = ["m0: &m0 {k0: 1}"] + [
    f"m{i}: &m{i} {{x: [{', '.join([f'*m{i - 1}'] * 10)}], <<: *m{i - 1}}}" for i in range(1, 9)
]

# The spec, and a part of its error message.
HOSTILE = {
    "a bomb of lists": (bomb("[x]", "[{}]") + MODEL + DATA + SEARCH, "expand to more than 100,000"),
    "a bomb of mappings": (
        bomb("{k: x}", "{{k: [{}]}}") + MODEL + DATA + SEARCH,
        "expand to more than 100,000",
    ),
    "a bomb of merges": ("\n".join([*MERGES, MODEL + DATA + SEARCH]), "expand to more than"),
    "a value that contains itself": (
        "note: &a [*a]\n" + MODEL + DATA + SEARCH,
        "note: input should be",
    ),
    "60000 open brackets": ("note: " + "[" * 60_000, "nested too deeply"),
    "20000 nested lists": ("note:\n  " + "- " * 20_000 + "x", "nested too deeply"),
    "a megabyte of comment": ("#" * 2**20 + "\n" + MODEL + DATA + SEARCH, "larger than 64 KiB"),
    "a Python object": (
        "note: !!python/object/apply:os.system ['touch written']\n" + MODEL + DATA + SEARCH,
        "note",
    ),
    "a number of 50000 digits": (f"seed: 0x{'f' * 50_000}\n" + MODEL + DATA + SEARCH, "seed"),
    "10^12 grid points": (
        MODEL
        + DATA
        + "search: {space: {"
        + ", ".join(
            f"{key}: [{', '.join(f'{i / 1000}' for i in range(1, 1001))}]"
            for key in (
                *("loss.prompt_loss_weight", "optimizer.learning_rate", "optimizer.weight_decay"),
                "optimizer.epsilon",
            )
        )
        + "}}\n",
        "points",
    ),
    "a constraint that runs code": (
        MODEL
        + DATA
        + "search: {method: random, points: 2, space: {loss.prompt_loss_weight: {low: 0, high: 1}},"
        ' constraints: [\'__import__("os").system("touch written") == 0\']}\n',
        "search.constraints",
    ),
    "a constraint of 10^10^10": (
        MODEL
        + DATA
        + "search: {method: random, points: 2, space: {loss.prompt_loss_weight: {low: 0, high: 1}},"
        " constraints: ['10 ** 10 ** 10 > 1']}\n",
        "search.constraints",
    ),
    "a name with a path": ("name: ../../evil\n" + MODEL + DATA + SEARCH, "name must be"),
    "a name with a line break": ('name: "good\\n"\n' + MODEL + DATA + SEARCH, "name must be"),
    "a storage with ..": (
        "storage: s3://bucket/../other\n" + MODEL + DATA + SEARCH,
        "storage must be",
    ),
    "an output_dir with ..": (
        "output_dir: /mnt/sweeps/../../etc\n" + MODEL + DATA + SEARCH,
        "must not have a path with '..'",
    ),
    "data above the folder": (
        MODEL + "data: {path: ../private.jsonl, template: plain}\n" + SEARCH,
        "must not have a path with '..'",
    ),
    "an SSH key as a template": (
        MODEL + "data: {path: mine.jsonl, template: home/.ssh/id_ed25519}\n" + SEARCH,
        "is not a template",
    ),
    "an SSH key named as a template": (
        MODEL + "data: {path: mine.jsonl, template: stolen.jinja}\n" + SEARCH,
        "may hold credentials, by its content",
    ),
    "credentials of a cloud as data": (
        MODEL + "data: {path: home/.aws/keys.jsonl, template: plain}\n" + SEARCH,
        "may hold credentials, by its name or folder",
    ),
    "a link to credentials as data": (
        MODEL + "data: {path: link.jsonl, template: plain}\n" + SEARCH,
        "may hold credentials, by its name or folder",
    ),
    "a token beside a model's weights": (
        "model: {path: with_token}\n" + DATA + SEARCH,
        "may hold credentials, by its name or folder",
    ),
    "a home folder as a model": (
        "model: {path: home}\n" + DATA + SEARCH,
        "is not a model: it has no config.json",
    ),
    "credentials among the searched data": (
        MODEL
        + "data: {template: plain}\n"
        + "search: {space: {data.path: [mine.jsonl, home/.aws/keys.jsonl]}}\n",
        "may hold credentials, by its name or folder",
    ),
    "a pattern over the whole machine": (
        MODEL + "data: {path: '/**/*.jsonl', template: plain}\n" + SEARCH,
        "must name a folder of data, not all of /",
    ),
    "the whole machine as tasks": (
        MODEL + DATA + SEARCH + "evals: {include_path: /, tasks: [mine]}\n",
        "has more than 10000 files",
    ),
    "a path in the job's package": (
        MODEL + "data: {path: 'plw-packaged:../../../etc/passwd', template: plain}\n" + SEARCH,
        "which only plw submit writes",
    ),
    "a password file": (
        MODEL + "data: {path: /etc/passwd, template: plain}\n" + SEARCH,
        "data.path must be a file that ends in",
    ),
    "environment variables of this process": (
        "model: {path: /proc/self}\n" + DATA + SEARCH,
        "is not a model",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with a model, data and secrets."""
    here = tmp_path / "here"
    files = {
        "model/config.json": "{}",
        "with_token/config.json": "{}",
        "with_token/token": "hf_x",
        "mine.jsonl": '{"prompt": "a", "completion": "b"}\n',
        "home/.ssh/id_ed25519": KEY,
        "home/.aws/keys.jsonl": "{}\n",
        "stolen.jinja": KEY,
        "../private.jsonl": "{}\n",
    }
    for name, text in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    (here / "link.jsonl").symlink_to(here / "home" / ".aws" / "keys.jsonl")
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def head() -> Iterator[socket.socket]:
    """Listen where the spec is submitted to; a connection would wait to be accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_spec_is_rejected_before_anything_is_sent_or_written(
    text: str, message: str, folder: Path, head: socket.socket
) -> None:
    (folder / "sweep.yaml").write_text(text)
    before = sorted(folder.parent.rglob("*"))
    output = refused(
        "submit", "sweep.yaml", "--address", f"http://127.0.0.1:{head.getsockname()[1]}"
    )
    assert message in output
    assert sorted(folder.parent.rglob("*")) == before
    with pytest.raises(BlockingIOError):
        head.accept()


def test_an_endless_file_is_rejected(head: socket.socket) -> None:
    address = f"http://127.0.0.1:{head.getsockname()[1]}"
    assert "/dev/zero: the file is larger than 64 KiB" in refused(
        "submit", "/dev/zero", "--address", address
    )
