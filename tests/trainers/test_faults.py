"""A step that cannot be trusted ends the run before the optimizer moves."""

import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from tests.trainers.runs import settings
from trainers import sft
from trainers.config import ModelConfig, TrainConfig
from trainers.errors import TrainingError
from trainers.models import load_model


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
