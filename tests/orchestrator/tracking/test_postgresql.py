"""A sweep in MLflow with PostgreSQL and an S3 store, as docs/mlflow.md sets it up."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from tests.object_stores import BUCKET, s3_server
from tests.orchestrator.plw import plw_json
from tests.orchestrator.tracking.test_sync import content, sweep
from tests.orchestrator.tracking.test_tracker_server import Server
from tests.orchestrator.tracking.test_uri import free_port

__all__ = ["sweep"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Debian keeps the server's programs out of PATH.
_FOLDERS = [*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), os.environ["PATH"]]
_PROGRAMS = os.pathsep.join(_FOLDERS)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """Run a PostgreSQL server of its own; return the URI of an empty database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    initdb, control = (shutil.which(name, path=_PROGRAMS) for name in ("initdb", "pg_ctl"))
    if initdb is None or control is None:
        pytest.skip("PostgreSQL is not installed")
    user = pwd.getpwuid(os.geteuid()).pw_name
    # PostgreSQL does not run as root. Debian's package creates this user.
    as_user = ["runuser", "-u", "postgres", "--"] if user == "root" else []
    folder, port = Path("/tmp") / f"plw-postgresql-{free_port()}", free_port()
    folder.mkdir()
    if as_user:
        shutil.chown(folder, "postgres")
    data = str(folder / "data")

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run(initdb, "--pgdata", data, "--username", "mlflow", "--auth", "trust")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    start = ["--pgdata", data, "--wait", "--options", options, "--log", str(folder / "log")]
    run(control, "start", *start)
    try:
        run(
            str(Path(initdb).with_name("createdb")),
            *f"-h 127.0.0.1 -p {port} -U mlflow mlflow".split(),
        )
        yield f"postgresql://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        run(control, "stop", "--pgdata", data, "--mode", "immediate")
        shutil.rmtree(folder)


def test_a_sweep_in_postgresql_and_s3_equals_the_one_in_sqlite(
    sweep: SweepFolder, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server() as store:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", store.uri)
        server = Server(database, tmp_path, artifacts=f"s3://{BUCKET}/mlflow")
        local = f"sqlite:///{tmp_path / 'local.db'}"
        server.start()
        try:
            for uri in (local, server.uri):
                assert plw_json("sync", sweep.root, "--tracking-uri", uri)["is_complete"]
            assert content(server.uri) == content(local)
            # Posting it again changes nothing.
            assert plw_json("sync", sweep.root, "--tracking-uri", server.uri)["is_complete"]
            assert content(server.uri) == content(local)
            assert any(name.endswith("/report.html") for name in store.names())
        finally:
            server.stop()
