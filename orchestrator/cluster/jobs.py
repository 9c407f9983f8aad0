"""Jobs on a Ray cluster, asked for over HTTP: start a sweep there, follow it, run a command there.

The only module that talks to Ray's job server. A job's metadata says which sweep it is.
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
from orchestrator.watching.typed import TARGET_VARIABLE, target_of
from trainers.foundation.errors import InputError, Problem, TrainingError

if TYPE_CHECKING:
    # Types only: it imports Ray.
    from ray.job_submission import JobDetails

    from orchestrator.cluster.client import Client

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
# A tunnel that breaks, as when a laptop sleeps, is no end of a sweep.
SILENCE_S = 60.0
POLL_S = 1.0
# A head that has just come up answers before it can start jobs.
BEGIN_TIMEOUT_S = 300.0
_NOT_BEGUN = "No available agent to submit job"
NO_SUCH_COMMAND = 127
# As in pyproject.toml: the sweep runs on the cluster's Ray, not on this machine's.
OLDEST_RAY = (2, 50)
# What Ray's job manager says into the log of each job.
_OF_RAY = re.compile(
    r"^(\S+ \S+\tINFO job_manager\.py:\d+ -- |Running entrypoint for job ).*\n", re.MULTILINE
)
_GET_TOKEN = (
    "copy ~/.ray/auth_token from the machine that ran `ray up` (mode 600), or from the head"
)


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, client: "Client", target: str) -> None:
        self._client, self._target = client, target

    @classmethod
    def connect(cls, address: str, target: str, name: str | None = None) -> "Jobs":
        """The jobs of the cluster whose head answers at `address`, such as http://head:8265.

        Args:
            target: the options that name the cluster, as they are typed.
            name: what a person calls the cluster, where that is not the address.

        Raises:
            InputError: none answers there, or it refuses the token.
        """
        has_token = _has_token()
        if has_token:
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        # Ray would take it instead of the address that it is given.
        for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            os.environ.pop(variable, None)
        from ray.exceptions import AuthenticationError

        from orchestrator.cluster.client import Client

        # They turn their own levels up when they are imported, and tell of each upload.
        for module in ("", ".dashboard.modules.dashboard_sdk", ".dashboard.modules.job.sdk"):
            logging.getLogger(f"ray{module}").setLevel(logging.WARNING)
        try:
            if not address.startswith(("http://", "https://")):
                raise ValueError("it is no http:// or https:// address")
            client = Client(address)
            version = client.ray_version()
        except AuthenticationError as error:
            raise InputError(_refused(name or redact(address), has_token=has_token)) from error
        except (KeyError, TypeError, JSONDecodeError) as error:
            raise InputError(_no_cluster(address, "what answers is no Ray")) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(_no_cluster(address, str(error).strip().splitlines()[0])) from error
        _check_version(version)
        return cls(client, target)

    def sweeps(self, name: str | None = None) -> list["JobDetails"]:
        """The sweeps that were submitted, or those of one name, the newest first."""
        with _answers():
            jobs = self._client.list_jobs()
        found = [job for job in jobs if (job.metadata or {}).get("plw_sweep")]
        if name is not None:
            found = [job for job in found if job.metadata["plw_sweep"] == name]
        return sorted(found, key=lambda job: job.start_time or 0, reverse=True)

    def submit_sweep(self, name: str, folder: Path, *, code: str) -> str:
        """Start the sweep whose code and spec are in `folder`; returns the id of its job.

        Raises:
            InputError: a sweep of this name runs there already.
        """
        for job in self.sweeps(name):
            if job.status not in ENDED:
                raise InputError(
                    Problem(
                        message=f"the sweep {name} runs there already, as job {job.submission_id}",
                        where="name",
                        fix="look at it with plw status, end it with plw stop, or give the spec "
                        "another name",
                    )
                )
        return self._submit(
            ["sweep"],
            {"working_dir": str(folder)},
            f"plw-{name}-{time.strftime('%Y%m%d-%H%M%S')}",
            {"plw_sweep": name, "plw_code": code},
        )

    def follow(self, job_id: str, show: Callable[[str], None]) -> int:
        """Show what a job prints until it has ended; returns the exit code of its command.

        Raises:
            TrainingError: the cluster does not answer any more; the job may well go on.
        """
        num_shown = 0
        heard_at = time.monotonic()
        while True:
            try:
                for text in self._tail(job_id, num_shown):
                    num_shown += len(text)
                    heard_at = time.monotonic()
                    show(_OF_RAY.sub("", text))
                job = self._client.get_job_info(job_id)
                heard_at = time.monotonic()
            except Exception as error:
                # Whatever the HTTP library makes of a connection that broke.
                if time.monotonic() - heard_at > SILENCE_S:
                    raise TrainingError(
                        f"the cluster has not answered for {SILENCE_S:.0f} s; the sweep goes on "
                        "there if its head lives: submit the same spec again to see, or to go on "
                        "on a new head"
                    ) from error
            else:
                if job.status in ENDED:
                    return _exit_code(job)
            time.sleep(POLL_S)

    def run(self, like: "JobDetails", command: Sequence[str]) -> int:
        """Run a command of `plw` there with the code of the sweep `like`; returns its exit code."""
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
            TARGET_VARIABLE: self._target,
        }
        deadline = time.monotonic() + BEGIN_TIMEOUT_S
        while True:
            try:
                with _answers():
                    return str(
                        self._client.submit_job(
                            entrypoint=shlex.join(
                                ["python", "-m", "orchestrator.cli.submitted", *arguments]
                            ),
                            submission_id=job_id,
                            metadata=metadata,
                            runtime_env={**runtime_env, "env_vars": variables},
                        )
                    )
            except TrainingError as error:
                if _NOT_BEGUN not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_S)

    def _tail(self, job_id: str, num_seen: int) -> Iterator[str]:
        """What a job prints beyond its first `num_seen` characters."""
        lines = self._client.tail_job_logs(job_id)
        with asyncio.Runner() as runner:
            while True:
                try:
                    # A connection whose other end has vanished is as quiet as a long trial.
                    text = runner.run(asyncio.wait_for(anext(lines), SILENCE_S))
                except (StopAsyncIteration, TimeoutError):
                    return
                if num_seen < len(text):
                    yield text[num_seen:]
                num_seen = max(0, num_seen - len(text))


@contextmanager
def jobs_of(address: str | None, cluster_file: Path | None) -> Iterator[Jobs]:
    """The jobs of the cluster at `address`, or of the one that `cluster_file` launched."""
    target = target_of(address, cluster_file)
    if cluster_file is None:
        assert address is not None
        yield Jobs.connect(address if "://" in address else f"http://{address}", target)
        return
    from orchestrator.cluster.tunnel import DASHBOARD_PORT, tunnel

    with tunnel(cluster_file, DASHBOARD_PORT) as port:
        yield Jobs.connect(f"http://127.0.0.1:{port}", target, str(cluster_file))


@contextmanager
def _answers() -> Iterator[None]:
    """Turn what becomes of a question that a cluster does not answer into one line.

    Raises:
        TrainingError: with what it said, or that it said nothing.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # Ray sends whole tracebacks, whose last line is the reason.
        reason = str(error).strip(". \n").splitlines()[-1]
        raise TrainingError(f"the cluster did not do as it was asked: {reason}") from error


def _check_version(version: str) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_RAY:
        raise InputError(
            Problem(
                message=f"the cluster runs Ray {version}; a sweep needs {OLDEST_RAY[0]}."
                f"{OLDEST_RAY[1]} or newer",
                fix="bring the cluster up with the packages of constraints.txt, as cluster.yaml "
                "does",
            )
        )


def _no_cluster(address: str, reason: str) -> Problem:
    return Problem(
        message=redact(f"no Ray cluster answers at {address}: {reason}"),
        where="--address",
        fix="give the address of its dashboard, such as http://127.0.0.1:8265, or --cluster with "
        "the file that `ray up` took",
    )


def _has_token() -> bool:
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    return Path(path).expanduser().is_file()


def _refused(name: str, *, has_token: bool) -> Problem:
    if has_token:
        return Problem(
            message=f"the cluster of {name} refuses this machine's token: it is another one's",
            where="~/.ray/auth_token",
            fix=_GET_TOKEN,
        )
    return Problem(
        message=f"the cluster of {name} wants a token, and this machine has none",
        where="~/.ray/auth_token",
        fix=_GET_TOKEN,
    )


def _exit_code(job: "JobDetails") -> int:
    if job.status == "SUCCEEDED":
        return 0
    if job.driver_exit_code is None and job.message:
        raise TrainingError(str(job.message).strip().splitlines()[-1])
    if job.driver_exit_code == NO_SUCH_COMMAND:
        raise TrainingError(
            "the cluster's head found no python: let its `ray start` have the environment's bin "
            "folder first on PATH, as cluster.yaml does"
        )
    return 2 if job.driver_exit_code == 2 else 1


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
