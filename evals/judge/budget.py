"""What asking a judge costs, and the budget that it must stay below."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from evals.judge.annotators import Messages
from evals.judge_config import JudgeConfig

_MILLION = 1_000_000
# English has about four bytes a token; counted as three, an estimate is seldom too low.
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8


class BudgetReached(Exception):
    """The next request could cost more than what is left."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one request, as the endpoint counted them."""

    input_tokens: int
    output_tokens: int


@dataclass
class Spending:
    """Requests, tokens and money of one judging.

    `cost` is what the endpoint's own token counts come to. Requests that may be billed but came
    back without a count (cut replies, timeouts) are not in it: `possible_cost` is what they come
    to at most, by estimate, and the budget holds for both together.
    """

    config: JudgeConfig
    num_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    num_uncounted: int = 0
    possible_cost: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    _reserved: float = 0.0
    _num_open: int = 0
    _settled: asyncio.Condition = field(default_factory=asyncio.Condition)

    def price(self, usage: Usage) -> float:
        """What `usage` costs."""
        return (
            usage.input_tokens * self.config.price_per_million_input_tokens
            + usage.output_tokens * self.config.price_per_million_output_tokens
        ) / _MILLION

    def most(self, messages: Messages) -> float:
        """What a request with `messages` costs if its reply is as long as it may be; estimated."""
        num_bytes = sum(len(m["content"].encode("utf-8", "surrogatepass")) for m in messages)
        overhead = _TOKENS_PER_MESSAGE * (len(messages) + 1)
        return self.price(
            Usage(
                input_tokens=math.ceil(num_bytes / _BYTES_PER_TOKEN) + overhead,
                output_tokens=self.config.max_tokens,
            )
        )

    async def open(self, most: float) -> None:
        """Count a request that may cost `most`, once the budget has room for it.

        Raises:
            BudgetReached: it has none, also when all open requests have ended.
        """
        budget = self.config.budget
        async with self._settled:
            while budget is not None and self._committed + most > budget:
                if self._num_open == 0:
                    raise BudgetReached
                await self._settled.wait()
            self._reserved += most
            self._num_open += 1
        self.num_requests += 1

    async def close(self, most: float, usage: Usage | None, *, may_be_billed: bool) -> None:
        """Count what a request came to. Without `usage`, nothing or at most `most`."""
        self._reserved -= most
        self._num_open -= 1
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            self.cost += self.price(usage)
        elif may_be_billed:
            self.num_uncounted += 1
            self.possible_cost += most
        async with self._settled:
            self._settled.notify_all()

    def to_json(self) -> dict[str, Any]:
        """The counts, for reports."""
        return {
            "num_requests": self.num_requests,
            "failed_requests": dict(sorted(self.failures.items())),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost": self.cost,
            "num_uncounted_requests": self.num_uncounted,
            "possible_further_cost": self.possible_cost,
        }

    @property
    def _committed(self) -> float:
        return self.cost + self.possible_cost + self._reserved
