"""Tests of how commands find a sweep, its trials and their scores."""

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from orchestrator.cli.main import main
from orchestrator.monitoring.command_hints import RUNS_VARIABLE
from orchestrator.monitoring.lookup import find_scored_folders, find_sweep, find_sweep_and_trial
from orchestrator.record.folder import SweepFolder
from tests.orchestrator.plw import plw, refused
from tests.orchestrator.sweeps import BASE, trial, write_sweep
from trainers.foundation.errors import InputError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder's runs/, with the sweeps first and second; second is the latest."""
    monkeypatch.chdir(tmp_path)
    for name, plw_weight in (("first", 0.1), ("second", 0.5)):
        folder = write_sweep(tmp_path / "runs" / name, [trial(plw_weight)], {})
        folder.log.write_text(f"log of {name}\n")
        (folder.trial(folder.read_sweep().trial_ids[0]) / "log.txt").write_text(
            f"trial of {name}\n"
        )
    return tmp_path / "runs"


@pytest.mark.parametrize("given", ["first", "runs/first", "./runs/first", None])
def test_a_sweep_is_found_by_name_folder_or_default(runs: Path, given: str | None) -> None:
    expected = "second" if given is None else "first"
    assert find_sweep(given).root == runs / expected


def test_a_folder_precedes_a_sweep_of_this_name(runs: Path) -> None:
    here = write_sweep(runs.parent / "first", [trial(0.2)], {})
    assert find_sweep("first").root == here.root


def test_on_a_cluster_names_are_those_on_its_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(RUNS_VARIABLE, str(tmp_path / "storage"))
    folder = write_sweep(tmp_path / "storage" / "mine", [trial(0.1)], {})
    assert find_sweep("mine").root == find_sweep().root == folder.root


def test_an_unknown_sweep_is_rejected(runs: Path) -> None:
    assert refused("status", "third") == (
        "error: third: no sweep of this name in runs, and no such folder; give the name or folder "
        "of a sweep, such as demo or runs/demo; plw ls lists them"
    )


@pytest.mark.usefixtures("runs")
def test_a_misspelt_sweep_is_rejected_with_the_nearest_name() -> None:
    assert refused("status", "frist") == (
        "error: frist: no sweep of this name in runs, and no such folder; did you mean first? "
        "plw ls lists all sweeps"
    )


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ((), "log of second\n"),
        (("first",), "log of first\n"),
        (("first", "01s0"), "trial of first\n"),
        (("first", "01"), "trial of first\n"),
        (("05s0",), "trial of second\n"),
        (("sweep",), "log of second\n"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_logs_take_the_sweep_first(arguments: tuple[str, ...], output: str) -> None:
    assert plw("logs", *arguments).output == output


@pytest.mark.usefixtures("runs")
def test_arguments_in_the_wrong_order_are_rejected() -> None:
    assert refused("logs", "01s0", "first") == (
        "error: the sweep comes before the trial, got 01s0 first; give first 01s0"
    )


@pytest.mark.parametrize("command", ["logs", "stop"])
@pytest.mark.usefixtures("runs")
def test_a_single_argument_is_a_sweep_or_a_trial(command: str) -> None:
    assert refused(command, "third") == (
        "error: 'third' is neither a sweep in runs nor a trial of second, the latest sweep; plw ls "
        "lists the sweeps, plw status the trials"
    )


def test_a_trial_of_another_sweep_needs_its_sweep(runs: Path) -> None:
    assert find_sweep_and_trial("first", "01s0") == (SweepFolderAt(runs / "first"), "01s0")
    with pytest.raises(InputError, match="neither a sweep in runs nor a trial of second"):
        find_sweep_and_trial("01s0", None)


class SweepFolderAt(SweepFolder):
    """Equal to any sweep's folder with the same root."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SweepFolder) and other.root == self.root

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["first", "01s0"], "runs/first/trials/01s0"),
        (["05"], "runs/second/trials/05s0"),
        (["untuned"], f"runs/second/bases/{BASE}"),
        (["first", "untuned"], f"runs/first/bases/{BASE}"),
    ],
)
def test_scores_are_found_by_sweep_and_trial(runs: Path, names: list[str], expected: str) -> None:
    assert find_scored_folders(names, 1) == [runs.parent / expected]


@pytest.mark.usefixtures("runs")
def test_scores_are_found_by_folder() -> None:
    Path("scores").mkdir()
    assert find_scored_folders(["scores", "runs/gone"], 2) == [Path("scores"), Path("runs/gone")]


@pytest.mark.parametrize(
    ("command", "count", "names"),
    [
        (("compare",), "1 argument", "A B"),
        (("compare",), "4 arguments", "A B"),
        (("samples", "-o", "out"), "0 arguments", "MODEL"),
        (("samples", "-o", "out"), "3 arguments", "MODEL"),
    ],
)
def test_a_wrong_number_of_models_is_rejected(
    command: tuple[str, ...], count: str, names: str
) -> None:
    given = ["x"] * int(count.split(maxsplit=1)[0])
    assert f"give [SWEEP] {names}, got {count}\n" in refused(*command, *given) + "\n"


def test_clean_without_a_question_needs_its_sweep(runs: Path) -> None:
    assert "--yes requires SWEEP" in refused("clean", "--yes")


@pytest.mark.usefixtures("runs")
def test_the_shell_completes_sweeps_and_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    def offered(*words: str) -> list[str]:
        complete = BashComplete(main, {}, "plw", "_PLW_COMPLETE")
        return [item.value for item in complete.get_completions([*words[:-1]], words[-1])]

    assert offered("status", "") == ["second", "first"]
    assert offered("logs", "f") == ["first"]
    assert offered("stop", "first", "0") == ["01s0"]
    assert offered("compare", "0") == ["05s0"]
