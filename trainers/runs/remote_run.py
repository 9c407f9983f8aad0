"""Download and upload the files of a run via an object store, if its ranks share no folder."""

import json
from pathlib import Path
from typing import Any

from trainers.foundation.object_store import ObjectStore
from trainers.runs.checkpoint import CHECKPOINTS, MARKER, RUN_FILES

RESULT = "train.json"


def download_run(store: ObjectStore, output_dir: Path) -> None:
    """Download the result of a run to this node, or its newest checkpoint if it is unfinished.

    Raises:
        StorageError: the store failed in every attempt.
    """
    sizes = store.sizes()
    if RESULT in sizes:
        for name in sizes:
            if "/" not in name:
                store.download(name, output_dir / name)
        return
    complete = [name for name in sizes if name.endswith(f"/{MARKER}")]
    if not complete:
        return
    for name in RUN_FILES:
        # A local file may be newer, if another node continued the run from this folder.
        path = output_dir / name
        if name in sizes and not (path.exists() and path.stat().st_size >= sizes[name]):
            store.download(name, path)
    folder = f"{CHECKPOINTS}/{max(complete).split('/')[-2]}"
    names = frozenset(Path(name).name for name in sizes if name.startswith(f"{folder}/shard-"))
    store.download_folder(folder, output_dir / folder, only=names)
    # Download the marker last, in the same order as when the checkpoint was written.
    store.download_folder(folder, output_dir / folder, only=frozenset({MARKER}))


def upload_result(store: ObjectStore, output_dir: Path, record: dict[str, Any]) -> None:
    """Upload the model and metrics of a run, then `record`, which marks the run as finished.

    Raises:
        StorageError: the store failed in every attempt.
    """
    for folder in ("model", "adapter"):
        paths = (path for path in sorted((output_dir / folder).rglob("*")) if path.is_file())
        store.upload_folder(output_dir / folder, folder, paths)
    for name in RUN_FILES:
        store.upload(output_dir / name, name)
    store.upload_text(json.dumps(record), RESULT)
    store.remove(CHECKPOINTS)
