"""How long prompts and completions are, in tokens, and how they compare."""

from dataclasses import asdict
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trainers.config import CompletionTurns, DataConfig
from trainers.data.roles import Role
from trainers.data.tokenized import EncodedExamples


class _Stats(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenCounts(_Stats):
    """Tokens of one kind: of all examples together, and per example."""

    total: int
    mean: float
    median: float
    percentile_95: int


class RatioSpread(_Stats):
    """How the ratios of single examples spread: quantiles, and the share of them below 1.

    A quantile is a value that occurs, by the nearest rank.
    """

    percentile_5: float
    percentile_25: float
    median: float
    percentile_75: float
    percentile_95: float
    share_below_one: float


class GenerationRatio(_Stats):
    """R_g, completion tokens over prompt tokens; None where no prompt has a token.

    `of_means` divides the mean lengths. `mean_of_ratios` averages over examples and leaves out
    those without a prompt token, as `spread` does. Records of older sweeps have no `spread`.

    Source: arXiv 2401.13586, which calls data with R_g < 1 short-completion data. Whether it
    counts the template's tokens, and how it averages, could not be read there: hence all four.
    """

    of_means: float | None
    mean_of_ratios: float | None
    spread: RatioSpread | None = None


class DataStats(_Stats):
    """Token counts of a data set, as it is trained on: after truncation to `max_length`.

    `prompt` is the sum of system, user and template tokens. The end-of-sequence token counts as
    a completion token, with and without the template. The numbers of what is truncated, cut and
    dropped are those of `trainers.data.tokenized.LengthCounts`.
    """

    num_examples: int
    max_length: int
    template: str
    completion_turns: CompletionTurns
    num_truncated_examples: int
    num_truncated_tokens: int
    num_cut_completions: int
    num_dropped_examples: int
    num_dropped_tokens: int
    prompt: TokenCounts
    completion: TokenCounts
    system: TokenCounts
    user: TokenCounts
    template_tokens: TokenCounts
    generation_ratio: GenerationRatio
    generation_ratio_without_template: GenerationRatio

    @property
    def tokens_per_example(self) -> float:
        """The mean of prompt and completion together."""
        return (self.prompt.total + self.completion.total) / self.num_examples

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON takes it; `DataStats.model_validate` reads it back."""
        return self.model_dump(mode="json")


def data_stats(examples: EncodedExamples, config: DataConfig) -> DataStats:
    """The token counts of `examples`, which `encode_all` made with `config`."""
    of_role = {role: _counts_per_example(examples, role) for role in Role}
    completion = of_role[Role.COMPLETION]
    shown = of_role[Role.SYSTEM] + of_role[Role.USER]
    prompt = shown + of_role[Role.TEMPLATE]
    return DataStats(
        **asdict(examples.counts),
        max_length=config.max_length,
        template=config.template,
        completion_turns=config.completion_turns,
        prompt=_token_counts(prompt),
        completion=_token_counts(completion),
        system=_token_counts(of_role[Role.SYSTEM]),
        user=_token_counts(of_role[Role.USER]),
        template_tokens=_token_counts(of_role[Role.TEMPLATE]),
        generation_ratio=_generation_ratio(completion, prompt),
        generation_ratio_without_template=_generation_ratio(completion, shown),
    )


def _counts_per_example(examples: EncodedExamples, role: Role) -> NDArray[np.int64]:
    up_to = np.concatenate([[0], np.cumsum(examples.roles == role, dtype=np.int64)])
    return np.diff(up_to[examples.offsets])


def _token_counts(counts: NDArray[np.int64]) -> TokenCounts:
    return TokenCounts(
        total=int(counts.sum()),
        mean=float(counts.mean()),
        median=float(np.median(counts)),
        percentile_95=int(_nearest_rank(np.sort(counts), 0.95)),
    )


def _nearest_rank(ordered: NDArray[Any], share: float) -> Any:
    """The smallest of the values that at least `share` of them do not exceed."""
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
