"""Submit sweeps and commands to a Ray cluster as jobs over HTTP, and follow their output.

This is the only module that uses Ray's job server. A job's metadata names its sweep.
"""

import asyncio
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.foundation.redaction import redact
from orchestrator.monitoring.command_hints import CLUSTER_OPTIONS_VARIABLE, cluster_options_text
from trainers.foundation.errors import InputError, Problem, TrainingError

if TYPE_CHECKING:
    # Types only: these import Ray, and the packages of a spec's files.
    from ray.job_submission import JobDetails

    from orchestrator.cluster.client import Client
    from orchestrator.cluster.job_package import JobPackage

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
# A broken connection, for example of a sleeping laptop, does not end the sweep.
CONNECTION_TIMEOUT_S = 60.0
POLL_S = 1.0
# A new head responds before it can start jobs.
START_TIMEOUT_S = 300.0
_NOT_READY = "No available agent to submit job"
COMMAND_NOT_FOUND = 127
# That of pyproject.toml: the sweep runs with the cluster's Ray, not this machine's.
RAY_VERSION = (2, 60)
# Lines that Ray's job manager writes to the log of each job.
_RAY_LINES = re.compile(
    r"^(\S+ \S+\tINFO job_manager\.py:\d+ -- |Running entrypoint for job ).*\n", re.MULTILINE
)
_TOKEN_FIX = (
    "copy ~/.ray/auth_token from the machine that ran `ray up` (mode 600), or from the head"
)


class Jobs:
    """Submits jobs to one cluster and follows them."""

    def __init__(self, client: "Client", target: str) -> None:
        self._client, self._target = client, target

    @classmethod
    def connect(cls, address: str, target: str, name: str | None = None) -> "Jobs":
        """Connect to the cluster at `address`, which `dashboard_url` accepts.

        Args:
            target: the command-line options that name the cluster.
            name: the cluster's name in messages; default: the address.

        Raises:
            InputError: no cluster responds, it refuses the token, or its Ray is too old.
        """
        has_token = _has_token()
        if has_token:
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        # Ray would prefer these variables to the address.
        for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            os.environ.pop(variable, None)
        from ray.exceptions import AuthenticationError

        from orchestrator.cluster.address import dashboard_url
        from orchestrator.cluster.client import Client

        # These modules raise their log levels on import, and log each upload.
        for module in ("", ".dashboard.modules.dashboard_sdk", ".dashboard.modules.job.sdk"):
            logging.getLogger(f"ray{module}").setLevel(logging.WARNING)
        try:
            client = Client(dashboard_url(address))
            version = client.ray_version()
        except AuthenticationError as error:
            raise InputError(
                _token_problem(name or redact(address), has_token=has_token)
            ) from error
        except (KeyError, TypeError, JSONDecodeError) as error:
            raise InputError(_no_cluster_problem(address, "the server there is not Ray")) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                _no_cluster_problem(address, str(error).strip().splitlines()[0])
            ) from error
        _check_version(version)
        return cls(client, target)

    def sweeps(self, name: str | None = None) -> list["JobDetails"]:
        """Return the submitted sweeps, newest first; only those called `name` if it is given."""
        with _request_errors():
            jobs = self._client.list_jobs()
        found = [job for job in jobs if (job.metadata or {}).get("plw_sweep")]
        if name is not None:
            found = [job for job in found if job.metadata["plw_sweep"] == name]
        return sorted(found, key=lambda job: job.start_time or 0, reverse=True)

    def running(self, name: str) -> "JobDetails | None":
        """Return the running or starting job of the sweep called `name`; None without one."""
        return next((job for job in self.sweeps(name) if job.status not in ENDED), None)

    def submit_sweep(self, name: str, package: "JobPackage", *, notify: str | None = None) -> str:
        """Start the sweep with the code and spec of `package`, and return its job id.

        Args:
            notify: command that the head runs at the end of the sweep.
        """
        return self._submit(
            ["sweep", *(() if notify is None else ("--notify", notify))],
            {"working_dir": str(package.folder)},
            f"plw-{name}-{time.strftime('%Y%m%d-%H%M%S')}",
            {"plw_sweep": name, **package.metadata},
        )

    def follow(self, job_id: str, show: Callable[[str], None]) -> int:
        """Show a job's output until it ends, and return the exit code of its command.

        Raises:
            TrainingError: the cluster does not respond any more; the job may still be running.
        """
        num_shown = 0
        last_response_at = time.monotonic()
        while True:
            try:
                for text in self._tail(job_id, num_shown):
                    num_shown += len(text)
                    last_response_at = time.monotonic()
                    show(_RAY_LINES.sub("", text))
                job = self._client.get_job_info(job_id)
                last_response_at = time.monotonic()
            except Exception as error:
                # HTTP libraries raise many types for a broken connection.
                if time.monotonic() - last_response_at > CONNECTION_TIMEOUT_S:
                    raise TrainingError(
                        f"no response from the cluster for {CONNECTION_TIMEOUT_S:.0f} s; the sweep "
                        "continues if the head is alive: submit the same spec again to follow it, "
                        "or to resume it on a new head"
                    ) from error
            else:
                if job.status in ENDED:
                    return _exit_code(job)
            time.sleep(POLL_S)

    def run(self, like: "JobDetails", command: Sequence[str]) -> int:
        """Run a `plw` command as a job with the code of the job `like`; return its exit code."""
        job_id = self._submit(command, like.runtime_env or {}, None, {"plw_command": command[0]})
        try:
            code = self.follow(job_id, _print)
        except BaseException:
            self._client.stop_job(job_id)
            raise
        self._client.delete_job(job_id)
        return code

    def _submit(
        self,
        arguments: Sequence[str],
        runtime_env: dict[str, Any],
        job_id: str | None,
        metadata: dict[str, str],
    ) -> str:
        variables = {
            "PYTHONUNBUFFERED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            CLUSTER_OPTIONS_VARIABLE: self._target,
        }
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with _request_errors():
                    return str(
                        self._client.submit_job(
                            entrypoint=shlex.join(
                                ["python", "-m", "orchestrator.cli.job_entrypoint", *arguments]
                            ),
                            submission_id=job_id,
                            metadata=metadata,
                            runtime_env={**runtime_env, "env_vars": variables},
                        )
                    )
            except TrainingError as error:
                if _NOT_READY not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_S)

    def _tail(self, job_id: str, num_seen: int) -> Iterator[str]:
        """Yield a job's output after its first `num_seen` characters."""
        lines = self._client.tail_job_logs(job_id)
        with asyncio.Runner() as runner:
            while True:
                try:
                    # Use a timeout: a dead connection is as silent as a long trial.
                    text = runner.run(asyncio.wait_for(anext(lines), CONNECTION_TIMEOUT_S))
                except (StopAsyncIteration, TimeoutError):
                    return
                if num_seen < len(text):
                    yield text[num_seen:]
                num_seen = max(0, num_seen - len(text))


@contextmanager
def open_jobs(address: str | None, cluster_file: Path | None) -> Iterator[Jobs]:
    """Connect to the cluster at `address`, or to the one launched from `cluster_file`."""
    target = cluster_options_text(address, cluster_file)
    if cluster_file is None:
        assert address is not None
        yield Jobs.connect(address, target)
        return
    from orchestrator.cluster.tunnel import DASHBOARD_PORT, tunnel

    with tunnel(cluster_file, DASHBOARD_PORT) as port:
        yield Jobs.connect(f"http://127.0.0.1:{port}", target, str(cluster_file))


@contextmanager
def _request_errors() -> Iterator[None]:
    """Convert errors of requests to the cluster to a TrainingError with one line.

    Raises:
        TrainingError: the request failed.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # Ray returns a traceback; its last line is the reason.
        reason = str(error).strip(". \n").splitlines()[-1]
        raise TrainingError(f"the request to the cluster failed: {reason}") from error


def _check_version(version: str) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers != RAY_VERSION:
        raise InputError(
            Problem(
                message=f"the cluster runs Ray {version}; a sweep needs "
                f"{RAY_VERSION[0]}.{RAY_VERSION[1]}",
                fix="launch the cluster with the packages of constraints.txt, as cluster.yaml does",
            )
        )


def _no_cluster_problem(address: str, reason: str) -> Problem:
    return Problem(
        message=redact(f"no Ray cluster responds at {address}: {reason}"),
        where="--address",
        fix="give what RAY_ADDRESS would hold (auto, HOST:6379, ray://HOST:10001), the address of "
        "its dashboard (http://HOST:8265), or --cluster with the file given to `ray up`",
    )


def _has_token() -> bool:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    return Path(path).expanduser().is_file()


def _token_problem(name: str, *, has_token: bool) -> Problem:
    if has_token:
        return Problem(
            message=f"the cluster {name} refuses this machine's token: it is for another cluster",
            where="~/.ray/auth_token",
            fix=_TOKEN_FIX,
        )
    return Problem(
        message=f"the cluster {name} requires a token, and this machine has none",
        where="~/.ray/auth_token",
        fix=_TOKEN_FIX,
    )


def _exit_code(job: "JobDetails") -> int:
    if job.status == "SUCCEEDED":
        return 0
    if job.driver_exit_code is None and job.message:
        raise TrainingError(str(job.message).strip().splitlines()[-1])
    if job.driver_exit_code == COMMAND_NOT_FOUND:
        raise TrainingError(
            "the cluster's head found no python: put the environment's bin folder first on PATH "
            "for `ray start`, as cluster.yaml does"
        )
    # The code of a process that a signal killed is negative.
    return max(1, job.driver_exit_code or 1)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
