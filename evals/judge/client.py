"""Ask a judge over HTTP, whatever the endpoint does."""

import asyncio
import email.utils
import json
import math
import time
from collections.abc import Callable
from typing import Any

import httpx2
from aiolimiter import AsyncLimiter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from evals.judge.annotators import Messages
from evals.judge.budget import Spending, Usage
from evals.judge.cache import Reply
from evals.judge_config import JudgeConfig, api_key
from trainers.foundation.errors import InputError, Problem, TrainingError

_MAX_BACKOFF_S = 60.0
# A judge that wants a longer pause than this has closed for now.
_MAX_PAUSE_S = 600.0
_MAX_SHOWN = 200
# Tries before the first reply of all: a wrong address should not take minutes to be noticed.
_FIRST_TRIES = 3
# After so many questions in a row that stayed without a reply, the endpoint is taken for down.
_MAX_UNANSWERED = 5
# What a wrong address answers with: nothing, or the page of a portal.
_NO_ENDPOINT = ("no connection", "web page")
_RETRIED = frozenset({408, 409, 425, 429})
_FATAL_FIXES = {
    401: "set the environment variable {key} to a valid key",
    402: "pay for more at the endpoint; the same command goes on where this one stopped",
    403: "use a key that may use this model",
    404: "check base_url (it ends with /v1 at most endpoints) and model",
    405: "check base_url (it ends with /v1 at most endpoints)",
}


class _NoReply(Exception):
    """A request that came to nothing and may come to something when it is tried again."""

    def __init__(self, kind: str, pause_s: float | None = None) -> None:
        self.kind = kind
        self.pause_s = pause_s
        super().__init__(kind)


class _Refused(Exception):
    """A request that the endpoint understood and will not answer, such as one too long for it."""


class JudgeClient:
    """Asks one judge, at most `requests_per_minute` and with all the patience of `config`.

    Used as an async context manager.

    Raises:
        InputError: the key is not in the environment.
    """

    def __init__(
        self, config: JudgeConfig, *, base_url: str, model: str, spending: Spending
    ) -> None:
        self._config = config
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._spending = spending
        rpm = config.requests_per_minute
        # One each 60/rpm seconds: a bucket of rpm would let twice as many through at first.
        self._limiter = AsyncLimiter(1, 60 / rpm) if rpm else None
        self._not_before = 0.0
        self._has_replied = False
        self._num_unanswered = 0
        self._key = api_key(config)
        # No proxy must come between us and a local judge.
        is_local = config.local_model is not None
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(config.timeout_s),
            trust_env=not is_local,
        )

    async def __aenter__(self) -> "JudgeClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, messages: Messages, is_verdict: Callable[[str], bool]) -> Reply:
        """The judge's reply, asked again while it holds no verdict.

        A question that the endpoint refuses, or that stays without a reply, comes back with
        `error`.

        Raises:
            BudgetReached: there is no money left to ask.
            InputError: the endpoint does not know us or the model, or there is no endpoint.
            TrainingError: the endpoint has stopped replying.
        """
        num_asked = 0
        reply = Reply(text=None)
        for number in range(1 + self._config.reasks):
            try:
                reply = await self._reply(messages, number)
            except (_NoReply, _Refused) as error:
                reply = Reply(text=None, error=str(error))
            num_asked += 1
            if reply.text is None or is_verdict(reply.text):
                break
            self._spending.failures["no verdict"] += 1
        return reply.model_copy(update={"num_asked": num_asked})

    async def _reply(self, messages: Messages, number: int) -> Reply:
        """One whole reply, tried for as often as the settings say."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_NoReply),
            stop=self._is_enough,
            wait=self._wait_s,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._once, messages, number)
        except _NoReply as error:
            self._give_up_on(error)
            raise
        self._num_unanswered = 0
        return reply

    def _is_enough(self, state: RetryCallState) -> bool:
        tries = 1 + self._config.retries
        error = state.outcome.exception() if state.outcome else None
        if not self._has_replied and isinstance(error, _NoReply) and error.kind in _NO_ENDPOINT:
            tries = min(tries, _FIRST_TRIES)
        return stop_after_attempt(tries)(state)

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _NoReply) and error.pause_s is not None:
            return error.pause_s
        first = self._config.backoff_s
        return wait_exponential_jitter(initial=first, max=_MAX_BACKOFF_S, jitter=first)(state)

    def _give_up_on(self, error: _NoReply) -> None:
        if error.kind in _NO_ENDPOINT and not self._has_replied:
            fault = f"nothing answers at {self._url}: {error.__cause__}"
            if error.kind == "web page":
                fault = f"{self._url} answers with a web page"
            raise InputError(
                Problem(message=fault, fix="check the judge's base_url, and that its server runs")
            ) from None
        self._num_unanswered += 1
        if self._num_unanswered >= _MAX_UNANSWERED:
            raise TrainingError(
                f"the judge at {self._url} has stopped replying ({error.kind}, "
                f"{1 + self._config.retries} tries each for {_MAX_UNANSWERED} questions in a row);"
                " its replies so far are kept, the same command goes on from there"
            )

    async def _once(self, messages: Messages, number: int) -> Reply:
        """One request."""
        most = self._spending.most(messages)
        await self._turn()
        await self._spending.open(most)
        usage: Usage | None = None
        may_be_billed = False
        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._http.post(
                    self._url,
                    content=json.dumps(self._body(messages, number)),
                    headers={"Content-Type": "application/json"},
                )
            # What a server answers with success it may bill, readable or not.
            may_be_billed = response.is_success
            self._check(response)
            content = _json_of(response)
            usage = _usage(content)
            reply = _first_choice(content, usage)
        except (TimeoutError, httpx2.TimeoutException) as error:
            may_be_billed = True
            raise self._failed("timeout") from error
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            raise self._failed("no connection") from error
        except httpx2.TransportError as error:
            may_be_billed = True
            raise self._failed("broken connection") from error
        except _NoReply as error:
            self._spending.failures[error.kind] += 1
            raise
        finally:
            await self._spending.close(most, usage, may_be_billed=may_be_billed)
        self._has_replied = True
        return reply

    async def _turn(self) -> None:
        """Wait for this request's turn under the rate limit and any pause that was asked for."""
        while (pause_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(pause_s)
        if self._limiter is not None:
            await self._limiter.acquire()

    def _body(self, messages: Messages, number: int) -> dict[str, Any]:
        settings = self._config.request_settings()
        if "seed" in settings:
            # Or a proxy that remembers would repeat the reply that held no verdict.
            settings["seed"] += number
        return {"model": self._model, "messages": messages, **settings}

    def _failed(self, kind: str) -> _NoReply:
        self._spending.failures[kind] += 1
        return _NoReply(kind)

    def _check(self, response: httpx2.Response) -> None:
        """Return if `response` may hold a reply."""
        status = response.status_code
        if response.is_success:
            return
        # Some endpoints repeat a key that they do not know.
        text = response.text.replace(self._key, "(key)") if self._key else response.text
        said = _one_line(text)
        if response.is_redirect:
            said = f"ask {response.headers.get('location', 'somewhere else')} instead"
        if status in _FATAL_FIXES or response.is_redirect or "insufficient_quota" in response.text:
            other = "check base_url" if response.is_redirect else "check the endpoint's account"
            fix = _FATAL_FIXES.get(status, other)
            key = self._config.api_key_env or "that evals.judge.api_key_env names"
            raise InputError(
                Problem(
                    message=f"the judge at {self._url} answered {status}: {said}",
                    fix=fix.format(key=key),
                )
            )
        if status in _RETRIED or status >= 500:
            pause_s = _pause_s(response)
            if pause_s is not None:
                if pause_s > _MAX_PAUSE_S:
                    raise TrainingError(
                        f"the judge at {self._url} asks for a pause of {pause_s:.0f} s (limit"
                        f" {_MAX_PAUSE_S:.0f} s); its replies so far are kept, the same command"
                        " goes on from there"
                    )
                self._not_before = max(self._not_before, time.monotonic() + pause_s)
            raise _NoReply(f"status {status}", pause_s)
        self._spending.failures[f"status {status}"] += 1
        raise _Refused(f"status {status}: {said}")


def _json_of(response: httpx2.Response) -> dict[str, Any]:
    try:
        content = json.loads(response.content)
    except ValueError as error:
        is_page = response.content.lstrip().startswith(b"<")
        raise _NoReply("web page" if is_page else "broken reply") from error
    if not isinstance(content, dict):
        raise _NoReply("broken reply")
    if content.get("error"):  # Some gateways say so with status 200.
        raise _NoReply("error in a reply")
    return content


def _usage(content: dict[str, Any]) -> Usage | None:
    usage = content.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if not all(type(count) is int and count >= 0 for count in counts):
        return None
    return Usage(input_tokens=int(counts[0] or 0), output_tokens=int(counts[1] or 0))


def _first_choice(content: dict[str, Any], usage: Usage | None) -> Reply:
    try:
        choice = content["choices"][0]
        text = choice["message"]["content"]
        finish_reason = choice.get("finish_reason")
        if text is None:
            text = choice["message"].get("refusal") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _NoReply("broken reply") from error
    if not isinstance(text, str):
        raise _NoReply("broken reply")
    return Reply(
        text=text,
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
    )


def _pause_s(response: httpx2.Response) -> float | None:
    """What Retry-After asks for: seconds or a date. Source: RFC 9110, section 10.2.3."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = date.timestamp() - time.time()
    return None if math.isnan(seconds) else max(0.0, seconds)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}..."
