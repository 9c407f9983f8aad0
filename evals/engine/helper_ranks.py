"""Share the model's work between the ranks of a trial: rank 0 scores, the others help.

Each rank has loaded the same model. Rank 0 sends each helper its share of the batches and joins the
results by index. Everything else, such as files, the judge and metrics, is rank 0's alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

import torch.distributed as dist

# Helpers also wait while rank 0 uses the judge. The death of a rank closes its connections.
_TIMEOUT = timedelta(days=7)

Handlers = Mapping[str, Callable[[Any], Any]]
"""The work of helpers, by name: functions of a share that return its results."""


class HelperRanks:
    """The other ranks, as rank 0 sees them; `num_shares` includes that of rank 0."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.num_shares = dist.get_world_size(group)

    def run(self, name: str, shares: Sequence[Any], own: Callable[[Any], None]) -> list[Any]:
        """Call `own` with the first share while helpers run `name` on the others.

        Returns the results of the helpers, in the order of their shares.

        Raises:
            Exception: the first error of `own` or of a helper.
        """
        assert len(shares) == self.num_shares
        self._send([None, *((name, share) for share in shares[1:])])
        error: Exception | None = None
        try:
            own(shares[0])
        except Exception as raised:
            error = raised
        # Even after an error, because the helpers send their results before they receive again.
        results: list[Any] = [None] * self.num_shares
        dist.gather_object(None, results, dst=0, group=self._group)
        for result in (error, *results[1:]):
            if isinstance(result, Exception):
                raise result
        return results[1:]

    def end(self) -> None:
        """End the helpers' work."""
        self._send([None] * self.num_shares)

    def _send(self, messages: list[Any]) -> None:
        dist.scatter_object_list([None], messages, src=0, group=self._group)


@contextmanager
def helper_ranks() -> Iterator[HelperRanks | None]:
    """Yield the other ranks on rank 0; None without others. They are free at the end of the block.

    The others call `help_rank_0`; a collective operation.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        yield None
        return
    helpers = HelperRanks(_gloo_group(dist.group.WORLD))
    try:
        yield helpers
    except Exception:
        # If a helper has died, its connection is closed.
        with suppress(RuntimeError):
            helpers.end()
        raise
    helpers.end()


def help_rank_0(load: Callable[[], Handlers]) -> None:
    """Run the shares that rank 0 sends, until it ends the work. A collective operation.

    Args:
        load: returns the handlers; called before the first share.

    An error of a handler is raised on rank 0.
    """
    group = _gloo_group(dist.group.WORLD)
    handlers = load()
    while True:
        received: list[Any] = [None]
        dist.scatter_object_list(received, None, src=0, group=group)
        if received[0] is None:
            return
        name, share = received[0]
        try:
            result = handlers[name](share)
        except Exception as error:
            result = error
        dist.gather_object(result, None, dst=0, group=group)


def split_evenly(items: Sequence[Any], num_shares: int) -> list[list[Any]]:
    """Return every n-th item for each share; `items` are sorted by their cost."""
    return [list(items[number::num_shares]) for number in range(num_shares)]


@cache
def _gloo_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    return group
