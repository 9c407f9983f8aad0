"""Token counts and generation ratios, computed by hand on one-character tokens."""

import json
from typing import Any

import pytest

from tests.trainers.tiny_tokenizer import CHAT_TEMPLATE, tiny_tokenizer
from trainers.data.examples import Example, Message, MessageRole, pair
from trainers.data.length_stats import DataStats, RatioSpread, TokenCounts, compute_data_stats
from trainers.data.tokenize import encode_examples
from trainers.data_config import DataConfig

# With the plain template and a token for each character: prompt lengths 4 and 8 (2 and 6 without
# the template's blank line), completion lengths 2 and 3 (one of each ends the sequence).
TWO = [pair("a", prompt="Hi", completion="k"), pair("b", prompt="Hi you", completion="ok")]


def stats_of(examples: list[Example], **settings: Any) -> DataStats:
    config = DataConfig(path="data.jsonl", **{"template": "plain", "max_length": 100, **settings})
    tokenizer = tiny_tokenizer(chat_template=CHAT_TEMPLATE)
    return compute_data_stats(encode_examples(examples, config, tokenizer), config)


def test_tokens_are_counted_by_role() -> None:
    stats = stats_of(TWO)
    assert (stats.num_examples, stats.max_length, stats.template) == (2, 100, "plain")
    assert stats.prompt == TokenCounts(total=12, mean=6, median=6, percentile_95=8)
    assert stats.completion == TokenCounts(total=5, mean=2.5, median=2.5, percentile_95=3)
    assert stats.user == TokenCounts(total=8, mean=4, median=4, percentile_95=6)
    assert stats.template_tokens == TokenCounts(total=4, mean=2, median=2, percentile_95=2)
    assert stats.system == TokenCounts(total=0, mean=0, median=0, percentile_95=0)
    assert stats.tokens_per_example == 8.5


def test_generation_ratio_is_reported_as_ratio_of_means_and_mean_of_ratios() -> None:
    stats = stats_of(TWO)
    found = stats.generation_ratio
    assert (found.of_means, found.mean_of_ratios) == (5 / 12, (2 / 4 + 3 / 8) / 2)
    without = stats.generation_ratio_without_template
    assert (without.of_means, without.mean_of_ratios) == (5 / 8, (2 / 2 + 3 / 6) / 2)


def test_quantiles_of_the_ratio_are_values_that_occur() -> None:
    # A prompt of one character, and two tokens of the template; completions of 1 to 20 tokens.
    examples = [pair(str(i), prompt="Q", completion="k" * i) for i in range(20)]
    assert stats_of(examples).generation_ratio_without_template.spread == RatioSpread(
        percentile_5=1,
        percentile_25=5,
        median=10,
        percentile_75=15,
        percentile_95=19,
        share_below_one=0,
    )
    with_template = stats_of(examples).generation_ratio.spread
    assert with_template is not None
    assert with_template.median == 10 / 3
    assert with_template.share_below_one == 2 / 20


def test_stats_of_older_sweeps_are_read_without_a_spread() -> None:
    older = stats_of(TWO).to_json()
    for name in ("generation_ratio", "generation_ratio_without_template"):
        del older[name]["spread"]
    assert DataStats.model_validate(older).generation_ratio.spread is None


def test_system_turns_count_as_prompt_with_and_without_template() -> None:
    messages = (Message(role="system", content="Be kind."), *TWO[0].messages)
    stats = stats_of([Example(id="a", messages=messages)], template="chat", max_length=1000)
    assert (stats.system.total, stats.user.total, stats.completion.total) == (8, 2, 2)
    assert stats.prompt.total == 8 + 2 + stats.template_tokens.total
    assert stats.generation_ratio_without_template.of_means == 2 / 10


def test_stats_count_the_tokens_after_truncation() -> None:
    stats = stats_of(TWO, max_length=8)
    assert (stats.num_truncated_examples, stats.num_truncated_tokens) == (1, 3)
    assert stats.prompt.total == 4 + 5
    assert stats.completion.total == 5


def test_dropped_examples_are_counted_and_not_in_the_stats() -> None:
    stats = stats_of(TWO, max_length=8, too_long="drop")
    assert (stats.num_examples, stats.num_dropped_examples, stats.num_dropped_tokens) == (1, 1, 11)
    assert (stats.num_truncated_examples, stats.num_truncated_tokens) == (0, 0)
    assert (stats.prompt.total, stats.completion.total) == (4, 2)


def test_completions_that_lost_their_end_are_counted_separately() -> None:
    examples = [*TWO, pair("c", prompt="Q", completion="12345678")]
    stats = stats_of(examples, max_length=8, too_long_completion="truncate")
    assert (stats.num_truncated_examples, stats.num_truncated_tokens) == (2, 3 + 4)
    assert stats.num_cut_completions == 1


def test_earlier_answers_count_as_completion_with_completion_turns_all() -> None:
    turns: list[tuple[MessageRole, str]] = [
        *(("user", "Hi"), ("assistant", "Ho")),
        *(("user", "He"), ("assistant", "ok")),
    ]
    messages = tuple(Message(role=role, content=text) for role, text in turns)
    example = Example(id="a", messages=messages)
    last = stats_of([example], template="chat")
    every = stats_of([example], template="chat", completion_turns="all")
    assert (last.user.total, last.history.total, last.completion.total) == (4, 2, 3)
    assert (every.user.total, every.history.total, every.completion.total) == (4, 0, 6)
    assert every.tokens_per_example == last.tokens_per_example


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (19, 19), (20, 19), (40, 38), (41, 39)])
def test_percentile_95_is_the_nearest_rank(count: int, rank: int) -> None:
    examples = [pair(str(i), prompt="Q" * i, completion="k") for i in range(1, count + 1)]
    stats = stats_of(examples)
    assert stats.user.percentile_95 == rank


def test_stats_survive_a_round_trip_through_json() -> None:
    stats = stats_of(TWO)
    assert DataStats.model_validate(json.loads(json.dumps(stats.to_json()))) == stats
