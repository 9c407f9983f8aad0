"""The process group: this process's rank and device, and sums over all ranks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist

# Long, because ranks wait while one of them exports or uploads a large model. A dead rank is
# noticed earlier: its connections close, and the launcher ends the other ranks.
GROUP_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """The rank, world size and device of this process.

    Sums and barriers use `cpu_group`, so that they neither wait for a GPU's queue of kernels nor
    for NCCL. None is the default group.
    """

    rank: int
    world_size: int
    device: torch.device
    cpu_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Return True on rank 0, which logs and writes the results."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """Return the name of the GPU, such as "NVIDIA H200", or "cpu"."""
        is_cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_cuda else self.device.type

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return each value summed over the ranks in float64; a collective operation."""
        if self.world_size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.cpu_group)
        return [float(value) for value in tensor.tolist()]

    def max(self, value: float) -> float:
        """Return the largest value of all ranks; a collective operation."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.cpu_group)
        return float(tensor)

    def from_main(self, text: str) -> str:
        """Return the text of the main rank; a collective operation."""
        texts = [text]
        if self.world_size > 1:
            dist.broadcast_object_list(texts, src=0, device=self.device)
        return texts[0]

    def barrier(self) -> None:
        """Wait for all ranks; a collective operation."""
        if self.world_size > 1:
            dist.barrier(group=self.cpu_group)


def join_ranks() -> Ranks:
    """Join the launcher's process group, or create a group of one process.

    Ray Train has already created the group and selected the GPU. torchrun sets the group's address
    and LOCAL_RANK in the environment. `python -m trainers` without a launcher does neither.
    """
    is_cuda = uses_cuda()
    if dist.is_initialized():
        device = torch.device("cuda", torch.cuda.current_device()) if is_cuda else _CPU
    else:
        device = torch.device("cuda", _local_gpu()) if is_cuda else _CPU
        _create_group(device)
    return Ranks(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        device=device,
        cpu_group=_gloo_group(dist.group.WORLD) if is_cuda else None,
    )


def uses_cuda() -> bool:
    """Return whether this process trains on a GPU.

    The backend of the process group decides, because a process without an assigned GPU may still
    see those of the machine. Without a group, CUDA is used if it is available.
    """
    if not torch.cuda.is_available():
        return False
    return not dist.is_initialized() or "nccl" in str(dist.get_backend_config())


_CPU = torch.device("cpu")


def _local_gpu() -> int:
    # Some launchers make only one GPU visible to each process.
    return int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()


def _create_group(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # With its device, NCCL connects at once and never has to guess the GPU.
    device_id = device if device.type == "cuda" else None
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, timeout=GROUP_TIMEOUT, device_id=device_id)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(
            backend, timeout=GROUP_TIMEOUT, store=store, rank=0, world_size=1, device_id=device_id
        )


@cache
def _gloo_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """Return a gloo group of all ranks of `world`, created once; a collective operation."""
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=GROUP_TIMEOUT)
    return group
