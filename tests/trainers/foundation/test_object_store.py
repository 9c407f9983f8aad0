"""Files in an object store that is sometimes slow or unavailable."""

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


def test_a_downloaded_file_equals_the_uploaded_one(server: S3Server, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000
    store = ObjectStore(URI)
    store.upload(write(tmp_path / "here", content), "a/b.bin")
    store.download("a/b.bin", tmp_path / "there" / "b.bin")
    assert (tmp_path / "there" / "b.bin").read_bytes() == content
    assert server.names() == ["mine/a/b.bin"]


def test_sizes_are_keyed_by_relative_names(server: S3Server) -> None:
    store = ObjectStore(URI)
    store.upload_text("", "a/empty")
    store.upload_text("four", "a/b/c")
    assert store.sizes() == {"a/empty": 0, "a/b/c": 4}
    assert store.subfolder("a").sizes("b") == {"c": 4}
    assert store.sizes("nothing") == {}


def test_only_missing_files_of_a_folder_are_downloaded(server: S3Server, tmp_path: Path) -> None:
    store = ObjectStore(URI)
    for name in ("one", "two", "deep/three"):
        store.upload_text(name, f"x/{name}")
    write(tmp_path / "one", b"one")
    before = len(server.requests)
    store.download_folder("x", tmp_path, only=frozenset({"one", "three"}))
    assert (tmp_path / "deep" / "three").read_text() == "deep/three"
    assert not (tmp_path / "two").exists()
    assert not [path for method, path in server.requests[before:] if path.endswith("/one")]


def test_only_the_named_objects_are_removed(server: S3Server) -> None:
    store = ObjectStore(URI)
    store.upload_text("1", "a/one")
    store.upload_text("2", "ab")
    store.remove("a")
    store.remove("never")
    assert store.sizes() == {"ab": 1}


def test_a_busy_store_is_retried(server: S3Server) -> None:
    server.fault = lambda method, path: "busy" if server.faults < 3 else None
    ObjectStore(URI).upload_text("all", "one")
    assert server.faults == 3
    assert server.names() == ["mine/one"]


def test_a_slow_store_is_awaited(server: S3Server) -> None:
    server.fault = lambda method, path: "late" if server.faults < 1 else None
    ObjectStore(URI).upload_text("all", "one")
    assert server.names() == ["mine/one"]


def test_error_for_a_store_that_stays_busy_contains_its_message(
    server: S3Server, tmp_path: Path
) -> None:
    store = ObjectStore(URI, tries=2)
    store.upload_text("all", "one")
    server.fault = lambda method, path: "busy"
    with pytest.raises(StorageError, match=r"did not accept two in 2 attempts.*SLOW_DOWN"):
        store.upload_text("all", "two")
    with pytest.raises(StorageError, match=r"did not return one"):
        store.download("one", tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_error_names_a_missing_bucket(server: S3Server) -> None:
    with pytest.raises(StorageError, match=r"s3://elsewhere/x did not accept.*NO_SUCH_BUCKET"):
        ObjectStore("s3://elsewhere/x").upload_text("all", "one")
