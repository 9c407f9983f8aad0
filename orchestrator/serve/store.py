"""The server's database: files, jobs, events and idempotency keys in SQLite, with one writer.

A commit is on disk when it returns (WAL with synchronous=FULL), so an answer that the client has
seen survives a power cut. Reads use a connection of their thread and do not wait for the writer.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.serve.records import EventRecord, FileRecord, JobRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    purpose TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,
    is_active INTEGER NOT NULL, model_name TEXT, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, key TEXT NOT NULL,
    record TEXT NOT NULL, UNIQUE (job, key));
CREATE TABLE IF NOT EXISTS requests (
    owner TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, job TEXT NOT NULL,
    at REAL NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS requests_key ON requests (owner, key) WHERE key != '';
CREATE INDEX IF NOT EXISTS requests_digest ON requests (owner, digest, at);
CREATE INDEX IF NOT EXISTS files_owner ON files (owner, seq);
CREATE INDEX IF NOT EXISTS jobs_owner ON jobs (owner, seq);
CREATE INDEX IF NOT EXISTS jobs_active ON jobs (is_active) WHERE is_active;
CREATE INDEX IF NOT EXISTS jobs_model ON jobs (model_name) WHERE model_name IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_job ON events (job, seq);
"""
_BUSY_TIMEOUT_S = 30.0


class Store:
    """The database in `path`. One process may have it open; the server's lock ensures that.

    `version` changes with every commit.
    """

    def __init__(self, path: Path) -> None:
        self.version = 0
        self._path = path
        self._lock = threading.RLock()
        self._local = threading.local()
        self._writer = self._connect()
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.executescript(_SCHEMA)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the writer for a block: all of its changes are committed, or none."""
        with self._lock:
            if self._writer.in_transaction:  # A block inside another one belongs to it.
                yield self._writer
                return
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
                self.version += 1
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _read(self, sql: str, *values: object) -> list[tuple[str, ...]]:
        if self._lock_is_mine():
            return self._writer.execute(sql, values).fetchall()
        if not hasattr(self._local, "reader"):
            self._local.reader = self._connect()
        reader: sqlite3.Connection = self._local.reader
        return reader.execute(sql, values).fetchall()

    def _lock_is_mine(self) -> bool:
        """Return whether this thread is inside a transaction, whose changes it must see."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._writer.in_transaction
        finally:
            self._lock.release()

    # Files

    def add_file(self, record: FileRecord) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO files (id, owner, purpose, record) VALUES (?, ?, ?, ?)",
                (record.id, record.owner, record.purpose, record.model_dump_json()),
            )

    def file(self, file_id: str, owner: str) -> FileRecord | None:
        """Return a file of `owner`; None if it does not exist or belongs to someone else."""
        rows = self._read("SELECT record FROM files WHERE id = ? AND owner = ?", file_id, owner)
        return FileRecord.model_validate_json(rows[0][0]) if rows else None

    def delete_file(self, file_id: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM files WHERE id = ?", (file_id,))

    def files(
        self, owner: str, *, after: str | None, limit: int, purpose: str | None, ascending: bool
    ) -> tuple[list[FileRecord], bool]:
        """Return one page of files, and whether more follow."""
        order, sign = ("ASC", ">") if ascending else ("DESC", "<")
        rows = self._read(
            f"SELECT record FROM files WHERE owner = ? AND (? IS NULL OR purpose = ?) AND (? IS"
            f" NULL OR seq {sign} (SELECT seq FROM files WHERE id = ?))"
            f" ORDER BY seq {order} LIMIT ?",
            *(owner, purpose, purpose, after, after, limit + 1),
        )
        found = [FileRecord.model_validate_json(row[0]) for row in rows]
        return found[:limit], len(found) > limit

    # Jobs

    def add_job(self, record: JobRecord) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT INTO jobs (id, owner, is_active, record) VALUES (?, ?, 1, ?)",
                (record.id, record.owner, record.model_dump_json()),
            )

    def job(self, job_id: str, owner: str | None = None) -> JobRecord | None:
        """Return a job; None if it does not exist or belongs to someone other than `owner`."""
        rows = self._read(
            "SELECT record FROM jobs WHERE id = ? AND (? IS NULL OR owner = ?)",
            *(job_id, owner, owner),
        )
        return JobRecord.model_validate_json(rows[0][0]) if rows else None

    def update_job(self, job_id: str, **changes: object) -> JobRecord:
        """Change fields of a job and return it."""
        with self.transaction() as db:
            job = self.job(job_id)
            assert job is not None
            job = job.model_copy(update=changes)
            is_active = job.is_live or not job.is_final
            name = None if job.is_model_deleted else job.fine_tuned_model
            db.execute(
                "UPDATE jobs SET record = ?, is_active = ?, model_name = ? WHERE id = ?",
                (job.model_dump_json(), is_active, name, job_id),
            )
        return job

    def jobs(
        self, owner: str, *, after: str | None, limit: int, metadata: dict[str, str]
    ) -> tuple[list[JobRecord], bool]:
        """Return one page of jobs, newest first, and whether more follow.

        Args:
            metadata: only jobs with these values.
        """
        filters = "".join(
            " AND json_extract(record, '$.metadata.' || json_quote(?)) = ?" for _ in metadata
        )
        rows = self._read(
            "SELECT record FROM jobs WHERE owner = ? AND (? IS NULL OR seq <"
            f" (SELECT seq FROM jobs WHERE id = ?)){filters} ORDER BY seq DESC LIMIT ?",
            *(owner, after, after, *(x for pair in metadata.items() for x in pair), limit + 1),
        )
        found = [JobRecord.model_validate_json(row[0]) for row in rows]
        return found[:limit], len(found) > limit

    def active_jobs(self) -> list[JobRecord]:
        """Return jobs that are not final or may have a process, the oldest first."""
        rows = self._read("SELECT record FROM jobs WHERE is_active ORDER BY seq")
        return [JobRecord.model_validate_json(row[0]) for row in rows]

    def tuned_models(self, owner: str) -> list[JobRecord]:
        """Return the jobs of `owner` whose model exists, newest first."""
        rows = self._read(
            "SELECT record FROM jobs WHERE owner = ? AND model_name IS NOT NULL ORDER BY seq DESC",
            owner,
        )
        return [JobRecord.model_validate_json(row[0]) for row in rows]

    def job_of_model(self, name: str, owner: str) -> JobRecord | None:
        rows = self._read("SELECT record FROM jobs WHERE model_name = ? AND owner = ?", name, owner)
        return JobRecord.model_validate_json(rows[0][0]) if rows else None

    # Events

    def add_events(self, job_id: str, events: list[EventRecord]) -> None:
        """Add events; those whose key the job already has are left out."""
        with self.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO events (job, key, record) VALUES (?, ?, ?)",
                [(job_id, event.key, event.model_dump_json()) for event in events],
            )

    def events(
        self, job_id: str, *, after: str | None, limit: int
    ) -> tuple[list[EventRecord], bool]:
        """Return one page of a job's events, newest first, and whether more follow.

        Args:
            after: key of the last event of the page before.
        """
        rows = self._read(
            "SELECT record FROM events WHERE job = ? AND (? IS NULL OR seq <"
            " (SELECT seq FROM events WHERE job = ? AND key = ?)) ORDER BY seq DESC LIMIT ?",
            *(job_id, after, job_id, after, limit + 1),
        )
        found = [EventRecord.model_validate(json.loads(row[0])) for row in rows]
        return found[:limit], len(found) > limit

    # Repeated requests

    def request_of_key(self, owner: str, key: str) -> tuple[str, str] | None:
        """Return digest and job of the request with an idempotency key; None for a new key."""
        rows = self._read(
            "SELECT digest, job FROM requests WHERE owner = ? AND key = ?", owner, key
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def recent_request(self, owner: str, digest: str, since: float) -> str | None:
        """Return the job of the latest request with the same body since a Unix time."""
        rows = self._read(
            "SELECT job FROM requests WHERE owner = ? AND digest = ? AND at >= ?"
            " ORDER BY at DESC LIMIT 1",
            *(owner, digest, since),
        )
        return rows[0][0] if rows else None

    def add_request(self, owner: str, key: str, digest: str, job_id: str, at: float) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT INTO requests (owner, key, digest, job, at) VALUES (?, ?, ?, ?, ?)",
                (owner, key, digest, job_id, at),
            )
