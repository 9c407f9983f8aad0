"""Prefix caching, padding and batching by length."""

import torch

from evals.engine.batching import pad, sorted_batches
from evals.engine.prefix_cache import Backbone
from tests.families import family

CPU = torch.device("cpu")


def test_a_prefix_cache_can_be_continued_more_than_once() -> None:
    backbone = Backbone(family("llama"))
    _, prefix = backbone.forward(*pad([[5, 6, 7]], side="right", device=CPU))
    rest = pad([[8, 9], [8, 9]], side="right", device=CPU)
    first, _ = backbone.forward(*rest, prefix.repeat_interleave(2))
    second, _ = backbone.forward(*rest, prefix.repeat_interleave(2))
    assert torch.equal(first, second)
    whole = backbone.hidden_states(*pad([[5, 6, 7, 8, 9]], side="right", device=CPU))
    torch.testing.assert_close(first[:1], whole[:, 3:])


def test_a_shared_prefix_is_prefilled_only_if_that_saves_tokens() -> None:
    backbone = Backbone(family("llama"))
    shared = list(range(2, 32))
    assert backbone.prefill_shared_prefix([[*shared, 40], [*shared, 50]]) is None
    hidden_1TH, _ = backbone.prefill_shared_prefix(
        [[*shared, 40], [*shared, 50, 51], [*shared, 40, 60]]
    )
    assert hidden_1TH.shape == (1, 30, 32)
    # Every sequence keeps a token after the prefix.
    hidden_1TH, _ = backbone.prefill_shared_prefix([shared] * 4)
    assert hidden_1TH.shape == (1, 29, 32)


def test_a_family_without_keys_and_values_has_no_prefix_cache() -> None:
    backbone = Backbone(family("mamba"))
    prompts = [list(range(2, 52)), list(range(2, 53)), list(range(2, 54))]
    assert backbone.prefill_shared_prefix(prompts) is None
    assert backbone.prefill(prompts) == (None, prompts)


def test_pad_pads_on_the_given_side() -> None:
    input_ids, mask = pad([[4, 5, 6], [7]], side="left", device=CPU)
    assert input_ids.tolist() == [[4, 5, 6], [0, 0, 7]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    input_ids, mask = pad([[4, 5, 6], [7]], side="right", device=CPU)
    assert input_ids.tolist() == [[4, 5, 6], [7, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_batches_are_sorted_from_long_to_short() -> None:
    assert sorted_batches([3, 9, 1, 9, 4], 2, forward_overhead=100) == [[1, 3], [4, 0], [2]]
    assert sorted_batches([], 2, forward_overhead=100) == []


def test_a_long_sequence_has_its_own_batch_if_padding_costs_more_than_a_forward_pass() -> None:
    lengths = [10, 90, 11, 12]
    # One batch: 4 x 90 = 360 tokens. Two: 90 + 3 x 12 = 126 tokens and one more forward pass.
    assert sorted_batches(lengths, 4, forward_overhead=300) == [[1, 3, 2, 0]]
    assert sorted_batches(lengths, 4, forward_overhead=200) == [[1], [3, 2, 0]]
    assert sorted_batches(lengths, 4, forward_overhead=0) == [[1], [3], [2], [0]]
