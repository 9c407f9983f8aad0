"""How a global batch is dealt to ranks and cut into forward passes."""

import pytest

from trainers.data.batches import deal, step_window


def test_examples_of_similar_length_go_together_and_ranks_get_equally_many() -> None:
    lengths = [5, 9, 3, 4, 2, 7, 1]
    assert deal(lengths, micro_batch_size=2, rank=0, world_size=2) == [[1, 5], [2, 4]]
    assert deal(lengths, micro_batch_size=2, rank=1, world_size=2) == [[0, 3], [6]]


def test_max_tokens_counts_padding_and_leaves_at_least_one_example() -> None:
    lengths = [5, 9, 3, 4, 2, 7, 1]
    dealt = deal(lengths, micro_batch_size=4, max_tokens=8, rank=0, world_size=1)
    # 9 alone is above the limit; 7 alone; 5 alone, since 2 x 5 > 8; 4 and 3; 2 and 1.
    assert dealt == [[1], [5], [0], [3, 2], [4, 6]]


def test_a_rank_without_examples_gets_an_empty_micro_batch() -> None:
    assert deal([3], micro_batch_size=2, rank=1, world_size=2) == [[]]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_example_comes_once_per_epoch(seed: int) -> None:
    for epoch in (0, 1):
        windows = [step_window(3 * epoch + step, 10, 4, seed) for step in range(3)]
        assert [len(window) for window in windows] == [4, 4, 2]
        assert sorted(index for window in windows for index in window) == [*range(10)]
    assert step_window(0, 10, 4, seed) != step_window(3, 10, 4, seed)
