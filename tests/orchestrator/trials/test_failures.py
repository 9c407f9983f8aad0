"""The reasons of failures that a trial's record and the command line show."""

import ray

from orchestrator.trials.run_trial import error_reason

# As printed by Ray 2.60, without the lines on its object store and the killed process.
LOW_MEMORY = """\
1 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 192.0.2.2, ID: 62ad04f181dd90ce3efa9f894b7440c855fdb93531f63a93cddffc68) \
was 22.86GB used / 23.54GB limit (0.970951)
OOM kill reason: Memory usage 24545706456B exceeded threshold of 24012190720B
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io.
"""


def test_a_process_killed_for_lack_of_memory_names_the_memory_and_what_to_do() -> None:
    assert error_reason(ray.exceptions.OutOfMemoryError(LOW_MEMORY)) == (
        "Ray killed a process because 22.86 of 23.54 GiB of its machine's memory were in use; "
        "close other programs, set resources.max_concurrent_trials, or use less memory in each "
        "trial"
    )


def test_the_last_line_of_another_error_is_its_reason() -> None:
    assert error_reason(ValueError("first\n\nlast \n")) == "last"
    assert error_reason(ValueError()) == "ValueError"
