"""The regularisers of the paper (weight decay, L2-SP, dropout), and distances of weights."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CohereConfig, CohereForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.trainer_pt_utils import get_parameter_names

from tests.families import family
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.config import ModelConfig, TrainConfig, is_same_config
from trainers.data.batches import global_batch_indices
from trainers.data.roles import Role
from trainers.data.tokenize import encode_examples, read_split
from trainers.engine.weight_decay import is_left_out
from trainers.foundation.errors import InputError
from trainers.models.loading import load_model
from trainers.runs.diagnostics import layer_distances, loss_rsd

STAGES = (0, 1, 2, 3)
LEARNING_RATE, WEIGHT_DECAY, PENALTY, STEPS = 1e-2, 0.1, 7.0, 4


def penalised(folder: Path, stage: int) -> dict[str, Any]:
    return settings(
        folder,
        optimizer={
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "l2_sp": PENALTY,
            # Large relative to the gradients, so that tiny gradients do not cause full steps.
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
    """Compute the same steps in float64 with torch, and L2-SP explicitly."""
    config = TrainConfig.model_validate(penalised(trained, 0))
    model = AutoModelForCausalLM.from_pretrained(trained / "model").double()
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    examples = encode_examples(read_split(config.data).train, config.data, tokenizer)
    pretrained_weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    decayed = get_parameter_names(model, [LlamaRMSNorm])
    groups = [
        {"params": [p for n, p in model.named_parameters() if n in decayed]},
        {"params": [p for n, p in model.named_parameters() if n not in decayed], "weight_decay": 0},
    ]
    assert [len(group["params"]) for group in groups] == [15, 5]
    adam = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=1e-2)
    for step in range(STEPS):
        weighted, weights = torch.zeros((), dtype=torch.float64), 0.0
        for index in global_batch_indices(step, len(examples), 7, config.seed):
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
                weight.sub_(LEARNING_RATE * PENALTY * (weight - pretrained_weights[name]))
        adam.step()
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_l2_sp_equals_its_definition(
    stage: int, trained: Path, reference: dict[str, torch.Tensor]
) -> None:
    weights = load_file(trained / f"stage-{stage}" / "model" / "model.safetensors")
    for name, wanted in reference.items():
        error = (weights[name].double() - wanted).norm() / wanted.norm()
        assert error < 1e-5, (name, error)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_distance_is_between_the_exported_and_the_original_model(stage: int, trained: Path) -> None:
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


def test_vectors_and_biases_do_not_decay() -> None:
    """The biases of the experts of a layer are one matrix."""
    model = family("gpt_oss")
    left_out = {n for n, p in model.named_parameters() if is_left_out(n, p)}
    layer = "model.layers.0"
    assert {f"{layer}.input_layernorm.weight", f"{layer}.mlp.experts.down_proj_bias"} <= left_out
    assert not {f"{layer}.mlp.experts.down_proj", "model.embed_tokens.weight"} & left_out


def test_norms_with_a_row_for_each_head_do_not_decay() -> None:
    config = CohereConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, use_qk_norm=True,
    )  # fmt: skip
    attention = CohereForCausalLM(config).model.layers[0].self_attn
    assert attention.q_norm.weight.shape == (4, 8)
    left_out = {name for name, p in attention.named_parameters() if is_left_out(name, p)}
    assert left_out == {"q_norm.weight", "k_norm.weight"}


def test_a_record_without_the_setting_decayed_all_weights() -> None:
    recorded = {"model": {"path": "m"}, "data": {"path": "d"}}
    config = TrainConfig.model_validate(recorded)
    assert is_same_config(recorded, config)
    recorded["optimizer"] = {"weight_decay": 0.1}
    config = TrainConfig.model_validate(recorded)
    assert not is_same_config(recorded, config)
    recorded["optimizer"]["decay_norms_and_biases"] = False
    assert is_same_config(recorded, config)


def test_dropout_is_set_in_the_model(tmp_path: Path) -> None:
    path = str(save_tiny_model(tmp_path / "model"))
    model = load_model(ModelConfig(path=path, dropout=0.25), torch.float32)
    assert model.get_submodule("model.layers.0.self_attn").attention_dropout == 0.25
    plain = load_model(ModelConfig(path=path), torch.float32)
    assert plain.get_submodule("model.layers.0.self_attn").attention_dropout == 0.0


def test_dropout_of_a_family_without_it_is_rejected(tmp_path: Path) -> None:
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


def test_layer_distances_group_names_of_common_families() -> None:
    squared = {
        "model.model.layers.0.mlp.up_proj.weight": 9.0,
        "model.model.layers.0.mlp.down_proj.weight": 16.0,
        "model.transformer.h.11.attn.c_attn.weight": 4.0,
        "head.weight": 1.0,
    }
    assert layer_distances(squared) == {"layer.0": 5.0, "layer.11": 2.0, "other": 1.0}
