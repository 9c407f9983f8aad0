"""Examples are parsed once per version of their files, and equal those that are read directly."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainers.data import example_store, file_versions
from trainers.data.example_store import StoredExamples, open_examples
from trainers.data.examples import Example, pair
from trainers.data.readers import read_examples
from trainers.data.reading_counts import ReadingCounts
from trainers.data.tokenize import read_split
from trainers.data_config import DataConfig
from trainers.foundation.errors import InputError

ROOT = Path(__file__).parents[3]
PAUSE = threading.Event()
PAIR = {"prompt": "Q", "completion": "A"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2.5, None]}}}
CHAT = {
    "messages": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "1 + 2,5? \u2028 é \U0001f600"},
        {"role": "assistant", "content": "", "tool_calls": [CALL], "train": False},
        {"role": "tool", "content": "3.5", "name": "add"},
        {"role": "assistant", "content": "3.5", "reasoning_content": "Easy."},
    ],
    "tools": [{"type": "function", "function": {"name": "add"}}],
}
ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache folder, which is empty at first."""
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def data(tmp_path: Path, records: list[dict[str, Any]], **settings: Any) -> DataConfig:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return DataConfig(path=str(path), **settings)


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(count)]


def completions(config: DataConfig) -> list[str]:
    return [example.completion for example in open_examples(config)]


def test_stored_examples_equal_those_of_the_file(tmp_path: Path) -> None:
    config = data(tmp_path, [PAIR, CHAT, ALPACA])
    expected = [vars(example) for example in read_examples(config.path)]
    for _ in range(2):
        stored = open_examples(config)
        assert isinstance(stored, StoredExamples)
        assert [vars(example) for example in stored] == expected
        assert vars(stored[-1]) == expected[-1]
        assert [vars(example) for example in stored[1:]] == expected[1:]


def test_examples_of_several_batches_are_read_by_index(tmp_path: Path) -> None:
    stored = open_examples(data(tmp_path, pairs(2500)))
    assert len(stored) == 2500
    assert [stored[i].completion for i in (0, 999, 1000, 2499, -1)] == [
        *("A0", "A999", "A1000", "A2499", "A2499")
    ]
    with pytest.raises(IndexError):
        stored[2500]


def test_the_split_of_stored_examples_is_that_of_examples_in_memory(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = data(tmp_path, pairs(50), heldout_examples=10, train_examples=20)
    stored = [read_split(config) for _ in range(2)]
    monkeypatch.delenv("PLW_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", config.path)  # A file, so that nothing is cached.
    in_memory = read_split(config)
    assert isinstance(in_memory.train, list)
    for split in stored:
        assert list(split.train) == in_memory.train
        assert list(split.heldout) == in_memory.heldout
    assert [example.prompt for example in in_memory.heldout] == [
        *("Q24", "Q28", "Q39", "Q6", "Q2", "Q10", "Q29", "Q7", "Q30", "Q42")
    ]
    assert len(list(cache.glob("examples/*"))) == len(list(cache.glob("splits/*"))) == 1


@pytest.mark.parametrize("max_hashed_bytes", [2**26, 0], ids=["small file", "large file"])
def test_a_file_with_the_same_size_and_time_but_other_content_is_parsed_again(
    max_hashed_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_versions, "_MAX_HASHED_BYTES", max_hashed_bytes)
    config = data(tmp_path, [PAIR])
    assert completions(config) == ["A"]
    before = os.stat(config.path)
    data(tmp_path, [{**PAIR, "completion": "B"}])
    os.utime(config.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert completions(config) == ["B"]


def test_a_large_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_versions, "_MAX_HASHED_BYTES", 0)
    config = data(tmp_path, [PAIR])
    assert completions(config) == ["A"]
    monkeypatch.setattr(example_store, "iter_examples", None)
    assert completions(config) == ["A"]


def test_other_settings_of_reading_give_other_examples(tmp_path: Path) -> None:
    config = data(tmp_path, [{**PAIR, "label": True}, {**PAIR, "completion": "B", "label": False}])
    with pytest.raises(InputError, match="label is false"):
        open_examples(config)
    assert completions(config.model_copy(update={"drop": ("negative",)})) == ["A"]
    assert completions(config.model_copy(update={"ignore": ("label",)})) == ["A", "B"]


def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = data(tmp_path, [PAIR])

    def read_and_append(config: DataConfig, _: ReadingCounts) -> Iterator[Example]:
        yield from read_examples(config.path)
        with open(config.path, "a") as file:
            file.write(json.dumps(PAIR) + "\n")

    monkeypatch.setattr(example_store, "iter_examples", read_and_append)
    with pytest.raises(InputError) as caught:
        open_examples(config)
    assert str(caught.value) == (
        f"{config.path}: the data changed while it was read; start again when it is complete"
    )
    assert list((cache / "examples").iterdir()) == []


def test_an_interrupted_preparation_leaves_no_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: DataConfig, _: ReadingCounts) -> Iterator[Example]:
        for index in range(1500):
            yield pair(str(index), prompt="Q", completion="A")
        raise KeyboardInterrupt

    config = data(tmp_path, [PAIR])
    with monkeypatch.context() as context:
        context.setattr(example_store, "iter_examples", interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_examples(config)
    assert list((cache / "examples").iterdir()) == []
    assert completions(config) == ["A"]


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def wait_for(path: Path, pattern: str, timeout_s: float = 400) -> None:
    deadline = time.monotonic() + timeout_s
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        PAUSE.wait(0.01)


# Reads slowly, so that the other process arrives while this one reads.
_SLOW_READER = """
import sys, threading, time
from pathlib import Path
from trainers.data_config import DataConfig
from trainers.data import example_store
read = example_store.iter_examples
def slow(*arguments):
    print("parsed", flush=True)
    deadline = time.monotonic() + 400
    for example in read(*arguments):
        while not Path(sys.argv[2]).exists():
            assert time.monotonic() < deadline, "the test has ended"
            threading.Event().wait(0.01)
        yield example
example_store.iter_examples = slow
print(len(example_store.open_examples(DataConfig(path=sys.argv[1]))))
"""


@pytest.mark.slow
def test_of_two_processes_one_parses_and_the_other_waits(tmp_path: Path) -> None:
    config = data(tmp_path, pairs(3))
    proceed = tmp_path / "proceed"
    both = [start(_SLOW_READER, config.path, str(proceed)) for _ in range(2)]
    outputs = [process.stdout for process in both]
    assert all(outputs)
    proceed.touch()
    found = sorted(process.communicate(timeout=120)[0] for process in both)
    assert found == ["3\n", "parsed\n3\n"]


@pytest.mark.slow
def test_a_killed_process_blocks_no_other_and_leaves_no_data(tmp_path: Path, cache: Path) -> None:
    config = data(tmp_path, pairs(3))
    process = start(_SLOW_READER, config.path, str(tmp_path / "never"))
    wait_for(cache / "examples", ".*.tmp")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert completions(config) == ["A0", "A1", "A2"]
    assert [path.suffix for path in sorted((cache / "examples").glob("[!.]*"))] == [".arrow"]
