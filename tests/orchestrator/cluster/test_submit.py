"""Tests of `plw submit` up to the cluster: checks, the package, and rejected input."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from orchestrator.cli.job_entrypoint import sweep_folder
from orchestrator.cluster.job_package import (
    INPUTS,
    MAX_BYTES,
    SPEC_FILE,
    build_package,
    unpack_spec,
)
from orchestrator.cluster.submit import read_spec
from orchestrator.foundation.packages import PACKAGES, code_digest, package_files
from orchestrator.trials.network import find_interface, set_interfaces
from orchestrator.trials.nodes import DIGEST_VARIABLE, PROBE_FOLDER, check_node
from tests.orchestrator.plw import refused
from trainers.data.data_files import find_data_files
from trainers.foundation.errors import InputError

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster.yaml"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a spec with a model and data in its folder."""
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


def test_the_package_holds_code_spec_and_files_only(spec: Path, tmp_path: Path) -> None:
    package = build_package(content_of(spec), tmp_path / "sent")
    sent = {path.relative_to(tmp_path / "sent").parts[0] for path in package.folder.iterdir()}
    assert sent == {*PACKAGES, INPUTS, SPEC_FILE}
    assert package.num_bytes < 3 * 2**20
    files = {p.name for p in (package.folder / INPUTS).rglob("*") if p.is_file()}
    assert files == {"config.json", "mine.jsonl"}


def test_unpacked_files_have_the_same_path_for_every_head(spec: Path, tmp_path: Path) -> None:
    package = build_package(content_of(spec), tmp_path / "sent")
    sent = YAML(typ="safe").load(package.folder / SPEC_FILE)
    first = unpack_spec(sent, package.folder, tmp_path / "storage")
    again = unpack_spec(sent, package.folder, tmp_path / "storage")
    assert first == again
    assert Path(first["data"]["path"]).read_text() == (tmp_path / "mine.jsonl").read_text()
    assert (Path(first["model"]["path"]) / "config.json").exists()
    assert first["data"]["template"] == "plain"
    assert first["name"] == "mine"


def test_paths_on_the_cluster_are_unchanged(spec: Path, tmp_path: Path) -> None:
    write(spec, model={"path": "/mnt/models/large"}, output_dir=str(tmp_path))
    package = build_package(content_of(spec), tmp_path / "sent")
    sent = YAML(typ="safe").load(package.folder / SPEC_FILE)
    assert sent["model"]["path"] == "/mnt/models/large"
    assert sent["output_dir"] == str(tmp_path)


def test_files_of_sources_folders_and_patterns_are_sent(spec: Path, tmp_path: Path) -> None:
    for name in ("parts/a.jsonl.gz", "parts/b.csv", "parts/sub/c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    sources = [{"path": "mine.jsonl"}, {"path": "parts"}, {"path": "parts/**/*.jsonl"}]
    write(spec, data={"sources": sources, "template": "plain"})
    package = build_package(content_of(spec), tmp_path / "sent")
    sent = YAML(typ="safe").load(package.folder / SPEC_FILE)
    unpacked = unpack_spec(sent, package.folder, tmp_path / "storage")
    found = [find_data_files(source["path"]) for source in unpacked["data"]["sources"]]
    assert [[file.name for file in files] for files in found] == [
        ["mine.jsonl"],
        ["a.jsonl.gz", "b.csv", "sub/c.jsonl"],
        ["sub/c.jsonl"],
    ]
    assert found[2][0].path.read_text() == "parts/sub/c.jsonl"


def test_files_of_judged_benchmarks_are_sent(spec: Path, tmp_path: Path) -> None:
    names = ("prompts.json", "opponent.json", "davinci.json", "questions.jsonl", "answers.jsonl")
    for name in names:
        (tmp_path / name).write_text("[]")
    evals = {
        "pandalm_prompts": {"prompts": "prompts.json", "opponent": "opponent.json"},
        "alpaca_eval": {"reference": "davinci.json"},
        "judged": [{"name": "two", "path": "questions.jsonl", "reference": "answers.jsonl"}],
        "judge": {"base_url": "https://api.openai.com/v1", "model": "judge"},
    }
    write(spec, evals=evals)
    package = build_package(content_of(spec), tmp_path / "sent")
    sent = {p.name for p in (package.folder / INPUTS).rglob("*") if p.is_file()}
    assert sent == {"config.json", "mine.jsonl", *names}


@pytest.mark.parametrize("opponent", ["plw_0", "untuned"])
def test_a_named_opponent_is_no_file(spec: Path, tmp_path: Path, opponent: str) -> None:
    (tmp_path / opponent).mkdir()
    (tmp_path / "prompts.json").write_text("[]")
    evals = {
        "pandalm_prompts": {"prompts": "prompts.json", "opponent": opponent},
        "judge": {"base_url": "https://api.openai.com/v1", "model": "judge"},
    }
    write(spec, evals=evals)
    package = build_package(content_of(spec), tmp_path / "sent")
    sent = YAML(typ="safe").load(package.folder / SPEC_FILE)
    assert sent["evals"]["pandalm_prompts"]["opponent"] == opponent


@pytest.mark.parametrize("path", ["gone.csv.gz", "gone/*.jsonl"])
def test_missing_data_files_are_rejected(spec: Path, tmp_path: Path, path: str) -> None:
    write(spec, data={"sources": [{"path": path}], "template": "plain"})
    with pytest.raises(InputError, match="no such file on this machine, and a path on the cluster"):
        build_package(content_of(spec), tmp_path / "sent")


def test_a_missing_relative_file_is_rejected(spec: Path, tmp_path: Path) -> None:
    write(spec, data={"path": "gone.jsonl", "template": "plain"})
    with pytest.raises(
        InputError, match=r"gone\.jsonl: no such file on this machine, and a path on the"
    ):
        build_package(content_of(spec), tmp_path / "sent")


def test_data_from_a_hub_or_the_cluster_need_not_exist_locally(spec: Path, tmp_path: Path) -> None:
    paths = ["someone/some-data", "demo:python-docs-short", "/mnt/sweeps/data.jsonl"]
    for number, path in enumerate(paths):
        write(spec, data={"path": path, "template": "plain"})
        folder = tmp_path / f"sent-{number}"
        build_package(content_of(spec), folder)
        assert YAML(typ="safe").load(folder / SPEC_FILE)["data"]["path"] == path


def test_a_large_model_is_rejected_with_advice(spec: Path, tmp_path: Path) -> None:
    with (tmp_path / "model" / "model.safetensors").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="copy it to the cluster's storage and give its path"):
        build_package(content_of(spec), tmp_path / "sent")


def test_an_invalid_spec_is_rejected_before_any_connection(spec: Path) -> None:
    write(spec, loss={"prompt_loss_weight": 1.5})
    assert "loss.prompt_loss_weight" in refused("submit", spec, "--cluster", CLUSTER)


def test_a_storage_that_is_not_an_object_store_is_rejected(spec: Path) -> None:
    write(spec, storage="my-bucket/sweeps")
    message = refused("submit", spec, "--cluster", CLUSTER)
    assert "storage must be s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, got 'my-bucket/sweeps'" in (
        message
    )


def test_a_trial_that_fits_no_node_is_rejected_before_any_connection(spec: Path) -> None:
    write(spec, resources={"workers_per_trial": 1, "cpus_per_worker": 64})
    message = refused("submit", spec, "--cluster", CLUSTER)
    assert "a trial needs 1 worker of 64 CPU and 1 GPU each, but at most 0 fit on the cluster" in (
        message
    )


def test_a_cluster_option_is_required(spec: Path) -> None:
    assert "give either --cluster FILE or --address ADDRESS" in refused("submit", spec)


def test_a_file_that_is_not_a_cluster_config_is_rejected(spec: Path) -> None:
    message = refused("status", "mine", "--cluster", spec)
    assert "provider.type is missing; give the file for `ray up`" in message


def test_invalid_node_types_are_rejected(spec: Path, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("provider: {type: aws}\navailable_node_types: 3\n")
    message = refused("submit", spec, "--cluster", cluster)
    assert "cluster.yaml: available_node_types or max_workers is invalid" in message


def test_an_address_without_a_server_is_rejected(spec: Path) -> None:
    message = refused("submit", spec, "--address", "http://127.0.0.1:9")
    assert "no Ray cluster responds at http://127.0.0.1:9" in message
    assert "--cluster with the file given to `ray up`" in message


@pytest.mark.parametrize(
    ("given", "runs", "expected"),
    [
        (None, "/mnt/sweeps", "/mnt/sweeps/mine"),
        ("/data/here", "/mnt/sweeps", "/data/here"),
        ("here", "/mnt/sweeps", "/mnt/sweeps/here"),
        ("/data/here", None, "/data/here"),
    ],
)
def test_results_go_to_shared_storage(
    given: str | None, runs: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLW_RUNS_DIR", raising=False)
    if runs:
        monkeypatch.setenv("PLW_RUNS_DIR", runs)
    assert sweep_folder({"name": "mine", "output_dir": given}) == Path(expected)


def test_a_relative_output_dir_without_storage_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLW_RUNS_DIR", raising=False)
    with pytest.raises(InputError, match="output_dir must be an absolute path on storage"):
        sweep_folder({"name": "mine", "output_dir": "runs/mine"})


def test_a_node_with_other_code_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PROBE_FOLDER).mkdir()
    monkeypatch.setenv(DIGEST_VARIABLE, code_digest())
    check_node(tmp_path)
    monkeypatch.setenv(DIGEST_VARIABLE, "another")
    with pytest.raises(InputError, match="has different code of plw-sweep"):
        check_node(tmp_path)


def test_a_node_without_the_folder_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIGEST_VARIABLE, code_digest())
    with pytest.raises(InputError, match="does not see the sweep's folder"):
        check_node(tmp_path)


def test_the_code_digest_covers_templates() -> None:
    names = [name for name, _ in package_files()]
    assert "orchestrator/report/templates/report.html.j2" in names
    assert not any("__pycache__" in name for name in names)
    assert len(code_digest()) == 16


def test_documented_token_commands_make_the_token_private() -> None:
    # Ray creates the file readable by all users.
    lines = (ROOT / "docs" / "clusters.md").read_text().splitlines()
    commands = [line for line in lines if "get-auth-token --generate" in line]
    assert len(commands) == 2
    assert all(line.endswith("&& chmod 600 ~/.ray/auth_token") for line in commands)


def test_the_interface_is_found_by_its_address() -> None:
    assert find_interface("127.0.0.1") == "lo"
    assert find_interface("192.0.2.1") is None


def test_a_configured_interface_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    set_interfaces()
    import os

    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("lo", "ib0")
