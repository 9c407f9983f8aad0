"""Judge pairs against a fake endpoint over HTTP: verdicts, faults, cache, budget, keys."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from evals.judge.annotate import JudgeResults, judge_identity, judge_pairs
from evals.judge.annotators import ANNOTATORS
from evals.judge.cache import Reply, request_key
from evals.judge.verdicts import Judgement, Pair, count_judgements
from evals.judge_config import JudgeConfig, StyleName
from tests.evals.judge_endpoint import FAULTS, Endpoint, serving
from trainers.foundation.errors import InputError, TrainingError


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as found:
        yield found


@pytest.fixture
def settings(endpoint: Endpoint, tmp_path: Path) -> dict[str, Any]:
    return {
        "base_url": endpoint.base_url,
        "model": "strict-1",
        "api_key_env": None,
        "backoff_s": 0.01,
        "timeout_s": 5.0,
        "cache_dir": str(tmp_path / "replies"),
        "price_per_million_input_tokens": 2.0,
        "price_per_million_output_tokens": 8.0,
    }


def make_pairs(count: int) -> list[Pair]:
    """Of five pairs, the candidate is longer in two, shorter in two, and equally long in one."""
    lengths = [(9, 4), (4, 9), (7, 7), (12, 2), (2, 12)]
    return [
        Pair(
            id=str(number),
            instruction=f"Do thing {number}.",
            candidate="c" * lengths[number % 5][0],
            reference="r" * lengths[number % 5][1],
        )
        for number in range(count)
    ]


def judge(pairs: list[Pair], settings: dict[str, Any], **changes: Any) -> JudgeResults:
    style = changes.pop("style", "ranking")
    config = JudgeConfig(**(settings | changes))
    return judge_pairs(pairs, ANNOTATORS[style], config, on_progress=lambda done, total: None)


def values(results: JudgeResults) -> list[float | None]:
    return [item.value for item in results.judgements]


FAILURE_NAMES = {
    "500": "status 500",
    "429": "status 429",
    "stall": "timeout",
    "nonsense": "no verdict",
    "half": "broken reply",
    "html": "web page",
    "no choices": "broken reply",
    "cut": "broken connection",
}
EXPECTED = [1.0, 0.0, 0.5, 1.0, 0.0]


@pytest.mark.parametrize("style", ["ranking", "verdict"])
def test_every_pair_is_judged_in_both_orders(
    endpoint: Endpoint, settings: dict[str, Any], style: str
) -> None:
    results = judge(make_pairs(10), settings, style=style)
    assert values(results) == EXPECTED * 2
    assert len(endpoint.requests) == 20
    first = results.judgements[0]
    assert first.verdicts == {"candidate_first": "candidate", "reference_first": "candidate"}
    assert results.counts.consistent_share == 1
    assert results.counts.first_share == 0.5
    assert (results.counts.num_wins, results.counts.num_ties, results.counts.num_losses) == (
        4,
        2,
        4,
    )


@pytest.mark.parametrize(
    ("stalls", "num_pairs"), [(False, 60), pytest.param(True, 120, marks=pytest.mark.slow)]
)
def test_no_pair_is_lost_if_30_percent_of_requests_fail(
    endpoint: Endpoint, settings: dict[str, Any], stalls: bool, num_pairs: int
) -> None:
    endpoint.fault_share = 0.3
    endpoint.faults = FAULTS if stalls else tuple(kind for kind in FAULTS if kind != "stall")
    results = judge(make_pairs(num_pairs), settings, timeout_s=5.0 if stalls else 60.0)
    assert values(results) == EXPECTED * (num_pairs // 5)
    cost_tracker = results.cost_tracker
    assert endpoint.kinds.pop("good") == 2 * num_pairs
    # Each fault occurred, and is counted under its own name.
    assert cost_tracker.failures == Counter(
        FAILURE_NAMES[kind] for kind in endpoint.kinds.elements()
    )
    assert len(endpoint.kinds) == len(endpoint.faults)
    assert cost_tracker.num_requests == 2 * num_pairs + endpoint.kinds.total()
    assert cost_tracker.input_tokens == endpoint.input_tokens
    assert cost_tracker.output_tokens == endpoint.output_tokens
    cost = (2 * endpoint.input_tokens + 8 * endpoint.output_tokens) / 1e6
    assert cost_tracker.cost == pytest.approx(cost, rel=1e-12)
    # Possibly billed, although no token count arrived.
    uncounted = ("stall", "half", "html", "no choices", "cut")
    assert cost_tracker.num_uncounted == sum(endpoint.kinds[kind] for kind in uncounted)
    assert cost_tracker.possible_cost > 0


def test_a_second_run_sends_no_requests(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    first = judge(make_pairs(10), settings)
    second = judge(make_pairs(10), settings, concurrency=2, retries=0, timeout_s=9.0)
    assert len(endpoint.requests) == 20
    assert values(second) == values(first)
    assert second.num_cached == 20
    assert second.cost_tracker.cost == 0
    assert second.cached_cost == pytest.approx(first.cost_tracker.cost)
    assert second.judgements == first.judgements


@pytest.mark.parametrize(
    "change", [{"model": "strict-2"}, {"temperature": 0.5}, {"max_tokens": 99}, {"name": "strict"}]
)
def test_another_judge_or_setting_misses_the_cache(
    endpoint: Endpoint, settings: dict[str, Any], change: dict[str, Any]
) -> None:
    judge(make_pairs(2), settings)
    judge(make_pairs(2), settings, **change)
    assert len(endpoint.requests) == 8


def test_a_named_judge_keeps_its_identity_at_another_url(settings: dict[str, Any]) -> None:
    here = JudgeConfig(**settings, name="strict")
    there = here.model_copy(update={"base_url": "https://judges.example/v1", "model": "s"})
    assert judge_identity(here) == judge_identity(there) == "name:strict"


def test_an_interrupted_run_continues_from_the_cache(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    pairs = make_pairs(10)

    def interrupt(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_pairs(
            pairs,
            ANNOTATORS["ranking"],
            JudgeConfig(**settings, concurrency=1),
            on_progress=interrupt,
        )
    assert len(endpoint.requests) == 8
    assert values(judge(pairs, settings)) == EXPECTED * 2
    assert len(endpoint.requests) == 20


def test_equal_outputs_are_a_tie_and_equal_pairs_share_requests(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    equal = Pair(id="same", instruction="Say x.", candidate="x", reference="x")
    one = Pair(id="one", instruction="Say y.", candidate="yy", reference="y")
    twin = Pair(id="twin", instruction="Say y.", candidate="yy", reference="y")
    results = judge([equal, one, twin], settings)
    assert values(results) == [0.5, 1, 1]
    assert results.counts.num_identical == 1
    assert len(endpoint.requests) == 2


def test_replies_keep_the_model_that_the_endpoint_served(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    pairs = make_pairs(4)
    judge(pairs[:1], settings)
    endpoint.served_model = "strict-1-2027"
    results = judge(pairs, settings)
    assert results.counts.served_models == {"strict-1-2026 fp_7": 2, "strict-1-2027 fp_7": 6}
    reply = results.judgements[3].to_json()["replies"]["candidate_first"]
    assert (reply["served_model"], reply["system_fingerprint"]) == ("strict-1-2027", "fp_7")


def test_pairs_with_a_verdict_in_one_order_alone_are_counted() -> None:
    pair = make_pairs(1)[0]
    replies = {order: Reply(text="x") for order in ("candidate_first", "reference_first")}
    half = Judgement(
        pair=pair, replies=replies, verdicts={"candidate_first": "tie", "reference_first": None}
    )
    single = Judgement(pair=pair, replies=replies, verdicts={"candidate_first": "tie"})
    none = Judgement(
        pair=pair, replies=replies, verdicts={"candidate_first": None, "reference_first": None}
    )
    counts = count_judgements([half, single, none])
    assert (counts.num_half_read, counts.num_unread, counts.num_ties) == (1, 1, 2)


def test_position_bias_is_reported(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    endpoint.decide = lambda instruction, first, second: "1"
    counts = judge(make_pairs(5), settings).counts
    assert counts.consistent_share == 0
    assert counts.first_share == 1
    assert counts.num_ties == 5


def test_one_order_sends_half_the_requests(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    results = judge(make_pairs(5), settings, both_orders=False)
    assert values(results) == EXPECTED
    assert len(endpoint.requests) == 5
    assert results.counts.consistent_share is None


def test_the_budget_stops_a_run_and_the_next_run_continues(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    pairs = make_pairs(40)
    whole = judge(pairs, settings | {"cache_dir": settings["cache_dir"] + "-whole"})
    endpoint.requests.clear()
    budget = whole.cost_tracker.cost
    # Reservations exceed the actual cost, so not all requests fit into a budget of their cost.
    part = judge(pairs, settings, budget=budget)
    assert 0 < len(part.judgements) < 40
    assert len(part.missing) == 40 - len(part.judgements)
    assert part.cost_tracker.cost <= budget
    with pytest.raises(InputError, match=r"budget of .* is reached: \d+ of 40 pairs are judged"):
        part.check_complete(budget)
    rest = judge(pairs, settings, budget=budget)
    assert rest.missing == []
    assert values(rest) == EXPECTED * 8
    assert part.cost_tracker.cost + rest.cost_tracker.cost == pytest.approx(whole.cost_tracker.cost)
    assert len(endpoint.requests) == 80


def test_too_many_unparsable_replies_fail_early_with_the_last_reply(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 1.0, ("nonsense",)
    with pytest.raises(InputError) as caught:
        judge(make_pairs(100), settings, parse_retries=1, concurrency=2)
    assert "11 of 200 requests to the judge have no verdict" in str(caught.value)
    assert "'I would rather talk about the weather.'" in str(caught.value)
    assert len(endpoint.requests) <= 24


def test_a_few_unparsable_replies_are_counted_and_cached(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 0.2, ("nonsense",)
    results = judge(make_pairs(20), settings, parse_retries=0, max_unparsable_share=0.5)
    counts = results.counts
    assert counts.num_unparsable == endpoint.kinds["nonsense"] > 0
    assert counts.num_questions == 40
    assert counts.num_both_orders < 20
    again = judge(make_pairs(20), settings, parse_retries=0, max_unparsable_share=0.5)
    assert again.num_cached == 40
    assert len(endpoint.requests) == 40


def test_a_rejected_request_is_counted_and_not_retried(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 0.1, ("400",)
    results = judge(make_pairs(20), settings, max_unparsable_share=0.5)
    refused = endpoint.kinds["400"]
    assert results.counts.num_unanswered == refused > 0
    assert len(endpoint.requests) == 40
    errors = [r.error for item in results.judgements for r in item.replies.values() if r.error]
    assert errors == ['status 400: {"error": "too long"}'] * refused


def test_an_endpoint_that_stops_replying_is_an_error(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 1.0, ("500",)
    with pytest.raises(TrainingError, match=r"stopped replying \(status 500, 3 attempts each"):
        judge(make_pairs(20), settings, retries=2, max_unparsable_share=1.0)


def test_retry_after_is_respected(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    endpoint.fault_share, endpoint.faults, endpoint.retry_after = 0.5, ("429",), "0.5"
    start = time.monotonic()
    judge(make_pairs(2), settings, concurrency=4)
    assert endpoint.kinds["429"] > 0
    assert time.monotonic() - start >= 0.5


def test_a_long_retry_after_is_an_error(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    endpoint.fault_share, endpoint.faults, endpoint.retry_after = 1.0, ("429",), "86400"
    with pytest.raises(TrainingError, match="asks for a pause of 86400 s"):
        judge(make_pairs(2), settings)


def test_requests_are_spaced_by_the_rate_limit(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    start = time.monotonic()
    judge(make_pairs(5), settings, requests_per_minute=1200, concurrency=10)
    assert time.monotonic() - start >= 9 * 60 / 1200


def test_concurrency_is_limited(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    judge(make_pairs(10), settings, concurrency=3)
    assert endpoint.most_at_once <= 3


def test_a_missing_server_is_reported_at_once(settings: dict[str, Any]) -> None:
    settings["base_url"] = "http://127.0.0.1:9/v1"
    with pytest.raises(InputError, match=re.escape("nothing answers at http://127.0.0.1:9/v1")):
        judge(make_pairs(3), settings)


def test_an_unwritable_cache_is_reported_before_any_request(
    endpoint: Endpoint, settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"evals.judge.cache_dir: must be a folder, got"):
        judge(make_pairs(1), settings, cache_dir=str(tmp_path / "file"))
    assert not endpoint.requests


def test_a_web_page_instead_of_an_api_is_reported_at_once(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 1.0, ("html",)
    with pytest.raises(InputError, match=r"/v1/chat/completions answers with a web page; check"):
        judge(make_pairs(1), settings, both_orders=False)
    assert len(endpoint.requests) == 3


def test_the_key_is_sent_and_never_shown(
    endpoint: Endpoint,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint.key = "sk-right"
    settings["api_key_env"] = "JUDGE_KEY"
    monkeypatch.setenv("JUDGE_KEY", "sk-wrong")
    with pytest.raises(InputError) as caught:
        judge(make_pairs(2), settings)
    assert "answered 401" in str(caught.value)
    assert "sk-wrong" not in str(caught.value)
    assert "set the environment variable JUDGE_KEY to a valid key" in str(caught.value)
    monkeypatch.setenv("JUDGE_KEY", "sk-right")
    results = judge(make_pairs(2), settings)
    written = json.dumps(results.to_json() | results.signature)
    written += "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "sk-right" not in written


def test_a_missing_key_is_reported_before_any_request(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(InputError) as caught:
        judge(make_pairs(2), settings, api_key_env="JUDGE_KEY")
    assert str(caught.value) == (
        "evals.judge.api_key_env: the judge needs a key, and the environment variable JUDGE_KEY"
        " is not set; export JUDGE_KEY, or set api_key_env to null for an endpoint without a key"
    )


@pytest.mark.parametrize("style", ["ranking", "verdict"])
@pytest.mark.parametrize("structured_output", ["supported", "ignored"])
def test_structured_output_gives_the_same_verdicts(
    endpoint: Endpoint,
    settings: dict[str, Any],
    style: StyleName,
    structured_output: Literal["supported", "ignored"],
) -> None:
    endpoint.structured_output = structured_output
    results = judge(make_pairs(10), settings, style=style, structured_output=True)
    assert values(results) == EXPECTED * 2
    assert len(endpoint.requests) == 20
    sent = endpoint.requests[0]["response_format"]
    assert sent == ANNOTATORS[style].response_format
    assert (sent["type"], sent["json_schema"]["strict"]) == ("json_schema", True)
    texts = [reply.text for item in results.judgements for reply in item.replies.values()]
    is_json = [str(text).startswith('{"') for text in texts]
    assert is_json == [structured_output == "supported"] * 20


def test_structured_output_falls_back_if_the_endpoint_rejects_it(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.structured_output = "rejected"
    results = judge(
        make_pairs(10), settings, structured_output=True, concurrency=2, retries=0, parse_retries=0
    )
    assert values(results) == EXPECTED * 2
    # Only the first requests of the two workers are rejected; they are sent again without it.
    assert results.cost_tracker.failures == {"status 400": 2}
    assert results.cost_tracker.num_requests == 22
    assert all("response_format" not in body for body in endpoint.requests)


def test_structured_output_is_part_of_the_cache_key_only_if_true(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    plain = judge(make_pairs(2), settings)
    assert judge(make_pairs(2), settings, structured_output=False).num_cached == 4
    assert "structured_output" not in plain.signature["settings"]
    structured = judge(make_pairs(2), settings, structured_output=True)
    assert structured.num_cached == 0
    assert structured.signature["settings"]["structured_output"] is True


def test_cache_keys_do_not_change_between_versions() -> None:
    config = JudgeConfig(base_url="https://judges.example/v1", model="strict")
    keys = {
        name: request_key(
            judge_identity(config),
            {**config.reply_settings(), "style": name},
            annotator.format_prompt("Say x.", "x", "y"),
        )
        for name, annotator in ANNOTATORS.items()
    }
    assert keys == {
        "alpaca_eval": "c5c3b9d909c5d161d4611a6489fc02bca2e9ccd9b10e4e379bee1b6e0227a065",
        "ranking": "6a01c9b5b6666a26a197433ab31b9c7bbb2b6e09a6e4b27849ddb5d0f36b33b5",
        "verdict": "a9963769909ba3637d87391e422654c4b34fcd98314ffd2678bc06e100283083",
    }


def test_a_progress_callback_stops_a_run_while_the_judge_stalls(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 1.0, ("stall",)

    def stop_after_a_request(done: int, total: int) -> None:
        if endpoint.requests:
            raise InterruptedError

    config = JudgeConfig(**(settings | {"timeout_s": 3000.0}))
    with pytest.raises(InterruptedError):
        judge_pairs(make_pairs(4), ANNOTATORS["ranking"], config, on_progress=stop_after_a_request)
