"""Pairs of outputs, what a judge says of them in either order, and what follows for a pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from evals.judge.annotators import Preference
from evals.judge.cache import Reply

# Which of the two outputs the judge sees first.
Order = Literal["candidate_first", "reference_first"]
Verdict = Literal["candidate", "reference", "tie"]

WIN: dict[Verdict, float] = {"candidate": 1.0, "tie": 0.5, "reference": 0.0}
_VERDICTS: dict[Order, dict[Preference, Verdict]] = {
    "candidate_first": {"first": "candidate", "second": "reference", "tie": "tie"},
    "reference_first": {"first": "reference", "second": "candidate", "tie": "tie"},
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two outputs for one instruction; `instruction` is all that the judge sees of the task."""

    id: str
    instruction: str
    candidate: str
    reference: str

    @property
    def is_identical(self) -> bool:
        """Whether there is nothing to judge: then it is a tie, as in AlpacaEval."""
        return self.candidate == self.reference

    def outputs(self, order: Order) -> tuple[str, str]:
        """Both outputs as the judge sees them."""
        both = (self.candidate, self.reference)
        return both if order == "candidate_first" else both[::-1]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A pair with the judge's replies and verdicts by order; a verdict that could not be read is
    None. An order without an entry was not asked about.
    """

    pair: Pair
    replies: dict[Order, Reply]
    verdicts: dict[Order, Verdict | None]

    @property
    def value(self) -> float | None:
        """1 for a win of the candidate, 0.5 for a tie, 0 for a loss: the mean over the orders.

        One readable verdict of two counts alone. None if there is none.
        """
        if self.pair.is_identical:
            return 0.5
        known = [WIN[verdict] for verdict in self.verdicts.values() if verdict is not None]
        return fmean(known) if known else None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict over both orders: orders that contradict each other make a tie."""
        value = self.value
        if value is None:
            return None
        return "tie" if value == 0.5 else "candidate" if value > 0.5 else "reference"

    @property
    def is_consistent(self) -> bool | None:
        """Whether both orders say the same; None unless both were asked and read."""
        known = [verdict for verdict in self.verdicts.values() if verdict is not None]
        return known[0] == known[1] if len(known) == 2 else None

    def to_json(self) -> dict[str, Any]:
        """All of it, for samples."""
        return {
            "id": self.pair.id,
            "prompt": self.pair.instruction,
            "target": self.pair.reference,
            "output": self.pair.candidate,
            "value": self.value,
            "verdict": self.verdict,
            "is_consistent": self.is_consistent,
            "verdicts": dict(self.verdicts),
            "replies": {order: r.model_dump(mode="json") for order, r in self.replies.items()},
        }


def judgement(
    pair: Pair, replies: dict[Order, Reply], preferences: dict[Order, Preference | None]
) -> Judgement:
    """`pair` with the judge's preferences turned into verdicts about candidate and reference."""
    verdicts = {
        order: None if preference is None else _VERDICTS[order][preference]
        for order, preference in preferences.items()
    }
    return Judgement(pair=pair, replies=replies, verdicts=verdicts)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How a set of judgements divides.

    Wins, ties and losses are the candidate's, over both orders; `num_unread` pairs have no
    verdict in either order. `num_unparsable` and `num_unanswered` count questions.
    """

    num_pairs: int
    num_identical: int
    num_wins: int
    num_ties: int
    num_losses: int
    num_unread: int
    num_questions: int
    num_unparsable: int
    num_unanswered: int
    num_both_orders: int
    num_consistent: int
    first_share: float | None

    @property
    def consistent_share(self) -> float | None:
        """The share of pairs asked in both orders whose verdicts agree; None if there are none."""
        return self.num_consistent / self.num_both_orders if self.num_both_orders else None


def tally(judgements: Sequence[Judgement]) -> Tally:
    """The counts of `judgements`.

    `first_share` is how often the output shown first won, of all verdicts that were no tie: far
    from 0.5, the judge goes by place.
    """
    verdicts = [item.verdict for item in judgements]
    consistent = [item.is_consistent for item in judgements]
    asked = [
        (order, verdict, item.replies[order])
        for item in judgements
        for order, verdict in item.verdicts.items()
    ]
    unread = [reply for _, verdict, reply in asked if verdict is None]
    decided = [
        (order, verdict) for order, verdict, _ in asked if verdict in WIN and verdict != "tie"
    ]
    firsts = [
        (order == "candidate_first") == (verdict == "candidate") for order, verdict in decided
    ]
    return Tally(
        num_pairs=len(judgements),
        num_identical=sum(item.pair.is_identical for item in judgements),
        num_wins=verdicts.count("candidate"),
        num_ties=verdicts.count("tie"),
        num_losses=verdicts.count("reference"),
        num_unread=verdicts.count(None),
        num_questions=len(asked),
        num_unparsable=sum(reply.text is not None for reply in unread),
        num_unanswered=sum(reply.text is None for reply in unread),
        num_both_orders=sum(found is not None for found in consistent),
        num_consistent=consistent.count(True),
        first_share=fmean(firsts) if firsts else None,
    )
