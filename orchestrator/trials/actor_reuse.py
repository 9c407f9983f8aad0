"""Make Tune keep the drivers of ended trials, with their warm workers, for later trials.

Tune keeps one idle actor, plus one for each trial that waits for an actor (ray-project/ray#33593).
If two trials end at once, one actor is lost, and the next trial waits for a new process and a new
worker group. Tune also gives an idle actor to a trial whose own actor is starting, and cancels that
start (discussed in ray-project/ray#36020). With short trials, Tune therefore started a process for
each trial while one actor ran all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune.execution import tune_controller
from ray.tune.utils.object_cache import _ObjectCache


class _UnboundedActorCache(_ObjectCache):  # type: ignore[misc]
    """Tune's cache without its limit: actors stay until a trial takes them or the search ends."""

    def cache_object(self, key: Any, obj: Any) -> bool:
        # The queue starts at most as many jobs at once as there are slots and scorers, so an idle
        # actor blocks none of them.
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
        if force_all:
            yield from super().flush_cached_objects(force_all=True)


@contextmanager
def keep_idle_actors() -> Iterator[None]:
    """Make Tune runs inside the block keep all actors and wait for actors that are starting."""
    controller = tune_controller.TuneController
    own_cache, own_reuse = tune_controller._ObjectCache, controller._maybe_reuse_cached_actor

    def reuse(self: Any, trial: Any) -> bool:
        return trial not in self._trial_to_actor and own_reuse(self, trial)

    tune_controller._ObjectCache = _UnboundedActorCache
    controller._maybe_reuse_cached_actor = reuse
    try:
        yield
    finally:
        tune_controller._ObjectCache = own_cache
        controller._maybe_reuse_cached_actor = own_reuse
