"""How long prompts and completions are, in tokens, and how they compare."""

import statistics
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

from pydantic import BaseModel, ConfigDict

from trainers.examples import Example
from trainers.roles import Role, Template


class _Stats(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenCounts(_Stats):
    """Tokens of one kind: of all examples together, and per example."""

    total: int
    mean: float
    median: float
    percentile_95: int


class GenerationRatio(_Stats):
    """R_g, completion tokens over prompt tokens; None where no prompt has a token.

    `of_means` divides the mean lengths. `mean_of_ratios` averages over examples and leaves out
    those without a prompt token.

    Source: arXiv 2401.13586, which calls data with R_g < 1 short-completion data. Whether it
    counts the template's tokens, and how it averages, could not be read there: hence all four.
    """

    of_means: float | None
    mean_of_ratios: float | None


class DataStats(_Stats):
    """Token counts of a data set, as it is trained on: after truncation to `max_length`.

    `prompt` is the sum of system, user and template tokens. The end-of-sequence token counts as
    a completion token, with and without the template.
    """

    num_examples: int
    max_length: int
    template: str
    num_truncated_examples: int
    num_truncated_tokens: int
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


def data_stats(examples: Iterable[Example], template: Template, max_length: int) -> DataStats:
    """The token counts of `examples`, of which there is at least one, under `template`.

    Raises:
        InputError: the template cannot show an example.
    """
    counts: dict[Role, list[int]] = {role: [] for role in Role}
    num_truncated: list[int] = []
    for example in examples:
        encoded = template.encode(example, max_length)
        num_truncated.append(encoded.num_truncated_tokens)
        for role, of_role in counts.items():
            of_role.append(encoded.roles.count(role))
    assert num_truncated, "read_examples never gives an empty list"
    completion = counts[Role.COMPLETION]
    shown = [sum(pair) for pair in zip(counts[Role.SYSTEM], counts[Role.USER], strict=True)]
    prompt = [sum(pair) for pair in zip(shown, counts[Role.TEMPLATE], strict=True)]
    return DataStats(
        num_examples=len(num_truncated),
        max_length=max_length,
        template=template.name,
        num_truncated_examples=sum(number > 0 for number in num_truncated),
        num_truncated_tokens=sum(num_truncated),
        prompt=_token_counts(prompt),
        completion=_token_counts(completion),
        system=_token_counts(counts[Role.SYSTEM]),
        user=_token_counts(counts[Role.USER]),
        template_tokens=_token_counts(counts[Role.TEMPLATE]),
        generation_ratio=_generation_ratio(completion, prompt),
        generation_ratio_without_template=_generation_ratio(completion, shown),
    )


def _token_counts(counts: Sequence[int]) -> TokenCounts:
    return TokenCounts(
        total=sum(counts),
        mean=sum(counts) / len(counts),
        median=statistics.median(counts),
        # Nearest rank: the smallest count that at least 95% of the examples do not exceed.
        percentile_95=sorted(counts)[ceil(0.95 * len(counts)) - 1],
    )


def _generation_ratio(completion: Sequence[int], prompt: Sequence[int]) -> GenerationRatio:
    ratios = [c / p for c, p in zip(completion, prompt, strict=True) if p]
    return GenerationRatio(
        of_means=sum(completion) / sum(prompt) if any(prompt) else None,
        mean_of_ratios=sum(ratios) / len(ratios) if ratios else None,
    )
