"""Cost of judge requests, and the budget that limits it."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from evals.judge.annotators import Messages
from evals.judge_config import JudgeConfig

# English has about four bytes per token. With three, an estimate is rarely too low.
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8


class BudgetReached(Exception):
    """The next request could cost more than the remaining budget."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts of one request, as reported by the endpoint."""

    input_tokens: int
    output_tokens: int


@dataclass
class CostTracker:
    """Requests, tokens and cost of one run of a judge.

    `cost` is the price of the tokens that the endpoint counted. Some requests may be billed
    although they returned no count (truncated replies, timeouts). `possible_cost` is an estimate of
    their maximum. The budget limits the sum of both.
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
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def estimate_max_cost(self, messages: Messages) -> float:
        """Return an estimate of the cost of a request whose reply has the maximum length."""
        num_bytes = sum(len(m["content"].encode("utf-8", "surrogatepass")) for m in messages)
        overhead = _TOKENS_PER_MESSAGE * (len(messages) + 1)
        input_tokens = math.ceil(num_bytes / _BYTES_PER_TOKEN) + overhead
        return self.config.price(input_tokens, self.config.max_tokens)

    async def reserve(self, max_cost: float) -> None:
        """Wait until the budget allows a request that may cost `max_cost`, and reserve that amount.

        Raises:
            BudgetReached: the budget does not allow the request, and no open request can release a
                part of the budget.
        """
        budget = self.config.budget
        async with self._changed:
            while budget is not None and self._committed + max_cost > budget:
                if self._num_open == 0:
                    raise BudgetReached
                await self._changed.wait()
            self._reserved += max_cost
            self._num_open += 1
        self.num_requests += 1

    async def record(self, max_cost: float, usage: Usage | None, *, may_be_billed: bool) -> None:
        """Replace the reservation by the actual cost; without `usage`, by 0 or `max_cost`."""
        self._reserved -= max_cost
        self._num_open -= 1
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            self.cost += self.config.price(usage.input_tokens, usage.output_tokens)
        elif may_be_billed:
            self.num_uncounted += 1
            self.possible_cost += max_cost
        async with self._changed:
            self._changed.notify_all()

    def to_json(self) -> dict[str, Any]:
        """Return the counts for reports."""
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
