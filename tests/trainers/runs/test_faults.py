"""A faulty step ends the run before the optimizer changes a parameter."""

import errno
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from tests.trainers.tiny_runs import settings, train_until
from trainers import run_setup, sft
from trainers.config import ModelConfig, TrainConfig
from trainers.foundation.errors import TrainingError
from trainers.foundation.files import write_json
from trainers.models.loading import load_model
from trainers.runs.checkpoint import MARKER, latest_checkpoint


def local_weights(model: PreTrainedModel) -> list[torch.Tensor]:
    """Return this rank's partition of each parameter; all of it on a single rank."""
    return [getattr(p, "ds_tensor", p).detach().flatten().clone() for p in model.parameters()]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradient_that_is_not_finite_stops_the_run(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[PreTrainedModel] = []

    def load_poisoned(config: ModelConfig, dtype: torch.dtype, *_: object) -> PreTrainedModel:
        model = load_model(config, dtype)
        model.get_submodule("model.norm").weight.register_hook(lambda grad: grad * math.inf)
        loaded.append(model)
        return model

    monkeypatch.setattr(run_setup, "load_model", load_poisoned)
    config = settings(
        tmp_path,
        deepspeed={"zero_stage": stage, "precision": "float32"},
        optimizer={"learning_rate": 1e-2, "max_grad_norm": 0.0},
    )
    before = local_weights(load_model(ModelConfig(path=config["model"]["path"]), torch.float32))
    with pytest.raises(TrainingError, match=r"gradient of step 1 is not finite .* on examples"):
        sft.train(TrainConfig.model_validate(config), tmp_path / "out")
    after = local_weights(loaded[0])
    assert all(torch.equal(a, b[: a.numel()]) for a, b in zip(before, after, strict=True))
    assert not (tmp_path / "out" / "model").exists()


def test_error_for_a_full_disk_names_the_size_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(TrainingError, match=r"checkpoint of step 2 needs .* are free at"):
        sft.train(TrainConfig.model_validate(config), tmp_path / "out")
    monkeypatch.undo()
    result = sft.train(TrainConfig.model_validate(config), tmp_path / "out")
    assert result.steps == 6


def test_a_failed_checkpoint_keeps_the_previous_one_and_occupies_no_disk_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def fail_at_the_second(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("trainers.runs.checkpoint.save_file", fail_at_the_second)
    config = TrainConfig.model_validate(settings(tmp_path))
    with pytest.raises(TrainingError, match=r"step 4 could not be written .* No space left"):
        sft.train(config, tmp_path / "out")
    newest = latest_checkpoint(tmp_path / "out" / "checkpoints", config)
    assert newest is not None
    assert newest.step == 2
    assert list((tmp_path / "out" / "checkpoints" / "step-00000004").iterdir()) == []


def test_a_checkpoint_whose_marker_cannot_be_written_occupies_no_disk_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_the_marker_of_step_4(path: Path, content: object) -> None:
        if path.name == MARKER and path.parent.name == "step-00000004":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, content)

    monkeypatch.setattr("trainers.runs.checkpoint.write_json", fail_for_the_marker_of_step_4)
    config = TrainConfig.model_validate(settings(tmp_path))
    with pytest.raises(TrainingError, match=r"step 4 could not be written .* No space left"):
        sft.train(config, tmp_path / "out")
    checkpoints = tmp_path / "out" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]


def test_out_of_memory_error_lists_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def load_hungry(config: ModelConfig, dtype: torch.dtype, *_: object) -> PreTrainedModel:
        model = load_model(config, dtype)
        model.get_submodule("model.norm").weight.register_hook(out_of_memory)
        return model

    monkeypatch.setattr(run_setup, "load_model", load_hungry)
    with pytest.raises(TrainingError, match=r"ran out of memory .* try batch.micro_batch_size 1,"):
        sft.train(TrainConfig.model_validate(settings(tmp_path)), tmp_path / "out")


@pytest.mark.parametrize(
    "function", ["run_setup.ZeroEngine", "run_setup.restore_engine", "model_export.export_model"]
)
def test_out_of_memory_is_explained_at_every_stage(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building the engine, resuming and exporting fail with messages of different libraries."""
    config = settings(tmp_path)
    train_until(config, tmp_path / "out", crash_after=6)

    def out_of_memory(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")

    monkeypatch.setattr(f"trainers.{function}", out_of_memory)
    with pytest.raises(TrainingError, match=r"ran out of memory on cpu: weights, .* try") as caught:
        sft.train(TrainConfig.model_validate(config), tmp_path / "out")
    assert caught.value.kind == "out_of_memory"
