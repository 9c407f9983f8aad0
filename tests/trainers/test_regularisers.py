"""What the paper compared the prompt loss with: decay, distance penalty, dropout; and distances."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.families import family
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.config import ModelConfig, TrainConfig
from trainers.data.batches import step_window
from trainers.data.roles import Role
from trainers.data.tokenize import encode_all, read_split
from trainers.foundation.errors import InputError
from trainers.models.loading import load_model
from trainers.runs.diagnostics import distance_by_layer, loss_rsd

STAGES = (0, 1, 2, 3)
LEARNING_RATE, WEIGHT_DECAY, PENALTY, STEPS = 1e-2, 0.1, 7.0, 4


def penalised(folder: Path, stage: int) -> dict[str, Any]:
    return settings(
        folder,
        optimizer={
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "distance_penalty": PENALTY,
            # Large beside the gradients, so that no sign of a tiny one decides a whole step.
            "epsilon": 1e-2,
            "max_grad_norm": 0.0,
        },
        schedule={"steps": STEPS, "kind": "constant", "warmup_ratio": 0.0},
        deepspeed={"zero_stage": stage, "precision": "float32"},
        log_distance_every_steps=2,
    )


def train_in_all_stages(folder: Path) -> None:
    for stage in STAGES:
        train_until(penalised(folder, stage), folder / f"stage-{stage}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("penalised")
    settings(folder)
    run_in_world(2, train_in_all_stages, folder)
    return folder


@pytest.fixture(scope="module")
def reference(trained: Path) -> dict[str, torch.Tensor]:
    """The same steps in float64 with torch alone, the penalty written out."""
    config = TrainConfig.model_validate(penalised(trained, 0))
    model = AutoModelForCausalLM.from_pretrained(trained / "model").double()
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    examples = encode_all(read_split(config.data).train, config.data, tokenizer)
    origin = {name: p.detach().clone() for name, p in model.named_parameters()}
    adam = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=1e-2
    )
    for step in range(STEPS):
        weighted, weights = torch.zeros((), dtype=torch.float64), 0.0
        for index in step_window(step, len(examples), 7, config.seed):
            example = examples[index]
            logits = model(torch.tensor([list(example.input_ids)])).logits[0].log_softmax(-1)
            for position in range(1, len(example.input_ids)):
                share = 1.0 if example.roles[position] == Role.COMPLETION else 0.1
                weighted = weighted - share * logits[position - 1, example.input_ids[position]]
                weights += share
        adam.zero_grad()
        (weighted / weights).backward()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.sub_(LEARNING_RATE * PENALTY * (weight - origin[name]))
        adam.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_distance_penalty_equals_its_definition(
    stage: int, trained: Path, reference: dict[str, torch.Tensor]
) -> None:
    weights = load_file(trained / f"stage-{stage}" / "model" / "model.safetensors")
    for name, wanted in reference.items():
        error = (weights[name].double() - wanted).norm() / wanted.norm()
        assert error < 1e-5, (name, error)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_distance_is_that_of_the_exported_model_from_the_original(
    stage: int, trained: Path
) -> None:
    before = load_file(trained / "model" / "model.safetensors")
    after = load_file(trained / f"stage-{stage}" / "model" / "model.safetensors")
    squared = {name: float((after[name] - before[name]).double().square().sum()) for name in before}
    result = json.loads((trained / f"stage-{stage}" / "train.json").read_text())["result"]
    assert result["distance"] == pytest.approx(math.sqrt(sum(squared.values())), rel=1e-5)
    assert result["device"] == (
        "cpu" if not torch.cuda.is_available() else torch.cuda.get_device_name()
    )
    first = sum(value for name, value in squared.items() if "layers.0." in name)
    assert result["distance_by_layer"]["layer.0"] == pytest.approx(math.sqrt(first), rel=1e-5)
    assert result["distance_by_layer"].keys() == {"layer.0", "layer.1", "other"}
    lines = (trained / f"stage-{stage}" / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line)["distance"] for line in lines]
    assert logged == [None, pytest.approx(logged[1]), None, pytest.approx(result["distance"])]
    assert logged[1] > 0


def test_dropout_reaches_the_model(tmp_path: Path) -> None:
    path = str(save_tiny_model(tmp_path / "model"))
    model = load_model(ModelConfig(path=path, dropout=0.25), torch.float32)
    assert model.get_submodule("model.layers.0.self_attn").attention_dropout == 0.25
    plain = load_model(ModelConfig(path=path), torch.float32)
    assert plain.get_submodule("model.layers.0.self_attn").attention_dropout == 0.0


def test_dropout_of_a_family_without_it_is_refused(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    family("mamba").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="models of the family mamba have no dropout"):
        load_model(ModelConfig(path=str(tmp_path), dropout=0.1), torch.float32)


def test_relative_standard_deviation_of_the_loss() -> None:
    assert loss_rsd([2.0, 4.0] * 5) == pytest.approx(1.0540925533894598 / 3)
    assert loss_rsd([20.0, 40.0] * 5) == pytest.approx(1.0540925533894598 / 3)
    assert loss_rsd([1.0] * 10 + [2.0, 4.0] * 5 + [9.0] * 9) == pytest.approx(
        0.3513641844631533 / 2
    )
    assert loss_rsd([1.0] * 9) is None


def test_distance_by_layer_groups_names_of_common_families() -> None:
    squared = {
        "model.model.layers.0.mlp.up_proj.weight": 9.0,
        "model.model.layers.0.mlp.down_proj.weight": 16.0,
        "model.transformer.h.11.attn.c_attn.weight": 4.0,
        "head.weight": 1.0,
    }
    assert distance_by_layer(squared) == {"layer.0": 5.0, "layer.11": 2.0, "other": 1.0}
