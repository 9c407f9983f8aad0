"""Ray's autoscaler with the head of cluster.yaml, on a simulated EC2 without spot capacity."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.hosts import ROOT
from tests.e2e.plw import poll

moto_server = pytest.importorskip("moto.server")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# A trial that waits for a GPU.
DEMAND = """
import signal, sys, ray
from ray.util import placement_group
ray.init(address=sys.argv[1], log_to_driver=False)
placement_group([{"GPU": 1, "CPU": 1}])
signal.pause()
"""
# What the head does before it starts Ray; there is no machine to set up here.
START = re.compile(r"export (?P<environment>.*); ray start --head (?P<options>.*)", re.DOTALL)


def head_environment(spec: dict[str, Any]) -> dict[str, str]:
    """Return the settings of Ray's autoscaler with which cluster.yaml starts the head."""
    [start] = [one for one in spec["head_start_ray_commands"] if "ray start" in one]
    found = START.search(start)
    assert found is not None
    pairs = [word.split("=", 1) for word in shlex.split(found["environment"])]
    return {name: value for name, value in pairs if "autoscaler" in name.lower()}


def no_spot_capacity(run_instances: Any, refused: list[str]) -> Any:
    """Return moto's operation, which answers requests for spot instances as EC2 without any.

    It adds the instance type of each request that it refuses to `refused`.
    """
    from moto.ec2.exceptions import EC2ClientError

    class NoCapacity(EC2ClientError):
        code = "InsufficientInstanceCapacity"
        # EC2 reports it as an error of the server.
        http_status_code = 500

    def run(self: Any) -> Any:
        if self._get_param("InstanceMarketOptions", {}).get("MarketType") == "spot":
            refused.append(self._get_param("InstanceType"))
            raise NoCapacity("InsufficientInstanceCapacity", "There is no Spot capacity available")
        return run_instances(self)

    return run


@dataclass
class Account:
    """A simulated account without spot capacity.

    `environment` is that of programs which use it; `refused` has an entry for each request for a
    spot instance.
    """

    environment: dict[str, str]
    refused: list[str]
    ec2: Any

    def node_types(self) -> set[str]:
        """Return the node types of all instances."""
        instances = [
            instance
            for reservation in self.ec2.describe_instances()["Reservations"]
            for instance in reservation["Instances"]
        ]
        tags = [{tag["Key"]: tag["Value"] for tag in one.get("Tags", [])} for one in instances]
        return {one["ray-user-node-type"] for one in tags if "ray-user-node-type" in one}


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    import boto3
    from moto.ec2.responses.instances import InstanceResponse

    refused: list[str] = []
    operation = no_spot_capacity(InstanceResponse.run_instances, refused)
    monkeypatch.setattr(InstanceResponse, "run_instances", operation)
    monkeypatch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    environment = {
        **os.environ,
        **{name.upper(): value for name, value in keys.items()},
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "HOME": str(tmp_path),
        # On a busy machine a node needs more than Ray's 60 s.
        "RAY_raylet_start_wait_time_s": "400",
    }
    ec2 = boto3.client("ec2", region_name="us-east-1", endpoint_url=endpoint, **keys)
    # Moto's accounts live as long as the process, and other tests use them too.
    reset = urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    yield Account(environment, refused, ec2)
    urllib.request.urlopen(reset).close()
    server.stop()


def bootstrap(folder: Path, environment: dict[str, str]) -> Path:
    """Write the configuration that `ray up` gives the head, with key, subnets and groups."""
    path = folder / "bootstrap.json"
    program = (
        "import json, sys\n"
        "from ruamel.yaml import YAML\n"
        "from ray.autoscaler._private.commands import _bootstrap_config\n"
        "from ray.autoscaler._private.util import prepare_config\n"
        "config = prepare_config(YAML(typ='safe').load(open('cluster.yaml')))\n"
        "config = _bootstrap_config(config, no_config_cache=True)\n"
        "config['file_mounts'] = {}\n"
        "json.dump(config, open(sys.argv[1], 'w'))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, env=environment, check=True
    )
    return path


@contextmanager
def head_with_demand(config: Path, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a head whose autoscaler has this configuration, and a job that needs a GPU."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options = ["--num-cpus=0", "--num-gpus=0", "--include-dashboard=false", "--port=0"]
    # A path of pytest is too long for Ray's sockets.
    with tempfile.TemporaryDirectory() as short, (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            [*ray, *options, f"--autoscaling-config={config}", f"--temp-dir={short}"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        processes = [head]
        try:
            poll(lambda: _address(folder) is not None, "the head", timeout_s=400)
            command = [sys.executable, "-c", DEMAND, str(_address(folder))]
            processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
            yield
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _address(folder: Path) -> str | None:
    found = re.search(r"--address='([0-9.:]+)'", (folder / "head.log").read_text())
    return found[1] if found else None


def test_a_worker_on_demand_starts_while_there_is_no_spot_capacity(
    account: Account, tmp_path: Path
) -> None:
    spec = YAML(typ="safe").load(ROOT / "cluster.yaml")
    [scorer] = [to for to in spec["file_mounts"] if to.endswith("prefer_available.py")]
    folder = tmp_path / "autoscaler"
    folder.mkdir()
    (folder / Path(scorer).name).write_bytes((ROOT / spec["file_mounts"][scorer]).read_bytes())
    environment = {**account.environment, **head_environment(spec), "PYTHONPATH": str(folder)}
    config = bootstrap(tmp_path, account.environment)
    with head_with_demand(config, environment, tmp_path):
        poll(lambda: "gpu_on_demand" in account.node_types(), "a worker on demand", timeout_s=400)
        assert account.refused
        assert "gpu_spot" not in account.node_types()


@pytest.mark.full
def test_the_rule_of_ray_asks_for_spot_instances_only(account: Account, tmp_path: Path) -> None:
    """If this fails, Ray has learned to fall back, and prefer_available can go."""
    environment = {**account.environment, "RAY_enable_autoscaler_v2": "0"}
    config = bootstrap(tmp_path, account.environment)
    with head_with_demand(config, environment, tmp_path):
        # Ray tries five times for each launch.
        poll(lambda: len(account.refused) >= 20, "four launches that fail", timeout_s=400)
        assert "gpu_on_demand" not in account.node_types()
