"""A step that cannot be trusted ends the run before the optimizer moves."""

import errno
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from tests.trainers.tiny_runs import settings
from trainers import sft
from trainers.config import ModelConfig, TrainConfig
from trainers.foundation.errors import TrainingError
from trainers.models.loading import load_model
from trainers.runs.checkpoint import latest_checkpoint


def local_weights(model: PreTrainedModel) -> list[torch.Tensor]:
    """This rank's part of each parameter: all of it in a world of one."""
    return [getattr(p, "ds_tensor", p).detach().flatten().clone() for p in model.parameters()]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradient_that_is_not_finite_stops_the_run(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[PreTrainedModel] = []

    def load_poisoned(config: ModelConfig, dtype: torch.dtype) -> PreTrainedModel:
        model = load_model(config, dtype)
        model.get_submodule("model.norm").weight.register_hook(lambda grad: grad * math.inf)
        loaded.append(model)
        return model

    monkeypatch.setattr(sft, "load_model", load_poisoned)
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


def test_a_disk_without_room_for_a_checkpoint_stops_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(TrainingError, match=r"checkpoint of step 2 needs .* are free at"):
        sft.train(TrainConfig.model_validate(config), tmp_path / "out")
    monkeypatch.undo()
    result = sft.train(TrainConfig.model_validate(config), tmp_path / "out")
    assert result.steps == 6


def test_a_checkpoint_that_cannot_be_written_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def fail_at_the_second(tensors: dict[str, torch.Tensor], path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("trainers.runs.checkpoint.save_file", fail_at_the_second)
    config = TrainConfig.model_validate(settings(tmp_path))
    with pytest.raises(TrainingError, match=r"step 4 could not be written .* No space left"):
        sft.train(config, tmp_path / "out")
    newest = latest_checkpoint(tmp_path / "out" / "checkpoints", config.model_dump(mode="json"))
    assert newest is not None
    assert newest.step == 2


def test_out_of_memory_says_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(_: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def load_hungry(config: ModelConfig, dtype: torch.dtype) -> PreTrainedModel:
        model = load_model(config, dtype)
        model.get_submodule("model.norm").weight.register_hook(out_of_memory)
        return model

    monkeypatch.setattr(sft, "load_model", load_hungry)
    with pytest.raises(TrainingError, match=r"ran out of memory .* try batch.micro_batch_size 1,"):
        sft.train(TrainConfig.model_validate(settings(tmp_path)), tmp_path / "out")
