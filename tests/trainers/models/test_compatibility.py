"""Models that the weighted loss cannot train are rejected before training, with the reason."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from tests.families import family
from tests.tiny_model import save_tiny_model, tiny_tokenizer
from trainers.config import ModelConfig, TrainConfig
from trainers.foundation.errors import InputError
from trainers.models.compatibility import find_logit_map, find_model_problems
from trainers.models.loading import check_max_length, check_model, load_model, load_tokenizer
from trainers.models.logit_map import LogitMap
from trainers.runs.results import TrainResult

_SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_LOGITS = (
    "the logits of {} are not its output embedding times the last hidden state, with or without"
)


def modernbert_decoder() -> PreTrainedModel:
    config = transformers.ModernBertDecoderConfig(
        **_SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=1, cls_token_id=1, sep_token_id=1
    )
    return transformers.ModernBertDecoderForCausalLM(config)


def bert() -> PreTrainedModel:
    return transformers.BertForMaskedLM(transformers.BertConfig(**_SIZES))


MODELS = {"modernbert-decoder": modernbert_decoder, "bert": bert}


def problems_of(folder: Path, **settings: Any) -> list[str]:
    """Return the problems of the model in `folder`; planning and loading must agree on them."""
    config = ModelConfig(path=str(folder), **settings)
    found = []
    for check in (check_model, lambda config: load_model(config, torch.float32)):
        with pytest.raises(InputError) as raised:
            check(config)
        found.append([str(problem) for problem in raised.value.problems])
    assert found[0] == found[1]
    return found[0]


def save(folder: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("modernbert-decoder", _LOGITS.format("modernbert-decoder")),
        ("bert", "a later token changes the predictions for earlier ones"),
    ],
)
def test_a_model_that_the_loss_does_not_support_is_rejected(
    name: str, message: str, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", MODELS[name]())
    (problem,) = problems_of(folder)
    assert message in problem


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, LogitMap()) for name in ("llama", "mistral", "qwen3", "gpt2", "gpt_neo", "mamba")),
        ("gemma2", LogitMap(soft_cap=3.0)),
        ("cohere", LogitMap(scale=0.25)),
        ("granite", LogitMap(scale=0.25)),
    ],
)
def test_logit_map_is_measured(name: str, expected: LogitMap) -> None:
    config = family(name).config
    assert find_model_problems(config, name=name) == []
    assert find_logit_map(config) == expected


def test_logit_map_does_not_depend_on_the_attention_implementation() -> None:
    """Flash attention runs on GPUs only; the check must not depend on it."""
    config = family("cohere").config
    config._attn_implementation = "flash_attention_2"
    assert find_logit_map(config) == LogitMap(scale=0.25)


def test_a_class_that_cannot_be_checked_is_rejected() -> None:
    [problem] = find_model_problems(transformers.HunYuanDenseV1Config(), name="hunyuan")
    wanted = "model.path hunyuan: no small model of hunyuan_v1_dense can be built"
    assert problem.message.startswith(wanted)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Too large to be built whole. These classes derive layers from each other or from other
        # settings.
        (
            transformers.Gemma3nTextConfig(hidden_size=1280, final_logit_softcapping=30.0),
            LogitMap(soft_cap=30.0),
        ),
        (
            transformers.Gemma4TextConfig(
                hidden_size=1536, num_hidden_layers=35, num_kv_shared_layers=20,
                final_logit_softcapping=30.0,
            ),
            LogitMap(soft_cap=30.0),
        ),
        (transformers.RecurrentGemmaConfig(logits_soft_cap=30.0), LogitMap(soft_cap=30.0)),
        (
            transformers.FalconH1Config(hidden_size=1280, lm_head_multiplier=0.0390625),
            LogitMap(scale=0.0390625),
        ),
        (
            transformers.Llama4TextConfig(
                hidden_size=1280, intermediate_size_mlp=256, num_local_experts=2
            ),
            LogitMap(),
        ),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)  # fmt: skip
def test_logit_map_of_a_large_config_with_unlike_layers(
    config: transformers.PretrainedConfig, expected: LogitMap
) -> None:
    assert find_model_problems(config, name="large") == []
    assert find_logit_map(config) == expected


def test_a_hub_model_that_cannot_be_reached_is_one_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = ModelConfig(path="nobody/no-such-model")
    for check in (check_model, lambda config: check_max_length(config, 64)):
        with pytest.raises(InputError, match="nobody/no-such-model cannot be loaded"):
            check(config)


def test_a_misspelt_folder_is_named_before_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    message = "model.path my-modl cannot be loaded: there is no folder my-modl here, and "
    with pytest.raises(InputError) as caught:
        load_tokenizer(ModelConfig(path="my-modl"))
    assert str(caught.value) == f"{message}HF_HUB_OFFLINE is 1; use an existing folder"
    save_tiny_model(tmp_path / "my-model")
    # Transformers reads the variable when it is imported, and fails in the same way.
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(InputError) as caught:
        load_tokenizer(ModelConfig(path="my-modl"))
    assert str(caught.value) == f"{message}the hub cannot be reached; did you mean my-model?"


def test_a_large_config_is_checked_with_a_small_model() -> None:
    llama_8b = transformers.LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    assert find_model_problems(llama_8b, name="8b") == []


def test_learned_positions_limit_the_length_of_examples(tmp_path: Path) -> None:
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=259, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    )
    config = ModelConfig(path=str(save(tmp_path, model)))
    check_max_length(config, 64)
    with pytest.raises(InputError, match="max_length 65 exceeds the model's 64 positions"):
        check_max_length(config, 65)


def test_rotary_positions_have_no_limit(tmp_path: Path) -> None:
    check_max_length(ModelConfig(path=str(save_tiny_model(tmp_path))), 4096)


def test_error_names_missing_weights(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": False}))
    (problem,) = problems_of(folder)
    assert "the files lack weights, which would be initialized at random: lm_head.weight" in problem


def test_error_names_weights_with_another_shape(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = weights[name][:10].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (problem,) = problems_of(folder)
    assert name in problem
    assert "another shape" in problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_error_for_weights_of_another_user_names_the_command() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = save_tiny_model(Path(name))
        Path(name).chmod(0o755)
        (folder / "model.safetensors").chmod(0o600)
        os.seteuid(65534)
        try:
            (problem,) = problems_of(folder)
        finally:
            os.seteuid(0)
    assert "model.safetensors must be readable" in problem
    assert f"chmod a+r {folder}/model.safetensors" in problem


def test_error_for_a_git_lfs_pointer_names_the_command(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 538090408\n"
    (folder / "model.safetensors").write_text(pointer)
    (problem,) = problems_of(folder)
    assert "model.safetensors is a Git LFS pointer" in problem
    assert "git lfs pull" in problem


def test_error_names_a_missing_shard(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (problem,) = problems_of(folder)
    assert "model-00002-of-00002.safetensors is missing" in problem


def test_error_for_an_incomplete_file_advises_to_copy_it_again(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    (problem,) = problems_of(folder)
    assert "damaged or incomplete" in problem
    assert "copy the files again" in problem


def test_error_for_a_family_without_sdpa_names_the_setting(tmp_path: Path) -> None:
    folder = save(tmp_path, family("mamba"))
    (problem,) = problems_of(folder)
    assert "set model.attention to eager" in problem


def test_a_model_that_is_not_causal_is_rejected(tmp_path: Path) -> None:
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=259, d_model=32, d_ff=64, num_layers=1, num_heads=2)
    )
    (problem,) = problems_of(save(tmp_path, t5))
    assert "use a decoder-only model" in problem


def train_with_added_tokens(
    folder: Path, tokens: dict[str, Any], prompts: list[str]
) -> TrainResult:
    """Train a model whose tokenizer has `tokens` for which the model has no embedding."""
    from trainers.sft import train

    save_tiny_model(folder / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(folder / "model")
    records = [{"prompt": prompt, "completion": "yes"} for prompt in prompts]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = TrainConfig.model_validate(
        {
            "model": {"path": str(folder / "model")},
            "data": {"path": str(data), "template": "plain", "heldout_examples": 0},
            "schedule": {"steps": 1},
            "batch": {"global_batch_size": 4, "micro_batch_size": 4},
            "deepspeed": {"zero_stage": 0, "precision": "float32"},
        }
    )
    return train(config, folder / "run")


def test_error_names_a_token_without_an_embedding(tmp_path: Path) -> None:
    prompts = [f"Use <|tool|> {i}" for i in range(8)]
    with pytest.raises(InputError, match=r"the token <\|tool\|> with id 258"):
        train_with_added_tokens(tmp_path, {"additional_special_tokens": ["<|tool|>"]}, prompts)


def test_a_pad_token_without_an_embedding_is_replaced(tmp_path: Path) -> None:
    """Many published models have a [PAD] token that was added only to the tokenizer."""
    prompts = ["a" * i for i in range(1, 9)]
    assert train_with_added_tokens(tmp_path, {"pad_token": "[PAD]"}, prompts).steps == 1
