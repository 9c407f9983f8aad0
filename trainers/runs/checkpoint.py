"""Checkpoints to resume from, and the plain model folder at the end.

    checkpoints/step-00000010/
      shard-00000-of-00002.safetensors   float32 weights and AdamW moments of some parameters
      shard-00001-of-00002.safetensors
      COMPLETE.json                      written last: step, config, shards and their digests

Parameters are dealt to the ranks for writing, each one whole, so a checkpoint can be read at any
world size and ZeRO stage. There is no random state to keep: every step seeds its own generator.

With an object store the folder is each node's own, and all of it goes to the store as well, from
where every node fetches what it lacks (trainers/runs/remote_run.py).
"""

import json
import logging
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.engine.memory import GIB
from trainers.engine.ranks import Ranks
from trainers.engine.zero import ADAM_MOMENTS, ZeroEngine
from trainers.foundation.errors import InputError, Problem, TrainingError
from trainers.foundation.files import read_json, sha256_of, write_json
from trainers.foundation.object_store import ObjectStore, StorageError

log = logging.getLogger(__name__)

MARKER = "COMPLETE.json"
# A float32 weight and AdamW's two moments.
_BYTES_PER_PARAMETER = 12
CHECKPOINTS = "checkpoints"
# Without them the steps up to a checkpoint would be lost to whoever goes on from it elsewhere.
WITH_CHECKPOINT = ("config.json", "metrics.jsonl")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: `step` optimizer steps are done, `tokens` were seen in them."""

    folder: Path
    step: int
    tokens: int
    config: dict[str, Any]

    def read_all(self, names: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
        """The tensors of each parameter under the keys in `names`, on the CPU."""
        saved: dict[str, dict[str, Tensor]] = {}
        for shard in sorted(self.folder.glob("shard-*.safetensors")):
            with safe_open(shard, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - not a mapping
                    kind, _, name = key.partition("/")
                    if kind in names:
                        saved.setdefault(name, {})[kind] = tensors.get_tensor(key)
        return saved


class CheckpointWriter:
    """Writes the checkpoints of one run, each from a thread beside the training.

    What is written is a copy, so training may go on at once. A checkpoint counts once `settle`
    has found the shards of all ranks and put the marker beside them; older ones go only then.
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
            store: of the run, where the ranks do not share its folder.
        """
        self._engine, self._checkpoints = engine, checkpoints
        self._config, self._keep, self._store = config, keep, store
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._marker: dict[str, Any] = {}

    def begin(self, *, step: int, tokens: int) -> None:
        """Copy the weights and moments after `step` steps and start to write; a collective.

        Raises:
            TrainingError: the disk has no room for it, or the one before could not be written.
        """
        self.settle(wait=True)
        ranks = self._engine.ranks
        folder = self._folder(step)
        if ranks.is_first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        elif self._store is not None:
            folder.mkdir(parents=True, exist_ok=True)
        needed = self._engine.num_parameters * _BYTES_PER_PARAMETER
        check_disk(ranks, self._checkpoints, needed, f"the checkpoint of step {step}")
        mine: dict[str, Tensor] = {}
        for index, (name, tensors) in enumerate(self._engine.weights_and_moments()):
            if index % ranks.world_size == ranks.rank:
                for kind, tensor in tensors.items():
                    mine[f"{kind}/{name}"] = tensor.detach().to("cpu", copy=True).contiguous()
        shard = folder / f"shard-{ranks.rank:05d}-of-{ranks.world_size:05d}.safetensors"
        self._marker = {"step": step, "tokens": tokens, "config": self._config}
        self._thread = threading.Thread(target=self._write, args=(mine, shard), name="checkpoint")
        self._thread.start()

    def settle(self, *, wait: bool) -> None:
        """Complete the checkpoint that is being written once all ranks have; a collective.

        Raises:
            TrainingError: a rank could not write.
        """
        if self._thread is None:
            return
        if wait:
            self._thread.join()
        ranks = self._engine.ranks
        is_writing = self._thread.is_alive()
        num_writing, num_failed = ranks.sum([float(is_writing), float(self._error is not None)])
        if num_failed:
            reason = self._error or "another rank could not write its shard"
            raise TrainingError(
                f"the checkpoint of step {self._marker['step']} could not be written in "
                f"{self._checkpoints}: {reason}; the one before it is kept"
            )
        if num_writing:
            return
        self._thread = None
        if ranks.is_first:
            self._complete(self._folder(self._marker["step"]))
        ranks.barrier()
        if ranks.is_first or self._store is not None:
            # Nodes that share no folder each have their own old ones.
            for old in sorted(self._checkpoints.glob("step-*"))[: -self._keep]:
                shutil.rmtree(old, ignore_errors=True)
        # No rank goes on while another may still see what is being deleted.
        ranks.barrier()

    def discard(self) -> None:
        """Delete all checkpoints of the run, once no rank is writing; a collective."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        ranks = self._engine.ranks
        ranks.barrier()
        if ranks.is_first or self._store is not None:
            shutil.rmtree(self._checkpoints, ignore_errors=True)
        if ranks.is_first and self._store is not None:
            self._store.remove(CHECKPOINTS)
        ranks.barrier()

    def _folder(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:08d}"

    def _write(self, tensors: dict[str, Tensor], shard: Path) -> None:
        try:
            save_file(tensors, shard)
            digest = shard.with_suffix(".json")
            write_json(digest, {"sha256": sha256_of(shard)})
            if self._store is not None:
                for path in (shard, digest):
                    self._store.put(path, _stored(path.parent, path.name))
        except (OSError, SafetensorError, StorageError) as error:
            self._error = error

    def _complete(self, folder: Path) -> None:
        store, name = self._store, _stored(folder)
        if store is not None:
            found = [one for one in store.sizes(name) if one.endswith(".json")]
            store.fetch_folder(name, folder, only=frozenset(found))
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
            for path in (self._checkpoints.parent / one for one in WITH_CHECKPOINT):
                if path.exists():
                    store.put(path, path.name)
            # First there: what one node alone calls complete, the others would not resume from.
            store.put_text(json.dumps(marker), f"{name}/{MARKER}")
        write_json(folder / MARKER, marker)
        for path in digests:
            path.unlink()
        if store is not None:
            steps = {one.partition("/")[0] for one in store.sizes(CHECKPOINTS)}
            for step in sorted(steps)[: -self._keep]:
                store.remove(f"{CHECKPOINTS}/{step}")


def _stored(folder: Path, name: str = "") -> str:
    """A checkpoint's name in the store, or that of a file in it."""
    return f"{CHECKPOINTS}/{folder.name}/{name}".rstrip("/")


def check_disk(ranks: Ranks, folder: Path, needed: int, what: str) -> None:
    """Stop every rank where `folder`, which the first one looks at, has no room; a collective.

    Raises:
        TrainingError: fewer than `needed` bytes are free.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    [is_short] = ranks.sum([float(ranks.is_first and free < needed)])
    if is_short:
        raise TrainingError(
            f"{what} needs {needed / GIB:.1f} GiB, but {free / GIB:.1f} GiB are free at {folder}; "
            "free some and run the same again: it goes on from the last checkpoint"
        )


def latest_checkpoint(checkpoints: Path, config: dict[str, Any]) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are passed over with a logged line.

    Raises:
        InputError: it was made by a run with other settings.
    """
    for folder in sorted(checkpoints.glob("step-*"), reverse=True):
        damage = _damage(folder)
        if damage:
            log.warning("checkpoint %s is passed over: %s", folder, damage)
            continue
        marker = read_json(folder / MARKER)
        if marker["config"] != config:
            raise InputError(
                Problem(
                    message="the folder holds a checkpoint of a run with other settings",
                    where=str(folder),
                    fix="use another output folder, or delete this one",
                )
            )
        return Checkpoint(folder, marker["step"], marker["tokens"], marker["config"])
    return None


def check_same_checkpoint(ranks: Ranks, checkpoint: Checkpoint | None) -> None:
    """Stop every rank where one has found another checkpoint than the others; a collective.

    Raises:
        TrainingError: they have.
    """
    step = float(-1 if checkpoint is None else checkpoint.step)
    [total] = ranks.sum([step])
    if any(ranks.sum([float(total != step * ranks.world_size)])):
        raise TrainingError(
            f"the ranks found different checkpoints, this one that of step {step:.0f}: they must "
            "see the same storage; run the same again"
        )


def restore_engine(engine: ZeroEngine, checkpoint: Checkpoint) -> None:
    """Bring a fresh engine, built on the checkpoint's weights, to the checkpoint's step."""
    engine.start_moments(checkpoint.step)
    for name, tensors in checkpoint.read_all(("weight", *ADAM_MOMENTS)).items():
        engine.restore(name, tensors)


def load_weights(model: Any, checkpoint: Checkpoint) -> None:
    """Copy the checkpoint's float32 weights into a model that has no engine yet.

    Raises:
        InputError: it is a checkpoint of another model.
    """
    saved = checkpoint.read_all(("weight",))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    different = sorted(
        name
        for name in saved.keys() | trained.keys()
        if name not in saved
        or name not in trained
        or saved[name]["weight"].shape != trained[name].shape
    )
    if different:
        raise InputError(
            Problem(
                message=f"the checkpoint is of another model: {len(different)} weights differ in "
                f"name or shape, such as {different[0]}",
                where=str(checkpoint.folder),
                fix="use another output folder, or delete this one",
            )
        )
    for name, parameter in trained.items():
        parameter.data.copy_(saved[name]["weight"])


def export_model(
    weights: dict[str, Tensor],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> None:
    """Write the model as `from_pretrained` loads it: safetensors, tokenizer, chat template.

    Args:
        weights: all of them, by the model's own names.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary, state_dict=weights)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)


def _damage(folder: Path) -> str | None:
    try:
        marker = read_json(folder / MARKER)
    except FileNotFoundError:
        return "it was not finished"
    except ValueError:
        return f"{MARKER} is not JSON"
    for name, digest in marker["shards"].items():
        shard = folder / name
        if not shard.exists():
            return f"{name} is missing"
        if sha256_of(shard) != digest:
            return f"{name} has changed since it was written"
    return None
