"""Examples packed into one row: dealt within the limit, and as if each were alone."""

import pytest
import torch

from tests.families import family
from trainers.config import TrainConfig
from trainers.data.batches import collate_packed, deal_packed
from trainers.data.roles import Encoded, Role
from trainers.foundation.errors import InputError
from trainers.models.packed_attention import hidden_states, use_packed_attention


class TestDealing:
    def test_fills_micro_batches_evenly(self) -> None:
        dealt = deal_packed([5, 9, 3, 4, 2, 7], max_tokens=10, rank=0, world_size=1)
        assert dealt == [[1], [5], [0, 4], [3, 2]]

    def test_every_example_is_dealt_once_and_ranks_get_equally_many_micro_batches(self) -> None:
        lengths = [5, 9, 3, 4, 2, 7, 1, 1, 8]
        ranks = [deal_packed(lengths, max_tokens=10, rank=r, world_size=2) for r in (0, 1)]
        assert len(ranks[0]) == len(ranks[1])
        assert sorted(i for rank in ranks for members in rank for i in members) == [*range(9)]
        for members in [*ranks[0], *ranks[1]]:
            assert sum(lengths[i] for i in members) <= 10

    def test_an_example_above_the_limit_stands_alone(self) -> None:
        dealt = deal_packed([30, 2, 3], max_tokens=10, rank=0, world_size=1)
        assert [0] in dealt
        assert sorted(i for members in dealt for i in members) == [0, 1, 2]

    def test_a_rank_without_examples_gets_empty_micro_batches(self) -> None:
        assert deal_packed([4], max_tokens=10, rank=1, world_size=2) == [[]]
        assert collate_packed([], pad_token_id=0).sequence_lengths == (1,)


def test_no_target_crosses_from_one_example_to_the_next() -> None:
    first = Encoded(id="a", input_ids=[11, 12, 13], roles=[2, 2, 4])
    second = Encoded(id="b", input_ids=[21, 22], roles=[2, 4])
    packed = collate_packed([first, second], pad_token_id=0)
    assert packed.input_ids_BT.tolist() == [[11, 12, 13, 21, 22]]
    assert packed.target_roles_BT.tolist() == [
        [Role.USER, Role.COMPLETION, Role.PADDING, Role.COMPLETION, Role.PADDING]
    ]
    assert packed.targets_BT[0, [0, 1, 3]].tolist() == [12, 13, 22]
    assert packed.sequence_lengths == (3, 2)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3", "gpt2"])
def test_packed_examples_are_computed_as_if_alone(name: str) -> None:
    """The window of mistral here is 5, shorter than the examples."""
    model = family(name)
    lengths = (9, 4, 17)
    ids = torch.randint(0, 64, (1, sum(lengths)), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        alone = torch.cat(
            [hidden_states(model, part, None) for part in torch.split(ids, [*lengths], dim=1)],
            dim=1,
        )
        use_packed_attention(model)
        packed = hidden_states(model, ids, lengths)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mamba", "gemma2"])
def test_a_family_that_cannot_keep_examples_apart_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"batch.packing is not possible with {name}"):
        use_packed_attention(family(name))


def test_packing_with_another_attention_is_refused() -> None:
    settings = {
        "model": {"path": "m", "attention": "eager"},
        "data": {"path": "d"},
        "batch": {"packing": True},
    }
    with pytest.raises(ValueError, match=r"set model\.attention to sdpa"):
        TrainConfig.model_validate(settings)
