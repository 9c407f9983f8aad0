"""Devices of ranks and of the optimizer's states, checked without a GPU."""

from types import SimpleNamespace

import pytest
import torch

from trainers.engine.optimizer import ADAM_MOMENTS
from trainers.engine.ranks import join_ranks, uses_cuda
from trainers.engine.zero import ZeroEngine


def test_a_rank_of_a_gloo_group_uses_the_cpu_of_a_machine_with_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trial with gpus_per_worker 0 must not use the GPUs that it can see."""
    join_ranks()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not uses_cuda()
    assert join_ranks().device == torch.device("cpu")


def test_a_process_without_a_group_uses_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    assert uses_cuda()


@pytest.mark.parametrize(
    "attribute", ["single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", None]
)
def test_adamw_states_are_created_on_the_device_of_their_parameter(attribute: str | None) -> None:
    """torch's fused AdamW on CUDA rejects states on the CPU; `meta` represents CUDA here."""
    parameter = torch.nn.Parameter(torch.empty(6, device="meta"))
    adam = torch.optim.AdamW([parameter])
    outer = SimpleNamespace(optimizer=adam, **({attribute: [parameter]} if attribute else {}))
    engine = object.__new__(ZeroEngine)
    engine._engine = SimpleNamespace(optimizer=outer)
    engine.init_optimizer_state(3)
    devices = {name: state.device.type for name, state in adam.state[parameter].items()}
    assert devices == dict.fromkeys(("step", *ADAM_MOMENTS), "meta")
