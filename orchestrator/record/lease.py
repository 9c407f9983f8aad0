"""A lease on a sweep in an object store, so that two heads do not run it at once.

An object store has no locks. The head that runs the sweep writes the object `lease.json` every few
seconds, each time with another number. A second head watches the object: if it changes, the first
one is alive; if it does not change for LEASE_S, the first one is gone. Clocks are not compared. A
head on the same host as the first one does not wait: it sees that the process has ended.

Two heads that take over at the same moment find each other after they wrote: the last one wins.
"""

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from orchestrator.foundation.periodic import run_periodically
from trainers.foundation.errors import InputError, Problem
from trainers.foundation.object_store import ObjectStore, StorageError

LEASE = "lease.json"
RENEW_EVERY_S = 5.0
# Several renewals, one of which may wait for the retries of a slow store.
LEASE_S = 60.0
SETTLE_S = 2.0
_NUM_BYTES = 512

logger = logging.getLogger(__name__)


@contextmanager
def sweep_lease(
    uri: str, on_loss: Callable[[], None], *, lease_s: float = LEASE_S, settle_s: float = SETTLE_S
) -> Iterator[None]:
    """Hold the lease on the sweep below `uri` while the block runs.

    Args:
        on_loss: called once if another head takes the lease, which only happens if this one could
            not renew it for `lease_s`.

    Raises:
        InputError: another head runs the sweep.
        StorageError: the store fails repeatedly at the start.
    """
    store = ObjectStore(uri)
    holder = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
    _wait_until_free(store, lease_s)
    number = 0
    _write(store, holder, number)
    # Another head may have written in between, and then both see its name.
    time.sleep(settle_s)
    if _holder(store) != holder:
        raise InputError(_is_held(uri, _holder(store)))
    is_lost = False

    def renew() -> None:
        nonlocal number, is_lost
        if is_lost:
            return
        try:
            if _holder(store) != holder:
                is_lost = True
                logger.error("another head took over the sweep %s; this one stops", uri)
                on_loss()
                return
            number += 1
            _write(store, holder, number)
        except StorageError as error:
            logger.warning("%s; the lease is renewed once it answers", error)

    try:
        with run_periodically(min(RENEW_EVERY_S, lease_s / 4), renew, name="lease"):
            yield
    finally:
        if not is_lost:
            try:
                store.remove(LEASE)
            except StorageError as error:
                logger.warning("%s; the next head waits %.0f s", error, lease_s)


def _wait_until_free(store: ObjectStore, lease_s: float) -> None:
    """Return once the lease is absent or has not changed for `lease_s`.

    Raises:
        InputError: it changed.
    """
    first = store.read_text(LEASE)
    if first is None or _has_ended_here(_name(first)):
        return
    logger.warning("waiting %.0f s for the head that ran the sweep before", lease_s)
    deadline = time.monotonic() + lease_s
    while time.monotonic() < deadline:
        time.sleep(min(1.0, lease_s / 10))
        current = store.read_text(LEASE)
        if current is None:
            return
        if current != first:
            raise InputError(_is_held(store.uri, _name(current)))


def _has_ended_here(holder: str) -> bool:
    """Return whether the holder was a process of this host that has ended."""
    host, _, rest = holder.partition("/")
    pid = rest.partition("/")[0]
    return host == socket.gethostname() and pid.isdigit() and not psutil.pid_exists(int(pid))


def _write(store: ObjectStore, holder: str, number: int) -> None:
    # All leases have the same size: a reader that got the size of the old object and the bytes of a
    # longer or shorter new one would see neither.
    text = json.dumps({"holder": holder, "number": number}).ljust(_NUM_BYTES)
    store.upload_text(text, LEASE)


def _holder(store: ObjectStore) -> str | None:
    text = store.read_text(LEASE)
    return None if text is None else _name(text)


def _name(text: str) -> str:
    try:
        return str(json.loads(text)["holder"])
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _is_held(uri: str, holder: str | None) -> Problem:
    return Problem(
        message=f"the sweep in {uri} runs on another head, {holder}",
        where="storage",
        fix="stop it there with plw stop, or give the sweep another name",
    )
