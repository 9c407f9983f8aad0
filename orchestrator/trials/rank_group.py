"""Connect the ranks of a trial by torch's process group, for Ray Train.

`ray.train.torch` does the same, but imports torch in the process that starts a worker group and in
the group's controller: 0.3 GB and seconds of CPU in each, once for every slot of a cluster. Here
only the ranks import torch.
"""

import os
from dataclasses import dataclass

import ray
import ray.train
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig

# After this time, ranks that do not respond are left to Ray, which ends their processes.
_LEAVE_TIMEOUT_S = 30.0


@dataclass
class RankGroup(BackendConfig):  # type: ignore[misc]
    """Configuration of the process group: its backend, `nccl` or `gloo`."""

    backend: str

    @property
    def backend_cls(self) -> type[Backend]:
        return _RankGroupBackend


class _RankGroupBackend(Backend):  # type: ignore[misc]
    """Joins the ranks before their training loop starts. It runs in Ray Train's controller."""

    # NCCL needs to see the GPUs of all ranks of a node.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: RankGroup) -> None:
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_join, address, port, backend_config.backend)

    def on_shutdown(self, worker_group: BaseWorkerGroup, backend_config: RankGroup) -> None:
        leaving = worker_group.execute_async(_leave)
        ray.wait(leaving, num_returns=len(leaving), timeout=_LEAVE_TIMEOUT_S)


def _join(address: str, port: int, backend: str) -> None:
    """Join the process group as this rank; set the environment of torchrun."""
    import torch.distributed as dist
    from ray.train.torch import get_device

    from trainers.engine.ranks import GROUP_TIMEOUT

    context = ray.train.get_context()
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "RANK": str(context.get_world_rank()),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
        "NODE_RANK": str(context.get_node_rank()),
        # Accelerate, a dependency of libraries that ranks may import, would choose another device.
        "ACCELERATE_TORCH_DEVICE": str(get_device()),
    }
    dist.init_process_group(backend, timeout=GROUP_TIMEOUT)


def _leave() -> None:
    """Leave the process group and release the unused GPU memory."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.destroy_process_group()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
