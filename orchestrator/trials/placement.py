"""What fits where: how many trials and scorers a cluster can hold, now or once it has grown."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.sweep_spec import ResourceConfig
from trainers.foundation.errors import InputError, Problem

# Nodes that have some of it take the drivers of trials, and no other node does: the head of a
# cluster whose workers come and go.
DRIVER_RESOURCE = "plw_driver"

# More trials at once than anyone's cluster holds; autoscalers may name no limit.
MANY = 10_000
_NO_ROOM = float("inf")


@dataclass(frozen=True)
class NodeShape:
    """`count` nodes with these `resources` each, that are there or that an autoscaler may add."""

    resources: Mapping[str, float]
    count: int


@dataclass(frozen=True)
class Cluster:
    """The nodes that a Ray cluster has now, and all those that it may have once it has grown.

    `is_fixed` says that it surely never grows, as one that was started for the sweep.
    """

    nodes: Sequence[NodeShape]
    may_become: Sequence[NodeShape] = ()
    is_fixed: bool = True

    @property
    def has_gpus(self) -> bool:
        shapes = (*self.nodes, *self.may_become)
        return any(shape.resources.get("GPU", 0) > 0 and shape.count > 0 for shape in shapes)

    @property
    def has_driver_nodes(self) -> bool:
        return any(shape.resources.get(DRIVER_RESOURCE, 0) > 0 for shape in self.nodes)


def gpus_per_worker(resources: ResourceConfig, cluster: Cluster) -> float:
    """The spec's GPUs for one rank, or 1 where the cluster has any and the spec is silent."""
    if resources.gpus_per_worker is not None:
        return resources.gpus_per_worker
    return 1.0 if cluster.has_gpus else 0.0


def gpus_per_scorer(resources: ResourceConfig, cluster: Cluster) -> float:
    """The spec's GPUs for one scorer, or those of a worker: a model is scored on one GPU."""
    if resources.gpus_per_scorer is not None:
        return resources.gpus_per_scorer
    return min(1.0, gpus_per_worker(resources, cluster))


def cpus_per_scorer(resources: ResourceConfig) -> int:
    """The spec's CPU cores for one scorer, or those of a worker."""
    return resources.cpus_per_scorer or resources.cpus_per_worker


def scores_alike(resources: ResourceConfig, cluster: Cluster) -> bool:
    """Whether a worker computes scores as a scorer does: by as many threads, on the same device."""
    on_gpu = gpus_per_worker(resources, cluster) > 0
    is_same_device = on_gpu == (gpus_per_scorer(resources, cluster) > 0)
    return is_same_device and cpus_per_scorer(resources) == resources.cpus_per_worker


@dataclass(frozen=True)
class Room:
    """The trials, and the processes that score beside them, that a cluster holds at once."""

    slots: int
    scorers: int


def slots(resources: ResourceConfig, cluster: Cluster) -> int:
    """The trials of `room`."""
    return room(resources, cluster).slots


def room(resources: ResourceConfig, cluster: Cluster) -> Room:
    """What fits into the cluster at once, once it has all the nodes it may have.

    Scorers that the spec asks for take the place of trials, down to one trial; others take only
    what trials leave. Of a cluster that may grow in a way we cannot see, a spec that gives both the
    trials at once and the GPUs of a worker is taken at its word.

    Raises:
        InputError: not even one trial fits, and none ever will.
    """
    worker = _needs(resources.cpus_per_worker, gpus_per_worker(resources, cluster))
    scorer = _needs(cpus_per_scorer(resources), gpus_per_scorer(resources, cluster))
    shapes = max(
        (cluster.nodes, cluster.may_become), key=lambda shapes: _workers_beside(shapes, worker)
    )

    def trials_beside(num_scorers: int) -> int:
        num_workers = _workers_beside(shapes, worker, scorer, num_scorers)
        return num_workers // resources.workers_per_trial

    fitting = trials_beside(0)
    limit = resources.max_concurrent_trials
    is_unseen = not cluster.is_fixed and not cluster.may_become
    if fitting == 0 and is_unseen and limit and resources.gpus_per_worker is not None:
        return Room(limit, resources.scorers or 0)
    if fitting == 0:
        num_workers = _workers_beside(shapes, worker)
        raise InputError(_too_small(resources, worker, cluster, num_workers))
    most = min(fitting, limit or fitting, MANY)
    if resources.scorers is None:
        return Room(most, _largest(most, lambda count: trials_beside(count) >= most))
    count = _largest(min(resources.scorers, MANY), lambda count: trials_beside(count) >= 1)
    return Room(min(most, trials_beside(count)), count)


def where_scored(resources: ResourceConfig, cluster: Cluster) -> str:
    """Where trained models are scored, and why there, in words."""
    num_scorers = room(resources, cluster).scorers
    if num_scorers == 0:
        if resources.scorers == 0:
            return "by each trial's first worker"
        beside = "the trials" if resources.scorers is None else "one trial"
        return f"by each trial's first worker, as there is no room for a scorer beside {beside}"
    plural = "es" if num_scorers > 1 else ""
    gpus = gpus_per_scorer(resources, cluster)
    of = f"{cpus_per_scorer(resources)} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    return f"by {num_scorers} process{plural} of {of} beside the trials"


def shapes_of_config(config: Mapping[str, Any]) -> list[NodeShape]:
    """All nodes that a cluster launched with this configuration may have at once.

    All its workers together are bounded by its `max_workers`, of which the largest are counted.

    Source: docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html
    """
    left = int(config.get("max_workers", MANY))
    kinds = dict(config.get("available_node_types", {}))
    head = kinds.pop(config.get("head_node_type"), None)
    shapes = [] if head is None else [NodeShape(head.get("resources", {}), 1)]
    for kind in sorted(kinds.values(), key=_size, reverse=True):
        count = min(left, int(kind.get("max_workers", left)))
        left -= count
        shapes.append(NodeShape(kind.get("resources", {}), count))
    return shapes


def _size(kind: Mapping[str, Any]) -> tuple[float, float]:
    resources = kind.get("resources", {})
    return float(resources.get("GPU", 0)), float(resources.get("CPU", 0))


def why_waiting(
    total: Mapping[str, float],
    available: Mapping[str, float],
    *,
    num_workers: int,
    cpus: float,
    gpus: float,
) -> str:
    """Why a trial's workers have not begun, in words: for nodes, for other trials, or to start."""
    needs = {"CPU": num_workers * cpus, "GPU": num_workers * gpus}
    for kind, need in needs.items():
        if need > total.get(kind, 0):
            return f"for nodes: needs {need:g} {kind}s, the cluster has {total.get(kind, 0):g}"
    for kind, need in needs.items():
        if need > available.get(kind, 0):
            free = f"{available.get(kind, 0):g} of {total[kind]:g}"
            return f"for its workers, which start or wait for {need:g} {kind}s ({free} free)"
    return "for its workers to start"


def _needs(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": float(cpus), **({"GPU": gpus} if gpus > 0 else {})}


def _workers_beside(
    shapes: Sequence[NodeShape],
    worker: Mapping[str, float],
    scorer: Mapping[str, float] | None = None,
    num_scorers: int = 0,
) -> int:
    """Workers that all nodes together hold beside scorers; -1 where these do not fit.

    One worker never spans two nodes, and a scorer goes where it costs the fewest workers.
    """
    total = sum(shape.count * _on_node(shape.resources, worker) for shape in shapes)
    if not num_scorers:
        return total
    assert scorer is not None
    # Entries are what the next scorer on a node costs there, and how many it holds already.
    nodes = [shape.resources for shape in shapes for _ in range(shape.count)]
    costs = [(_cost(node, worker, scorer, 0), index, 0) for index, node in enumerate(nodes)]
    heapq.heapify(costs)
    for _ in range(num_scorers):
        cost, index, held = costs[0] if costs else (_NO_ROOM, 0, 0)
        if cost == _NO_ROOM:
            return -1
        total -= int(cost)
        entry = (_cost(nodes[index], worker, scorer, held + 1), index, held + 1)
        heapq.heapreplace(costs, entry)
    return total


def _cost(
    node: Mapping[str, float], worker: Mapping[str, float], scorer: Mapping[str, float], held: int
) -> float:
    """Workers that a node holds fewer with one scorer more than the `held` it has."""
    if _on_node(node, scorer) <= held:
        return _NO_ROOM

    def workers(count: int) -> int:
        left = {kind: size - count * scorer.get(kind, 0) for kind, size in node.items()}
        return _on_node(left, worker)

    return workers(held) - workers(held + 1)


def _on_node(node: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Processes of these needs that one node holds."""
    # Ray counts in ten-thousandths: 1 GPU holds ten processes of 0.1, which floats do not say.
    return min(int(node.get(kind, 0) / need + 1e-4) for kind, need in needs.items())


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest count up to `most` that fits, 0 if none; fewer than one that fits do so too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _too_small(
    resources: ResourceConfig, needs: Mapping[str, float], cluster: Cluster, num_workers: int
) -> Problem:
    worker = " and ".join(f"{need:g} {kind}" for kind, need in needs.items())
    shapes = [*cluster.nodes, *cluster.may_become]
    largest = ", ".join(
        f"{max((shape.resources.get(kind, 0) for shape in shapes), default=0):g} {kind}"
        for kind in needs
    )
    count = resources.workers_per_trial
    plural = "s" if count > 1 else ""
    return Problem(
        message=f"a trial needs {count} worker{plural} of {worker} each, but the "
        f"cluster holds at most {num_workers} of them (its largest node has {largest})",
        where="resources",
        fix="lower resources.workers_per_trial, cpus_per_worker or gpus_per_worker, or give the "
        "cluster larger nodes or more of them; if it adds some on demand in a way that cannot be "
        "seen from here, set both resources.max_concurrent_trials and gpus_per_worker",
    )
