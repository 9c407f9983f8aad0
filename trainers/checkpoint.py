"""Checkpoints to resume from, and the plain model folder at the end.

    checkpoints/step-00000010/
      shard-00000-of-00002.safetensors   float32 weights and AdamW moments of some parameters
      shard-00001-of-00002.safetensors
      COMPLETE.json                      written last: step, config, shards and their sizes

Parameters are dealt to the ranks for writing, each one whole, so a checkpoint can be read at any
world size and ZeRO stage. There is no random state to keep: every step seeds its own generator.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainers.errors import InputError, Problem
from trainers.files import read_json, sha256_of, write_json
from trainers.zero import ADAM_MOMENTS, ZeroEngine

log = logging.getLogger(__name__)

MARKER = "COMPLETE.json"


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


def save_checkpoint(
    engine: ZeroEngine,
    checkpoints: Path,
    *,
    step: int,
    tokens: int,
    config: dict[str, Any],
    keep: int,
) -> None:
    """Write `step-<step>` with the marker last, then delete all but the last `keep`."""
    ranks = engine.ranks
    folder = checkpoints / f"step-{step:08d}"
    if ranks.is_first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    ranks.barrier()
    mine: dict[str, Tensor] = {}
    for index, (name, tensors) in enumerate(engine.weights_and_moments()):
        if index % ranks.world_size == ranks.rank:
            for kind, tensor in tensors.items():
                mine[f"{kind}/{name}"] = tensor.detach().to("cpu", copy=True).contiguous()
    shard = folder / f"shard-{ranks.rank:05d}-of-{ranks.world_size:05d}.safetensors"
    save_file(mine, shard)
    ranks.barrier()
    if ranks.is_first:
        shards = sorted(folder.glob("shard-*.safetensors"))
        if len(shards) != ranks.world_size:
            raise RuntimeError(
                f"{len(shards)} of {ranks.world_size} checkpoint shards are visible in {folder}: "
                "all ranks must write to the same storage"
            )
        marker = {
            "step": step,
            "tokens": tokens,
            "config": config,
            "shards": {path.name: sha256_of(path) for path in shards},
        }
        write_json(folder / MARKER, marker)
        for old in sorted(checkpoints.glob("step-*"))[:-keep]:
            shutil.rmtree(old)
    ranks.barrier()


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


def restore_engine(engine: ZeroEngine, checkpoint: Checkpoint) -> None:
    """Bring a fresh engine, built on the checkpoint's weights, to the checkpoint's step."""
    engine.start_moments(checkpoint.step)
    for name, tensors in checkpoint.read_all(("weight", *ADAM_MOMENTS)).items():
        engine.restore(name, tensors)


def load_weights(model: Any, checkpoint: Checkpoint) -> None:
    """Copy the checkpoint's float32 weights into a model that has no engine yet."""
    saved = checkpoint.read_all(("weight",))
    for name, parameter in model.named_parameters():
        if name in saved:
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
