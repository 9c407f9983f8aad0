"""Transfer a sweep's files through an object store, for nodes without a shared file system.

Each node has a local folder at the sweep's path. The head's folder has all records, but no models.
A worker downloads the inputs of a job before it starts, and uploads the results before the job
counts as done. A new head starts from the contents of the store.
"""

import logging
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from orchestrator.foundation.periodic import run_periodically
from orchestrator.record.folder import PANDALM_OUTPUTS, SweepFolder
from orchestrator.record.lease import LEASE
from orchestrator.record.reader import Version, file_version
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.object_store import ObjectStore, StorageError

INPUTS = "inputs"
# A trial's files that workers write; models and checkpoints are transferred separately.
# Scores are last: they are valid only if they are newer than the model.
WORKER_FILES = (
    "config.json",
    "train.json",
    "metrics.jsonl",
    "system.jsonl",
    "log.txt",
    "samples.jsonl",
    PANDALM_OUTPUTS,
    "scores.json",
)
_GROWING = ("metrics.jsonl", "system.jsonl", "log.txt")
HEAD_FILES = frozenset({"trial.json", "heldout.jsonl", "usage.json"})
_NOT_UPLOADED = (".lock", "stop")
# Placeholder file for a model that only the store has.
STORED = "stored.txt"
UPLOAD_EVERY_S = 5.0
_PROBE = ".nodes"

logger = logging.getLogger(__name__)


class RemoteSweep:
    """Transfers files between the sweep's folder `root` and its objects below `uri`.

    Raises:
        StorageError: the store fails repeatedly; any method can raise it.
    """

    def __init__(self, root: Path, uri: str) -> None:
        self._folder = SweepFolder(root)
        self._root = root
        self._store = ObjectStore(uri)
        self._shared_store = ObjectStore(uri.rpartition("/")[0])
        self._is_taken_over = False

    def stop_uploads(self) -> None:
        """Upload no more records of the head: another head runs the sweep."""
        self._is_taken_over = True

    def trial_store(self, trial_id: str) -> ObjectStore:
        """Return the store of a trial's checkpoints and result."""
        return self._store.subfolder(f"trials/{trial_id}")

    def download_inputs(self, base: str, settings: dict[str, Any], model_path: str) -> None:
        """Download the inputs of a job: held-out examples and files that were submitted with it."""
        only = frozenset({"heldout.jsonl"})
        self._store.download_folder(f"bases/{base}", self._folder.baseline(base), only=only)
        for path in {model_path, *_texts(settings)}:
            if path.startswith(f"{self._root.parent / INPUTS}/"):
                name = "/".join(Path(path).relative_to(self._root.parent).parts[:2])
                self._shared_store.download_folder(name, self._root.parent / name)

    def download_model(self, trial_id: str) -> None:
        """Download a trained model and its train.json."""
        place = self._folder.trial(trial_id)
        self._store.download_folder(f"trials/{trial_id}/model", place / "model")
        (place / "model" / STORED).unlink(missing_ok=True)
        self._store.download_folder(f"trials/{trial_id}", place, only=frozenset({"train.json"}))

    def download_outputs(self, trial_id: str) -> None:
        """Download a trial's outputs for PandaLM's prompts, the opponent's of other trials."""
        place, name = self._place("trial", trial_id)
        if PANDALM_OUTPUTS in self._store.sizes(name):
            self._store.download(f"{name}/{PANDALM_OUTPUTS}", place / PANDALM_OUTPUTS)

    def upload(self, kind: Literal["trial", "base"], key: str) -> None:
        """Upload the files of a job except the model; the scores are last."""
        place, name = self._place(kind, key)
        paths = (place / one for one in WORKER_FILES if one != "train.json")
        self._store.upload_folder(place, name, (path for path in paths if path.exists()))

    def remove_local_model(self, trial_id: str) -> None:
        """Remove an uploaded model from a worker, to keep its disk free.

        The head, which has the sweep's record, keeps the models that were trained there.
        """
        if not self._folder.sweep_json.exists():
            for name in ("model", "adapter"):
                shutil.rmtree(self._folder.trial(trial_id) / name, ignore_errors=True)

    def remove_model(self, trial_id: str) -> None:
        """Remove a trained model from the store; its marker train.json first."""
        for name in ("train.json", "model", "adapter", "checkpoints"):
            self._store.remove(f"trials/{trial_id}/{name}")

    def download_records(self, kind: Literal["trial", "base"], key: str) -> None:
        """Download the files that workers wrote for a trial or baseline, without the model."""
        place, name = self._place(kind, key)
        sizes = self._store.sizes(name)
        for one in (one for one in WORKER_FILES if one in sizes):
            path = place / one
            # These files only grow: a stored file that is not longer than the local one is older.
            is_older = one in _GROWING and path.exists() and path.stat().st_size >= sizes[one]
            if not is_older:
                self._store.download(f"{name}/{one}", path)
        if "train.json" in sizes and not (place / "model").exists():
            (place / "model").mkdir(parents=True)
            (place / "model" / STORED).write_text(f"{self._store.uri}/{name}/model\n")

    def restore(self) -> None:
        """Download the records that are missing in this folder."""
        known: set[tuple[Literal["trial", "base"], str]] = set()
        for name in sorted(self._store.sizes()):
            folder, _, rest = name.partition("/")
            key, _, last = rest.partition("/")
            if folder in ("trials", "bases"):
                known.add(("trial" if folder == "trials" else "base", key))
            is_of_head = last in HEAD_FILES or folder not in ("trials", "bases", _PROBE, LEASE)
            if is_of_head and not (self._root / name).exists():
                self._store.download(name, self._root / name)
        for kind, key in sorted(known):
            if not (self._place(kind, key)[0] / "scores.json").exists():
                self.download_records(kind, key)

    def upload_changed(self, known: dict[str, Version], *, with_log: bool = True) -> None:
        """Upload the head's files whose version differs from `known`, and update `known`."""
        for path in () if self._is_taken_over else self._files_of_head():
            if path == self._folder.log and not with_log:
                continue
            name, version = str(path.relative_to(self._root)), file_version(path)
            if version is not None and known.get(name) != version:
                self._store.upload(path, name)
                known[name] = version

    def download_metrics(self, trial_id: str) -> None:
        """Download the metrics of a running trial, which are uploaded with its checkpoints."""
        place, name = self._place("trial", trial_id)
        there = self._store.sizes(name).get("metrics.jsonl", 0)
        path = place / "metrics.jsonl"
        if there > (path.stat().st_size if path.exists() else 0):
            self._store.download(f"{name}/metrics.jsonl", path)

    def upload_inputs(self) -> None:
        """Upload the files that were submitted with the sweep."""
        for folder in (self._root.parent / INPUTS).glob("*"):
            there = self._shared_store.sizes(f"{INPUTS}/{folder.name}")
            paths = (one for one in sorted(folder.rglob("*")) if one.is_file())
            missing = (one for one in paths if str(one.relative_to(folder)) not in there)
            self._shared_store.upload_folder(folder, f"{INPUTS}/{folder.name}", missing)

    def _place(self, kind: Literal["trial", "base"], key: str) -> tuple[Path, str]:
        place = self._folder.trial(key) if kind == "trial" else self._folder.baseline(key)
        return place, f"{kind}s/{key}"

    def _files_of_head(self) -> Iterator[Path]:
        for path in sorted(self._root.glob("*")):
            if path.is_file() and path.name not in _NOT_UPLOADED and not path.name.endswith(".tmp"):
                yield path
        yield from sorted(self._root.glob("plots/*"))
        for name in sorted(HEAD_FILES):
            yield from sorted(self._root.glob(f"*/*/{name}"))


@contextmanager
def upload_records(stored: RemoteSweep, folder: SweepFolder) -> Iterator[None]:
    """Upload the head's records and download the metrics of trials while the block runs.

    A store that does not respond does not block the sweep; failed uploads are retried.

    Raises:
        StorageError: at the start, if the store fails repeatedly.
    """
    known: dict[str, Version] = {}

    def keep(*, with_log: bool = False) -> None:
        try:
            stored.upload_changed(known, with_log=with_log)
            for record in folder.read_trials():
                if record.state == "training":
                    stored.download_metrics(record.id)
        except StorageError as error:
            logger.warning("%s; the records are stored once it answers", error)

    stored.upload_inputs()
    stored.upload_changed(known)
    try:
        with run_periodically(UPLOAD_EVERY_S, keep, name="records"):
            yield
    finally:
        # Upload the log only at the end: it grows, and each round would upload all of it.
        keep(with_log=True)


def check_store(uri: str) -> None:
    """Check that this node can write to the store.

    Raises:
        InputError: the node cannot write; the message has the reason.
    """
    host = socket.gethostname()
    name = f"{_PROBE}/{host}-{uuid.uuid4().hex}"
    try:
        store = ObjectStore(uri)
        store.upload_text(host, name)
        store.remove(_PROBE + "/" + Path(name).name)
    except (OSError, StorageError) as error:
        raise InputError(
            Problem(
                message=f"host {host} cannot write to the sweep's storage: {error}",
                where="storage",
                fix="check that the bucket exists and that this host may write to it: a role or "
                "credentials as for the aws command, AWS_REGION, and AWS_ENDPOINT_URL for another "
                "store",
            )
        ) from error


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)
    elif isinstance(content, str):
        yield content
