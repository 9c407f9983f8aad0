"""Under ZeRO 3, a model is loaded in shards: less memory, the same training, the same checks."""

import gc
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny_model import tiny_tokenizer
from tests.trainers.tiny_runs import NO_PERSISTENCE, settings, train_interrupted_and_uninterrupted
from tests.worlds import run_in_world
from trainers import run_setup, sft
from trainers.config import TrainConfig
from trainers.engine.ranks import join_ranks
from trainers.engine.zero import init_deepspeed
from trainers.foundation.errors import InputError
from trainers.models.loading import check_model, load_model

MB = 10**6
VARIANTS = {
    "plain": {},
    "lora": {"lora": {"rank": 4}},
    "packed": {"batch": {"global_batch_size": 7, "micro_batch_size": 2, "packing": True}},
}


def train_variants(folder: Path, stage: int) -> None:
    for name, changes in VARIANTS.items():
        deepspeed = {"zero_stage": stage, "precision": "float32", "override": NO_PERSISTENCE}
        config = settings(folder, deepspeed=deepspeed, **changes)
        train_interrupted_and_uninterrupted(config, folder, f"{name}-{stage}")


@pytest.mark.slow
def test_training_in_shards_equals_training_with_whole_models(tmp_path: Path) -> None:
    settings(tmp_path)
    for stage in (2, 3):
        run_in_world(2, train_variants, tmp_path, stage)
    for name in VARIANTS:
        runs = [
            tmp_path / f"{kind}-{name}-{stage}" for stage in (2, 3) for kind in ("whole", "cut")
        ]
        weights = [load_file(run / "model" / "model.safetensors") for run in runs]
        results = [json.loads((run / "train.json").read_text())["result"] for run in runs]
        for key, weight in weights[0].items():
            assert (weights[2][key] - weight).norm() < 1e-4 * weight.norm()
            assert torch.equal(weights[2][key], weights[3][key])
        assert results[2]["distance"] == pytest.approx(results[0]["distance"], rel=1e-4)
        assert results[2]["distance"] == results[3]["distance"]


def sharded_settings(folder: Path) -> TrainConfig:
    return TrainConfig.model_validate(
        settings(folder, deepspeed={"zero_stage": 3, "precision": "float32"})
    )


def train_sharded(folder: Path) -> None:
    linear = torch.nn.functional.linear
    sft.train(sharded_settings(folder), folder / "out")
    assert torch.nn.functional.linear is linear


def test_the_process_computes_as_before_after_a_sharded_run(tmp_path: Path) -> None:
    """DeepSpeed replaces the function for linear layers by one with other rounding."""
    run_in_world(1, train_sharded, tmp_path)


def expect_problem(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sft.train(sharded_settings(folder), folder / "out")


@pytest.mark.slow
def test_missing_and_mismatched_weights_are_found_before_loading(tmp_path: Path) -> None:
    settings(tmp_path)
    file = tmp_path / "model" / "model.safetensors"
    intact = load_file(file)
    damaged = {name: weight for name, weight in intact.items() if "layers.1.mlp" not in name}
    save_file(damaged, file, metadata={"format": "pt"})
    run_in_world(2, expect_problem, tmp_path, "lack weights.*: model.layers.1.mlp.down_proj.weight")
    intact["model.norm.weight"] = torch.ones(7)
    save_file(intact, file, metadata={"format": "pt"})
    run_in_world(2, expect_problem, tmp_path, "with another shape .*: model.norm.weight")


def private_memory() -> int:
    """Return the bytes of memory that is neither shared nor mapped from files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    [kib] = [line.split()[1] for line in lines if line.startswith("Anonymous:")]
    return int(kib) * 1024


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list whose last element is the largest private memory seen, every 10 ms."""
    peak, ended = [private_memory()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            peak.append(max(peak[-1], private_memory()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def measure_load(folder: Path) -> None:
    config = TrainConfig.model_validate(
        {
            "model": {"path": str(folder / "model")},
            "data": {"path": "none"},
            "deepspeed": {"zero_stage": 3, "precision": "float32"},
        }
    )
    ranks = join_ranks()
    check_model(config.model)  # It imports and builds what is not part of the load.
    init_deepspeed(ranks)
    gc.collect()
    process = psutil.Process()
    before, uss = private_memory(), process.memory_full_info().uss
    with peak_memory() as peak:
        model = load_model(config.model, torch.float32, run_setup.sharding(config, ranks))
    gc.collect()
    found = {"end": process.memory_full_info().uss - uss, "peak": peak[-1] - before}
    assert model is not None
    (folder / f"{ranks.rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_a_rank_needs_its_share_of_the_model_and_one_whole_weight(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=18,
        num_attention_heads=8,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    sizes = [parameter.numel() * 4 for parameter in model.parameters()]
    assert sum(sizes) > 1200 * MB
    assert max(sizes) < 0.02 * sum(sizes)
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    del model
    gc.collect()
    run_in_world(2, measure_load, tmp_path)
    limit = 1.1 * (sum(sizes) / 2 + max(sizes))
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["end"] <= limit, found
        assert found["peak"] <= limit, found
