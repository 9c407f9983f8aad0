"""Checks of a node before it trains."""

import importlib.metadata
from pathlib import Path

import pytest
import torch

from trainers.foundation.errors import InputError

# Ray takes seconds to import; no cluster is started.
pytestmark = pytest.mark.slow


def test_a_gpu_that_torch_cannot_use_is_an_error_that_names_driver_and_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    from orchestrator.trials.nodes import check_gpu

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12080).")

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(ray, "get_gpu_ids", list)
    check_gpu()
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: [0])
    with pytest.raises(InputError) as error:
        check_gpu()
    [problem] = error.value.problems
    assert problem.message.endswith(
        f"has GPUs that torch {importlib.metadata.version('torch')} cannot use: "
        "The NVIDIA driver on your system is too old (found version 12080)."
    )


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch has CUDA")
def test_torch_without_cuda_on_a_node_with_gpus_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.trials.nodes import check_node

    # As Ray does in a process without GPUs; the check must not see it.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_node(tmp_path)
    with pytest.raises(InputError, match=r"cannot use: .*Torch not compiled with CUDA enabled"):
        check_node(tmp_path, uses_gpus=True)
