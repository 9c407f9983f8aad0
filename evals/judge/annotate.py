"""Have every pair judged: both orders, many at once, nothing asked twice, nothing lost."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.judge.annotators import Messages, Style
from evals.judge.budget import BudgetReached, Spending
from evals.judge.cache import Reply, ReplyCache, question_key
from evals.judge.client import JudgeClient
from evals.judge.local_server import served
from evals.judge.verdicts import Judgement, Order, Pair, Tally, judgement, tally
from evals.judge_config import JudgeConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_of

if TYPE_CHECKING:  # It brings torch, which judging does without.
    from evals.engine.batching import Progress

_ORDERS: tuple[Order, ...] = ("candidate_first", "reference_first")


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The judgements of a set of pairs, in its order, and what they took.

    `missing` are the ids of pairs that the budget did not reach, which have no judgement.
    `num_kept` questions were answered from the cache, `kept_cost` is what they cost when they
    were asked.
    """

    judgements: list[Judgement]
    missing: list[str]
    spending: Spending
    num_kept: int
    kept_cost: float
    signature: dict[str, Any]

    @property
    def tally(self) -> Tally:
        """The counts of the judgements."""
        return tally(self.judgements)

    def refuse_unfinished(self, budget: float | None) -> None:
        """Return if all pairs were judged.

        Raises:
            InputError: the `budget` ended before; what is missing and what it cost so far.
        """
        if not self.missing:
            return
        num_judged = len(self.judgements)
        spent = self.spending.cost + self.spending.possible_cost
        raise InputError(
            Problem(
                message=(
                    f"the judge's budget of {budget} is reached: {num_judged} of"
                    f" {num_judged + len(self.missing)} pairs are judged for {spent:.4g},"
                    f" {len(self.missing)} are missing (the first is {self.missing[0]})"
                ),
                where="evals.judge.budget",
                fix="the verdicts so far are kept; run again to spend as much again, or raise it",
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Counts and costs, for reports."""
        found = self.tally
        return {
            **asdict(found),
            "consistent_share": found.consistent_share,
            "num_missing": len(self.missing),
            "num_kept_replies": self.num_kept,
            "kept_cost": self.kept_cost,
            **self.spending.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class _Question:
    """One thing to ask, and the places (pair, order) that its reply goes to."""

    key: str
    messages: Messages
    places: list[tuple[int, Order]]


def judge_pairs(
    pairs: Sequence[Pair], style: Style, config: JudgeConfig, *, on_progress: "Progress"
) -> Judging:
    """What the judge says of each pair, from the cache where it has said it before.

    Pairs of equal outputs are ties and not asked about. Replies are kept one by one, so judging
    that was ended in any way goes on where it stopped. When the budget ends, the judgements so
    far come back, and the ids of the pairs that are `missing`.

    Raises:
        InputError: the judge cannot be asked, or too many of its replies hold no verdict.
        TrainingError: it has stopped replying.
    """
    asker = _Asker(pairs, style, config, on_progress)
    if asker.has_open_questions:
        with _endpoint(config) as (base_url, model):
            asyncio.run(asker.ask_all(base_url, model))
    return asker.judging()


def judge_identity(config: JudgeConfig) -> str:
    """What a judge's replies are kept under.

    An endpoint is its URL and model, since one model name may stand for different models at
    different hosts; a local model folder is its files, wherever it lies. `config.name` replaces
    either, for a judge that moved.
    """
    if config.name is not None:
        return f"name:{config.name}"
    if config.base_url is not None:
        return f"{config.base_url.rstrip('/')} {config.model}"
    model = _local_model(config)
    return f"files:{_digest_of(Path(model))}" if Path(model).is_dir() else f"hub:{model}"


class _Asker:
    """The questions of one judging and the replies so far."""

    def __init__(
        self, pairs: Sequence[Pair], style: Style, config: JudgeConfig, on_progress: "Progress"
    ) -> None:
        self._pairs = pairs
        self._style = style
        self._config = config
        self._on_progress = on_progress
        self._cache = ReplyCache(config.cache_dir)
        self._spending = Spending(config)
        self._replies: list[dict[Order, Reply]] = [{} for _ in pairs]
        self._orders = _ORDERS if config.both_orders else _ORDERS[:1]
        self._judge = judge_identity(config)
        self._num_kept = 0
        self._kept_cost = 0.0
        self._num_unread = 0
        # Kept at the end: if judging fails because of them, they are worth another try.
        self._unread: dict[str, Reply] = {}
        self._is_broke = False
        questions = self._questions()
        self._num_questions = len(questions)
        self._open = [question for question in questions if not self._is_kept(question)]
        self._report()

    @property
    def has_open_questions(self) -> bool:
        """Whether the cache does not hold all replies."""
        return bool(self._open)

    async def ask_all(self, base_url: str, model: str) -> None:
        """Ask all that is open, as far as the budget goes."""
        # All workers take from one iterator, whole pairs one after the other.
        questions = iter(self._open)
        config = self._config
        concurrency = 1 if config.local_model is not None else config.concurrency
        async with JudgeClient(
            config, base_url=base_url, model=model, spending=self._spending
        ) as client:
            workers = [
                asyncio.create_task(self._work(client, questions))
                for _ in range(min(concurrency, len(self._open)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        for key, reply in self._unread.items():
            self._cache.put(key, reply)

    async def _work(self, client: JudgeClient, questions: Iterator[_Question]) -> None:
        for question in questions:
            if self._is_broke:
                return
            try:
                reply = await client.ask(question.messages, self._is_verdict)
            except BudgetReached:
                self._is_broke = True
                return
            self._take(question, reply)

    def _take(self, question: _Question, reply: Reply) -> None:
        for index, order in question.places:
            self._replies[index][order] = reply
        if reply.text is None:
            self._count_unread(reply)
        elif self._is_verdict(reply.text):
            self._cache.put(question.key, reply)
        else:
            self._unread[question.key] = reply
            self._count_unread(reply)
        self._report()

    def _is_verdict(self, text: str) -> bool:
        return self._style.read(text) is not None

    def _count_unread(self, reply: Reply) -> None:
        """Fail as soon as too many questions stay without a verdict: asking on costs money."""
        self._num_unread += 1
        share = self._config.max_unparsable_share
        if self._num_unread <= share * self._num_questions:
            return
        said = f"no reply ({reply.error})" if reply.text is None else repr(reply.text[:200])
        mend = "take a judge that keeps to the format, or raise max_tokens if its replies are cut"
        if reply.text is None:
            mend = "see why the endpoint does not answer"
        raise InputError(
            Problem(
                message=(
                    f"{self._num_unread} of {self._num_questions} questions to the judge have no"
                    f" verdict, more than the share of {share:g} that is allowed; the last: {said}"
                ),
                where="evals.judge.max_unparsable_share",
                fix=f"{mend}; the verdicts so far are kept",
            )
        )

    def _questions(self) -> list[_Question]:
        """Every question once, even where pairs are alike."""
        settings = {**self._config.request_settings(), "style": self._style.name}
        by_key: dict[str, _Question] = {}
        for index, pair in enumerate(self._pairs):
            if pair.is_identical:
                continue
            for order in self._orders:
                messages = self._style.ask(pair.instruction, *pair.outputs(order))
                key = question_key(self._judge, settings, messages)
                question = by_key.setdefault(key, _Question(key=key, messages=messages, places=[]))
                question.places.append((index, order))
        return list(by_key.values())

    def _is_kept(self, question: _Question) -> bool:
        reply = self._cache.get(question.key)
        if reply is None or reply.text is None:
            return False
        for index, order in question.places:
            self._replies[index][order] = reply
        self._num_kept += 1
        self._num_unread += not self._is_verdict(reply.text)
        prices = self._config
        self._kept_cost += (
            (reply.input_tokens or 0) * prices.price_per_million_input_tokens
            + (reply.output_tokens or 0) * prices.price_per_million_output_tokens
        ) / 1_000_000
        return True

    def _report(self) -> None:
        done = sum(map(self._is_done, range(len(self._pairs))))
        self._on_progress(done, len(self._pairs))

    def _is_done(self, index: int) -> bool:
        wanted = 0 if self._pairs[index].is_identical else len(self._orders)
        return len(self._replies[index]) == wanted

    def judging(self) -> Judging:
        """What has come of it."""
        judgements = []
        missing = []
        for index, pair in enumerate(self._pairs):
            if not self._is_done(index):
                missing.append(pair.id)
                continue
            replies = {order: self._replies[index][order] for order in self._replies[index]}
            preferences = {
                order: None if reply.text is None else self._style.read(reply.text)
                for order, reply in replies.items()
            }
            judgements.append(judgement(pair, replies, preferences))
        return Judging(
            judgements=judgements,
            missing=missing,
            spending=self._spending,
            num_kept=self._num_kept,
            kept_cost=self._kept_cost,
            signature={
                "judge": self._judge,
                "settings": self._config.request_settings(),
                "style": self._style.name,
                "wording_sha256": self._style.sha256,
                "orders": list(self._orders),
            },
        )


@contextmanager
def _endpoint(config: JudgeConfig) -> Iterator[tuple[str, str]]:
    """The URL and model name to ask, from when it answers until the block ends."""
    if config.local_model is None:
        assert config.base_url is not None
        assert config.model is not None
        yield config.base_url, config.model
        return
    with served(_local_model(config), timeout_s=config.start_timeout_s) as endpoint:
        yield endpoint


def _local_model(config: JudgeConfig) -> str:
    """The folder or hub name of the local judge."""
    from trainers.models.loading import (
        resolve_model_path,  # It brings torch, which others do without.
    )

    assert config.local_model is not None
    return resolve_model_path(config.local_model)


def _digest_of(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model"):
            total.update(f"{path.name} {sha256_of(path)}\n".encode())
    return total.hexdigest()
