"""A run whose ranks share no folder: what they fetch from an object store, and leave there."""

import json
from pathlib import Path
from typing import Any

from trainers.foundation.object_store import ObjectStore
from trainers.runs.checkpoint import CHECKPOINTS, MARKER, WITH_CHECKPOINT

RESULT = "train.json"


def fetch_run(store: ObjectStore, output_dir: Path) -> None:
    """Bring to this node what there is of a run: its result, or else its newest checkpoint.

    Raises:
        StorageError: the store failed again and again.
    """
    there = store.sizes()
    if RESULT in there:
        for name in there:
            if "/" not in name:
                store.fetch(name, output_dir / name)
        return
    complete = [name for name in there if name.endswith(f"/{MARKER}")]
    if not complete:
        return
    for name in WITH_CHECKPOINT:
        # Another node may have gone on from here since.
        path = output_dir / name
        if name in there and not (path.exists() and path.stat().st_size >= there[name]):
            store.fetch(name, path)
    folder = f"{CHECKPOINTS}/{max(complete).split('/')[-2]}"
    names = frozenset(Path(name).name for name in there if name.startswith(f"{folder}/shard-"))
    store.fetch_folder(folder, output_dir / folder, only=names)
    # Last, as where it was written.
    store.fetch_folder(folder, output_dir / folder, only=frozenset({MARKER}))


def store_result(store: ObjectStore, output_dir: Path, record: dict[str, Any]) -> None:
    """Store the model and the steps of a run, then `record`, whose presence says that it is done.

    Raises:
        StorageError: the store failed again and again.
    """
    for folder in ("model", "adapter"):
        paths = (path for path in sorted((output_dir / folder).rglob("*")) if path.is_file())
        store.put_folder(output_dir / folder, folder, paths)
    for name in WITH_CHECKPOINT:
        store.put(output_dir / name, name)
    store.put_text(json.dumps(record), RESULT)
    store.remove(CHECKPOINTS)
