"""Tests of suggested commands: they must work on this machine or on the submitting laptop."""

from pathlib import Path

import pytest

from orchestrator.monitoring.command_hints import (
    CLUSTER_OPTIONS_VARIABLE,
    RUNS_VARIABLE,
    cluster_options_text,
    log_location,
    more_seeds_command,
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


@pytest.mark.parametrize(
    ("next_seeds", "command"),
    [
        (
            [2, 2, 3, 3],
            "plw sweep mine.yaml --set schedule.steps=6 --set 'search.seeds=[0, 1, 2, 3]'",
        ),
        ([2], None),  # One of the two weights: the whole grid would be more.
        ([1, 1], None),  # Missing trials of a seed in use.
        ([], None),
    ],
)
def test_command_for_new_seeds_of_all_weights(
    monkeypatch: pytest.MonkeyPatch, next_seeds: list[int], command: str | None
) -> None:
    monkeypatch.delenv(CLUSTER_OPTIONS_VARIABLE, raising=False)
    space = {"loss.prompt_loss_weight": [0, 0.2]}
    spec = {"search": {"method": "grid", "space": space, "seeds": [0, 1]}}
    overrides = ["schedule.steps=6", "search.seeds=[0, 1]"]
    trial_ids = ["a", "b", "c", "d"]
    sweep = sweep_record(trial_ids, spec=spec, spec_path="mine.yaml", overrides=overrides)
    assert more_seeds_command(sweep, next_seeds) == command


def test_command_for_a_second_seed_of_a_sweep_without_seeds() -> None:
    spec = {"search": {"method": "grid", "space": {}, "seeds": None}, "seed": 3}
    sweep = sweep_record(["a", "b"], spec=spec, spec_path="mine.yaml", overrides=[])
    assert more_seeds_command(sweep, [4, 4]) == "plw sweep mine.yaml --set 'search.seeds=[3, 4]'"


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
