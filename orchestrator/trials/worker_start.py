"""Define set-up hooks of Ray's worker processes; Ray calls them by name."""

import os

from orchestrator.trials.network import set_interfaces


def set_up_local_worker() -> None:
    """Set RAY_ADDRESS to this process's cluster, because another may run on the same machine.

    Without an address, Ray Train's cleaner finds two clusters and gives up. It then never releases
    the resources of a worker group whose controller has died.
    """
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address


def set_up_cluster_worker() -> None:
    """Set up a local worker, and select the network interface that Ray uses for the ranks."""
    set_up_local_worker()
    set_interfaces()
