"""Compute how many trials and scorers fit on a cluster at once, now or after it has grown."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.sweep_spec import ResourceConfig
from trainers.foundation.errors import InputError, Problem

# If any nodes have this resource, trial drivers run only on these. It marks the head of a cluster
# whose workers come and go.
DRIVER_RESOURCE = "plw_driver"

# Used if there is no limit, for example in an autoscaler. No cluster runs this many trials at once.
MANY = 10_000
_DOES_NOT_FIT = float("inf")


@dataclass(frozen=True)
class NodeShape:
    """`count` nodes with these `resources` each, which exist or which an autoscaler can add."""

    resources: Mapping[str, float]
    count: int


@dataclass(frozen=True)
class Cluster:
    """The nodes that a Ray cluster has now, and the nodes that it can have after it has grown.

    `is_fixed` is true if the cluster never grows, for example one that was started for the sweep.
    """

    nodes: Sequence[NodeShape]
    future_nodes: Sequence[NodeShape] = ()
    is_fixed: bool = True

    @property
    def has_gpus(self) -> bool:
        shapes = (*self.nodes, *self.future_nodes)
        return any(shape.resources.get("GPU", 0) > 0 and shape.count > 0 for shape in shapes)

    @property
    def has_driver_nodes(self) -> bool:
        return any(shape.resources.get(DRIVER_RESOURCE, 0) > 0 for shape in self.nodes)


def gpus_per_worker(resources: ResourceConfig, cluster: Cluster) -> float:
    """Return the number of GPUs of one rank; by default 1 if the cluster has GPUs."""
    if resources.gpus_per_worker is not None:
        return resources.gpus_per_worker
    return 1.0 if cluster.has_gpus else 0.0


def gpus_per_scorer(resources: ResourceConfig, cluster: Cluster) -> float:
    """Return the number of GPUs of one scorer; by default that of a worker, at most 1."""
    if resources.gpus_per_scorer is not None:
        return resources.gpus_per_scorer
    return min(1.0, gpus_per_worker(resources, cluster))


def cpus_per_scorer(resources: ResourceConfig) -> int:
    """Return the number of CPU cores of one scorer; by default that of a worker."""
    return resources.cpus_per_scorer or resources.cpus_per_worker


def workers_match_scorers(resources: ResourceConfig, cluster: Cluster) -> bool:
    """Return whether workers and scorers have the same number of threads and kind of device."""
    on_gpu = gpus_per_worker(resources, cluster) > 0
    is_same_device = on_gpu == (gpus_per_scorer(resources, cluster) > 0)
    return is_same_device and cpus_per_scorer(resources) == resources.cpus_per_worker


def is_packed(resources: ResourceConfig, cluster: Cluster) -> bool:
    """Return whether all ranks of a trial run on one node: if allowed and a node has the room."""
    trial = _times(
        _needs(resources.cpus_per_worker, gpus_per_worker(resources, cluster)),
        resources.workers_per_trial,
    )
    shapes = [shape for shape in (*cluster.nodes, *cluster.future_nodes) if shape.count > 0]
    has_room = any(_processes_per_node(shape.resources, trial) > 0 for shape in shapes)
    return resources.placement == "node" and has_room


@dataclass(frozen=True)
class Capacity:
    """Numbers of trials (`slots`) and scorers that can run on a cluster at the same time."""

    slots: int
    scorers: int


def trial_slots(resources: ResourceConfig, cluster: Cluster) -> int:
    """Return the number of trials that run at once; raises the same errors as `capacity`."""
    return capacity(resources, cluster).slots


def capacity(resources: ResourceConfig, cluster: Cluster) -> Capacity:
    """Return the numbers of trials and scorers that fit on the fully grown cluster.

    If the spec sets `resources.scorers`, scorers take the place of trials, down to one trial.
    Otherwise scorers use only the resources that trials leave free. If the growth of the cluster is
    unknown, `max_concurrent_trials` together with `gpus_per_worker` of the spec is used unchecked.

    Raises:
        InputError: not even one trial fits on the grown cluster.
    """
    worker = _needs(resources.cpus_per_worker, gpus_per_worker(resources, cluster))
    scorer = _needs(cpus_per_scorer(resources), gpus_per_scorer(resources, cluster))
    # A trial that shares a node is counted as one process, which a node has room for or not.
    size = resources.workers_per_trial
    unit, num_units = (_times(worker, size), 1) if is_packed(resources, cluster) else (worker, size)
    shapes = max(
        (cluster.nodes, cluster.future_nodes), key=lambda shapes: _workers_that_fit(shapes, unit)
    )

    def trials_that_fit(num_scorers: int) -> int:
        return _workers_that_fit(shapes, unit, scorer, num_scorers) // num_units

    fitting = trials_that_fit(0)
    limit = resources.max_concurrent_trials
    is_unseen = not cluster.is_fixed and not cluster.future_nodes
    if fitting == 0 and is_unseen and limit and resources.gpus_per_worker is not None:
        return Capacity(limit, resources.scorers or 0)
    if fitting == 0:
        num_workers = _workers_that_fit(shapes, worker)
        raise InputError(_capacity_problem(resources, worker, cluster, num_workers))
    most = min(fitting, limit or fitting, MANY)
    if resources.scorers is None:
        return Capacity(most, _largest(most, lambda count: trials_that_fit(count) >= most))
    count = _largest(min(resources.scorers, MANY), lambda count: trials_that_fit(count) >= 1)
    return Capacity(min(most, trials_that_fit(count)), count)


def describe_scoring(resources: ResourceConfig, cluster: Cluster) -> str:
    """Return text that states where trained models are scored, and why."""
    num_scorers = capacity(resources, cluster).scorers
    if num_scorers == 0:
        if resources.scorers == 0:
            return "by each trial's workers"
        others = "the trials" if resources.scorers is None else "one trial"
        return f"by each trial's workers, as no scorer fits next to {others}"
    plural = "es" if num_scorers > 1 else ""
    gpus = gpus_per_scorer(resources, cluster)
    of = f"{cpus_per_scorer(resources)} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    return f"by {num_scorers} process{plural} of {of}, in parallel with the trials"


def node_shapes(config: Mapping[str, Any]) -> list[NodeShape]:
    """Return all nodes that a cluster with this configuration can have at once.

    `max_workers` limits the total number of workers; the largest kinds are counted first.

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


def waiting_reason(
    total: Mapping[str, float],
    available: Mapping[str, float],
    *,
    num_workers: int,
    cpus: float,
    gpus: float,
) -> str:
    """Return text on what a trial's workers wait for: nodes, other trials, or their own start."""
    needs = {"CPU": num_workers * cpus, "GPU": num_workers * gpus}
    for kind, need in needs.items():
        if need > total.get(kind, 0):
            return f"for nodes: needs {_count(need, kind)}, the cluster has {total.get(kind, 0):g}"
    for kind, need in needs.items():
        if need > available.get(kind, 0):
            free = f"{available.get(kind, 0):g} of {total[kind]:g}"
            return f"for its workers to start, or for {_count(need, kind)} ({free} free)"
    return "for its workers to start"


def _count(number: float, kind: str) -> str:
    return f"{number:g} {kind}{'' if number == 1 else 's'}"


def _needs(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": float(cpus), **({"GPU": gpus} if gpus > 0 else {})}


def _times(needs: Mapping[str, float], count: int) -> dict[str, float]:
    return {kind: need * count for kind, need in needs.items()}


def _workers_that_fit(
    shapes: Sequence[NodeShape],
    worker: Mapping[str, float],
    scorer: Mapping[str, float] | None = None,
    num_scorers: int = 0,
) -> int:
    """Return the number of workers that fit next to the scorers; -1 if the scorers do not fit.

    A worker never spans two nodes. Each scorer is placed where it displaces the fewest workers.
    """
    total = sum(shape.count * _processes_per_node(shape.resources, worker) for shape in shapes)
    if not num_scorers:
        return total
    assert scorer is not None
    # Entries: number of workers that the next scorer on a node displaces, index of the node, number
    # of its scorers so far.
    nodes = [shape.resources for shape in shapes for _ in range(shape.count)]
    costs = [(_cost(node, worker, scorer, 0), index, 0) for index, node in enumerate(nodes)]
    heapq.heapify(costs)
    for _ in range(num_scorers):
        cost, index, held = costs[0] if costs else (_DOES_NOT_FIT, 0, 0)
        if cost == _DOES_NOT_FIT:
            return -1
        total -= int(cost)
        entry = (_cost(nodes[index], worker, scorer, held + 1), index, held + 1)
        heapq.heapreplace(costs, entry)
    return total


def _cost(
    node: Mapping[str, float], worker: Mapping[str, float], scorer: Mapping[str, float], held: int
) -> float:
    """Return the number of workers that one more scorer displaces on a node with `held` scorers."""
    if _processes_per_node(node, scorer) <= held:
        return _DOES_NOT_FIT

    def workers(count: int) -> int:
        left = {kind: size - count * scorer.get(kind, 0) for kind, size in node.items()}
        return _processes_per_node(left, worker)

    return workers(held) - workers(held + 1)


def _processes_per_node(node: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Return the number of processes with these needs that fit on one node."""
    # Ray counts in ten-thousandths: ten processes of 0.1 fit on 1 GPU, unlike in float arithmetic.
    return min(int(node.get(kind, 0) / need + 1e-4) for kind, need in needs.items())


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest count up to `most` that fits, else 0; all smaller counts must fit too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _capacity_problem(
    resources: ResourceConfig, needs: Mapping[str, float], cluster: Cluster, num_workers: int
) -> Problem:
    worker = " and ".join(f"{need:g} {kind}" for kind, need in needs.items())
    shapes = [*cluster.nodes, *cluster.future_nodes]
    largest = ", ".join(
        f"{max((shape.resources.get(kind, 0) for shape in shapes), default=0):g} {kind}"
        for kind in needs
    )
    count = resources.workers_per_trial
    plural = "s" if count > 1 else ""
    return Problem(
        message=f"a trial needs {count} worker{plural} of {worker} each, but at most {num_workers} "
        f"fit on the cluster (its largest node has {largest})",
        where="resources",
        fix="lower resources.workers_per_trial, cpus_per_worker or gpus_per_worker, or use larger "
        "or more nodes; if the cluster adds nodes on demand and Ray does not report their limits, "
        "set both resources.max_concurrent_trials and gpus_per_worker",
    )
