"""An on-premise cluster: bring it up, use it from a laptop outside, inject faults.

The hosts are network namespaces (tests/cluster/hosts.py). `make test-cluster` runs these tests, or
prints why this machine cannot.
"""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from ruamel.yaml import YAML

from tests.cluster.hosts import PAUSE, missing_requirement, wait_until
from tests.cluster.site import ON_PREMISE, OnPremise, on_premise_in, scores_in
from tests.e2e.plw import make_workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(missing_requirement() is not None, reason=missing_requirement() or ""),
]

CLUSTER = ("--cluster", str(ON_PREMISE))
NUM_STEPS = 200
AWAY_S = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPremise]:
    """A running cluster, with a spec on the laptop whose trials need both workers at once."""
    with on_premise_in(tmp_path_factory.mktemp("site") / "site") as cluster:
        make_workspace(
            cluster.work,
            schedule={"steps": NUM_STEPS},
            checkpoint={"every_steps": 20},
            deepspeed={"zero_stage": 2},
            # A rank takes all cores of a host, so no host runs two.
            resources={"workers_per_trial": 2, "cpus_per_worker": os.cpu_count()},
            search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
            evals={"heldout_choice": None, "heldout_exact_match": None, "heldout_chrf": None},
        )
        cluster.up()
        yield cluster


def write_spec(cluster: OnPremise, name: str, **changes: str) -> str:
    """Write the same spec under another name, so that its trials run again."""
    yaml = YAML()
    spec = yaml.load((cluster.work / "sweep.yaml").read_text()) | changes
    with (cluster.work / f"{name}.yaml").open("w") as file:
        yaml.dump(spec, file)
    return f"{name}.yaml"


def check_done(cluster: OnPremise, sweep: str) -> None:
    """Assert that both trials are done, and record and MLflow have each step once, in order."""
    trials = cluster.trials(sweep)
    assert [trial["state"] for trial in trials] == ["done", "done"], trials
    points = cluster.mlflow_points(sweep)
    for index, trial in enumerate(trials):
        lines = cluster.steps(sweep, index)
        assert [line["step"] for line in lines] == [*range(1, NUM_STEPS + 1)]
        expected = [[line["step"], int(line["time"] * 1000)] for line in lines]
        assert [point[:2] for point in points[trial["id"]]] == expected


@pytest.fixture(scope="module")
def undisturbed_scores(cluster: OnPremise) -> list[dict[str, float]]:
    """Run a sweep without faults and return its scores."""
    done = cluster.plw("submit", write_spec(cluster, "undisturbed"), *CLUSTER)
    assert done.returncode == 0, done.stdout + done.stderr
    return cluster.scores("undisturbed")


def test_only_ssh_answers_from_outside_the_subnet(cluster: OnPremise) -> None:
    listening = cluster.head.run("ss", "-Hltn").stdout
    ports = sorted({int(port) for port in re.findall(r":(\d+) ", listening)})
    assert {22, 6379, 8265, 5000} <= set(ports)
    probe = (
        "import socket, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def probe(port):\n"
        "    try: socket.create_connection((sys.argv[1], port), 2).close(); print(port)\n"
        "    except OSError: pass\n"
        "with ThreadPoolExecutor(50) as pool: list(pool.map(probe, sys.argv[2:]))"
    )
    for host in (cluster.head, *cluster.workers):
        found = cluster.laptop.run("python3", "-c", probe, host.address, *map(str, ports))
        assert found.stdout.split() == ["22"]


def test_the_dashboard_and_mlflow_listen_only_on_loopback(cluster: OnPremise) -> None:
    listening = cluster.head.run("ss", "-Hltn").stdout.splitlines()
    addresses = {line.split()[3] for line in listening}
    assert "127.0.0.1:8265" in addresses
    assert "127.0.0.1:5000" in addresses
    assert not {"0.0.0.0:8265", "0.0.0.0:5000", "*:8265", "*:5000"} & addresses


def test_only_its_owner_can_read_the_token_file(cluster: OnPremise) -> None:
    token = (cluster.laptop.home / ".ray" / "auth_token").read_text()
    for host in (cluster.head, *cluster.workers):
        path = host.home / ".ray" / "auth_token"
        assert path.read_text() == token
        assert path.stat().st_mode & 0o077 == 0
        assert token not in host.run("ps", "axww").stdout
        found = host.run("grep", "-rlF", token, "/tmp/ray", "/mnt/home", "/mnt/sweeps")
        assert found.stdout.split() == ["/mnt/home/.ray/auth_token"]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "requires a token, and this machine has none; copy ~/.ray/auth_token from"),
        (
            "0" * 64,
            "refuses this machine's token: it is for another cluster; copy ~/.ray/auth_token",
        ),
    ],
)
def test_a_submission_without_the_right_token_is_refused(
    cluster: OnPremise, token: str | None, message: str
) -> None:
    path = cluster.laptop.home / ".ray" / "auth_token"
    right = path.read_text()
    try:
        path.unlink()
        if token is not None:
            path.write_text(token)
        done = cluster.plw("submit", "sweep.yaml", *CLUSTER)
    finally:
        path.write_text(right)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_runs_on_both_workers_and_is_visible_from_the_laptop(
    cluster: OnPremise, undisturbed_scores: list[dict[str, float]]
) -> None:
    assert len(undisturbed_scores) == 2
    check_done(cluster, "undisturbed")
    status = cluster.plw("status", "undisturbed", *CLUSTER)
    assert "2 of 2 done" in status.stdout, status.stdout + status.stderr
    trial = cluster.trials("undisturbed")[0]["id"]
    logs = cluster.plw("logs", "undisturbed", trial, *CLUSTER)
    assert "trainers." in logs.stdout, logs.stdout + logs.stderr
    again = cluster.plw("submit", "undisturbed.yaml", *CLUSTER)
    assert "2 trials were done before and were skipped." in again.stdout
    assert f"plw status undisturbed {' '.join(CLUSTER)}" in again.stdout
    fetched = again.stdout.partition("ray rsync-down ")[2].split()[:3]
    cluster.ray("rsync-down", *fetched[:2], "/mnt/home/work/report.html")
    assert "undisturbed" in (cluster.work / "report.html").read_text()


@pytest.mark.usefixtures("undisturbed_scores")
def test_a_tunnel_serves_mlflow_and_the_dashboard_and_an_address_names_the_cluster(
    cluster: OnPremise,
) -> None:
    pages = cluster.start("ui", *CLUSTER)
    try:
        mlflow, dashboard = (pages.stdout.readline() for _ in range(2))
        assert mlflow.startswith("MLflow: http://127.0.0.1:5000/"), mlflow
        health = cluster.laptop.run("curl", "-sf", "http://127.0.0.1:5000/health")
        assert health.stdout.strip() == "OK"
        address = dashboard.split()[-1].rstrip("/")
        status = cluster.plw("status", "undisturbed", "--address", address)
        assert "2 of 2 done" in status.stdout, status.stdout + status.stderr
    finally:
        os.killpg(pages.pid, signal.SIGINT)
        pages.communicate(timeout=30)
    listening = cluster.laptop.run("ss", "-Hltn").stdout
    assert ":5000 " not in listening


def test_a_sweep_survives_a_killed_host_while_mlflow_does_not_respond(
    cluster: OnPremise, undisturbed_scores: list[dict[str, float]]
) -> None:
    sweep = write_spec(cluster, "disturbed")
    assert cluster.plw("submit", sweep, *CLUSTER, "--detach").returncode == 0
    wait_until(lambda: len(cluster.steps("disturbed", 0)) > 30, "step 30", 300)
    assert signal_mlflow(cluster, signal.SIGSTOP)
    victim = cluster.workers[1]
    victim.kill()
    PAUSE.wait(AWAY_S)
    victim.start()
    # As cron does at a reboot.
    assert victim.run("bash", "plw-join.sh", cluster.head.address).returncode == 0
    # A sweep that ends while MLflow is stopped leaves the rest to `plw sync`.
    wait_until(lambda: len(cluster.steps("disturbed", 1)) > 0, "the second trial", 600)
    signal_mlflow(cluster, signal.SIGCONT)
    wait_until(lambda: has_ended(cluster, "disturbed"), "the end of the sweep", 900)
    check_done(cluster, "disturbed")
    assert cluster.trials("disturbed")[0]["attempts"] == 2
    log = cluster.folder("disturbed") / "trials" / cluster.trials("disturbed")[0]["id"] / "log.txt"
    assert "resumed from step" in log.read_text()
    assert cluster.scores("disturbed") == undisturbed_scores


@pytest.mark.full
def test_a_sweep_resumes_on_a_new_head(
    cluster: OnPremise, undisturbed_scores: list[dict[str, float]]
) -> None:
    sweep = write_spec(cluster, "new-head")
    watching = cluster.start("submit", sweep, *CLUSTER)
    wait_until(lambda: len(cluster.steps("new-head", 1)) > 30, "the second trial", 600)
    cluster.head.kill()
    first = cluster.trials("new-head")[0]
    trained_at = (cluster.folder("new-head") / "trials" / first["id"] / "train.json").stat()
    cluster.head.start()
    cluster.up()
    # `plw submit` waits a minute for a lost head.
    output, _ = watching.communicate(timeout=300)
    assert watching.returncode == 1, output
    assert "submit the same spec again" in output
    done = cluster.plw("submit", sweep, *CLUSTER)
    assert done.returncode == 0, done.stdout + done.stderr
    check_done(cluster, "new-head")
    first_again, second = cluster.trials("new-head")
    assert first_again == first
    path = cluster.folder("new-head") / "trials" / first["id"] / "train.json"
    assert path.stat().st_mtime_ns == trained_at.st_mtime_ns
    log = cluster.folder("new-head") / "trials" / second["id"] / "log.txt"
    assert "resumed from step" in log.read_text()
    assert cluster.scores("new-head") == undisturbed_scores


@pytest.mark.full
def test_hosts_without_shared_files_keep_a_sweep_in_an_object_store(
    cluster: OnPremise, undisturbed_scores: list[dict[str, float]]
) -> None:
    # Home folders are not shared.
    spec = write_spec(
        cluster, "stored", output_dir="/mnt/home/runs/stored", storage="s3://sweeps/runs"
    )
    done = cluster.plw("submit", spec, *CLUSTER)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = cluster.head.home / "runs" / "stored"
    ids = json.loads((folder / "sweep.json").read_text())["trial_ids"]
    assert scores_in(folder, ids) == undisturbed_scores
    lines = (folder / "trials" / ids[0] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(1, NUM_STEPS + 1)]
    # The head has the records; only the store has the models.
    for worker in cluster.workers:
        assert (worker.home / "runs" / "stored").is_dir()
        assert not list(worker.home.glob("runs/stored/trials/*/model"))
    assert [one.name for one in (folder / "trials" / ids[0] / "model").iterdir()] == ["stored.txt"]
    names = cluster.stored()
    for trial_id in ids:
        assert f"runs/stored/trials/{trial_id}/model/model.safetensors" in names
    assert not [one for one in names if "/checkpoints/" in one]


def test_a_host_without_the_storage_is_refused_with_its_name(cluster: OnPremise) -> None:
    worker = cluster.workers[0]
    assert worker.run("umount", "/mnt/sweeps").returncode == 0
    done = cluster.plw("submit", write_spec(cluster, "unshared"), *CLUSTER)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "host worker-1 does not see the sweep's folder /mnt/sweeps/unshared" in done.stdout
    assert "mount the shared storage on the host" in done.stdout


def test_ray_down_ends_ray_on_every_host(cluster: OnPremise) -> None:
    cluster.ray("down", "--yes", str(ON_PREMISE))
    assert "gcs_server" not in cluster.head.run("ps", "ax").stdout

    def nothing_left() -> bool:
        hosts = (cluster.head, *cluster.workers)
        return not any("raylet" in host.run("ps", "ax").stdout for host in hosts)

    # A worker waits a minute for a lost head.
    wait_until(nothing_left, "the end of Ray on every host", 300)


def has_ended(cluster: OnPremise, sweep: str) -> bool:
    """Return whether the sweep has ended and written its report."""
    states = [trial["state"] for trial in cluster.trials(sweep)]
    is_over = len(states) == 2 and set(states) <= {"done", "failed", "interrupted"}
    return is_over and (cluster.folder(sweep) / "report.md").exists()


def signal_mlflow(cluster: OnPremise, which: signal.Signals) -> list[psutil.Process]:
    """Send a signal to all processes of the head's MLflow server."""
    assert cluster.head.process is not None
    found = []
    for process in psutil.Process(cluster.head.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "mlflow" in " ".join(process.cmdline()):
                process.send_signal(which)
                found.append(process)
    return found
