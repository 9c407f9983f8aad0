"""Tests of suggested commands: they must work on this machine or on the submitting laptop."""

from pathlib import Path

import pytest

from orchestrator.monitoring.command_hints import (
    CLUSTER_OPTIONS_VARIABLE,
    RUNS_VARIABLE,
    cluster_options_text,
    log_location,
    page_commands,
    resume_command,
    sweep_argument,
)
from orchestrator.record.folder import SweepFolder
from tests.orchestrator.plw import refused
from tests.orchestrator.sweeps import sweep_record

FOLDER = SweepFolder(Path("/mnt/sweeps/mine"))


@pytest.fixture
def on_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLUSTER_OPTIONS_VARIABLE, "--cluster cluster.yaml")
    monkeypatch.setenv(RUNS_VARIABLE, "/mnt/sweeps")


def test_an_address_is_shown_without_its_password() -> None:
    assert cluster_options_text("http://me:secret@head:8265", None) == "--address http://head:8265"


def test_a_local_sweep_is_named_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CLUSTER_OPTIONS_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder(tmp_path / "runs" / "mine")
    assert sweep_argument(folder) == "runs/mine"
    assert resume_command(sweep_record([], spec_path="mine.yaml")) == "plw sweep mine.yaml"
    assert log_location(folder, "t1") == f"{tmp_path}/runs/mine/trials/t1/log.txt"
    assert [command for command, _ in page_commands(folder)] == ["plw ui runs/mine"]


@pytest.mark.usefixtures("on_cluster")
def test_a_sweep_missing_on_a_new_head_suggests_a_submit(tmp_path: Path) -> None:
    message = refused("status", tmp_path / "mine")
    assert "no sweep in this folder: sweep.json is missing; give the name of a sweep" in message
    assert (
        "a new head downloads a sweep from its object store with plw submit SPEC --cluster "
        "cluster.yaml"
    ) in message


@pytest.mark.usefixtures("on_cluster")
def test_on_a_cluster_no_path_of_the_head_is_shown() -> None:
    assert sweep_argument(FOLDER) == "mine --cluster cluster.yaml"
    record = sweep_record([], spec_path="/tmp/ray/x/mine.yaml")
    assert resume_command(record) == "plw submit SPEC --cluster cluster.yaml"
    assert log_location(FOLDER) == "plw logs mine --cluster cluster.yaml"
    assert log_location(FOLDER, "t1") == "plw logs mine t1 --cluster cluster.yaml"
    assert [command for command, _ in page_commands(FOLDER)] == [
        "ray rsync-down cluster.yaml /mnt/sweeps/mine/report.html report.html",
        "plw ui --cluster cluster.yaml",
    ]


@pytest.mark.usefixtures("on_cluster")
def test_a_sweep_outside_of_the_runs_folder_is_named_by_its_folder() -> None:
    folder = SweepFolder(Path("/data/mine"))
    assert sweep_argument(folder) == "/data/mine --cluster cluster.yaml"


def test_a_cluster_with_an_address_has_no_page_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLUSTER_OPTIONS_VARIABLE, "--address http://head:8265")
    monkeypatch.setenv(RUNS_VARIABLE, "/mnt/sweeps")
    assert sweep_argument(FOLDER) == "mine --address http://head:8265"
    assert page_commands(FOLDER) == []


def test_a_file_name_with_a_space_is_quoted() -> None:
    assert cluster_options_text(None, Path("my cluster.yaml")) == "--cluster 'my cluster.yaml'"
    assert cluster_options_text("http://head:8265", None) == "--address http://head:8265"
