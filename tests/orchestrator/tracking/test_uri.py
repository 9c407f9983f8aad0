"""Tests of the choice and the check of tracking URIs."""

import re
import socket
import sys
import time
from pathlib import Path

import pytest

from orchestrator.foundation.redaction import redact
from orchestrator.tracking.uri import check_reachable, choose_uri, default_uri, ui_command
from trainers.foundation.errors import InputError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_default_is_sqlite_beside_the_sweep_folder(tmp_path: Path) -> None:
    assert default_uri(tmp_path / "runs" / "demo") == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_explicit_uri_wins_over_environment_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert choose_uri(tmp_path / "demo") == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:5000")
    assert choose_uri(tmp_path / "demo") == "http://env:5000"
    assert choose_uri(tmp_path / "demo", "http://explicit:5000") == "http://explicit:5000"


def test_dead_server_is_one_problem_within_seconds() -> None:
    port = free_port()
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        check_reachable(f"http://ann:secret@127.0.0.1:{port}", timeout_s=2)
    assert time.monotonic() - start < 5
    assert str(caught.value) == (
        f"tracking.uri: MLflow cannot be reached at http://127.0.0.1:{port}: connection refused; "
        "start the server (mlflow server), or set tracking.uri or MLFLOW_TRACKING_URI to another "
        "address"
    )


def test_unresponsive_server_is_rejected_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(InputError, match=r"no response within 0\.5 s"):
            check_reachable(f"http://127.0.0.1:{port}", timeout_s=0.5)
    assert time.monotonic() - start < 3


def test_dead_database_server_is_a_problem() -> None:
    port = free_port()
    with pytest.raises(InputError, match=f"at postgresql://127.0.0.1:{port}/db: .*refused"):
        check_reachable(f"postgresql://ann:secret@127.0.0.1:{port}/db", timeout_s=2)


@pytest.mark.parametrize(
    "uri",
    [
        "mlruns",
        "file:///tmp/mlruns",
        "http://",
        "ftp://host/x",
        "http://host:notaport",
        "sqlite://",
    ],
)
def test_malformed_uri_is_rejected(uri: str) -> None:
    with pytest.raises(InputError, match="not an MLflow tracking URI"):
        check_reachable(uri)


def test_malformed_uri_does_not_show_its_password() -> None:
    with pytest.raises(InputError, match="not an MLflow tracking URI: 'http://host:80'"):
        check_reachable("http://ann:se/cr#et@host:80")


def test_sqlite_below_a_file_is_rejected_and_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"{tmp_path}/file is not a folder"):
        check_reachable(f"sqlite:///{tmp_path}/file/sub/mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_not_a_database_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("I am a text file, not a database.")
    with pytest.raises(InputError, match="not an SQLite database"):
        check_reachable(f"sqlite:///{tmp_path}/mlflow.db")


def test_sqlite_in_a_missing_folder_is_accepted_and_creates_nothing(tmp_path: Path) -> None:
    check_reachable(f"sqlite:///{tmp_path}/a/b/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_ui_command_serves_the_database_on_this_machine_only() -> None:
    assert ui_command("sqlite:////data/runs/mlflow.db", "127.0.0.1", 5050) == [
        sys.executable,
        *("-m", "mlflow", "server"),
        *("--backend-store-uri", "sqlite:////data/runs/mlflow.db"),
        *("--default-artifact-root", "file:///data/runs/mlartifacts"),
        *("--host", "127.0.0.1", "--port", "5050", "--workers", "1"),
    ]


def test_ui_command_for_a_server_names_its_address() -> None:
    with pytest.raises(InputError, match=r"open https://host:5000 in a browser"):
        ui_command("https://ann:secret@host:5000", "127.0.0.1", 5050)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://ann:secret@host/x", "http://host/x"),
        ("postgresql+psycopg2://ann:p@ss@host:5432/db", "postgresql+psycopg2://host:5432/db"),
        ("sqlite:////home/ann@work/mlflow.db", "sqlite:////home/ann@work/mlflow.db"),
        ("see https://host and mail ann@host", "see https://host and mail ann@host"),
        ('{"a":"http://host","b":"ann@host"}', '{"a":"http://host","b":"ann@host"}'),
    ],
)
def test_redact_removes_credentials_and_nothing_else(text: str, expected: str) -> None:
    assert redact({"deep": [text]}) == {"deep": [expected]}


@pytest.mark.parametrize(("name", "special"), [("what?", "?"), ("50%20 #x", "%20")])
def test_paths_that_an_sqlite_uri_cannot_have_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, special: str
) -> None:
    """SQLAlchemy ends the path at the first, and decodes the second: another file is opened."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / name / "mini"
    with pytest.raises(InputError, match=rf"contains {re.escape(special)}, which has another"):
        choose_uri(folder)
    assert choose_uri(folder, "http://somewhere:5000") == "http://somewhere:5000"
