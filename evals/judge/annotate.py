"""Judge all pairs in both orders, with concurrent requests and cached replies."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.judge.annotators import Annotator, Messages
from evals.judge.budget import BudgetReached, CostTracker
from evals.judge.cache import Reply, ReplyCache, request_key
from evals.judge.client import JudgeClient
from evals.judge.local_server import serve_model
from evals.judge.verdicts import (
    Judgement,
    JudgementCounts,
    Order,
    Pair,
    count_judgements,
    make_judgement,
)
from evals.judge_config import JudgeConfig
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.files import sha256_file

if TYPE_CHECKING:  # This imports torch, which `plw judge` does not need.
    from evals.engine.batching import ProgressCallback

_HEARTBEAT_S = 0.5
# The files that a judge is served from; repositories may hold the same weights in other formats.
_MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
_ORDERS: tuple[Order, ...] = ("candidate_first", "reference_first")


@dataclass(frozen=True, kw_only=True)
class JudgeResults:
    """The judgements of a sequence of pairs, in its order, and their cost.

    `missing` contains the ids of pairs that were not judged because the budget was reached first.
    `num_cached` requests were answered from the cache. `cached_cost` is the cost of these requests
    when they were sent.
    """

    judgements: list[Judgement]
    missing: list[str]
    cost_tracker: CostTracker
    num_cached: int
    cached_cost: float
    signature: dict[str, Any]

    @property
    def counts(self) -> JudgementCounts:
        """Return the counts of the judgements."""
        return count_judgements(self.judgements)

    def check_complete(self, budget: float | None) -> None:
        """Check that all pairs were judged.

        Raises:
            InputError: the `budget` was reached before all pairs were judged.
        """
        if not self.missing:
            return
        num_judged = len(self.judgements)
        cost = self.cost_tracker.cost + self.cost_tracker.possible_cost
        raise InputError(
            Problem(
                message=(
                    f"the judge's budget of {budget} is reached: {num_judged} of"
                    f" {num_judged + len(self.missing)} pairs are judged for {cost:.4g},"
                    f" {len(self.missing)} are missing (the first is {self.missing[0]})"
                ),
                where="evals.judge.budget",
                fix="the verdicts so far are cached; run again to spend the same amount, or raise"
                " the budget",
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return counts and costs for reports."""
        counts = self.counts
        return {
            **asdict(counts),
            "consistent_share": counts.consistent_share,
            "num_missing": len(self.missing),
            "num_kept_replies": self.num_cached,
            "kept_cost": self.cached_cost,
            **self.cost_tracker.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The messages of one request, and the (pair, order) entries that its reply fills."""

    key: str
    messages: Messages
    places: list[tuple[int, Order]]


def judge_pairs(
    pairs: Sequence[Pair],
    annotator: Annotator,
    config: JudgeConfig,
    *,
    on_progress: "ProgressCallback",
) -> JudgeResults:
    """Return the judgement of each pair, from the cache where possible.

    Pairs of equal outputs are ties and need no request. Each reply is cached immediately, so a
    rerun continues after the last reply. If the budget is reached, the results contain the
    judgements so far.

    Raises:
        InputError: the judge is not usable, or too many of its replies contain no verdict.
        TrainingError: the judge has stopped replying.
    """
    run = _JudgeRun(pairs, annotator, config, on_progress)
    if run.has_pending_requests:
        with _judge_endpoint(config) as (base_url, model):
            asyncio.run(run.send_all(base_url, model))
    return run.results()


def judge_identity(config: JudgeConfig) -> str:
    """Return the judge's name in cache keys and signatures.

    An endpoint is identified by its URL and model name, because equal names may be different models
    on different hosts. A local model folder is identified by a hash of its files, a hub model by
    its name and commit. `config.name` replaces them.

    Raises:
        InputError: a hub model cannot be found.
    """
    if config.name is not None:
        return f"name:{config.name}"
    if config.base_url is not None:
        return f"{config.base_url.rstrip('/')} {config.model}"
    folder, commit = _local_model(config)
    if commit is not None:
        assert config.local_model is not None
        return f"hub:{config.local_model.partition('@')[0]}@{commit}"
    return f"files:{_hash_folder(folder)}"


class _JudgeRun:
    """The requests of one run and the replies so far."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        annotator: Annotator,
        config: JudgeConfig,
        on_progress: "ProgressCallback",
    ) -> None:
        self._pairs = pairs
        self._annotator = annotator
        self._config = config
        self._on_progress = on_progress
        self._cache = ReplyCache(config.cache_dir)
        self._cost_tracker = CostTracker(config)
        self._replies: list[dict[Order, Reply]] = [{} for _ in pairs]
        self._orders = _ORDERS if config.both_orders else _ORDERS[:1]
        self._judge = judge_identity(config)
        self._num_cached = 0
        self._cached_cost = 0.0
        self._num_without_verdict = 0
        # These are cached only at the end. If the run fails because of them, a rerun requests them
        # again.
        self._unparsable: dict[str, Reply] = {}
        self._is_budget_reached = False
        requests = self._build_requests()
        self._num_requests = len(requests)
        self._pending = [request for request in requests if not self._load_cached(request)]
        self._report_progress()

    @property
    def has_pending_requests(self) -> bool:
        """Return whether replies are missing in the cache."""
        return bool(self._pending)

    async def send_all(self, base_url: str, model: str) -> None:
        """Send all pending requests that the budget allows."""
        # All workers share one iterator, so pairs are completed in order.
        requests = iter(self._pending)
        config = self._config
        async with JudgeClient(
            config,
            self._annotator,
            base_url=base_url,
            model=model,
            cost_tracker=self._cost_tracker,
        ) as client:
            workers = [
                asyncio.create_task(self._work(client, requests))
                for _ in range(min(config.concurrency, len(self._pending)))
            ]
            heartbeat = asyncio.create_task(self._report_regularly())
            try:
                await _first_to_end(asyncio.gather(*workers), heartbeat)
            finally:
                for task in (heartbeat, *workers):
                    task.cancel()
                await asyncio.gather(heartbeat, *workers, return_exceptions=True)
        for key, reply in self._unparsable.items():
            self._cache.put(key, reply)

    async def _report_regularly(self) -> None:
        """Report progress also while no reply arrives: the callback may stop the run by raising."""
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            self._report_progress()

    async def _work(self, client: JudgeClient, requests: Iterator[_Request]) -> None:
        for request in requests:
            if self._is_budget_reached:
                return
            try:
                reply = await client.annotate(request.messages)
            except BudgetReached:
                self._is_budget_reached = True
                return
            self._record(request, reply)

    def _record(self, request: _Request, reply: Reply) -> None:
        self._assign(request, reply)
        if self._has_verdict(reply):
            self._cache.put(request.key, reply)
        else:
            if reply.text is not None:
                self._unparsable[request.key] = reply
            self._num_without_verdict += 1
            self._check_unparsable_share(reply)
        self._report_progress()

    def _assign(self, request: _Request, reply: Reply) -> None:
        for index, order in request.places:
            self._replies[index][order] = reply

    def _has_verdict(self, reply: Reply) -> bool:
        return reply.text is not None and self._annotator.parse(reply.text) is not None

    def _check_unparsable_share(self, reply: Reply) -> None:
        """Check the share of requests without a verdict after each reply; more requests cost money.

        Raises:
            InputError: the share of requests without a verdict is too large.
        """
        share = self._config.max_unparsable_share
        if self._num_without_verdict <= share * self._num_requests:
            return
        if reply.text is None:
            last = f"no reply ({reply.error})"
            fix = "find out why the endpoint does not answer"
        else:
            last = repr(reply.text[:200])
            fix = "use a judge that follows the format, or raise max_tokens if replies are cut"
        raise InputError(
            Problem(
                message=(
                    f"{self._num_without_verdict} of {self._num_requests} requests to the judge"
                    f" have no verdict, more than the allowed share of {share:g}; the last: {last}"
                ),
                where="evals.judge.max_unparsable_share",
                fix=f"{fix}; the verdicts so far are cached",
            )
        )

    def _build_requests(self) -> list[_Request]:
        """Return each distinct request once; equal pairs share a request."""
        settings = {**self._config.reply_settings(), "style": self._annotator.name}
        by_key: dict[str, _Request] = {}
        for index, pair in enumerate(self._pairs):
            if pair.is_identical:
                continue
            for order in self._orders:
                messages = self._annotator.format_prompt(pair.instruction, *pair.outputs(order))
                key = request_key(self._judge, settings, messages)
                request = by_key.setdefault(key, _Request(key=key, messages=messages, places=[]))
                request.places.append((index, order))
        return list(by_key.values())

    def _load_cached(self, request: _Request) -> bool:
        reply = self._cache.get(request.key)
        if reply is None or reply.text is None:
            return False
        self._assign(request, reply)
        self._num_cached += 1
        self._num_without_verdict += not self._has_verdict(reply)
        self._cached_cost += self._config.price(reply.input_tokens or 0, reply.output_tokens or 0)
        return True

    def _report_progress(self) -> None:
        done = sum(map(self._is_done, range(len(self._pairs))))
        self._on_progress(done, len(self._pairs))

    def _is_done(self, index: int) -> bool:
        num_orders = 0 if self._pairs[index].is_identical else len(self._orders)
        return len(self._replies[index]) == num_orders

    def results(self) -> JudgeResults:
        """Return the judgements of all completed pairs."""
        judgements = []
        missing = []
        for index, pair in enumerate(self._pairs):
            if not self._is_done(index):
                missing.append(pair.id)
                continue
            replies = dict(self._replies[index])
            preferences = {
                order: None if reply.text is None else self._annotator.parse(reply.text)
                for order, reply in replies.items()
            }
            judgements.append(make_judgement(pair, replies, preferences))
        return JudgeResults(
            judgements=judgements,
            missing=missing,
            cost_tracker=self._cost_tracker,
            num_cached=self._num_cached,
            cached_cost=self._cached_cost,
            signature={
                "judge": self._judge,
                "settings": self._config.reply_settings(),
                "style": self._annotator.name,
                "wording_sha256": self._annotator.sha256,
                "orders": list(self._orders),
            },
        )


async def _first_to_end(*tasks: asyncio.Future[Any]) -> None:
    """Wait until one of `tasks` ends, and raise its exception, if any."""
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()


@contextmanager
def _judge_endpoint(config: JudgeConfig) -> Iterator[tuple[str, str]]:
    """Yield the URL and model name of an endpoint that runs until the block ends."""
    if config.local_model is None:
        assert config.base_url is not None
        assert config.model is not None
        yield config.base_url, config.model
        return
    folder, _ = _local_model(config)
    with serve_model(str(folder), timeout_s=config.start_timeout_s) as endpoint:
        yield endpoint


def _local_model(config: JudgeConfig) -> tuple[Path, str | None]:
    """Return the folder of the local judge, after downloading it, and the commit of a hub model."""
    # These imports take seconds, and other judges do not need them.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    from trainers.models.loading import resolve_model_path

    assert config.local_model is not None
    path = resolve_model_path(config.local_model)
    if Path(path).is_dir():
        return Path(path), None
    name, _, revision = path.partition("@")
    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=_MODEL_FILES)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            Problem(
                message=f"the hub model {path} cannot be loaded: {str(error).splitlines()[0]}",
                where="evals.judge.local_model",
                fix="correct the name or the commit, connect to the hub, or give a model folder",
            )
        ) from None
    # The folders of the hub's cache have the names of commits.
    return Path(found), Path(found).name


def _hash_folder(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model"):
            total.update(f"{path.name} {sha256_file(path)}\n".encode())
    return total.hexdigest()
