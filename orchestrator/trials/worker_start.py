"""What each of Ray's worker processes does first; Ray calls it by name."""

import os

from orchestrator.trials.network import set_interfaces


def on_this_machine() -> None:
    """Name this process its own cluster, since another one may run on the same machine.

    What looks for one without an address finds two and gives up: so does Ray Train's cleaner, and
    the resources of a worker group whose controller has died are never given back.
    """
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address


def on_cluster() -> None:
    """As on one machine, and have the ranks talk through the interface that Ray knows."""
    on_this_machine()
    set_interfaces()
