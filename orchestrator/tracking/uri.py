"""Where MLflow is: which URI to use, whether it answers, and how to show it without passwords.

Nothing here imports mlflow, so a wrong URI is refused in moments and leaves nothing behind.
"""

import os
import re
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.foundation.redaction import redact
from trainers.foundation.errors import InputError, Problem

SQLITE_PREFIX = "sqlite:///"
SQLITE_MAGIC = b"SQLite format 3\x00"
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
WEB_SCHEMES = ("http", "https")
HTTP_OK = 200
HTTP_REFUSED = (401, 403)
HTTP_SERVER_ERROR = 500
SET_URI = "set tracking.uri or MLFLOW_TRACKING_URI"


def default_uri(folder_root: Path) -> str:
    """The SQLite store beside the sweep's folder, which all sweeps there share."""
    return f"{SQLITE_PREFIX}{folder_root.resolve().parent / 'mlflow.db'}"


def choose_uri(folder_root: Path, explicit: str | None = None) -> str:
    """The tracking URI: `explicit`, else MLFLOW_TRACKING_URI, else `default_uri`."""
    return explicit or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(folder_root)


def sqlite_path(uri: str) -> Path | None:
    """The database file of a SQLite URI, absolute; None for any other URI."""
    if not uri.startswith(SQLITE_PREFIX) or uri == SQLITE_PREFIX:
        return None
    return Path(uri.removeprefix(SQLITE_PREFIX).partition("?")[0]).absolute()


def artifact_root(uri: str) -> Path | None:
    """Where a SQLite store's artifacts go: `mlartifacts` beside it; None if a server decides."""
    database = sqlite_path(uri)
    return database.parent / "mlartifacts" if database else None


def check_reachable(uri: str, timeout_s: float = 5.0) -> None:
    """Return if `uri` can be tracked to; within about `timeout_s` either way, creating nothing.

    Raises:
        InputError: the URI is malformed, its server does not answer, or its SQLite file cannot
            be written.
    """
    problem = _problem_with(uri, timeout_s)
    if problem is not None:
        raise InputError(problem)


def answers(uri: str, timeout_s: float) -> bool:
    """Whether the server of an http(s) URI responds at all; True for any other kind of URI."""
    return not is_web(uri) or _server_problem(uri, timeout_s) is None


def is_web(uri: str) -> bool:
    """Whether a tracking server stands behind `uri`."""
    return uri.partition("://")[0].lower() in WEB_SCHEMES


def _problem_with(uri: str, timeout_s: float) -> Problem | None:
    scheme = uri.partition("://")[0].lower()
    database = sqlite_path(uri)
    if database is not None:
        return _sqlite_problem(uri, database)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        return _malformed(uri, "its host or port cannot be read")
    dialect = scheme.partition("+")[0]
    if "://" not in uri or not host or (not is_web(uri) and dialect not in DATABASE_PORTS):
        return _malformed(uri, "it must be http(s)://HOST[:PORT] or sqlite:////PATH/mlflow.db")
    if is_web(uri):
        return _server_problem(uri, timeout_s)
    try:
        socket.create_connection((host, port or DATABASE_PORTS[dialect]), timeout_s).close()
    except OSError as error:
        return _silent(uri, str(error), "start the database")
    return None


def _malformed(uri: str, rule: str) -> Problem:
    # Nothing says where a malformed URI's password ends: show none of what precedes an @.
    shown = re.sub(r"://.*@", "://", uri)
    return Problem(
        message=f"not an MLflow tracking URI: {shown!r}; {rule}",
        where="tracking.uri",
        fix=f"{SET_URI}, or leave both out for a local SQLite file",
    )


def _silent(uri: str, failure: str, remedy: str) -> Problem:
    return Problem(
        message=f"MLflow cannot be reached at {redact(uri)}: {redact(failure)}",
        where="tracking.uri",
        fix=f"{remedy}, or {SET_URI} to another address",
    )


def _server_problem(uri: str, timeout_s: float) -> Problem | None:
    import requests

    remedy = "start the server (mlflow server)"
    base = uri.rstrip("/")
    try:
        response = requests.get(f"{base}/health", timeout=timeout_s)
        if response.status_code in (HTTP_OK, *HTTP_REFUSED):
            # Credentials are judged by the API itself: they may come from MLFLOW_TRACKING_*.
            return None
        if response.status_code >= HTTP_SERVER_ERROR:
            return _silent(uri, f"it answers HTTP {response.status_code}", remedy)
        # A managed tracking service need not have /health, but its API answers in JSON.
        api = f"{base}/api/2.0/mlflow/experiments/get-by-name"
        response = requests.get(api, params={"experiment_name": "Default"}, timeout=timeout_s)
        response.json()
    except requests.JSONDecodeError:
        return _silent(uri, "a server answers there, but not MLflow's", remedy)
    except (requests.RequestException, ValueError) as error:
        return _silent(uri, _reason(error, timeout_s), remedy)
    return None


def _reason(error: Exception, timeout_s: float) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"no answer within {timeout_s:g} s"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, socket.gaierror):
            return "no such host"
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}"


def _sqlite_problem(uri: str, database: Path) -> Problem | None:
    if database.is_dir():
        return _silent(uri, "it is a folder, not a file", "name a file in it")
    if database.exists():
        if not os.access(database, os.R_OK | os.W_OK):
            return _silent(uri, "the file cannot be written", "make it writable")
        with database.open("rb") as file:
            head = file.read(len(SQLITE_MAGIC))
        if head not in (b"", SQLITE_MAGIC):
            return _silent(uri, "the file is not an SQLite database", "move it away")
    # SQLite writes its journal beside the file, so the folder must be writable in any case.
    folder = database.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return _silent(uri, f"{folder} is not a folder", "choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        return _silent(uri, f"the folder {folder} cannot be written", "make it writable")
    return None


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Raise InputError if a server cannot listen on `port`, such as where another one does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do it: a port is free although connections of its last user are winding down.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                Problem(
                    message=f"cannot listen on {host}:{port}: {error.strerror or error}",
                    where="--port",
                    fix="give another --port",
                )
            ) from None


def ui_command(uri: str, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's pages for a database at `uri`.

    Raises:
        InputError: `uri` is a tracking server, which serves its own pages.
    """
    if is_web(uri):
        raise InputError(
            Problem(
                message=f"{redact(uri)} is a tracking server and serves its own pages",
                where="tracking.uri",
                fix=f"open {redact(uri)} in a browser",
            )
        )
    root = artifact_root(uri)
    artifacts = ["--default-artifact-root", root.as_uri()] if root else []
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", uri, *artifacts),
        # One worker: a single reader on one machine, and each costs seconds and memory to start.
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]
