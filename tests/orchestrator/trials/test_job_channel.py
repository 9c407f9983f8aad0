"""Retries of a job by kind of failure. The channel runs here without an actor."""

import asyncio
from typing import Any

import pytest

# Ray takes seconds to import; no cluster is started.
pytestmark = pytest.mark.slow
RETRIES = {"crash": 2, "out_of_memory": 1, "divergence": 0}


async def losses(steps: list[int]) -> tuple[int, Any]:
    """Return the number of retries after a lost node at each of `steps`, and the progress."""
    from orchestrator.trials.job_channel import Job, JobChannel

    channel = JobChannel.__ray_metadata__.modified_class()  # type: ignore[attr-defined]
    await channel.submit(Job("trial", "t", "b", {}, "m", number=1))
    num_retries = 0
    for step in steps:
        await channel.start_attempt()
        await channel.report({"step": step})
        # The rank that has lost its peer reports a consequence.
        await channel.report_failure("connection closed by peer", "crash")
        if not await channel.handle_group_failure("the head is gone", RETRIES, is_node_lost=True):
            break
        num_retries += 1
    return num_retries, await channel.wait_for_progress({}, 0, 0, 0)


def test_lost_nodes_are_retried_without_limit_while_steps_are_gained() -> None:
    num_retries, progress = asyncio.run(losses([*range(10, 210, 10)]))
    assert (num_retries, progress.outcome) == (20, None)


def test_lost_nodes_without_a_new_step_fail_the_trial_with_its_reason() -> None:
    num_retries, progress = asyncio.run(losses([10, 20, 20, 15, 20, 20]))
    # The first and the second loss follow new steps; two more retries follow the second.
    assert num_retries == 4
    assert (progress.outcome, progress.failure) == ("failed", "lost_node")
    assert progress.error == "a node was lost: the head is gone"


def test_a_lost_node_is_recognized_in_the_failure_of_one_rank() -> None:
    from ray.exceptions import ActorDiedError
    from ray.train.v2.api.exceptions import WorkerGroupError

    from orchestrator.trials.run_trial import is_node_lost

    class Died(ActorDiedError):
        def __str__(self) -> str:
            return "The actor died because its node has died. Node Id: 0a1b"

    peer = RuntimeError("connection closed by peer")
    assert is_node_lost(WorkerGroupError("two ranks failed", {0: peer, 1: Died()}))
    assert not is_node_lost(WorkerGroupError("a rank failed", {0: peer}))
    assert not is_node_lost(ActorDiedError())
