"""Add timeouts to Ray's job client, which waits forever for an unresponsive server.

This module imports Ray.
"""

from typing import Any

from ray.job_submission import JobSubmissionClient

CONNECT_TIMEOUT_S = 20.0
# A busy head can take long to start a job.
RESPONSE_TIMEOUT_S = 60.0


class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types
    """A job client whose requests time out."""

    def _do_request(self, *arguments: Any, **options: Any) -> Any:
        limits = (CONNECT_TIMEOUT_S, RESPONSE_TIMEOUT_S)
        return super()._do_request(*arguments, timeout=limits, **options)

    def ray_version(self) -> str:
        """Return the cluster's Ray version."""
        return str(self._do_request("GET", "/api/version").json()["ray_version"])
