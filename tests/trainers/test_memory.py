"""A finished fine-tune gives its memory back, so that warm ranks can take the next one."""

import gc
import json
import weakref
from pathlib import Path

import pytest

from tests.trainers.runs import settings
from tests.worlds import run_in_world
from trainers.config import TrainConfig


def models_left_after_training(folder: Path, stage: int) -> None:
    from transformers import LlamaForCausalLM

    from trainers.sft import train

    config = settings(folder, deepspeed={"zero_stage": stage, "precision": "float32"})
    train(TrainConfig.model_validate(config), folder / "run")
    gc.collect()
    alive = [weakref.ref(o) for o in gc.get_objects() if isinstance(o, LlamaForCausalLM)]
    (folder / "alive.json").write_text(json.dumps(len(alive)))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_no_model_outlives_its_training(stage: int, tmp_path: Path) -> None:
    run_in_world(1, models_left_after_training, tmp_path, stage)
    assert json.loads((tmp_path / "alive.json").read_text()) == 0
