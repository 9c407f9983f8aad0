"""Log-likelihoods of continuations for several model families, and their batches."""

import pytest
import torch

from evals.engine.batching import GroupShape, ignore_progress, prefix_batches, run_batches
from evals.engine.loglikelihood import Continuation, ContinuationScore, score_continuations
from evals.engine.token_logprobs import TokenScorer
from tests.evals.reference import choice_log_likelihood
from tests.families import family


def _draw(generator: torch.Generator, length: int) -> list[int]:
    ids: list[int] = torch.randint(2, 64, (length,), generator=generator).tolist()
    return ids


def _groups(prefix_length: int) -> list[list[Continuation]]:
    """Three questions with a shared prefix, each with choices of 1 to 6 tokens."""
    generator = torch.Generator().manual_seed(0)
    prefix = _draw(generator, prefix_length)
    prompts = [prefix + _draw(generator, length) for length in (9, 3, 6)]
    return [
        [Continuation(context_ids=prompt, ids=_draw(generator, length)) for length in lengths]
        for prompt, lengths in zip(prompts, ((1, 4, 2), (6, 1, 1), (3, 3, 5)), strict=True)
    ]


def _score(
    scorer: TokenScorer, groups: list[list[Continuation]], batch_size: int | None = None
) -> list[list[ContinuationScore]]:
    return score_continuations(scorer, groups, batch_size=batch_size, on_progress=ignore_progress)


def _expected(model, groups: list[list[Continuation]]) -> list[list[float]]:
    return [[choice_log_likelihood(model, c.context_ids, c.ids) for c in group] for group in groups]


def _values(found: list[list[ContinuationScore]]) -> list[list[float]]:
    return [[one.log_likelihood for one in group] for group in found]


FAMILIES = ["llama", "mistral", "gpt2", "gpt_neo", "mamba", "gemma2", "cohere"]


@pytest.mark.parametrize("prefix_length", [0, 40])
@pytest.mark.parametrize("name", FAMILIES)
def test_log_likelihoods_equal_those_of_separate_forward_passes(
    name: str, prefix_length: int
) -> None:
    model = family(name)
    groups = _groups(prefix_length)
    found = _values(_score(TokenScorer(model), groups))
    for row, expected in zip(found, _expected(model, groups), strict=True):
        assert row == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("name", ["llama", "gpt_neo", "mamba", "gemma2"])
def test_contexts_of_a_group_may_differ_after_their_prefix_or_share_nothing(
    name: str, batch_size: int | None
) -> None:
    model = family(name)
    ending = [9, 8, 7]
    groups = [
        [Continuation(context_ids=[3, 4, 5, last], ids=ending) for last in (11, 12)],
        [Continuation(context_ids=[3, 4, *rest], ids=ending) for rest in ([], [12, 13])],
        [Continuation(context_ids=[token], ids=ending) for token in (21, 22, 23)],
        [Continuation(context_ids=[5, 6], ids=[7])],
    ]
    found = _values(_score(TokenScorer(model), groups, batch_size))
    for row, expected in zip(found, _expected(model, groups), strict=True):
        assert row == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "mamba", "gemma2"])
def test_only_the_greedy_continuation_is_marked_greedy(name: str) -> None:
    model = family(name)
    context = [5, 6, 7]
    ids = list(context)
    for _ in range(3):
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    greedy, other = ids[3:], [*ids[3:5], (ids[5] + 1) % 64]
    group = [Continuation(context_ids=context, ids=c) for c in (greedy, other, greedy[:1])]
    (found,) = _score(TokenScorer(model), [group])
    assert [one.is_greedy for one in found] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "supports_cache_reuse", "supports_padding_gaps"),
    [
        ("llama", True, True),
        ("gpt2", True, True),
        ("mistral", True, False),
        ("gpt_neo", True, False),
        ("mamba", False, False),
    ],
)
def test_cache_support_is_detected_for_each_family(
    name: str, supports_cache_reuse: bool, supports_padding_gaps: bool
) -> None:
    backbone = TokenScorer(family(name)).backbone
    assert (backbone.supports_cache_reuse, backbone.supports_padding_gaps) == (
        supports_cache_reuse,
        supports_padding_gaps,
    )


def test_prompts_and_their_shared_prefix_are_processed_once() -> None:
    model = family("llama")
    scorer = TokenScorer(model)
    num_tokens: list[int] = []
    model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: num_tokens.append(inputs[0].numel())
    )
    _score(scorer, _groups(40))
    # The shared prefix; the rest of three prompts, padded to 9; nine choices, padded to 6, without
    # their last tokens.
    assert num_tokens == [40, 3 * 9, 9 * 5]


def test_progress_counts_finished_groups() -> None:
    reports: list[tuple[int, int]] = []
    groups = _groups(0)
    score_continuations(
        TokenScorer(family("llama")), groups, batch_size=3,
        on_progress=lambda done, total: reports.append((done, total)),
    )  # fmt: skip
    assert reports == [(1, 3), (2, 3), (3, 3)]


def test_batches_contain_each_group_once_and_respect_their_limits() -> None:
    shapes = [
        GroupShape(num_prefix_tokens=n % 7 + 1, num_rows=n % 3 + 1, max_suffix_tokens=n % 5 + 1)
        for n in range(40)
    ]
    batches = prefix_batches(shapes, max_rows=6, max_tokens=60, forward_overhead=10)
    assert sorted(index for batch in batches for index in batch) == list(range(40))
    for batch in batches:
        rows = sum(shapes[index].num_rows for index in batch)
        width = max(shapes[i].num_prefix_tokens for i in batch) + max(
            shapes[i].max_suffix_tokens for i in batch
        )
        assert rows <= 6
        assert rows * width <= 60
    large = [GroupShape(num_prefix_tokens=100, num_rows=9, max_suffix_tokens=9)]
    assert prefix_batches(large, max_rows=6, max_tokens=60, forward_overhead=10) == [[0]]
    assert prefix_batches([], max_rows=6, max_tokens=None, forward_overhead=10) == []


def test_a_batch_that_runs_out_of_memory_is_halved_and_so_are_later_ones() -> None:
    ran: list[list[int]] = []

    def run(batch: list[int]) -> None:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("out of memory")
        ran.append(batch)

    run_batches([list(range(8)), list(range(8, 16)), [16]], run)
    assert [index for batch in ran for index in batch] == list(range(17))
    assert [len(batch) for batch in ran] == [2, 2, 2, 2, 2, 2, 2, 2, 1]


def test_running_out_of_memory_with_one_group_is_an_error() -> None:
    def run(batch: list[int]) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        run_batches([[0, 1]], run)
