"""Choose and check MLflow tracking URIs, and build the command of MLflow's server.

This module does not import mlflow, so a wrong URI is rejected immediately and creates no files.
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
# A question mark starts the options, and SQLAlchemy decodes escaped characters.
_SPECIAL_IN_URI = re.compile(r"\?|%[0-9A-Fa-f]{2}")
HTTP_OK = 200
HTTP_REFUSED = (401, 403)
HTTP_SERVER_ERROR = 500
SET_URI = "set tracking.uri or MLFLOW_TRACKING_URI"


def default_uri(folder_root: Path) -> str:
    """Return the SQLite store next to the sweep's folder, shared by all sweeps there."""
    return f"{SQLITE_PREFIX}{folder_root.resolve().parent / 'mlflow.db'}"


def choose_uri(folder_root: Path, explicit: str | None = None) -> str:
    """Return `explicit`, else MLFLOW_TRACKING_URI, else `default_uri`.

    Raises:
        InputError: the path of the default has characters with a meaning in an SQLite URI.
    """
    chosen = explicit or os.environ.get("MLFLOW_TRACKING_URI")
    if chosen:
        return chosen
    parent = folder_root.resolve().parent
    special = _SPECIAL_IN_URI.search(str(parent))
    if special:
        raise InputError(
            Problem(
                message=f"the path {parent} contains {special.group()}, which has another meaning"
                " in an SQLite URI",
                where="output_dir",
                fix=f"choose a folder without it, or {SET_URI}",
            )
        )
    return default_uri(folder_root)


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a SQLite URI's database file; None for other URIs."""
    if not uri.startswith(SQLITE_PREFIX) or uri == SQLITE_PREFIX:
        return None
    return Path(uri.removeprefix(SQLITE_PREFIX).partition("?")[0]).absolute()


def artifact_root(uri: str) -> Path | None:
    """Return `mlartifacts` next to a SQLite store; None if a tracking server decides."""
    database = sqlite_path(uri)
    return database.parent / "mlartifacts" if database else None


def check_reachable(uri: str, timeout_s: float = 5.0) -> None:
    """Check within about `timeout_s` that `uri` can be used for tracking; create nothing.

    Raises:
        InputError: the URI is malformed, its server does not respond, or its SQLite file cannot be
            written.
    """
    problem = _problem_with(uri, timeout_s)
    if problem is not None:
        raise InputError(problem)


def responds(uri: str, timeout_s: float) -> bool:
    """Return whether the server of an http(s) URI responds; True for other URIs."""
    return not is_web(uri) or _server_problem(uri, timeout_s) is None


def is_web(uri: str) -> bool:
    """Return whether `uri` is the address of a tracking server."""
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
        return _unreachable(uri, str(error), "start the database")
    return None


def _malformed(uri: str, rule: str) -> Problem:
    # The end of the password in a malformed URI is unknown: hide everything before an @.
    shown = re.sub(r"://.*@", "://", uri)
    return Problem(
        message=f"not an MLflow tracking URI: {shown!r}; {rule}",
        where="tracking.uri",
        fix=f"{SET_URI}, or leave both out for a local SQLite file",
    )


def _unreachable(uri: str, failure: str, remedy: str) -> Problem:
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
            # The API checks the credentials, which may come from MLFLOW_TRACKING_*.
            return None
        if response.status_code >= HTTP_SERVER_ERROR:
            return _unreachable(
                uri, f"the server responds with HTTP {response.status_code}", remedy
            )
        # A managed tracking service may lack /health, but its API returns JSON.
        api = f"{base}/api/2.0/mlflow/experiments/get-by-name"
        response = requests.get(api, params={"experiment_name": "Default"}, timeout=timeout_s)
        response.json()
    except requests.JSONDecodeError:
        return _unreachable(uri, "the server there is not MLflow", remedy)
    except (requests.RequestException, ValueError) as error:
        return _unreachable(uri, _reason(error, timeout_s), remedy)
    return None


def _reason(error: Exception, timeout_s: float) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"no response within {timeout_s:g} s"
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
        return _unreachable(uri, "the path is a folder, not a file", "name a file in it")
    if database.exists():
        if not os.access(database, os.R_OK | os.W_OK):
            return _unreachable(uri, "the file cannot be written", "make it writable")
        with database.open("rb") as file:
            head = file.read(len(SQLITE_MAGIC))
        if head not in (b"", SQLITE_MAGIC):
            return _unreachable(uri, "the file is not an SQLite database", "move it away")
    # SQLite writes its journal next to the file, so the folder must be writable as well.
    folder = database.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return _unreachable(uri, f"{folder} is not a folder", "choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        return _unreachable(uri, f"the folder {folder} cannot be written", "make it writable")
    return None


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Check that a server can listen on `port`.

    Raises:
        InputError: it cannot, for example because the port is in use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers also set this option, so that old connections in TIME_WAIT do not block the port.
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
    """Return the command that serves MLflow's pages for the database at `uri`.

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
        # One worker is enough for one user; each takes seconds and memory to start.
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]
