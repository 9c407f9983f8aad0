"""`plw submit` before any cluster is asked: what is checked, what is sent, what is refused."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from orchestrator.cli.submitted import sweep_folder
from orchestrator.cluster.shipment import INPUTS, MAX_BYTES, SPEC_FILE, pack, unpack_spec
from orchestrator.cluster.submit import read_spec
from orchestrator.foundation.packages import PACKAGES, code_digest, package_files
from orchestrator.trials.network import interface_of, set_interfaces
from orchestrator.trials.nodes import DIGEST_VARIABLE, PROBE_FOLDER, check_node
from tests.orchestrator.plw import refused
from trainers.foundation.errors import InputError

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster.yaml"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec that names a model and data beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    return write(tmp_path / "mine.yaml")


def write(path: Path, **sections: Any) -> Path:
    content = {
        "model": {"path": "model"},
        "data": {"path": "mine.jsonl", "template": "plain"},
        "search": {"method": "grid", "space": {"loss.prompt_loss_weight": [0, 1]}},
        **sections,
    }
    with path.open("w") as file:
        YAML().dump(content, file)
    return path


def content_of(spec: Path) -> dict[str, Any]:
    return read_spec(spec, output_dir=None, tracking_uri=None)


def test_code_spec_and_files_are_sent_and_nothing_else(spec: Path, tmp_path: Path) -> None:
    shipment = pack(content_of(spec), tmp_path / "sent")
    sent = {path.relative_to(tmp_path / "sent").parts[0] for path in shipment.folder.iterdir()}
    assert sent == {*PACKAGES, INPUTS, SPEC_FILE}
    assert shipment.num_bytes < 3 * 2**20
    files = {p.name for p in (shipment.folder / INPUTS).rglob("*") if p.is_file()}
    assert files == {"config.json", "mine.jsonl"}


def test_files_are_at_the_same_place_for_every_head(spec: Path, tmp_path: Path) -> None:
    shipment = pack(content_of(spec), tmp_path / "sent")
    sent = YAML(typ="safe").load(shipment.folder / SPEC_FILE)
    first = unpack_spec(sent, shipment.folder, tmp_path / "storage")
    again = unpack_spec(sent, shipment.folder, tmp_path / "storage")
    assert first == again
    assert Path(first["data"]["path"]).read_text() == (tmp_path / "mine.jsonl").read_text()
    assert (Path(first["model"]["path"]) / "config.json").exists()
    assert first["data"]["template"] == "plain"
    assert first["name"] == "mine"


def test_what_is_only_on_the_cluster_stays_as_it_is_written(spec: Path, tmp_path: Path) -> None:
    write(spec, model={"path": "/mnt/models/large"}, output_dir=str(tmp_path))
    shipment = pack(content_of(spec), tmp_path / "sent")
    sent = YAML(typ="safe").load(shipment.folder / SPEC_FILE)
    assert sent["model"]["path"] == "/mnt/models/large"
    assert sent["output_dir"] == str(tmp_path)


def test_a_file_that_is_neither_here_nor_there_is_refused(spec: Path, tmp_path: Path) -> None:
    write(spec, data={"path": "gone.jsonl", "template": "plain"})
    with pytest.raises(
        InputError, match=r"gone\.jsonl: no such file here, and on the cluster only"
    ):
        pack(content_of(spec), tmp_path / "sent")


def test_data_of_a_hub_or_the_cluster_need_not_be_here(spec: Path, tmp_path: Path) -> None:
    paths = ["someone/some-data", "demo:python-docs-short", "/mnt/sweeps/data.jsonl"]
    for number, path in enumerate(paths):
        write(spec, data={"path": path, "template": "plain"})
        folder = tmp_path / f"sent-{number}"
        pack(content_of(spec), folder)
        assert YAML(typ="safe").load(folder / SPEC_FILE)["data"]["path"] == path


def test_a_large_model_is_refused_with_what_to_do(spec: Path, tmp_path: Path) -> None:
    with (tmp_path / "model" / "model.safetensors").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="copy it to the cluster's storage once and name its path"):
        pack(content_of(spec), tmp_path / "sent")


def test_a_broken_spec_is_refused_before_the_cluster_is_asked(spec: Path) -> None:
    write(spec, loss={"prompt_loss_weight": 1.5})
    assert "loss.prompt_loss_weight" in refused("submit", spec, "--cluster", CLUSTER)


def test_a_storage_that_is_no_object_store_is_refused(spec: Path) -> None:
    write(spec, storage="my-bucket/sweeps")
    message = refused("submit", spec, "--cluster", CLUSTER)
    assert "storage must be s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, got 'my-bucket/sweeps'" in (
        message
    )


def test_a_trial_that_no_node_can_hold_is_refused_before_the_cluster_is_asked(spec: Path) -> None:
    write(spec, resources={"workers_per_trial": 1, "cpus_per_worker": 64})
    message = refused("submit", spec, "--cluster", CLUSTER)
    assert "a trial needs 1 worker of 64 CPU and 1 GPU each, but the cluster holds at most 0" in (
        message
    )


def test_a_cluster_must_be_named(spec: Path) -> None:
    assert "Give either --cluster FILE or --address URL" in refused("submit", spec)


def test_a_file_that_is_no_cluster_is_refused(spec: Path) -> None:
    message = refused("status", "mine", "--cluster", spec)
    assert "it has no provider.type; give the file that `ray up` takes" in message


def test_node_types_that_cannot_be_read_are_refused(spec: Path, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("provider: {type: aws}\navailable_node_types: 3\n")
    message = refused("submit", spec, "--cluster", cluster)
    assert "cluster.yaml: its available_node_types or max_workers cannot be read" in message


def test_an_address_where_nothing_answers_is_refused(spec: Path) -> None:
    message = refused("submit", spec, "--address", "http://127.0.0.1:9")
    assert "no Ray cluster answers at http://127.0.0.1:9" in message
    assert "--cluster with the file that `ray up` took" in message


@pytest.mark.parametrize(
    ("given", "runs", "expected"),
    [
        (None, "/mnt/sweeps", "/mnt/sweeps/mine"),
        ("/data/here", "/mnt/sweeps", "/data/here"),
        ("here", "/mnt/sweeps", "/mnt/sweeps/here"),
        ("/data/here", None, "/data/here"),
    ],
)
def test_results_go_to_the_storage(
    given: str | None, runs: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLW_RUNS_DIR", raising=False)
    if runs:
        monkeypatch.setenv("PLW_RUNS_DIR", runs)
    assert sweep_folder({"name": "mine", "output_dir": given}) == Path(expected)


def test_results_without_a_place_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLW_RUNS_DIR", raising=False)
    with pytest.raises(InputError, match="output_dir must be an absolute path on storage"):
        sweep_folder({"name": "mine", "output_dir": "runs/mine"})


def test_a_node_with_other_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PROBE_FOLDER).mkdir()
    monkeypatch.setenv(DIGEST_VARIABLE, code_digest())
    check_node(tmp_path)
    monkeypatch.setenv(DIGEST_VARIABLE, "another")
    with pytest.raises(InputError, match="runs other code of plw-sweep"):
        check_node(tmp_path)


def test_a_node_that_does_not_see_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIGEST_VARIABLE, code_digest())
    with pytest.raises(InputError, match="does not see the sweep's folder"):
        check_node(tmp_path)


def test_the_digest_of_the_code_knows_templates_too() -> None:
    names = [name for name, _ in package_files()]
    assert "orchestrator/report/templates/report.html.j2" in names
    assert not any("__pycache__" in name for name in names)
    assert len(code_digest()) == 16


def test_every_documented_token_is_one_that_its_owner_alone_reads() -> None:
    # Ray makes the file for everybody to read.
    lines = (ROOT / "docs" / "clusters.md").read_text().splitlines()
    made = [line for line in lines if "get-auth-token --generate" in line]
    assert len(made) == 2
    assert all(line.endswith("&& chmod 600 ~/.ray/auth_token") for line in made)


def test_the_interface_is_the_one_with_the_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


def test_an_interface_that_a_person_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    set_interfaces()
    import os

    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("lo", "ib0")
