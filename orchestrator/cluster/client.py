"""Ray's client of its job server, which by itself waits for ever for a server that is silent.

Imports Ray.
"""

from typing import Any

from ray.job_submission import JobSubmissionClient

CONNECT_TIMEOUT_S = 20.0
# A busy head takes its time to start a job.
ANSWER_TIMEOUT_S = 60.0


class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types
    """Asks with a time limit."""

    def _do_request(self, *arguments: Any, **options: Any) -> Any:
        limits = (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S)
        return super()._do_request(*arguments, timeout=limits, **options)

    def ray_version(self) -> str:
        """Of the cluster."""
        return str(self._do_request("GET", "/api/version").json()["ray_version"])
