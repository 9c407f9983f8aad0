"""Write and read checkpoints.

    checkpoints/step-00000010/
      shard-00000-of-00002.safetensors   float32 weights and AdamW moments of some parameters
      shard-00001-of-00002.safetensors
      COMPLETE.json                      written last: step, config, dtype of summed gradients,
                                         shards and their digests

Each rank writes a share of the parameters, each of them unpartitioned. So a checkpoint can be read
at any world size and ZeRO stage. 8-bit moments are the exception: each rank writes those of its
partitions, and only the same number of ranks can read them. No random state is saved, because every
step seeds its own generator.

With an object store, the folder is local to each node. All files are also uploaded to the store,
and nodes download the files that they lack (trainers/runs/remote_run.py).
"""

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainers.config import TrainConfig, is_same_config
from trainers.engine.memory import GIB
from trainers.engine.ranks import Ranks
from trainers.engine.sharding import full_shape
from trainers.engine.zero import ZeroEngine, gathered
from trainers.foundation.errors import InputError, Problem, TrainingError
from trainers.foundation.files import read_json, sha256_file, write_json
from trainers.foundation.object_store import ObjectStore, StorageError

log = logging.getLogger(__name__)

MARKER = "COMPLETE.json"
# A float32 weight and AdamW's two moments.
_BYTES_PER_PARAMETER = 12
CHECKPOINTS = "checkpoints"
# Prefix of states of a rank's partitions.
_PARTITION = "partition/"
# Uploaded with each checkpoint, so that a run that resumes on another node keeps its earlier steps.
RUN_FILES = ("config.json", "metrics.jsonl")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint after `step` optimizer steps with `tokens` tokens."""

    folder: Path
    step: int
    tokens: int

    def read(self, kinds: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield each parameter's name and its tensors of these kinds, one parameter at a time."""
        for shard in self._shards():
            with safe_open(shard, framework="pt") as tensors:
                for name in _weight_names(tensors):
                    yield name, {kind: tensors.get_tensor(f"{kind}/{name}") for kind in kinds}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter."""
        found: dict[str, tuple[int, ...]] = {}
        for shard in self._shards():
            with safe_open(shard, framework="pt") as tensors:
                for name in _weight_names(tensors):
                    found[name] = tuple(tensors.get_slice(f"weight/{name}").get_shape())
        return found

    def partition_states(self, ranks: Ranks) -> dict[str, Tensor]:
        """Return the states that this rank's `ZeroEngine.partition_states` returned.

        Raises:
            InputError: another number of ranks wrote the checkpoint.
        """
        shards = self._shards()
        if len(shards) != ranks.world_size:
            raise InputError(
                Problem(
                    message=f"{len(shards)} ranks wrote the 8-bit moments of the checkpoint, and "
                    f"{ranks.world_size} cannot read them: blocks of moments cross parameters",
                    where=str(self.folder),
                    fix=f"train with {len(shards)} ranks, or use another output folder",
                )
            )
        with safe_open(shards[ranks.rank], framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(_PARTITION)]  # noqa: SIM118
            return {name.removeprefix(_PARTITION): tensors.get_tensor(name) for name in names}

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("shard-*.safetensors"))


def _weight_names(tensors: Any) -> list[str]:
    keys = tensors.keys()  # safetensors' file is not a mapping
    return [key.removeprefix("weight/") for key in keys if key.startswith("weight/")]


class CheckpointWriter:
    """Write the checkpoints of one run in a background thread.

    `save_async` copies the state, so training continues immediately. `finalize` completes a
    checkpoint: it checks that all ranks have written their shards, then writes the marker. Only
    then are older checkpoints deleted.
    """

    def __init__(
        self,
        engine: ZeroEngine,
        checkpoints: Path,
        config: dict[str, Any],
        *,
        keep: int,
        store: ObjectStore | None = None,
    ) -> None:
        """
        Args:
            store: object store of the run, if the ranks do not share its folder.
        """
        self._engine, self._checkpoints = engine, checkpoints
        self._config, self._keep, self._store = config, keep, store
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._marker: dict[str, Any] = {}

    def save_async(self, *, step: int, tokens: int) -> None:
        """Copy the weights and moments after `step` steps and start to write them.

        Collective: all ranks must call it together.

        Raises:
            TrainingError: the disk is full, or the previous checkpoint could not be written.
        """
        self.finalize(wait=True)
        ranks = self._engine.ranks
        folder = self._folder(step)
        if ranks.is_main:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        elif self._store is not None:
            folder.mkdir(parents=True, exist_ok=True)
        needed = self._engine.num_parameters * _BYTES_PER_PARAMETER
        check_disk_space(ranks, self._checkpoints, needed, f"the checkpoint of step {step}")
        shard_tensors: dict[str, Tensor] = {}
        for index, (name, tensors) in enumerate(self._engine.weights_and_moments()):
            if index % ranks.world_size == ranks.rank:
                for kind, tensor in tensors.items():
                    shard_tensors[f"{kind}/{name}"] = (
                        tensor.detach().to("cpu", copy=True).contiguous()
                    )
        for name, state in self._engine.partition_states().items():
            shard_tensors[f"{_PARTITION}{name}"] = state.detach().to("cpu", copy=True)
        shard = folder / f"shard-{ranks.rank:05d}-of-{ranks.world_size:05d}.safetensors"
        self._marker = {
            "step": step,
            "tokens": tokens,
            "config": self._config,
            "gradient_dtype": "float32",
        }
        self._thread = threading.Thread(
            target=self._write, args=(shard_tensors, shard), name="checkpoint"
        )
        self._thread.start()

    def finalize(self, *, wait: bool) -> None:
        """Complete the pending checkpoint if all ranks have written it; a collective operation.

        Args:
            wait: wait for this rank's thread. If False, return while any rank is still writing.

        Raises:
            TrainingError: a rank could not write its shard.
        """
        if self._thread is None:
            return
        if wait:
            self._thread.join()
        ranks = self._engine.ranks
        is_writing = self._thread.is_alive()
        num_writing, num_failed = ranks.sum([float(is_writing), float(self._error is not None)])
        if num_failed:
            raise self._failure(self._error or "another rank could not write its shard")
        if num_writing:
            return
        self._thread = None
        error = self._try_to_complete() if ranks.is_main else None
        # Also a barrier: no rank continues before the checkpoint is complete.
        [is_incomplete] = ranks.sum([float(error is not None)])
        if is_incomplete:
            raise self._failure(error or "the main rank could not complete it")
        if ranks.is_main or self._store is not None:
            # Nodes without a shared folder each delete their own old checkpoints.
            for old in sorted(self._checkpoints.glob("step-*"))[: -self._keep]:
                shutil.rmtree(old, ignore_errors=True)
        # No rank may continue while another one is still deleting files.
        ranks.barrier()

    def discard(self) -> None:
        """Delete all checkpoints of the run after every rank has stopped writing.

        Collective: all ranks must call it together.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        ranks = self._engine.ranks
        ranks.barrier()
        if ranks.is_main or self._store is not None:
            shutil.rmtree(self._checkpoints, ignore_errors=True)
        if ranks.is_main and self._store is not None:
            self._store.remove(CHECKPOINTS)
        ranks.barrier()

    def _folder(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:08d}"

    def _write(self, tensors: dict[str, Tensor], shard: Path) -> None:
        try:
            save_file(tensors, shard)
            digest = shard.with_suffix(".json")
            write_json(digest, {"sha256": sha256_file(shard)})
            if self._store is not None:
                for path in (shard, digest):
                    self._store.upload(path, _object_name(path.parent, path.name))
        except (OSError, SafetensorError, StorageError) as error:
            self._error = error
            with suppress(OSError):  # On a full disk, other files need the shard's space.
                shard.unlink(missing_ok=True)

    def _failure(self, reason: Exception | str) -> TrainingError:
        return TrainingError(
            f"the checkpoint of step {self._marker['step']} could not be written in "
            f"{self._checkpoints}: {reason}; the previous checkpoint is kept"
        )

    def _try_to_complete(self) -> Exception | None:
        """Complete the checkpoint that all ranks have written; return the error, if any."""
        folder = self._folder(self._marker["step"])
        try:
            self._complete(folder)
        except (OSError, StorageError, TrainingError) as error:
            shutil.rmtree(folder, ignore_errors=True)  # On a full disk, others need its space.
            return error
        return None

    def _complete(self, folder: Path) -> None:
        store, name = self._store, _object_name(folder)
        if store is not None:
            digest_names = [key for key in store.sizes(name) if key.endswith(".json")]
            store.download_folder(name, folder, only=frozenset(digest_names))
        digests = sorted(folder.glob("shard-*.json"))
        num_ranks = self._engine.ranks.world_size
        if len(digests) != num_ranks:
            raise TrainingError(
                f"{len(digests)} of {num_ranks} checkpoint shards are visible in {folder}: "
                "all ranks must write to the same storage"
            )
        shards = {path.stem + ".safetensors": read_json(path)["sha256"] for path in digests}
        marker = {**self._marker, "shards": shards}
        if store is not None:
            for path in (self._checkpoints.parent / file_name for file_name in RUN_FILES):
                if path.exists():
                    store.upload(path, path.name)
            # Write the store's marker first: other nodes could not resume from a local marker.
            store.upload_text(json.dumps(marker), f"{name}/{MARKER}")
        write_json(folder / MARKER, marker)
        for path in digests:
            path.unlink()
        if store is not None:
            folders = {key.partition("/")[0] for key in store.sizes(CHECKPOINTS)}
            steps = [name for name in folders if name.startswith("step-")]
            for step in sorted(steps)[: -self._keep]:
                store.remove(f"{CHECKPOINTS}/{step}")


def _object_name(folder: Path, name: str = "") -> str:
    """Return the name in the store of a checkpoint, or of a file in it."""
    return f"{CHECKPOINTS}/{folder.name}/{name}".rstrip("/")


def check_disk_space(ranks: Ranks, folder: Path, needed: int, what: str) -> None:
    """Check that the disk of `folder` has `needed` free bytes; a collective operation.

    The main rank does the check.

    Raises:
        TrainingError: fewer bytes are free; raised on every rank.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    [is_short] = ranks.sum([float(ranks.is_main and free < needed)])
    if is_short:
        raise TrainingError(
            f"{what} needs {needed / GIB:.1f} GiB, but {free / GIB:.1f} GiB are free at {folder}; "
            "free disk space and run the same command again to resume from the last checkpoint"
        )


def latest_checkpoint(checkpoints: Path, config: TrainConfig) -> Checkpoint | None:
    """Return the newest intact checkpoint; damaged ones are skipped with a warning.

    Raises:
        InputError: a run with other settings wrote the checkpoint, or an earlier release that
            computes other gradients with these settings.
    """
    for folder in sorted(checkpoints.glob("step-*"), reverse=True):
        damage = _find_damage(folder)
        if damage:
            log.warning("checkpoint %s is skipped: %s", folder, damage)
            continue
        marker = read_json(folder / MARKER)
        if not is_same_config(marker["config"], config):
            raise InputError(
                Problem(
                    message="the folder contains a checkpoint of a run with other settings",
                    where=str(folder),
                    fix="use another output folder, or delete this checkpoint",
                )
            )
        if config.deepspeed.precision == "bfloat16" and "gradient_dtype" not in marker:
            raise InputError(
                Problem(
                    message="the checkpoint is of an earlier release, which summed gradients in "
                    "bfloat16 instead of float32",
                    where=str(folder),
                    fix="use another output folder, or delete this checkpoint to start again",
                )
            )
        return Checkpoint(folder, marker["step"], marker["tokens"])
    return None


def check_same_checkpoint(ranks: Ranks, checkpoint: Checkpoint | None) -> None:
    """Check that all ranks found the same checkpoint; a collective operation.

    Raises:
        TrainingError: the checkpoints differ; raised on every rank.
    """
    step = float(-1 if checkpoint is None else checkpoint.step)
    [total] = ranks.sum([step])
    if any(ranks.sum([float(total != step * ranks.world_size)])):
        raise TrainingError(
            f"the ranks found different checkpoints, this rank that of step {step:.0f}: all ranks "
            "must see the same storage; run the same command again"
        )


def restore_engine(engine: ZeroEngine, checkpoint: Checkpoint) -> None:
    """Set the weights and moments of a new engine to those of the checkpoint.

    Raises:
        InputError: another number of ranks wrote its 8-bit moments.
    """
    if engine.moments:
        engine.init_optimizer_state(checkpoint.step)
    else:
        engine.restore_partition_states(checkpoint.partition_states(engine.ranks))
    for name, tensors in checkpoint.read(("weight", *engine.moments)):
        engine.restore(name, tensors)


def load_weights(model: Any, checkpoint: Checkpoint) -> None:
    """Copy the checkpoint's float32 weights into a model before its engine is built.

    Raises:
        InputError: the checkpoint belongs to another model.
    """
    saved = checkpoint.shapes()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shapes = {name: full_shape(parameter) for name, parameter in trained.items()}
    different = sorted(
        name for name in saved.keys() | shapes.keys() if saved.get(name) != shapes.get(name)
    )
    if different:
        raise InputError(
            Problem(
                message=f"the checkpoint is of another model: {len(different)} weights differ in "
                f"name or shape, such as {different[0]}",
                where=str(checkpoint.folder),
                fix="use another output folder, or delete this checkpoint",
            )
        )
    for name, tensors in checkpoint.read(("weight",)):
        with gathered(trained[name], is_changed=True):
            trained[name].data.copy_(tensors["weight"])


def _find_damage(folder: Path) -> str | None:
    """Return the reason why a checkpoint cannot be used; None if it is intact."""
    try:
        marker = read_json(folder / MARKER)
    except FileNotFoundError:
        return "it is incomplete"
    except ValueError:
        return f"{MARKER} is not JSON"
    for name, digest in marker["shards"].items():
        shard = folder / name
        if not shard.exists():
            return f"{name} is missing"
        if sha256_file(shard) != digest:
            return f"the digest of {name} does not match"
    return None
