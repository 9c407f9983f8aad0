"""An on-premise cluster from nothing: brought up, used from a laptop outside, and disturbed.

Real hosts as far as one machine has them (tests/cluster/hosts.py). `make test-cluster` runs this;
where hosts cannot be made it says why.
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

from tests.cluster.hosts import PAUSE, wait_until, why_not
from tests.cluster.site import ON_PREMISE, OnPremise, on_premise_in, scores_in
from tests.e2e.plw import make_workplace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]

CLUSTER = ("--cluster", str(ON_PREMISE))
NUM_STEPS = 200
AWAY_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPremise]:
    """Up, with a spec on the laptop whose trials need both workers at once."""
    with on_premise_in(tmp_path_factory.mktemp("site") / "site") as cluster:
        make_workplace(
            cluster.work,
            schedule={"steps": NUM_STEPS},
            checkpoint={"every_steps": 20},
            deepspeed={"zero_stage": 2},
            # All cores of a host for one rank: no host holds two.
            resources={"workers_per_trial": 2, "cpus_per_worker": os.cpu_count()},
            search={"space": {"loss.prompt_loss_weight": [0, 0.1]}},
            evals={"multiple_choice": None, "short_generation": None, "long_generation": None},
        )
        cluster.up()
        yield cluster


def write_spec(cluster: OnPremise, name: str, **changes: str) -> str:
    """The same sweep under another name, so that its trials are run anew."""
    yaml = YAML()
    spec = yaml.load((cluster.work / "sweep.yaml").read_text()) | changes
    with (cluster.work / f"{name}.yaml").open("w") as file:
        yaml.dump(spec, file)
    return f"{name}.yaml"


def check_done(cluster: OnPremise, sweep: str) -> None:
    """Both trials are done, and every step stands once and in order in the record and in MLflow."""
    trials = cluster.trials(sweep)
    assert [trial["state"] for trial in trials] == ["done", "done"], trials
    points = cluster.mlflow_points(sweep)
    for index, trial in enumerate(trials):
        lines = cluster.steps(sweep, index)
        assert [line["step"] for line in lines] == [*range(1, NUM_STEPS + 1)]
        expected = [[line["step"], int(line["time"] * 1000)] for line in lines]
        assert [point[:2] for point in points[trial["id"]]] == expected


@pytest.fixture(scope="module")
def quiet_scores(cluster: OnPremise) -> list[dict[str, float]]:
    """The scores of a sweep that nothing disturbs."""
    done = cluster.plw("submit", write_spec(cluster, "quiet"), *CLUSTER)
    assert done.returncode == 0, done.stdout + done.stderr
    return cluster.scores("quiet")


def test_nothing_but_ssh_answers_from_outside_the_subnet(cluster: OnPremise) -> None:
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


def test_the_dashboard_and_mlflow_answer_on_loopback_alone(cluster: OnPremise) -> None:
    listening = cluster.head.run("ss", "-Hltn").stdout.splitlines()
    addresses = {line.split()[3] for line in listening}
    assert "127.0.0.1:8265" in addresses
    assert "127.0.0.1:5000" in addresses
    assert not {"0.0.0.0:8265", "0.0.0.0:5000", "*:8265", "*:5000"} & addresses


def test_the_token_is_a_file_that_only_its_owner_reads(cluster: OnPremise) -> None:
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
        (None, "wants a token, and this machine has none; copy ~/.ray/auth_token from"),
        ("0" * 64, "refuses this machine's token: it is another one's; copy ~/.ray/auth_token"),
    ],
)
def test_without_the_right_token_a_submission_is_refused(
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


def test_a_sweep_runs_over_both_workers_and_is_seen_from_the_laptop(
    cluster: OnPremise, quiet_scores: list[dict[str, float]]
) -> None:
    assert len(quiet_scores) == 2
    check_done(cluster, "quiet")
    status = cluster.plw("status", "quiet", *CLUSTER)
    assert "2 of 2 done" in status.stdout, status.stdout + status.stderr
    trial = cluster.trials("quiet")[0]["id"]
    logs = cluster.plw("logs", trial, "quiet", *CLUSTER)
    assert "trainers." in logs.stdout, logs.stdout + logs.stderr
    again = cluster.plw("submit", "quiet.yaml", *CLUSTER)
    assert "2 trials were done before and were skipped." in again.stdout
    assert f"plw status quiet {' '.join(CLUSTER)}" in again.stdout
    fetched = again.stdout.partition("ray rsync-down ")[2].split()[:3]
    cluster.ray("rsync-down", *fetched[:2], "/mnt/home/work/report.html")
    assert "quiet" in (cluster.work / "report.html").read_text()


@pytest.mark.usefixtures("quiet_scores")
def test_pages_are_reached_through_a_tunnel_and_a_cluster_by_its_address(
    cluster: OnPremise,
) -> None:
    pages = cluster.start("ui", *CLUSTER)
    try:
        mlflow, dashboard = (pages.stdout.readline() for _ in range(2))
        assert mlflow.startswith("MLflow: http://127.0.0.1:5000/"), mlflow
        health = cluster.laptop.run("curl", "-sf", "http://127.0.0.1:5000/health")
        assert health.stdout.strip() == "OK"
        address = dashboard.split()[-1].rstrip("/")
        status = cluster.plw("status", "quiet", "--address", address)
        assert "2 of 2 done" in status.stdout, status.stdout + status.stderr
    finally:
        os.killpg(pages.pid, signal.SIGINT)
        pages.communicate(timeout=30)
    listening = cluster.laptop.run("ss", "-Hltn").stdout
    assert ":5000 " not in listening


def test_a_host_is_killed_and_mlflow_is_away_for_a_minute(
    cluster: OnPremise, quiet_scores: list[dict[str, float]]
) -> None:
    sweep = write_spec(cluster, "disturbed")
    assert cluster.plw("submit", sweep, *CLUSTER, "--detach").returncode == 0
    wait_until(lambda: len(cluster.steps("disturbed", 0)) > 30, "step 30", 300)
    assert signal_mlflow(cluster, signal.SIGSTOP)
    victim = cluster.workers[1]
    victim.kill()
    # Off for a while, as a host is that starts again; MLflow is away for longer.
    PAUSE.wait(AWAY_S / 2)
    victim.start()
    # What cron does at its start.
    assert victim.run("bash", "plw-join.sh", cluster.head.address).returncode == 0
    PAUSE.wait(AWAY_S / 2)
    signal_mlflow(cluster, signal.SIGCONT)
    wait_until(lambda: has_ended(cluster, "disturbed"), "the end of the sweep", 900)
    check_done(cluster, "disturbed")
    assert cluster.trials("disturbed")[0]["attempts"] == 2
    log = cluster.folder("disturbed") / "trials" / cluster.trials("disturbed")[0]["id"] / "log.txt"
    assert "resumed from step" in log.read_text()
    assert cluster.scores("disturbed") == quiet_scores


@pytest.mark.full
def test_a_new_head_goes_on_where_the_lost_one_was(
    cluster: OnPremise, quiet_scores: list[dict[str, float]]
) -> None:
    sweep = write_spec(cluster, "beheaded")
    watching = cluster.start("submit", sweep, *CLUSTER)
    wait_until(lambda: len(cluster.steps("beheaded", 1)) > 30, "the second trial", 600)
    cluster.head.kill()
    first = cluster.trials("beheaded")[0]
    trained_at = (cluster.folder("beheaded") / "trials" / first["id"] / "train.json").stat()
    cluster.head.start()
    cluster.up()
    # Whoever watched has waited for the lost one for a minute.
    output, _ = watching.communicate(timeout=300)
    assert watching.returncode == 1, output
    assert "submit the same spec again" in output
    done = cluster.plw("submit", sweep, *CLUSTER)
    assert done.returncode == 0, done.stdout + done.stderr
    check_done(cluster, "beheaded")
    first_again, second = cluster.trials("beheaded")
    assert first_again == first
    path = cluster.folder("beheaded") / "trials" / first["id"] / "train.json"
    assert path.stat().st_mtime_ns == trained_at.st_mtime_ns
    log = cluster.folder("beheaded") / "trials" / second["id"] / "log.txt"
    assert "resumed from step" in log.read_text()
    assert cluster.scores("beheaded") == quiet_scores


@pytest.mark.full
def test_hosts_that_share_no_files_keep_a_sweep_in_an_object_store(
    cluster: OnPremise, quiet_scores: list[dict[str, float]]
) -> None:
    # Their home folders are their own.
    spec = write_spec(
        cluster, "stored", output_dir="/mnt/home/runs/stored", storage="s3://sweeps/runs"
    )
    done = cluster.plw("submit", spec, *CLUSTER)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = cluster.head.home / "runs" / "stored"
    ids = json.loads((folder / "sweep.json").read_text())["trial_ids"]
    assert scores_in(folder, ids) == quiet_scores
    lines = (folder / "trials" / ids[0] / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(1, NUM_STEPS + 1)]
    # The head has the records, and only the store the models.
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
    assert "mount the shared storage there" in done.stdout


def test_ray_down_ends_ray_on_every_host(cluster: OnPremise) -> None:
    cluster.ray("down", "--yes", str(ON_PREMISE))
    assert "gcs_server" not in cluster.head.run("ps", "ax").stdout

    def nothing_left() -> bool:
        hosts = (cluster.head, *cluster.workers)
        return not any("raylet" in host.run("ps", "ax").stdout for host in hosts)

    # A worker gives a head that is gone a minute to come back.
    wait_until(nothing_left, "the end of Ray on every host", 300)


def has_ended(cluster: OnPremise, sweep: str) -> bool:
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
