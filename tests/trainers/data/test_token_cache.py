"""Tokens are made once, shared by processes, made again when something changes, never wrong."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainers.data.test_roles import chat, jinja_file
from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data import token_cache
from trainers.data.batches import collate
from trainers.data.encoding_counts import EncodingCounts
from trainers.data.examples import Example, pair
from trainers.data.roles import EncodedExample
from trainers.data.template import Template
from trainers.data.tokenize import encode_examples
from trainers.data.tokenized import EncodedBatch, EncodedExamples
from trainers.data_config import DataConfig
from trainers.foundation import file_cache
from trainers.foundation.errors import InputError

ROOT = Path(__file__).parents[3]
EXAMPLES = [
    pair("a", prompt="Hi", completion="ok"),
    chat(("user", "Hi"), ("assistant", "Ho"), ("user", "é"), ("assistant", "ü")),
    Example(id="b", messages=pair("b", prompt="Add.", completion="3").messages, instruction="Add."),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of cached tokens, which is empty at first."""
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def data(**settings: Any) -> DataConfig:
    return DataConfig(**{"path": "data.jsonl", "template": "chat", "max_length": 64, **settings})


def encode(examples: list[Example] = EXAMPLES, **settings: Any) -> EncodedExamples:
    return encode_examples(examples, data(**settings), tiny_tokenizer(chat_template=CHAT_TEMPLATE))


def content(examples: EncodedExamples) -> list[tuple[str, list[int], list[int], int]]:
    return [(e.id, list(e.input_ids), list(e.roles), e.num_truncated_tokens) for e in examples]


def key(examples: list[Example] = EXAMPLES, chat_template: str = CHAT_TEMPLATE, **s: Any) -> str:
    config = data(**s)
    tokenizer = tiny_tokenizer(chat_template=chat_template)
    template = Template(config.template, tokenizer, config.completion_turns)
    return token_cache.cache_key(examples, template, config)


@pytest.mark.parametrize("turns", ["last", "all"])
def test_cached_tokens_equal_those_of_the_template(turns: Any, folder: Path) -> None:
    template = Template("chat", tiny_tokenizer(chat_template=CHAT_TEMPLATE), turns)
    expected = [template.encode(example, 64) for example in EXAMPLES]
    fresh = encode(completion_turns=turns)
    [cached] = folder.iterdir()
    made_at = cached.stat().st_ino
    again = encode(completion_turns=turns)
    assert cached.stat().st_ino == made_at
    assert content(fresh) == content(again)
    assert content(again) == [
        (e.id, e.input_ids, e.roles, e.num_truncated_tokens) for e in expected
    ]
    assert again.counts == fresh.counts
    assert again.counts == EncodingCounts(
        # The chat of two turns has 19 + 6 + 2 + 13 + 2 + 8 + 2 + 13 + 3 tokens.
        num_examples=3,
        num_truncated_examples=1,
        num_truncated_tokens=25,
        num_removed_turns=2,
    )


def test_examples_are_read_by_index() -> None:
    examples = encode(template="plain", examples=[EXAMPLES[0], EXAMPLES[2]])
    assert len(examples) == 2
    assert examples.lengths.tolist() == [7, 8]
    first, last = examples[0], examples[-1]
    assert first.id == "a"
    assert first.input_ids.tolist() == [42, 75, 201, 201, 81, 77, 2]
    assert first.roles.tolist() == [2, 2, 3, 3, 4, 4, 4]
    assert (first.num_prompt_tokens, first.num_completion_tokens) == (4, 3)
    assert last.id == "b"
    with pytest.raises(IndexError):
        examples[2]


def test_batches_of_mapped_examples_equal_those_of_lists() -> None:
    examples = encode()
    lists = [
        EncodedExample(id=e.id, input_ids=list(e.input_ids), roles=list(e.roles)) for e in examples
    ]
    mapped = list(examples)
    weights = [np.full(len(e.roles), 0.5, np.float32) for e in lists]
    mapped_batch, list_batch = collate(mapped, weights, 0), collate(lists, weights, 0)
    assert mapped_batch.input_ids_BT.equal(list_batch.input_ids_BT)
    assert mapped_batch.targets_BT.equal(list_batch.targets_BT)
    assert mapped_batch.target_roles_BT.equal(list_batch.target_roles_BT)
    assert mapped_batch.target_weights_BT.equal(list_batch.target_weights_BT)


def test_weights_of_the_data_survive_the_file_where_an_example_has_any(tmp_path: Path) -> None:
    weighted = EncodedExample(
        id="a", input_ids=[5, 6], roles=[2, 4], weights=[float("nan"), 0.25], sample_weight=1.5
    )
    plain = EncodedExample(id="b", input_ids=[7], roles=[4])
    path = tmp_path / "tokens.arrow"
    batch = EncodedBatch.of([plain, weighted, plain], EncodingCounts(num_examples=3))
    EncodedExamples.write(path, [batch])
    first, second, third = EncodedExamples.read(path)
    assert (first.weights, third.weights) == (None, None)
    assert (first.sample_weight, second.sample_weight) == (1.0, 1.5)
    assert np.array_equal(second.weights, [float("nan"), 0.25], equal_nan=True)


def test_another_process_reads_the_file(folder: Path) -> None:
    expected = content(encode())
    [cached] = folder.iterdir()
    code = (
        "import json, sys; from pathlib import Path;"
        " from trainers.data.tokenized import EncodedExamples;"
        " e = EncodedExamples.read(Path(sys.argv[1]));"
        " print(json.dumps([[x.id, x.input_ids.tolist(), x.roles.tolist(),"
        " x.num_truncated_tokens] for x in e]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(cached)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [tuple(item) for item in json.loads(done.stdout)] == expected


def test_the_key_is_the_same_in_every_process() -> None:
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    template = Template("chat", tokenizer)
    before = token_cache.cache_key(EXAMPLES, template, data())
    tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)
    assert token_cache.cache_key(EXAMPLES, template, data()) == before == key()


def test_the_key_contains_everything_that_the_tokens_depend_on(tmp_path: Path) -> None:
    prompt = jinja_file(tmp_path, "{{ prompt }}")
    keys = [
        key(),
        key(EXAMPLES[:2]),
        key([EXAMPLES[1], EXAMPLES[0], EXAMPLES[2]]),
        key([pair("z", prompt="Hi", completion="ok"), *EXAMPLES[1:]]),
        key(chat_template=CHAT_TEMPLATE + " "),
        key(max_length=65),
        key(completion_turns="all"),
        key(too_long="drop"),
        key(template="alpaca"),
        key(template="plain"),
        key(template=prompt),
    ]
    assert len(set(keys)) == len(keys)


def test_a_changed_template_file_gives_other_tokens(tmp_path: Path, folder: Path) -> None:
    path = jinja_file(tmp_path, "{{ prompt }}=")
    first = encode(EXAMPLES[:1], template=path)
    jinja_file(tmp_path, "{{ prompt }}:")
    second = encode(EXAMPLES[:1], template=path)
    assert [list(e.input_ids)[:3] for e in (first[0], second[0])] == [[42, 75, 31], [42, 75, 28]]
    assert len(list(folder.iterdir())) == 2


def test_the_path_of_a_template_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = jinja_file(tmp_path / "elsewhere", "{{ prompt }}=")
    assert key(template=elsewhere) == key(template=jinja_file(tmp_path, "{{ prompt }}="))


def test_settings_of_the_split_do_not_rebuild_the_file(folder: Path) -> None:
    assert key() == key(path="other.jsonl", heldout_examples=1, seed=3, train_examples=3)


def damaged(original: bytes, how: str) -> bytes:
    if how == "empty":
        return b""
    if how == "cut":
        return original[: len(original) // 2]
    if how == "other":
        return b"not an Arrow file, but as long as one may be" * 100
    # One bit of a token, which Arrow does not detect.
    position = original.index(np.array([42, 75], dtype=np.int32).tobytes())
    return original[:position] + b"\x2b" + original[position + 1 :]


@pytest.mark.parametrize("how", ["empty", "cut", "other", "bit"])
def test_a_corrupt_file_is_rebuilt(
    how: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = content(encode())
    [cached] = folder.iterdir()
    intact = cached.read_bytes()
    cached.write_bytes(damaged(intact, how))
    assert content(encode()) == expected
    assert len(caplog.messages) == 1
    assert f"{cached} is corrupt and is rebuilt" in caplog.messages[0]
    assert cached.read_bytes() == intact


def test_tokens_stay_in_memory_if_the_default_cache_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = content(encode())
    monkeypatch.delenv("PLW_CACHE_DIR")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert content(encode()) == expected
    assert caplog.messages == [
        f"tokens are not cached: {tmp_path / 'file' / 'plw-sweep' / 'tokens'} cannot"
        " be written: Not a directory"
    ]


def test_the_folder_in_plw_cache_dir_must_be_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLW_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(InputError) as caught:
        encode()
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'tokens'}: the tokens cannot be written: Not a directory; set"
        " PLW_CACHE_DIR to a writable folder"
    )


def test_a_full_disk_leaves_no_partial_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A write to /dev/full fails like a write to a full disk.
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=0))
    folder.mkdir(parents=True)
    (folder / f".{key()}.{uuid.UUID(int=0).hex}.tmp").symlink_to("/dev/full")
    with pytest.raises(InputError) as caught:
        encode()
    assert str(caught.value) == (
        f"{folder}: the tokens cannot be written: No space left on device; set PLW_CACHE_DIR to a"
        " folder with more space"
    )
    assert list(folder.iterdir()) == []


def test_least_recently_used_files_are_removed_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_cache, "MAX_FILES", 2)
    for age, max_length in ((30, 61), (20, 62)):
        encode(max_length=max_length)
        path = folder / f"{key(max_length=max_length)}.arrow"
        now = path.stat().st_mtime
        os.utime(path, (now - age, now - age))
    encode(max_length=61)
    encode(max_length=63)
    assert {path.stem for path in folder.iterdir()} == {key(max_length=61), key(max_length=63)}


def test_files_of_a_killed_writer_are_removed_after_a_day(folder: Path) -> None:
    folder.mkdir(parents=True)
    old, new = folder / ".a.1.tmp", folder / ".b.2.tmp"
    for path in (old, new):
        path.touch()
    two_days_ago = old.stat().st_mtime - 48 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    encode()
    assert (old.exists(), new.exists()) == (False, True)
