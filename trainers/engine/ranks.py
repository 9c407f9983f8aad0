"""The process group: who we are among the ranks, and sums over all of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of one fine-tune."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """The GPU's name, as "NVIDIA H200", or "cpu"."""
        is_cuda = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_cuda else self.device.type

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks, in float64; all ranks get the result."""
        if self.world_size == 1:
            return [float(value) for value in values]
        # MPS aside, every device we run on has float64; gloo and NCCL both reduce it.
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()


def join_ranks() -> Ranks:
    """Join the process group that the launcher prepared, or a group of one.

    Ray Train has already made the group, torchrun has left its address in the environment, and
    a plain `python -m trainers` has done neither.
    """
    use_cuda = torch.cuda.is_available()
    backend = "nccl" if use_cuda else "gloo"
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if use_cuda:
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if not dist.is_initialized():
        if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
            dist.init_process_group(backend)
        else:
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
    return Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)
