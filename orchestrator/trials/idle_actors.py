"""Tune keeps the drivers of ended trials, and with them their warm ranks, for the trials to come.

By itself Tune keeps one idle actor, and as many as trials wait for one: when two trials end at
once, one loses its actor, and its successor waits for a fresh process and a fresh worker group. It
also gives a trial whose own actor is being started an idle one instead and cancels that start:
where trials are short, a process was begun for each and one actor ran them all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune.execution import tune_controller
from ray.tune.utils.object_cache import _ObjectCache


class _KeepsAll(_ObjectCache):  # type: ignore[misc]
    """As Tune's, but an actor leaves it for a trial or at the end of the search."""

    def cache_object(self, key: Any, obj: Any) -> bool:
        # All trials of a sweep ask for the same, so none waits for what an idle actor holds.
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        if force_all:
            yield from super().flush_cached_objects(force_all=True)


@contextmanager
def all_idle_actors_kept() -> Iterator[None]:
    """Tune runs that start within keep every actor, and wait for each that they have begun."""
    controller = tune_controller.TuneController
    own_cache, own_reuse = tune_controller._ObjectCache, controller._maybe_reuse_cached_actor

    def reuse(self: Any, trial: Any) -> bool:
        return trial not in self._trial_to_actor and own_reuse(self, trial)

    tune_controller._ObjectCache = _KeepsAll
    controller._maybe_reuse_cached_actor = reuse
    try:
        yield
    finally:
        tune_controller._ObjectCache = own_cache
        controller._maybe_reuse_cached_actor = own_reuse
