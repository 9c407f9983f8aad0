"""Rank node types for Ray's autoscaler: first those whose last launch did not fail.

`cluster.yaml` copies this file to the head, where RAY_AUTOSCALER_UTILIZATION_SCORER names it; so it
imports nothing of this project. Ray's own scorer ignores failed launches: between spot and
on-demand nodes of the same resources it chooses the spot nodes again and again while there is no
spot capacity (ray-project/ray#20774; ray/autoscaler/_private/resource_demand_scheduler.py, Ray
2.60).
"""

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _resource_based_utilization_scorer


def score(
    node_resources: dict[str, float],
    resources: list[dict[str, float]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """Return the rank of a node type for the demanded resources; None if it fits none of them.

    Ray forgets a failed launch after 30 minutes (AUTOSCALER_NODE_AVAILABILITY_MAX_STALENESS_S), and
    then tries the type again.
    """
    by_resources = _resource_based_utilization_scorer(
        node_resources, resources, node_availability_summary=node_availability_summary
    )
    if by_resources is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (record is None or record.is_available, *by_resources)
