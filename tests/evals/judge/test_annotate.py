import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.judge.annotate import Judging, judge_identity, judge_pairs
from evals.judge.annotators import STYLES
from evals.judge.verdicts import Pair
from evals.judge_config import JudgeConfig
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


def some_pairs(count: int) -> list[Pair]:
    """The candidate is longer in two of five pairs, shorter in two, and as long in one."""
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


def judged(pairs: list[Pair], settings: dict[str, Any], **changes: Any) -> Judging:
    style = changes.pop("style", "ranking")
    config = JudgeConfig(**(settings | changes))
    return judge_pairs(pairs, STYLES[style], config, on_progress=lambda done, total: None)


def values(judging: Judging) -> list[float | None]:
    return [item.value for item in judging.judgements]


NAMES = {
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
    judging = judged(some_pairs(10), settings, style=style)
    assert values(judging) == EXPECTED * 2
    assert len(endpoint.requests) == 20
    first = judging.judgements[0]
    assert first.verdicts == {"candidate_first": "candidate", "reference_first": "candidate"}
    assert judging.tally.consistent_share == 1
    assert judging.tally.first_share == 0.5
    assert (judging.tally.num_wins, judging.tally.num_ties, judging.tally.num_losses) == (4, 2, 4)


@pytest.mark.parametrize(
    ("stalls", "num_pairs"), [(False, 60), pytest.param(True, 120, marks=pytest.mark.slow)]
)
def test_no_pair_is_lost_where_three_of_ten_requests_fail(
    endpoint: Endpoint, settings: dict[str, Any], stalls: bool, num_pairs: int
) -> None:
    endpoint.fault_share = 0.3
    endpoint.faults = FAULTS if stalls else tuple(kind for kind in FAULTS if kind != "stall")
    judging = judged(some_pairs(num_pairs), settings, timeout_s=5.0 if stalls else 60.0)
    assert values(judging) == EXPECTED * (num_pairs // 5)
    spending = judging.spending
    assert endpoint.kinds.pop("good") == 2 * num_pairs
    # Each fault happened, and each is accounted for under its own name.
    assert spending.failures == Counter(NAMES[kind] for kind in endpoint.kinds.elements())
    assert len(endpoint.kinds) == len(endpoint.faults)
    assert spending.num_requests == 2 * num_pairs + endpoint.kinds.total()
    assert spending.input_tokens == endpoint.input_tokens
    assert spending.output_tokens == endpoint.output_tokens
    cost = (2 * endpoint.input_tokens + 8 * endpoint.output_tokens) / 1e6
    assert spending.cost == pytest.approx(cost, rel=1e-12)
    # What may be billed although no count of it arrived.
    uncounted = ("stall", "half", "html", "no choices", "cut")
    assert spending.num_uncounted == sum(endpoint.kinds[kind] for kind in uncounted)
    assert spending.possible_cost > 0


def test_a_second_judging_asks_nothing(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    first = judged(some_pairs(10), settings)
    second = judged(some_pairs(10), settings, concurrency=2, retries=0, timeout_s=9.0)
    assert len(endpoint.requests) == 20
    assert values(second) == values(first)
    assert second.num_kept == 20
    assert second.spending.cost == 0
    assert second.kept_cost == pytest.approx(first.spending.cost)
    assert second.judgements == first.judgements


@pytest.mark.parametrize(
    "change", [{"model": "strict-2"}, {"temperature": 0.5}, {"max_tokens": 99}, {"name": "strict"}]
)
def test_another_judge_or_setting_is_asked_anew(
    endpoint: Endpoint, settings: dict[str, Any], change: dict[str, Any]
) -> None:
    judged(some_pairs(2), settings)
    judged(some_pairs(2), settings, **change)
    assert len(endpoint.requests) == 8


def test_a_judge_with_a_name_is_known_at_another_address(settings: dict[str, Any]) -> None:
    here = JudgeConfig(**settings, name="strict")
    there = here.model_copy(update={"base_url": "https://judges.example/v1", "model": "s"})
    assert judge_identity(here) == judge_identity(there) == "name:strict"


def test_what_was_asked_before_an_end_is_not_asked_again(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    pairs = some_pairs(10)

    def interrupt(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_pairs(
            pairs,
            STYLES["ranking"],
            JudgeConfig(**settings, concurrency=1),
            on_progress=interrupt,
        )
    assert len(endpoint.requests) == 8
    assert values(judged(pairs, settings)) == EXPECTED * 2
    assert len(endpoint.requests) == 20


def test_equal_outputs_are_a_tie_and_equal_pairs_are_asked_once(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    same = Pair(id="same", instruction="Say x.", candidate="x", reference="x")
    one = Pair(id="one", instruction="Say y.", candidate="yy", reference="y")
    twin = Pair(id="twin", instruction="Say y.", candidate="yy", reference="y")
    judging = judged([same, one, twin], settings)
    assert values(judging) == [0.5, 1, 1]
    assert judging.tally.num_identical == 1
    assert len(endpoint.requests) == 2


def test_a_judge_that_goes_by_place_is_found_out(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.decide = lambda instruction, first, second: "1"
    tally = judged(some_pairs(5), settings).tally
    assert tally.consistent_share == 0
    assert tally.first_share == 1
    assert tally.num_ties == 5


def test_one_order_asks_half_as_often(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    judging = judged(some_pairs(5), settings, both_orders=False)
    assert values(judging) == EXPECTED
    assert len(endpoint.requests) == 5
    assert judging.tally.consistent_share is None


def test_the_budget_ends_judging_before_it_is_spent_and_the_next_run_goes_on(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    pairs = some_pairs(40)
    whole = judged(pairs, settings | {"cache_dir": settings["cache_dir"] + "-whole"})
    endpoint.requests.clear()
    budget = whole.spending.cost
    # A request may cost more than it did, so not all fit into exactly what they cost.
    part = judged(pairs, settings, budget=budget)
    assert 0 < len(part.judgements) < 40
    assert len(part.missing) == 40 - len(part.judgements)
    assert part.spending.cost <= budget
    with pytest.raises(InputError, match=r"budget of .* is reached: \d+ of 40 pairs are judged"):
        part.refuse_unfinished(budget)
    rest = judged(pairs, settings, budget=budget)
    assert rest.missing == []
    assert values(rest) == EXPECTED * 8
    assert part.spending.cost + rest.spending.cost == pytest.approx(whole.spending.cost)
    assert len(endpoint.requests) == 80


def test_a_judge_without_a_readable_verdict_fails_early_and_says_what_it_said(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 1.0, ("nonsense",)
    with pytest.raises(InputError) as caught:
        judged(some_pairs(100), settings, reasks=1, concurrency=2)
    assert "11 of 200 questions to the judge have no verdict" in str(caught.value)
    assert "'I would rather talk about the weather.'" in str(caught.value)
    assert len(endpoint.requests) <= 24


def test_a_few_unreadable_replies_are_counted_and_kept(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 0.2, ("nonsense",)
    judging = judged(some_pairs(20), settings, reasks=0, max_unparsable_share=0.5)
    tally = judging.tally
    assert tally.num_unparsable == endpoint.kinds["nonsense"] > 0
    assert tally.num_questions == 40
    assert tally.num_both_orders < 20
    again = judged(some_pairs(20), settings, reasks=0, max_unparsable_share=0.5)
    assert again.num_kept == 40
    assert len(endpoint.requests) == 40


def test_a_question_that_the_endpoint_refuses_is_counted_and_not_tried_again(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 0.1, ("400",)
    judging = judged(some_pairs(20), settings, max_unparsable_share=0.5)
    refused = endpoint.kinds["400"]
    assert judging.tally.num_unanswered == refused > 0
    assert len(endpoint.requests) == 40
    errors = [r.error for item in judging.judgements for r in item.replies.values() if r.error]
    assert errors == ['status 400: {"error": "too long"}'] * refused


def test_an_endpoint_that_breaks_down_fails_with_what_it_did(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 1.0, ("500",)
    with pytest.raises(TrainingError, match=r"stopped replying \(status 500, 3 tries each"):
        judged(some_pairs(20), settings, retries=2, max_unparsable_share=1.0)


def test_a_pause_that_is_asked_for_is_kept(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    endpoint.fault_share, endpoint.faults, endpoint.retry_after = 0.5, ("429",), "0.5"
    start = time.monotonic()
    judged(some_pairs(2), settings, concurrency=4)
    assert endpoint.kinds["429"] > 0
    assert time.monotonic() - start >= 0.5


def test_a_pause_beyond_patience_fails(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    endpoint.fault_share, endpoint.faults, endpoint.retry_after = 1.0, ("429",), "86400"
    with pytest.raises(TrainingError, match="asks for a pause of 86400 s"):
        judged(some_pairs(2), settings)


def test_requests_are_spaced_by_the_rate_limit(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    start = time.monotonic()
    judged(some_pairs(5), settings, requests_per_minute=1200, concurrency=10)
    assert time.monotonic() - start >= 9 * 60 / 1200


def test_no_more_requests_at_once_than_set(endpoint: Endpoint, settings: dict[str, Any]) -> None:
    judged(some_pairs(10), settings, concurrency=3)
    assert endpoint.most_at_once <= 3


def test_nothing_at_the_address_is_said_at_once(settings: dict[str, Any]) -> None:
    settings["base_url"] = "http://127.0.0.1:9/v1"
    with pytest.raises(InputError, match=re.escape("nothing answers at http://127.0.0.1:9/v1")):
        judged(some_pairs(3), settings)


def test_a_cache_that_cannot_be_written_is_found_before_anything_is_asked(
    endpoint: Endpoint, settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"evals.judge.cache_dir: must be a folder, got"):
        judged(some_pairs(1), settings, cache_dir=str(tmp_path / "file"))
    assert not endpoint.requests


def test_a_web_page_at_the_address_is_said_at_once(
    endpoint: Endpoint, settings: dict[str, Any]
) -> None:
    endpoint.fault_share, endpoint.faults = 1.0, ("html",)
    with pytest.raises(InputError, match=r"/v1/chat/completions answers with a web page; check"):
        judged(some_pairs(1), settings, both_orders=False)
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
        judged(some_pairs(2), settings)
    assert "answered 401" in str(caught.value)
    assert "sk-wrong" not in str(caught.value)
    assert "set the environment variable JUDGE_KEY to a valid key" in str(caught.value)
    monkeypatch.setenv("JUDGE_KEY", "sk-right")
    judging = judged(some_pairs(2), settings)
    written = json.dumps(judging.to_json() | judging.signature)
    written += "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "sk-right" not in written


def test_a_judge_without_its_key_is_refused_before_anything_is_asked(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(InputError) as caught:
        judged(some_pairs(2), settings, api_key_env="JUDGE_KEY")
    assert str(caught.value) == (
        "evals.judge.api_key_env: the judge needs a key, and the environment variable JUDGE_KEY"
        " is not set; export JUDGE_KEY, or set api_key_env to null for an endpoint without a key"
    )
