"""Who sends a request: API keys, one owner per key, and a rate limit for each."""

import base64
import ipaddress
import threading
import time
from binascii import Error as Base64Error
from urllib.parse import urlsplit

from fastapi import Request

from orchestrator.serve.errors import ApiError
from orchestrator.serve.keys import Keys

_MAX_BUCKETS = 10_000


class RateLimit:
    """A token bucket for each owner: `per_minute` requests a minute, half of them at once."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._size = max(1.0, per_minute / 2)
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def check(self, owner: str) -> None:
        """Count a request.

        Raises:
            ApiError: the owner has sent too many.
        """
        now = time.monotonic()
        with self._lock:
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.clear()
            left, before = self._buckets.get(owner, (self._size, now))
            left = min(self._size, left + (now - before) * self._rate)
            if left < 1:
                wait = max(1, round((1 - left) / self._rate))
                raise ApiError(
                    429,
                    f"Rate limit reached: {self._rate * 60:g} requests per minute.",
                    type="requests",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": str(wait)},
                )
            self._buckets[owner] = (left - 1, now)


class Access:
    """Finds the owner of a request. Without any key, everyone on loopback is the owner ""."""

    def __init__(self, keys: Keys, limit: RateLimit) -> None:
        self._keys, self._limit = keys, limit

    # A coroutine, as FastAPI would run a function in a thread, which takes longer than the check.
    async def owner(self, request: Request) -> str:
        """Return the owner of the request's key.

        Raises:
            ApiError: the key is missing or unknown, its owner sends too many requests, or a page
                of another site sent the request.
        """
        has_keys = bool(self._keys.all())
        _check_origin(request, has_keys)
        if not has_keys:
            self._limit.check("")
            return ""
        key = _sent_key(request.headers.get("authorization", ""))
        owner = None if key is None else self._keys.owner(key)
        if owner is None:
            client = request.client.host if request.client else ""
            self._limit.check(f"unknown key from {client}")
            raise ApiError(
                401,
                "You didn't provide an API key. Send it as: Authorization: Bearer KEY"
                if key is None
                else "Incorrect API key provided.",
                code=None if key is None else "invalid_api_key",
                # Lets a browser ask for the key of the page `/`: it is the password.
                headers={"WWW-Authenticate": 'Basic realm="plw serve: the password is an API key"'},
            )
        self._limit.check(owner)
        return owner


def _check_origin(request: Request, has_keys: bool) -> None:
    """Reject what another site's page makes a browser send: forged forms and DNS rebinding.

    Raises:
        ApiError: the request names another site as its origin, or, without keys, another host.
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    is_foreign = origin is not None and origin.partition("://")[2] != host
    if is_foreign or not (has_keys or is_loopback(_host_name(host))):
        raise ApiError(403, "Requests from other sites are not allowed.", code="forbidden_origin")


def _host_name(host: str) -> str:
    """Return a Host header without its port; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sent_key(header: str) -> str | None:
    """Return the key in an Authorization header; None without one."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
        except (Base64Error, UnicodeDecodeError):
            return None
    return None
