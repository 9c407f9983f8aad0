"""Packed examples: micro-batches stay within the limit, and results equal unpacked examples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MistralConfig,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)

from tests.families import family
from tests.trainers.tiny_runs import settings, train_until
from tests.worlds import run_in_world
from trainers.config import TrainConfig
from trainers.data.batches import collate_packed, split_packed_micro_batches
from trainers.data.roles import EncodedExample, Role
from trainers.foundation.errors import InputError
from trainers.models import packed_attention as module
from trainers.models.compatibility import small_model
from trainers.models.packed_attention import (
    PROBED_WINDOW,
    enable_packed_attention,
    hidden_states,
)


class TestDealing:
    def test_fills_micro_batches_evenly(self) -> None:
        dealt = split_packed_micro_batches([5, 9, 3, 4, 2, 7], max_tokens=10, rank=0, world_size=1)
        assert dealt == [[1], [5], [0, 4], [3, 2]]

    def test_every_example_is_dealt_once_and_ranks_get_equally_many_micro_batches(self) -> None:
        lengths = [5, 9, 3, 4, 2, 7, 1, 1, 8]
        ranks = [
            split_packed_micro_batches(lengths, max_tokens=10, rank=r, world_size=2) for r in (0, 1)
        ]
        assert len(ranks[0]) == len(ranks[1])
        assert sorted(i for rank in ranks for members in rank for i in members) == [*range(9)]
        for members in [*ranks[0], *ranks[1]]:
            assert sum(lengths[i] for i in members) <= 10

    def test_an_example_above_the_limit_stands_alone(self) -> None:
        dealt = split_packed_micro_batches([30, 2, 3], max_tokens=10, rank=0, world_size=1)
        assert [0] in dealt
        assert sorted(i for members in dealt for i in members) == [0, 1, 2]

    def test_a_rank_without_examples_gets_empty_micro_batches(self) -> None:
        assert split_packed_micro_batches([4], max_tokens=10, rank=1, world_size=2) == [[]]
        assert collate_packed([], [], pad_token_id=0).sequence_lengths == (1,)


def test_no_target_belongs_to_the_next_example() -> None:
    first = EncodedExample(id="a", input_ids=[11, 12, 13], roles=[2, 2, 4])
    second = EncodedExample(id="b", input_ids=[21, 22], roles=[2, 4])
    weights = [np.ones(3, np.float32), np.ones(2, np.float32)]
    packed = collate_packed([first, second], weights, pad_token_id=0)
    assert packed.input_ids_BT.tolist() == [[11, 12, 13, 21, 22]]
    assert packed.target_roles_BT.tolist() == [
        [Role.USER, Role.COMPLETION, Role.PADDING, Role.COMPLETION, Role.PADDING]
    ]
    assert packed.targets_BT[0, [0, 1, 3]].tolist() == [12, 13, 22]
    assert packed.sequence_lengths == (3, 2)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gpt2"])
def test_packed_examples_equal_unpacked_ones(name: str) -> None:
    """mistral's sliding window is 5 here, shorter than the examples."""
    model = family(name)
    lengths = (9, 4, 17)
    ids = torch.randint(0, 64, (1, sum(lengths)), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        alone = torch.cat(
            [hidden_states(model, part, None) for part in torch.split(ids, [*lengths], dim=1)],
            dim=1,
        )
        enable_packed_attention(model)
        packed = hidden_states(model, ids, lengths)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mamba", "gemma2"])
def test_a_family_that_cannot_separate_examples_is_rejected(name: str) -> None:
    with pytest.raises(InputError, match=f"batch.packing does not support {name}"):
        enable_packed_attention(family(name))


def test_packing_with_another_attention_is_rejected() -> None:
    settings = {
        "model": {"path": "m", "attention": "eager"},
        "data": {"path": "d"},
        "batch": {"packing": True},
    }
    with pytest.raises(ValueError, match=r"set model\.attention to sdpa"):
        TrainConfig.model_validate(settings)


class TestVarlen:
    """The call of `varlen_attn`, which exists on GPUs only; here a reference takes its place."""

    @staticmethod
    def varlen_reference(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor, max_q: int, max_k: int, *, scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """Compute by the documentation of torch 2.13: a query sees `window_size[0]` keys to its
        left (-1: all) and `window_size[1]` to its right."""
        assert cu_seq_q.dtype == torch.int32
        assert cu_seq_q.tolist() == cu_seq_k.tolist()
        assert enable_gqa
        assert window_size[1] == 0
        lengths = cu_seq_q.diff().tolist()
        assert max_q == max_k == max(lengths)
        groups = query.shape[1] // key.shape[1]
        of_query = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        position = torch.arange(sum(lengths))
        distance = position[:, None] - position
        visible = (of_query[:, None] == of_query) & (distance >= 0)
        if window_size[0] >= 0:
            visible &= distance <= window_size[0]
        k, v = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        scores = torch.einsum("qhd,khd->hqk", query, k) * (scale or query.shape[-1] ** -0.5)
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, v)

    @pytest.mark.parametrize("name", ["llama", "mistral"])
    def test_gives_the_results_of_the_models_own_attention(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "varlen_attn", self.varlen_reference)
        monkeypatch.setattr(module, "varlen_is_usable", lambda device: True)
        monkeypatch.setattr(module, "_varlen_parameters", lambda: {"enable_gqa"})
        model = family(name).bfloat16()
        model.float()  # The reference computes in float32; the path is chosen by the data type.
        monkeypatch.setattr(type(model), "dtype", torch.bfloat16)
        monkeypatch.setattr(type(model.base_model), "dtype", torch.bfloat16)
        lengths = (9, 4, 17)
        ids = torch.randint(0, 64, (1, sum(lengths)), generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            alone = torch.cat(
                [hidden_states(model, part, None) for part in ids.split([*lengths], dim=1)], dim=1
            )
            enable_packed_attention(model)
            packed = hidden_states(model, ids, lengths)
        torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)

    def test_is_not_used_on_a_cpu(self) -> None:
        assert not module.varlen_is_usable(torch.device("cpu"))


def test_attention_with_a_part_that_the_packed_one_lacks_is_rejected() -> None:
    """gpt-oss adds a learned sink to the scores of each head."""
    config = GptOssConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1,
        layer_types=["full_attention"] * 2, attn_implementation="eager",
    )  # fmt: skip
    model = GptOssForCausalLM(config)
    for layer in model.model.layers:
        torch.nn.init.constant_(layer.self_attn.sinks, 2.0)
    with pytest.raises(InputError, match="attention with sinks cannot be packed"):
        enable_packed_attention(model)


def train_packed(folder: Path) -> None:
    packed = {"global_batch_size": 7, "micro_batch_size": 2, "packing": True}
    train_until(settings(folder, batch=packed), folder / "run")


def test_a_window_that_only_the_mask_contains_is_rejected(tmp_path: Path) -> None:
    """Qwen2-MoE does not pass its window to the attention function.

    The window is larger than the examples of the check, and of this training.
    """
    config = Qwen2MoeConfig(
        vocab_size=259, hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
        moe_intermediate_size=16, shared_expert_intermediate_size=32, num_hidden_layers=2,
        use_sliding_window=True, sliding_window=4096, max_window_layers=1,
    )  # fmt: skip
    settings(tmp_path)
    Qwen2MoeForCausalLM(config).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="do not give the results of its own attention"):
        run_in_world(1, train_packed, tmp_path)


def test_a_window_that_the_attention_function_receives_is_supported() -> None:
    config = MistralConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, sliding_window=4096
    )
    probe = small_model(config, trust_remote_code=False, sliding_window=PROBED_WINDOW)
    assert probe is not None
    enable_packed_attention(family("llama"), [probe])
