"""Files in an object store, which is slow and fails as they do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_stores import BUCKET, S3Server, s3_server
from trainers.foundation.object_store import ObjectStore, StorageError

URI = f"s3://{BUCKET}/mine"


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_comes_back_as_it_was_put(server: S3Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000
    store = ObjectStore(URI)
    store.put(write(tmp_path / "here", content), "a/b.bin")
    store.fetch("a/b.bin", tmp_path / "there" / "b.bin")
    assert (tmp_path / "there" / "b.bin").read_bytes() == content
    assert server.names() == ["mine/a/b.bin"]


def test_sizes_are_by_the_names_below(server: S3Server) -> None:
    store = ObjectStore(URI)
    store.put_text("", "a/empty")
    store.put_text("four", "a/b/c")
    assert store.sizes() == {"a/empty": 0, "a/b/c": 4}
    assert store.at("a").sizes("b") == {"c": 4}
    assert store.sizes("nothing") == {}


def test_a_folder_is_fetched_as_far_as_it_is_missing(server: S3Server, tmp_path: Path) -> None:
    store = ObjectStore(URI)
    for name in ("one", "two", "deep/three"):
        store.put_text(name, f"x/{name}")
    write(tmp_path / "one", b"one")
    before = len(server.requests)
    store.fetch_folder("x", tmp_path, only=frozenset({"one", "three"}))
    assert (tmp_path / "deep" / "three").read_text() == "deep/three"
    assert not (tmp_path / "two").exists()
    assert not [path for method, path in server.requests[before:] if path.endswith("/one")]


def test_removed_objects_are_gone_and_others_stay(server: S3Server) -> None:
    store = ObjectStore(URI)
    store.put_text("1", "a/one")
    store.put_text("2", "ab")
    store.remove("a")
    store.remove("never")
    assert store.sizes() == {"ab": 1}


def test_a_store_that_is_busy_for_a_while_is_asked_again(server: S3Server) -> None:
    server.fault = lambda method, path: "busy" if server.faults < 3 else None
    ObjectStore(URI).put_text("all", "one")
    assert server.faults == 3
    assert server.names() == ["mine/one"]


def test_a_store_that_answers_late_is_waited_for(server: S3Server) -> None:
    server.fault = lambda method, path: "late" if server.faults < 1 else None
    ObjectStore(URI).put_text("all", "one")
    assert server.names() == ["mine/one"]


def test_a_store_that_stays_busy_is_given_up_with_what_it_said(
    server: S3Server, tmp_path: Path
) -> None:
    store = ObjectStore(URI, tries=2)
    store.put_text("all", "one")
    server.fault = lambda method, path: "busy"
    with pytest.raises(StorageError, match=r"did not take two in 2 tries.*SLOW_DOWN"):
        store.put_text("all", "two")
    with pytest.raises(StorageError, match=r"did not give one"):
        store.fetch("one", tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there_is_named(server: S3Server) -> None:
    with pytest.raises(StorageError, match=r"s3://elsewhere/x did not take.*NO_SUCH_BUCKET"):
        ObjectStore("s3://elsewhere/x").put_text("all", "one")
