"""What fits where: how many trials a cluster can hold at once, now or once it has grown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec import ResourceConfig
from trainers.errors import InputError, Problem

# Nodes that have some of it take the drivers of trials, and no other node does: the head of a
# cluster whose workers come and go.
DRIVER_RESOURCE = "plw_driver"

# More trials at once than anyone's cluster holds; autoscalers may name no limit.
MANY = 10_000


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


def slots(resources: ResourceConfig, cluster: Cluster) -> int:
    """Trials that fit into the cluster at once, once it has all the nodes it may have.

    Of a cluster that may grow in a way we cannot see, a spec that gives both the trials at once
    and the GPUs of a worker is taken at its word.

    Raises:
        InputError: not even one fits, and none ever will.
    """
    needs = {"CPU": float(resources.cpus_per_worker)}
    gpus = gpus_per_worker(resources, cluster)
    if gpus > 0:
        needs["GPU"] = gpus
    num_workers = max(_workers(cluster.nodes, needs), _workers(cluster.may_become, needs))
    fitting = num_workers // resources.workers_per_trial
    limit = resources.max_concurrent_trials
    is_unseen = not cluster.is_fixed and not cluster.may_become
    if fitting == 0 and is_unseen and limit and resources.gpus_per_worker is not None:
        return limit
    if fitting == 0:
        raise InputError(_too_small(resources, needs, cluster, num_workers))
    return min(fitting, limit or fitting, MANY)


def shapes_of_config(config: Mapping[str, Any]) -> list[NodeShape]:
    """All nodes that a cluster launched with this configuration may have.

    Source: docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html
    """
    most = int(config.get("max_workers", MANY))
    shapes = []
    for name, kind in config.get("available_node_types", {}).items():
        is_head = name == config.get("head_node_type")
        count = 1 if is_head else min(most, int(kind.get("max_workers", most)))
        shapes.append(NodeShape(kind.get("resources", {}), count))
    return shapes


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


def _workers(shapes: Sequence[NodeShape], needs: Mapping[str, float]) -> int:
    """Workers that all nodes together hold; one worker never spans two nodes."""
    return sum(
        shape.count * min(int(shape.resources.get(kind, 0) // need) for kind, need in needs.items())
        for shape in shapes
    )


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
