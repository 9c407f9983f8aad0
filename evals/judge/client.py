"""HTTP client for an LLM judge: retries, rate limit, deadline and budget for each request."""

import asyncio
import email.utils
import json
import math
import random
import time
from typing import Any

import httpx2
from aiolimiter import AsyncLimiter

from evals.judge.annotators import Annotator, Messages
from evals.judge.budget import CostTracker, Usage
from evals.judge.cache import Reply
from evals.judge_config import JudgeConfig, read_api_key
from trainers.foundation.errors import InputError, Problem, TrainingError

_MAX_BACKOFF_S = 60.0
# A judge that asks for a longer pause counts as unavailable.
_MAX_PAUSE_S = 600.0
_MAX_SHOWN = 200  # characters of a reply
# Number of attempts before the first reply of a run. It is small, so that a wrong address is
# reported within seconds.
_MAX_FIRST_ATTEMPTS = 3
# Number of consecutive requests without a reply after which the endpoint counts as down.
_MAX_UNANSWERED = 5
# Failures that indicate a wrong address: no server, or the web page of a portal.
_NO_ENDPOINT = ("no connection", "web page")
_RETRIED = frozenset({408, 409, 425, 429})
_FATAL_FIXES = {
    401: "set the environment variable {key} to a valid key",
    402: "add credit at the endpoint; the same command continues from there",
    403: "use a key with access to this model",
    404: "check base_url (it ends with /v1 at most endpoints) and model",
    405: "check base_url (it ends with /v1 at most endpoints)",
}


class _RetryableError(Exception):
    """A request without a usable reply, which may succeed when it is sent again."""

    def __init__(self, kind: str, pause_s: float | None = None) -> None:
        self.kind = kind
        self.pause_s = pause_s
        super().__init__(kind)


class _RejectedRequest(Exception):
    """A request that the endpoint will never answer, for example because it is too long."""


class _NoStructuredOutput(Exception):
    """The endpoint does not support `response_format`."""


class JudgeClient:
    """Sends requests to one judge, within the rate limit, retries and budget of `config`.

    Use it as an async context manager.

    Raises:
        InputError: the key is not in the environment.
    """

    def __init__(
        self,
        config: JudgeConfig,
        annotator: Annotator,
        *,
        base_url: str,
        model: str,
        cost_tracker: CostTracker,
    ) -> None:
        self._config = config
        self._annotator = annotator
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._model = model
        self._cost_tracker = cost_tracker
        rpm = config.requests_per_minute
        # One request every 60/rpm seconds. A bucket of rpm requests would allow twice as many at
        # first.
        self._limiter = AsyncLimiter(1, 60 / rpm) if rpm else None
        self._not_before = 0.0
        self._has_replied = False
        self._num_unanswered = 0
        self._uses_structured_output = config.structured_output
        self._key = read_api_key(config)
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(config.timeout_s),
            # Requests to a local judge must not use a proxy.
            trust_env=config.local_model is None,
        )

    async def __aenter__(self) -> "JudgeClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def annotate(self, messages: Messages) -> Reply:
        """Return the judge's reply; a request is sent again while its reply contains no verdict.

        If the endpoint rejects the request or never answers it, the reply's `error` is set.

        Raises:
            BudgetReached: the budget does not allow another request.
            InputError: the endpoint rejects the key or the model, or there is no endpoint.
            TrainingError: the endpoint has stopped replying.
        """
        num_asked = 0
        reply = Reply(text=None)
        for number in range(1 + self._config.parse_retries):
            try:
                reply = await self._request_with_retries(messages, number)
            except (_RetryableError, _RejectedRequest) as error:
                reply = Reply(text=None, error=str(error))
            num_asked += 1
            if reply.text is None or self._annotator.parse(reply.text) is not None:
                break
            self._cost_tracker.failures["no verdict"] += 1
        return reply.model_copy(update={"num_asked": num_asked})

    async def _request_with_retries(self, messages: Messages, number: int) -> Reply:
        attempt = 0
        while True:
            try:
                reply = await self._send(messages, number)
            except _NoStructuredOutput:
                self._uses_structured_output = False
                continue
            except _RetryableError as error:
                attempt += 1
                if self._is_exhausted(error, attempt):
                    self._check_endpoint(error)
                    raise
                pause_s = error.pause_s
                await asyncio.sleep(self._backoff_s(attempt) if pause_s is None else pause_s)
                continue
            self._num_unanswered = 0
            return reply

    def _backoff_s(self, attempt: int) -> float:
        """Return the wait in seconds; it doubles with each attempt up to 60 s, with jitter."""
        factor = 2.0 ** min(attempt - 1, 64) + random.random()
        return min(self._config.backoff_s * factor, _MAX_BACKOFF_S)

    def _is_exhausted(self, error: _RetryableError, attempt: int) -> bool:
        max_attempts = 1 + self._config.retries
        if error.kind in _NO_ENDPOINT and not self._has_replied:
            max_attempts = min(max_attempts, _MAX_FIRST_ATTEMPTS)
        return attempt >= max_attempts

    def _check_endpoint(self, error: _RetryableError) -> None:
        """Raise if a request's last `error` shows that there is no working endpoint."""
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
                f"the judge at {self._url} has stopped replying ({error.kind},"
                f" {1 + self._config.retries} attempts each for {_MAX_UNANSWERED} requests in a"
                " row); its replies so far are cached, the same command continues from there"
            )

    async def _send(self, messages: Messages, number: int) -> Reply:
        """Send one request, and record its cost or failure."""
        max_cost = self._cost_tracker.estimate_max_cost(messages)
        body = self._body(messages, number)
        await self._wait_for_slot()
        await self._cost_tracker.reserve(max_cost)
        usage: Usage | None = None
        may_be_billed = False
        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._http.post(
                    self._url,
                    content=json.dumps(body),
                    headers={"Content-Type": "application/json"},
                )
            # The endpoint may bill a successful response even if we cannot read it.
            may_be_billed = response.is_success
            self._check_status(response, is_structured="response_format" in body)
            content = _parse_json(response)
            usage = _parse_usage(content)
            reply = _parse_reply(content, usage)
        except (TimeoutError, httpx2.TimeoutException) as error:
            may_be_billed = True
            raise self._count_failure("timeout") from error
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            raise self._count_failure("no connection") from error
        except httpx2.TransportError as error:
            may_be_billed = True
            raise self._count_failure("broken connection") from error
        except _RetryableError as error:
            self._cost_tracker.failures[error.kind] += 1
            raise
        finally:
            await self._cost_tracker.record(max_cost, usage, may_be_billed=may_be_billed)
        self._has_replied = True
        return reply

    async def _wait_for_slot(self) -> None:
        """Wait for the rate limit, and for the end of a pause that the endpoint requested."""
        while (pause_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(pause_s)
        if self._limiter is not None:
            await self._limiter.acquire()

    def _body(self, messages: Messages, number: int) -> dict[str, Any]:
        settings = self._config.request_settings()
        if "seed" in settings:
            # For an equal request, a caching proxy would repeat the reply without a verdict.
            settings["seed"] += number
        if self._uses_structured_output:
            settings["response_format"] = self._annotator.response_format
        return {"model": self._model, "messages": messages, **settings}

    def _count_failure(self, kind: str) -> _RetryableError:
        self._cost_tracker.failures[kind] += 1
        return _RetryableError(kind)

    def _check_status(self, response: httpx2.Response, *, is_structured: bool) -> None:
        """Raise an error unless the response is successful."""
        status = response.status_code
        if response.is_success:
            return
        # Some endpoints repeat an unknown key in their error message.
        text = response.text.replace(self._key, "(key)") if self._key else response.text
        shown = _one_line(text)
        if response.is_redirect:
            shown = f"ask {response.headers.get('location', 'another address')} instead"
        if status in _FATAL_FIXES or response.is_redirect or "insufficient_quota" in response.text:
            other = "check base_url" if response.is_redirect else "check the endpoint's account"
            fix = _FATAL_FIXES.get(status, other)
            key = self._config.api_key_env or "that evals.judge.api_key_env names"
            raise InputError(
                Problem(
                    message=f"the judge at {self._url} answered {status}: {shown}",
                    fix=fix.format(key=key),
                )
            )
        if status in _RETRIED or status >= 500:
            pause_s = _retry_after_s(response)
            if pause_s is not None:
                if pause_s > _MAX_PAUSE_S:
                    raise TrainingError(
                        f"the judge at {self._url} asks for a pause of {pause_s:.0f} s (limit"
                        f" {_MAX_PAUSE_S:.0f} s); its replies so far are cached, the same command"
                        " continues from there"
                    )
                self._not_before = max(self._not_before, time.monotonic() + pause_s)
            raise _RetryableError(f"status {status}", pause_s)
        self._cost_tracker.failures[f"status {status}"] += 1
        if is_structured and ("response_format" in text or "json_schema" in text):
            raise _NoStructuredOutput
        raise _RejectedRequest(f"status {status}: {shown}")


def _parse_json(response: httpx2.Response) -> dict[str, Any]:
    try:
        content = json.loads(response.content)
    except ValueError as error:
        is_page = response.content.lstrip().startswith(b"<")
        raise _RetryableError("web page" if is_page else "broken reply") from error
    if not isinstance(content, dict):
        raise _RetryableError("broken reply")
    if content.get("error"):  # Some gateways report errors with status 200.
        raise _RetryableError("error in a reply")
    return content


def _parse_usage(content: dict[str, Any]) -> Usage | None:
    usage = content.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if not all(type(count) is int and count >= 0 for count in counts):
        return None
    return Usage(input_tokens=int(counts[0] or 0), output_tokens=int(counts[1] or 0))


def _parse_reply(content: dict[str, Any], usage: Usage | None) -> Reply:
    try:
        choice = content["choices"][0]
        text = choice["message"]["content"]
        finish_reason = choice.get("finish_reason")
        if text is None:
            text = choice["message"].get("refusal") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _RetryableError("broken reply") from error
    if not isinstance(text, str):
        raise _RetryableError("broken reply")
    return Reply(
        text=text,
        finish_reason=_text_or_none(finish_reason),
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        served_model=_text_or_none(content.get("model")),
        system_fingerprint=_text_or_none(content.get("system_fingerprint")),
    )


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _retry_after_s(response: httpx2.Response) -> float | None:
    """Return the value of Retry-After, seconds or a date, in seconds.

    Source: RFC 9110, section 10.2.3.
    """
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
