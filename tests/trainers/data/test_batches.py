"""Split a global batch into micro-batches of the ranks."""

import pytest

from trainers.data.batches import global_batch_indices, split_micro_batches


def test_micro_batches_have_similar_lengths_and_ranks_get_the_same_number() -> None:
    lengths = [5, 9, 3, 4, 2, 7, 1]
    assert split_micro_batches(lengths, micro_batch_size=2, rank=0, world_size=2) == [
        [1, 5],
        [2, 4],
    ]
    assert split_micro_batches(lengths, micro_batch_size=2, rank=1, world_size=2) == [[0, 3], [6]]


def test_max_tokens_counts_padding_and_leaves_at_least_one_example() -> None:
    lengths = [5, 9, 3, 4, 2, 7, 1]
    dealt = split_micro_batches(lengths, micro_batch_size=4, max_tokens=8, rank=0, world_size=1)
    # 9 alone is above the limit; 7 alone; 5 alone, since 2 x 5 > 8; 4 and 3; 2 and 1.
    assert dealt == [[1], [5], [0], [3, 2], [4, 6]]


def test_a_rank_without_examples_gets_an_empty_micro_batch() -> None:
    assert split_micro_batches([3], micro_batch_size=2, rank=1, world_size=2) == [[]]


@pytest.mark.parametrize("seed", [0, 1])
def test_every_example_occurs_once_per_epoch(seed: int) -> None:
    for epoch in (0, 1):
        windows = [global_batch_indices(3 * epoch + step, 10, 4, seed) for step in range(3)]
        assert [len(window) for window in windows] == [4, 4, 2]
        assert sorted(index for window in windows for index in window) == [*range(10)]
    assert global_batch_indices(0, 10, 4, seed) != global_batch_indices(3, 10, 4, seed)
