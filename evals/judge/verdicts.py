"""Pairs of outputs, the judge's verdicts in both orders, and their combination and counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from evals.judge.annotators import Preference
from evals.judge.cache import Reply

# The output that the judge sees first.
Order = Literal["candidate_first", "reference_first"]
Verdict = Literal["candidate", "reference", "tie"]

WIN: dict[Verdict, float] = {"candidate": 1.0, "tie": 0.5, "reference": 0.0}
_VERDICTS: dict[Order, dict[Preference, Verdict]] = {
    "candidate_first": {"first": "candidate", "second": "reference", "tie": "tie"},
    "reference_first": {"first": "reference", "second": "candidate", "tie": "tie"},
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two outputs for one instruction; the judge sees nothing else of the task."""

    id: str
    instruction: str
    candidate: str
    reference: str

    @property
    def is_identical(self) -> bool:
        """Return whether both outputs are equal: a tie without a request, as in AlpacaEval."""
        return self.candidate == self.reference

    def outputs(self, order: Order) -> tuple[str, str]:
        """Return both outputs in the order in which the judge sees them."""
        both = (self.candidate, self.reference)
        return both if order == "candidate_first" else both[::-1]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A pair with replies and verdicts by order.

    A verdict is None if its reply is unparsable or missing. An order without an entry was not
    requested.
    """

    pair: Pair
    replies: dict[Order, Reply]
    verdicts: dict[Order, Verdict | None]

    @property
    def value(self) -> float | None:
        """Return the candidate's score, averaged over both orders.

        A win scores 1, a tie 0.5, and a loss 0. If only one verdict is known, it counts alone. None
        if neither is known.
        """
        if self.pair.is_identical:
            return 0.5
        known = [WIN[verdict] for verdict in self.verdicts.values() if verdict is not None]
        return fmean(known) if known else None

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict over both orders; contradicting orders give a tie."""
        value = self.value
        if value is None:
            return None
        return "tie" if value == 0.5 else "candidate" if value > 0.5 else "reference"

    @property
    def is_consistent(self) -> bool | None:
        """Return whether both orders agree; None unless both verdicts are known."""
        known = [verdict for verdict in self.verdicts.values() if verdict is not None]
        return known[0] == known[1] if len(known) == 2 else None

    def to_json(self) -> dict[str, Any]:
        """Return all fields for a samples file."""
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


def make_judgement(
    pair: Pair, replies: dict[Order, Reply], preferences: dict[Order, Preference | None]
) -> Judgement:
    """Return the judgement, with preferences (first, second) as verdicts (candidate, reference)."""
    verdicts = {
        order: None if preference is None else _VERDICTS[order][preference]
        for order, preference in preferences.items()
    }
    return Judgement(pair=pair, replies=replies, verdicts=verdicts)


@dataclass(frozen=True, kw_only=True)
class JudgementCounts:
    """Counts of a set of judgements.

    Wins, ties and losses are the candidate's, over both orders. `num_unread` pairs have no verdict
    in either order, and `num_half_read` pairs were judged in both orders but have a verdict in one
    alone, which then counts. `num_questions` counts pairs times orders; of these, `num_unparsable`
    have a reply without a verdict, and `num_unanswered` have no reply. `first_share` is the share
    of verdicts for the output shown first, among verdicts other than ties. If it is far from 0.5,
    the judge has a position bias. `served_models` counts replies by the model and fingerprint that
    the endpoint reported.
    """

    num_pairs: int
    num_identical: int
    num_wins: int
    num_ties: int
    num_losses: int
    num_unread: int
    num_half_read: int
    num_questions: int
    num_unparsable: int
    num_unanswered: int
    num_both_orders: int
    num_consistent: int
    first_share: float | None
    served_models: dict[str, int]

    @property
    def consistent_share(self) -> float | None:
        """Return the share of pairs whose two orders agree; None if no pair has both verdicts."""
        return self.num_consistent / self.num_both_orders if self.num_both_orders else None


def count_judgements(judgements: Sequence[Judgement]) -> JudgementCounts:
    """Return the counts of `judgements`."""
    verdicts = [item.verdict for item in judgements]
    consistent = [item.is_consistent for item in judgements]
    by_order = [
        (order, verdict, item.replies[order])
        for item in judgements
        for order, verdict in item.verdicts.items()
    ]
    unparsed = [reply for _, verdict, reply in by_order if verdict is None]
    is_first_win = [
        (order == "candidate_first") == (verdict == "candidate")
        for order, verdict, _ in by_order
        if verdict is not None and verdict != "tie"
    ]
    return JudgementCounts(
        num_pairs=len(judgements),
        num_identical=sum(item.pair.is_identical for item in judgements),
        num_wins=verdicts.count("candidate"),
        num_ties=verdicts.count("tie"),
        num_losses=verdicts.count("reference"),
        num_unread=verdicts.count(None),
        num_half_read=sum(
            len(item.verdicts) == 2 and list(item.verdicts.values()).count(None) == 1
            for item in judgements
        ),
        num_questions=len(by_order),
        num_unparsable=sum(reply.text is not None for reply in unparsed),
        num_unanswered=sum(reply.text is None for reply in unparsed),
        num_both_orders=sum(item is not None for item in consistent),
        num_consistent=consistent.count(True),
        first_share=fmean(is_first_win) if is_first_win else None,
        served_models=dict(
            Counter(
                " ".join(filter(None, (reply.served_model, reply.system_fingerprint)))
                for _, _, reply in by_order
                if reply.served_model is not None
            )
        ),
    )
