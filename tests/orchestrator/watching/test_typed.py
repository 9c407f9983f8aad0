"""What is printed of a sweep can be typed where it is read: here, or on the submitting laptop."""

from pathlib import Path

import pytest

from orchestrator.record.folder import SweepFolder
from orchestrator.watching.typed import (
    RUNS_VARIABLE,
    TARGET_VARIABLE,
    target_of,
    typed_again,
    typed_log,
    typed_pages,
    typed_sweep,
)
from tests.orchestrator.plw import refused

FOLDER = SweepFolder(Path("/mnt/sweeps/mine"))


@pytest.fixture
def on_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TARGET_VARIABLE, "--cluster cluster.yaml")
    monkeypatch.setenv(RUNS_VARIABLE, "/mnt/sweeps")


def test_an_address_is_named_without_its_password() -> None:
    assert target_of("http://me:secret@head:8265", None) == "--address http://head:8265"


def test_here_a_sweep_is_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TARGET_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder(tmp_path / "runs" / "mine")
    assert typed_sweep(folder) == "runs/mine"
    assert typed_again("mine.yaml") == "plw sweep mine.yaml"
    assert typed_log(folder, "t1") == f"{tmp_path}/runs/mine/trials/t1/log.txt"
    assert [command for command, _ in typed_pages(folder)] == ["plw ui runs/mine"]


@pytest.mark.usefixtures("on_cluster")
def test_a_sweep_that_a_new_head_does_not_have_is_submitted_again(tmp_path: Path) -> None:
    message = refused("status", tmp_path / "mine")
    assert "no sweep here: sweep.json is missing; give the name of a sweep" in message
    assert (
        "a new head fetches one from its object store upon plw submit SPEC --cluster cluster.yaml"
    ) in message


@pytest.mark.usefixtures("on_cluster")
def test_of_a_cluster_no_path_of_its_head_is_named() -> None:
    assert typed_sweep(FOLDER) == "mine --cluster cluster.yaml"
    assert typed_again("/tmp/ray/x/mine.yaml") == "plw submit SPEC --cluster cluster.yaml"
    assert typed_log(FOLDER) == "plw logs sweep mine --cluster cluster.yaml"
    assert typed_log(FOLDER, "t1") == "plw logs t1 mine --cluster cluster.yaml"
    assert [command for command, _ in typed_pages(FOLDER)] == [
        "ray rsync-down cluster.yaml /mnt/sweeps/mine/report.html report.html",
        "plw ui --cluster cluster.yaml",
    ]


@pytest.mark.usefixtures("on_cluster")
def test_a_sweep_elsewhere_on_the_cluster_is_named_by_its_folder() -> None:
    folder = SweepFolder(Path("/data/mine"))
    assert typed_sweep(folder) == "/data/mine --cluster cluster.yaml"


def test_a_cluster_reached_by_address_has_no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TARGET_VARIABLE, "--address http://head:8265")
    monkeypatch.setenv(RUNS_VARIABLE, "/mnt/sweeps")
    assert typed_sweep(FOLDER) == "mine --address http://head:8265"
    assert typed_pages(FOLDER) == []


def test_a_file_with_a_space_can_be_pasted() -> None:
    assert target_of(None, Path("my cluster.yaml")) == "--cluster 'my cluster.yaml'"
    assert target_of("http://head:8265", None) == "--address http://head:8265"
