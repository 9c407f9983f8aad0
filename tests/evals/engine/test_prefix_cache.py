import torch

from evals.engine.batching import pad, sorted_batches
from evals.engine.prefix_cache import Reader
from tests.families import family

CPU = torch.device("cpu")


def test_a_context_can_be_read_on_more_than_once() -> None:
    reader = Reader(family("llama"))
    _, context = reader.read(*pad([[5, 6, 7]], side="right", device=CPU))
    rest = pad([[8, 9], [8, 9]], side="right", device=CPU)
    first, _ = reader.read(*rest, context.repeated(2))
    second, _ = reader.read(*rest, context.repeated(2))
    assert torch.equal(first, second)
    whole = reader.hidden_states(*pad([[5, 6, 7, 8, 9]], side="right", device=CPU))
    torch.testing.assert_close(first[:1], whole[:, 3:])


def test_a_beginning_is_read_apart_where_it_saves_tokens() -> None:
    reader = Reader(family("llama"))
    shared = list(range(2, 32))
    assert reader.read_beginning([[*shared, 40], [*shared, 50]]) is None
    hidden_1TH, _ = reader.read_beginning([[*shared, 40], [*shared, 50, 51], [*shared, 40, 60]])
    assert hidden_1TH.shape == (1, 30, 32)
    # Every sequence keeps a token to be read behind it.
    hidden_1TH, _ = reader.read_beginning([shared] * 4)
    assert hidden_1TH.shape == (1, 29, 32)


def test_a_family_that_keeps_no_keys_and_values_reads_all_at_once() -> None:
    reader = Reader(family("mamba"))
    prompts = [list(range(2, 52)), list(range(2, 53)), list(range(2, 54))]
    assert reader.read_beginning(prompts) is None
    assert reader.begin(prompts) == (None, prompts)


def test_padding_stands_on_its_side() -> None:
    input_ids, mask = pad([[4, 5, 6], [7]], side="left", device=CPU)
    assert input_ids.tolist() == [[4, 5, 6], [0, 0, 7]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    input_ids, mask = pad([[4, 5, 6], [7]], side="right", device=CPU)
    assert input_ids.tolist() == [[4, 5, 6], [7, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_batches_go_from_long_to_short() -> None:
    assert sorted_batches([3, 9, 1, 9, 4], 2, pass_cost=100) == [[1, 3], [4, 0], [2]]
    assert sorted_batches([], 2, pass_cost=100) == []


def test_a_long_sequence_is_apart_where_padding_to_it_costs_more_than_a_pass() -> None:
    lengths = [10, 90, 11, 12]
    # Together 4 x 90 = 360 tokens; apart 90 + 3 x 12 = 126 and a pass.
    assert sorted_batches(lengths, 4, pass_cost=300) == [[1, 3, 2, 0]]
    assert sorted_batches(lengths, 4, pass_cost=200) == [[1], [3, 2, 0]]
    assert sorted_batches(lengths, 4, pass_cost=0) == [[1], [3], [2], [0]]
