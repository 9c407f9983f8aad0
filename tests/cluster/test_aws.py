"""cluster.yaml on a simulated EC2: the real `ray up`, with SSH and rsync replaced by loggers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.cluster.hosts import ROOT

moto_server = pytest.importorskip("moto.server")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Logs its arguments; rsync also keeps the files to send.
LOGGING_PROGRAM = """#!{python}
import json, os, shutil, sys
with open(os.environ["NOTES"], "a") as file:
    file.write(json.dumps(sys.argv) + "\\n")
if os.path.basename(sys.argv[0]) == "rsync":
    for source in sys.argv[1:]:
        if os.path.isfile(source):
            shutil.copy(source, os.environ["SENT"])
"""
CREATE_WORKERS = """
import json, sys
from ray.autoscaler._private.providers import _get_node_provider
config = json.load(open(sys.argv[1]))
provider = _get_node_provider(config["provider"], config["cluster_name"])
for kind in ("gpu_spot", "gpu_on_demand"):
    node = config["available_node_types"][kind]["node_config"]
    provider.create_node(node, {"ray-node-type": "worker", "ray-user-node-type": kind}, 1)
"""


@dataclass
class Account:
    """A simulated account after `ray up`, and the commands and files sent to its head."""

    ec2: Any
    iam: Any
    commands: list[str]
    sent: Path

    def instance(self, kind: str) -> dict[str, Any]:
        """Return the only instance of a node type."""
        found = self.ec2.describe_instances(
            Filters=[{"Name": "tag:ray-user-node-type", "Values": [kind]}]
        )
        [reservation] = found["Reservations"]
        [instance] = reservation["Instances"]
        return dict(instance)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """Run the documented `ray up cluster.yaml` and start one worker of each type."""
    import boto3

    folder = tmp_path_factory.mktemp("aws")
    home, programs, sent = (folder / name for name in ("home", "programs", "sent"))
    for path in (home, programs, sent):
        path.mkdir()
    for name in ("ssh", "rsync"):
        (programs / name).write_text(LOGGING_PROGRAM.format(python=sys.executable))
        (programs / name).chmod(0o755)
    patch = pytest.MonkeyPatch()
    # Ray attaches AWS's managed policies, which moto does not load by default.
    patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "HOME": str(home),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "NOTES": str(folder / "notes"),
        "SENT": str(sent),
    }

    def run(*command: str) -> None:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    try:
        ray = ("-m", "ray.scripts.scripts")
        run(*ray, "get-auth-token", "--generate")
        run(*ray, "up", "--yes", "--no-config-cache", "cluster.yaml")
        [bootstrap] = sent.glob("ray-bootstrap-*")
        run("-c", CREATE_WORKERS, str(bootstrap))
        notes = [json.loads(line) for line in (folder / "notes").read_text().splitlines()]
        clients = [
            boto3.client(
                service,
                region_name="us-east-1",
                endpoint_url=environment["AWS_ENDPOINT_URL"],
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
            )
            for service in ("ec2", "iam")
        ]
        commands = [note[-1] for note in notes if note[0].endswith("ssh")]
        yield Account(ec2=clients[0], iam=clients[1], commands=commands, sent=sent)
    finally:
        server.stop()
        patch.undo()


def test_the_head_is_on_demand_and_small(account: Account) -> None:
    head = account.instance("head")
    assert head["InstanceType"] == "m6i.2xlarge"
    assert head.get("InstanceLifecycle") != "spot"


def test_gpu_workers_are_on_spot_and_fall_back_to_on_demand(account: Account) -> None:
    spot, on_demand = account.instance("gpu_spot"), account.instance("gpu_on_demand")
    assert spot["InstanceLifecycle"] == "spot"
    assert on_demand.get("InstanceLifecycle") != "spot"
    assert spot["InstanceType"] == on_demand["InstanceType"] == "g6e.2xlarge"


def test_only_ssh_is_open_to_everyone(account: Account) -> None:
    ids = {
        group["GroupId"]
        for kind in ("head", "gpu_spot", "gpu_on_demand")
        for group in account.instance(kind)["SecurityGroups"]
    }
    assert len(ids) == 1
    [group] = account.ec2.describe_security_groups(GroupIds=list(ids))["SecurityGroups"]
    from_anywhere = [rule for rule in group["IpPermissions"] if rule.get("IpRanges")]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in from_anywhere] == [
        ("tcp", 22, 22)
    ]
    among_themselves = [rule for rule in group["IpPermissions"] if rule.get("UserIdGroupPairs")]
    assert {pair["GroupId"] for r in among_themselves for pair in r["UserIdGroupPairs"]} == ids


def test_only_the_head_may_start_machines(account: Account) -> None:
    assert account.instance("head")["IamInstanceProfile"]["Arn"].endswith("/ray-autoscaler-v1")
    for kind in ("gpu_spot", "gpu_on_demand"):
        assert "IamInstanceProfile" not in account.instance(kind)


def test_set_up_commands_run_in_the_order_of_the_file(account: Account) -> None:
    config = YAML(typ="safe").load(ROOT / "cluster.yaml")
    sent = "\n".join(account.commands).replace("'\"'\"'", "'")
    expected = [
        *config["setup_commands"],
        *config["head_setup_commands"],
        *config["head_start_ray_commands"],
    ]
    positions = [sent.find(command.strip()) for command in expected]
    assert -1 not in positions
    assert positions == sorted(positions)


def test_the_token_is_sent_as_a_file_and_in_no_command(account: Account) -> None:
    token = (account.sent / "auth_token").read_text()
    assert len(token) > 20
    assert not any(token in command for command in account.commands)


def test_both_gpu_types_scale_from_zero(account: Account) -> None:
    [path] = account.sent.glob("ray-bootstrap-*")
    types = json.loads(path.read_text())["available_node_types"]
    assert {kind: types[kind]["min_workers"] for kind in ("gpu_spot", "gpu_on_demand")} == {
        "gpu_spot": 0,
        "gpu_on_demand": 0,
    }


def test_the_head_runs_version_1_of_the_autoscaler(account: Account) -> None:
    """Version 2, Ray's default, is not told of a launch that failed."""
    starts = [command for command in account.commands if "ray start --head" in command]
    assert starts
    assert all("RAY_enable_autoscaler_v2=0" in command for command in starts)
