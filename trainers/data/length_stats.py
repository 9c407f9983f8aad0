"""Token counts of prompts and completions, and their ratio R_g."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trainers.data.encoding_counts import EncodingCounts
from trainers.data.reading_counts import ReadingCounts
from trainers.data.roles import PROMPT_ROLES, Role
from trainers.data.tokenized import EncodedExamples
from trainers.data_config import CompletionTurns, DataConfig


class _Stats(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenCounts(_Stats):
    """Tokens of one kind: total over all examples, and statistics per example."""

    total: int
    mean: float
    median: float
    percentile_95: int


# Default for records of earlier versions, which count fewer roles.
_NO_TOKENS = TokenCounts(total=0, mean=0.0, median=0.0, percentile_95=0)


class RatioSpread(_Stats):
    """Distribution of the per-example ratios: quantiles, and the share below 1.

    Quantiles use the nearest rank, so each is a value that occurs in the data.
    """

    percentile_5: float
    percentile_25: float
    median: float
    percentile_75: float
    percentile_95: float
    share_below_one: float


class GenerationRatio(_Stats):
    """R_g, completion tokens divided by prompt tokens; None if no prompt has a token.

    `of_means` divides the mean lengths. `mean_of_ratios` and `spread` use the examples with at
    least one prompt token. Records of older sweeps have no `spread`.

    Source: arXiv 2401.13586, which calls data with R_g < 1 short-completion data. The paper does
    not specify whether template tokens count or how it averages, so we report all four variants.
    """

    of_means: float | None
    mean_of_ratios: float | None
    spread: RatioSpread | None = None


class DataStats(_Stats):
    """Token counts of a data set after truncation to `max_length`.

    `prompt` is the sum of system, user, tool, history, template and excluded tokens; `completion`
    includes thinking and the end token. `EncodingCounts` defines the counts of truncated, cut and
    dropped examples, `ReadingCounts` those of dropped records, ignored fields and inconsistent
    tool calls.
    """

    num_examples: int
    max_length: int
    template: str
    completion_turns: CompletionTurns
    num_truncated_examples: int
    num_truncated_tokens: int
    num_removed_turns: int = 0
    num_cut_prompts: int = 0
    num_cut_completions: int
    num_dropped_examples: int
    num_dropped_completions: int = 0
    num_dropped_tokens: int
    num_zero_weight_turns: int = 0
    num_chats_without_thinking: int = 0
    num_chats_without_names: int = 0
    num_tokenised_examples: int = 0
    dropped_records: dict[str, int] = {}
    ignored_fields: dict[str, int] = {}
    tool_faults: dict[str, int] = {}
    first_tool_faults: dict[str, str] = {}
    prompt: TokenCounts
    completion: TokenCounts
    system: TokenCounts
    user: TokenCounts
    tool: TokenCounts = _NO_TOKENS
    history: TokenCounts = _NO_TOKENS
    template_tokens: TokenCounts
    thinking: TokenCounts = _NO_TOKENS
    excluded: TokenCounts = _NO_TOKENS
    generation_ratio: GenerationRatio
    generation_ratio_without_template: GenerationRatio

    def loss_lines(self) -> Iterator[str]:
        """Yield lines of text on what was used, truncated, dropped, ignored and inconsistent."""
        counts = {field.name: getattr(self, field.name) for field in fields(EncodingCounts)}
        yield from EncodingCounts(**counts).lines(self.max_length)
        yield from ReadingCounts(
            dropped=Counter(self.dropped_records),
            ignored=Counter(self.ignored_fields),
            tool_faults=Counter(self.tool_faults),
            first_tool_faults=self.first_tool_faults,
        ).lines()

    @property
    def has_truncated_examples(self) -> bool:
        """Return whether examples were truncated, or dropped because they cannot be truncated."""
        return self.num_truncated_examples + self.num_dropped_completions > 0

    @property
    def tokens_per_example(self) -> float:
        """Return the mean number of prompt and completion tokens per example."""
        return (self.prompt.total + self.completion.total) / self.num_examples

    def to_json(self) -> dict[str, Any]:
        """Return all counts as JSON values; `DataStats.model_validate` reads them."""
        return self.model_dump(mode="json")


def compute_data_stats(
    examples: EncodedExamples, config: DataConfig, reading: ReadingCounts | None = None
) -> DataStats:
    """Return the token counts of `examples`, as encoded by `encode_examples` with `config`.

    Args:
        reading: what was left out of the records of the examples, or is inconsistent in them.
    """
    reading = reading or ReadingCounts()
    role_counts = examples.role_counts()
    completion = role_counts[Role.COMPLETION] + role_counts[Role.THINKING]
    prompt = np.sum([role_counts[role] for role in (*PROMPT_ROLES, Role.EXCLUDED)], axis=0)
    text = prompt - role_counts[Role.TEMPLATE]
    return DataStats(
        **asdict(examples.counts),
        dropped_records=dict(reading.dropped),
        ignored_fields=dict(reading.ignored),
        tool_faults=dict(reading.tool_faults),
        first_tool_faults=dict(reading.first_tool_faults),
        max_length=config.max_length,
        template=config.template,
        completion_turns=config.completion_turns,
        prompt=_token_counts(prompt),
        completion=_token_counts(completion),
        system=_token_counts(role_counts[Role.SYSTEM]),
        user=_token_counts(role_counts[Role.USER]),
        tool=_token_counts(role_counts[Role.TOOL]),
        history=_token_counts(role_counts[Role.HISTORY]),
        thinking=_token_counts(role_counts[Role.THINKING]),
        excluded=_token_counts(role_counts[Role.EXCLUDED]),
        template_tokens=_token_counts(role_counts[Role.TEMPLATE]),
        generation_ratio=_generation_ratio(completion, prompt),
        generation_ratio_without_template=_generation_ratio(completion, text),
    )


def _token_counts(counts: NDArray[np.int64]) -> TokenCounts:
    return TokenCounts(
        total=int(counts.sum()),
        mean=float(counts.mean()),
        median=float(np.median(counts)),
        percentile_95=int(_nearest_rank(np.sort(counts), 0.95)),
    )


def _nearest_rank(ordered: NDArray[Any], share: float) -> Any:
    """Return the smallest sorted value that is at least as large as `share` of the values."""
    return ordered[ceil(share * len(ordered)) - 1]


def _generation_ratio(completion: NDArray[np.int64], prompt: NDArray[np.int64]) -> GenerationRatio:
    has_prompt = prompt > 0
    if not has_prompt.any():
        return GenerationRatio(of_means=None, mean_of_ratios=None)
    ratios = np.sort(completion[has_prompt] / prompt[has_prompt])
    return GenerationRatio(
        of_means=float(completion.sum() / prompt.sum()),
        mean_of_ratios=float(ratios.mean()),
        spread=RatioSpread(
            percentile_5=float(_nearest_rank(ratios, 0.05)),
            percentile_25=float(_nearest_rank(ratios, 0.25)),
            median=float(_nearest_rank(ratios, 0.5)),
            percentile_75=float(_nearest_rank(ratios, 0.75)),
            percentile_95=float(_nearest_rank(ratios, 0.95)),
            share_below_one=float((ratios < 1).mean()),
        ),
    )
