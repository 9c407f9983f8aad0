"""Keep the model with the lowest held-out completion loss, next to the checkpoints of its run.

    checkpoints/best-00000010/
      best.json    step, losses, and squared distances from the pre-trained weights
      model/       what is exported in the end; adapter/ with LoRA

The folder is renamed when it is complete, and only then is the previous one deleted: a killed run
has one or the other. A resumed run keeps a model of a later step than its checkpoint: it trains
these steps again, with the same losses. With an object store, only the main rank's node has the
folder; best.json is uploaded last.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trainers.engine.ranks import Ranks
from trainers.foundation.files import read_json, write_json
from trainers.foundation.object_store import ObjectStore
from trainers.runs.checkpoint import CHECKPOINTS

_RECORD = "best.json"
_PREFIX = "best-"


@dataclass(frozen=True, kw_only=True)
class BestRecord:
    """Step and held-out completion loss (nats per token) of the best model.

    `squared_distances` is what `WriteModel` returned.
    """

    step: int
    heldout_completion_loss: float
    squared_distances: dict[str, float] = field(default_factory=dict)


# Writes model and adapter into a folder and returns squared distances by parameter; collective.
WriteModel = Callable[[Path], dict[str, float]]


class BestModel:
    """The best model of a run. All ranks call each method together."""

    def __init__(
        self, output_dir: Path, ranks: Ranks, store: ObjectStore | None, *, is_resumed: bool
    ) -> None:
        """
        Args:
            is_resumed: the run continues from a checkpoint; otherwise the model of an earlier run
                is deleted.
        """
        self._output_dir, self._ranks, self._store = output_dir, ranks, store
        self._checkpoints = output_dir / CHECKPOINTS
        self._record: BestRecord | None = None
        found = "null"
        if ranks.is_main:
            if store is not None:
                self._take_from_store(store)
            if not is_resumed:
                self._delete_all_but(None)
            for path in self._folders()[-1:]:
                found = json.dumps(read_json(path / _RECORD))
        found = ranks.from_main(found)
        if found != "null":
            self._record = BestRecord(**json.loads(found))

    @property
    def record(self) -> BestRecord | None:
        """Return the record of the best model; None before the first evaluation."""
        return self._record

    def update(self, step: int, heldout_completion_loss: float | None, write: WriteModel) -> None:
        """Write the model after `step` steps if its loss is the lowest so far.

        Raises:
            TrainingError: the disk is full, or the store failed.
        """
        loss, best = heldout_completion_loss, self._record
        if loss is None or (best is not None and loss >= best.heldout_completion_loss):
            return
        folder = self._checkpoints / f"{_PREFIX}{step:08d}"
        temporary = folder.with_name(f".{folder.name}.tmp")
        if self._ranks.is_main:
            for left in self._checkpoints.glob(f".{_PREFIX}*.tmp"):
                shutil.rmtree(left)
        record = BestRecord(
            step=step, heldout_completion_loss=loss, squared_distances=write(temporary)
        )
        if self._ranks.is_main:
            write_json(temporary / _RECORD, asdict(record))
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
            if self._store is not None:
                name = f"{CHECKPOINTS}/{folder.name}"
                paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
                paths.sort(key=lambda path: path.name == _RECORD)
                self._store.upload_folder(folder, name, iter(paths))
            self._delete_all_but(folder)
        self._ranks.barrier()
        self._record = record

    def move_to_output(self) -> None:
        """Move model and adapter into the run's folder.

        The record stays until the checkpoints are deleted. So a run that is killed before that
        knows, when it ends again, that they have been moved.
        """
        if self._ranks.is_main:
            [folder] = self._folders()[-1:]
            for path in (folder / "model", folder / "adapter"):
                if path.exists():
                    shutil.rmtree(self._output_dir / path.name, ignore_errors=True)
                    path.replace(self._output_dir / path.name)
        self._ranks.barrier()

    def _folders(self) -> list[Path]:
        return sorted(
            path for path in self._checkpoints.glob(f"{_PREFIX}*") if (path / _RECORD).exists()
        )

    def _take_from_store(self, store: ObjectStore) -> None:
        """Replace the local folder by the newest complete one of the store."""
        names = [
            name.partition("/")[0]
            for name in store.sizes(CHECKPOINTS)
            if name.startswith(_PREFIX) and name.endswith(f"/{_RECORD}")
        ]
        kept = self._checkpoints / max(names) if names else None
        if kept is not None:
            name, local = f"{CHECKPOINTS}/{kept.name}", kept / _RECORD
            if not local.exists() or local.read_text() != store.read_text(f"{name}/{_RECORD}"):
                shutil.rmtree(kept, ignore_errors=True)
            store.download_folder(name, kept)
        self._delete_all_but(kept)

    def _delete_all_but(self, kept: Path | None) -> None:
        for path in self._checkpoints.glob(f"{_PREFIX}*"):
            if path != kept:
                shutil.rmtree(path)
        if self._store is not None:
            names = {name.partition("/")[0] for name in self._store.sizes(CHECKPOINTS)}
            for name in sorted(names):
                if name.startswith(_PREFIX) and (kept is None or name != kept.name):
                    self._store.remove(f"{CHECKPOINTS}/{name}")
