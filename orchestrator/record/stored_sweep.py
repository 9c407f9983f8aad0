"""A sweep whose nodes share no file system: an object store is between them.

Each node has a folder of its own at the sweep's path. The head's has all records, but no models;
what a worker needs for a job is brought there before, and what came of it goes to the store before
the job counts as done. A new head begins with what is in the store.
"""

import logging
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from orchestrator.foundation.periodic import every
from orchestrator.record.folder import SweepFolder
from orchestrator.record.reader import Version, file_version
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.object_store import ObjectStore, StorageError

INPUTS = "inputs"
# A trial's files, by who writes them; models and checkpoints move by themselves.
# Scores count only if they are younger than the model, so they come last.
OF_WORKERS = (
    "config.json",
    "train.json",
    "metrics.jsonl",
    "system.jsonl",
    "log.txt",
    "samples.jsonl",
    "scores.json",
)
_GROWING = ("metrics.jsonl", "system.jsonl", "log.txt")
OF_HEAD = frozenset({"trial.json", "heldout.jsonl", "usage.json"})
_NOT_KEPT = (".lock", "stop")
# In the place of a model that only the store has.
STORED = "stored.txt"
KEEP_EVERY_S = 5.0
_PROBE = ".nodes"

logger = logging.getLogger(__name__)


class StoredSweep:
    """The store's side of the sweep in `root`, whose objects are below `uri`.

    Raises:
        StorageError: from every method, once the store has failed again and again.
    """

    def __init__(self, root: Path, uri: str) -> None:
        self._folder = SweepFolder(root)
        self._root = root
        self._store = ObjectStore(uri)
        self._of_all = ObjectStore(uri.rpartition("/")[0])

    def of_trial(self, trial_id: str) -> ObjectStore:
        """Where a trial's ranks keep their checkpoints and the result."""
        return self._store.at(f"trials/{trial_id}")

    def bring(self, base: str, settings: dict[str, Any], model_path: str) -> None:
        """Bring what a job needs to this node: held-out examples, files that were sent along."""
        only = frozenset({"heldout.jsonl"})
        self._store.fetch_folder(f"bases/{base}", self._folder.base(base), only=only)
        for path in {model_path, *_texts(settings)}:
            if path.startswith(f"{self._root.parent / INPUTS}/"):
                name = "/".join(Path(path).relative_to(self._root.parent).parts[:2])
                self._of_all.fetch_folder(name, self._root.parent / name)

    def bring_model(self, trial_id: str) -> None:
        """Bring a trained model to this node, with how it was trained."""
        place = self._folder.trial(trial_id)
        self._store.fetch_folder(f"trials/{trial_id}/model", place / "model")
        (place / "model" / STORED).unlink(missing_ok=True)
        self._store.fetch_folder(f"trials/{trial_id}", place, only=frozenset({"train.json"}))

    def keep(self, kind: Literal["trial", "base"], key: str) -> None:
        """Store what a job has left here beside the model, its scores last."""
        place, name = self._place(kind, key)
        paths = (place / one for one in OF_WORKERS if one != "train.json")
        self._store.put_folder(place, name, (path for path in paths if path.exists()))

    def drop_model(self, trial_id: str) -> None:
        """Remove a stored model from a worker, whose disk the sweep's models would fill.

        The head has the sweep's record, and keeps what was trained there.
        """
        if not self._folder.sweep_json.exists():
            for name in ("model", "adapter"):
                shutil.rmtree(self._folder.trial(trial_id) / name, ignore_errors=True)

    def fetch_records(self, kind: Literal["trial", "base"], key: str) -> None:
        """Bring what workers wrote of a trial or base to the head, without the model."""
        place, name = self._place(kind, key)
        sizes = self._store.sizes(name)
        for one in (one for one in OF_WORKERS if one in sizes):
            path = place / one
            # They grow: where they are written they are longer than in the store.
            is_older = one in _GROWING and path.exists() and path.stat().st_size >= sizes[one]
            if not is_older:
                self._store.fetch(f"{name}/{one}", path)
        if "train.json" in sizes and not (place / "model").exists():
            (place / "model").mkdir(parents=True)
            (place / "model" / STORED).write_text(f"{self._store.uri}/{name}/model\n")

    def restore(self) -> None:
        """Fill this folder with the records that the store has and it lacks."""
        known: set[tuple[Literal["trial", "base"], str]] = set()
        for name in sorted(self._store.sizes()):
            folder, _, rest = name.partition("/")
            key, _, last = rest.partition("/")
            if folder in ("trials", "bases"):
                known.add(("trial" if folder == "trials" else "base", key))
            is_of_head = last in OF_HEAD or folder not in ("trials", "bases", _PROBE)
            if is_of_head and not (self._root / name).exists():
                self._store.fetch(name, self._root / name)
        for kind, key in sorted(known):
            if not (self._place(kind, key)[0] / "scores.json").exists():
                self.fetch_records(kind, key)

    def put_changed(self, known: dict[str, Version], *, with_log: bool = True) -> None:
        """Store the head's own files that are not as in `known`, which is brought up to date."""
        for path in self._files_of_head():
            if path == self._folder.log and not with_log:
                continue
            name, version = str(path.relative_to(self._root)), file_version(path)
            if version is not None and known.get(name) != version:
                self._store.put(path, name)
                known[name] = version

    def fetch_metrics(self, trial_id: str) -> None:
        """Bring the logged steps of a trial that runs, as far as its checkpoints go."""
        place, name = self._place("trial", trial_id)
        there = self._store.sizes(name).get("metrics.jsonl", 0)
        path = place / "metrics.jsonl"
        if there > (path.stat().st_size if path.exists() else 0):
            self._store.fetch(f"{name}/metrics.jsonl", path)

    def put_inputs(self) -> None:
        """Store the files that were sent along with the sweep."""
        for folder in (self._root.parent / INPUTS).glob("*"):
            there = self._of_all.sizes(f"{INPUTS}/{folder.name}")
            paths = (one for one in sorted(folder.rglob("*")) if one.is_file())
            missing = (one for one in paths if str(one.relative_to(folder)) not in there)
            self._of_all.put_folder(folder, f"{INPUTS}/{folder.name}", missing)

    def _place(self, kind: Literal["trial", "base"], key: str) -> tuple[Path, str]:
        place = self._folder.trial(key) if kind == "trial" else self._folder.base(key)
        return place, f"{kind}s/{key}"

    def _files_of_head(self) -> Iterator[Path]:
        for path in sorted(self._root.glob("*")):
            if path.is_file() and path.name not in _NOT_KEPT and not path.name.endswith(".tmp"):
                yield path
        yield from sorted(self._root.glob("plots/*"))
        for name in sorted(OF_HEAD):
            yield from sorted(self._root.glob(f"*/*/{name}"))


@contextmanager
def kept_records(stored: StoredSweep, folder: SweepFolder) -> Iterator[None]:
    """Store what the sweep's process writes while the block runs, and fetch the steps of trials.

    A store that is away keeps nobody waiting: what it did not take is put again.

    Raises:
        StorageError: at the start, once the store has failed again and again.
    """
    known: dict[str, Version] = {}

    def keep(*, with_log: bool = False) -> None:
        try:
            stored.put_changed(known, with_log=with_log)
            for record in folder.read_trials():
                if record.state == "training":
                    stored.fetch_metrics(record.id)
        except StorageError as error:
            logger.warning("%s; the records are stored once it answers", error)

    stored.put_inputs()
    stored.put_changed(known)
    try:
        with every(KEEP_EVERY_S, keep, name="records"):
            yield
    finally:
        # The log grows all the time, and would go there as a whole in each round.
        keep(with_log=True)


def check_store(uri: str) -> None:
    """Return if this node can write to the store.

    Raises:
        InputError: it can not, and why.
    """
    host = socket.gethostname()
    name = f"{_PROBE}/{host}-{uuid.uuid4().hex}"
    try:
        store = ObjectStore(uri)
        store.put_text(host, name)
        store.remove(_PROBE + "/" + Path(name).name)
    except (OSError, StorageError) as error:
        raise InputError(
            Problem(
                message=f"host {host} cannot write to the sweep's storage: {error}",
                where="storage",
                fix="see that the bucket is there, and that this host reaches it and may write to "
                "it: a role or credentials as the aws command finds them, AWS_REGION, and "
                "AWS_ENDPOINT_URL for another store",
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
