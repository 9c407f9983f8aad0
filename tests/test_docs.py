"""Every `plw` command of the README and the docs: it can be typed, and it does what it should."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from orchestrator.cli.main import main
from tests.evals.benchmark_files import write_data_root
from tests.evals.judge_endpoint import Endpoint, serving
from tests.orchestrator.plw import plw
from tests.orchestrator.sweeps import card, trial, write_sweep
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import whole_settings, write_data

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# A cloud, a paid endpoint, a model of a hub, or its data.
OUTSIDE = re.compile(r"--cluster|https://|--local-model|--tasks (?!.*--data-root)")
# These commands are run by the tests of what they show; the others of a page below.
RUN_PAGES = ("benchmarks.md", "data.md", "judge.md")
WEIGHTS = (0.0, 0.01, 0.1, 0.5, 1.0)
ACCURACY = "multiple_choice_accuracy"


def commands_of(page: Path) -> list[str]:
    """The commands in the code blocks of a page, whole, without prompt and comment."""
    blocks = re.findall(
        r"^ *```(?:console)?\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    lines = [
        line.strip().removeprefix("$ ")
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line.split(" #")[0].strip() for line in lines if line.startswith("plw ")]


ALL = [(page, command) for page in PAGES for command in commands_of(page)]


def test_there_are_commands_to_look_at() -> None:
    assert len(ALL) > 40
    assert {page.name for page, _ in ALL} >= {"README.md", "clusters.md", *RUN_PAGES}


@pytest.mark.parametrize("command", sorted({command for _, command in ALL}))
def test_a_command_is_one_that_plw_has(command: str) -> None:
    # What may be left out stands in brackets.
    words = shlex.split(re.sub(r"[\[\]]", "", command))[1:]
    found: click.Command = main
    context = click.Context(main)
    while isinstance(found, click.Group):
        assert words, f"{command} names no command"
        below = found.get_command(context, words[0])
        assert below is not None, f"there is no {words[0]} in {command}"
        found, words = below, words[1:]
    # Raises for an option that the command does not have.
    found.make_parser(click.Context(found)).parse_args(words)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the pages suppose to be there, under the names that they use."""
    folder = tmp_path_factory.mktemp("docs")
    save_tiny_model(folder / "CHECKPOINT")
    write_data_root(folder / "data")
    write_data(folder / "train.jsonl")
    _write_pandalm(folder)
    for name in ("alpaca-7b_outputs.json", "text_davinci_003_outputs.json"):
        outputs = [
            {"instruction": f"Do {n}.", "output": f"{name} {n % 3}", "generator": name}
            for n in range(25)
        ]
        (folder / name).write_text(json.dumps(outputs))
    _write_sweep(folder)
    with serving(Endpoint()) as judge:
        settings = {"base_url": judge.base_url, "model": "strict", "api_key_env": None,
                    "cache_dir": str(folder / "replies")}  # fmt: skip
        (folder / "judge.yaml").write_text(json.dumps(settings))
        yield folder


def _write_pandalm(folder: Path) -> None:
    labels = [(1, 1, 1), (1, 1, 2), (2, 2, 2), (0, 2, 2), (0, 0, 1)]
    pairs = [
        {"idx": n, "instruction": f"Do {n}.", "input": "", "response1": "a", "response2": "b"}
        | {f"annotator{person}": label for person, label in enumerate(of_pair, start=1)}
        for n, of_pair in enumerate(labels)
    ]
    (folder / "testset-v1.json").write_text(json.dumps(pairs))
    said = [
        {"idx": n, "gpt_result": verdict} for n, verdict in enumerate(["1", "2", "2", "2", "Tie"])
    ]
    (folder / "gpt-3.5-turbo-testset-v1.json").write_text(json.dumps(said))


def _write_sweep(folder: Path) -> None:
    """runs/my, of which PLW 0.1 is best beyond doubt, and my.yaml with the same settings."""
    trials, cards = [], {}
    # Up to 0.4 points that belong to neither weight nor seed.
    noise = [[0, 2, -2], [1, -2, 1], [-1, 0, 1], [2, -1, -1], [-2, 1, 1]]
    for weight, own in zip(WEIGHTS, noise, strict=True):
        for seed in (0, 1, 2):
            one = trial(weight, seed=seed).model_copy(
                update={"settings": whole_settings(folder, weight) | {"seed": seed}}
            )
            value = 0.8 - 0.6 * (weight**0.30103 - 0.5) ** 2 + 0.002 * seed + 0.002 * own[seed]
            trials.append(one)
            cards[one.id] = card({ACCURACY: (value, value - 0.03, value + 0.03)})
    write_sweep(folder / "runs" / "my", trials, cards)
    spec = whole_settings(folder, 0.1) | {
        "search": {"space": {"loss.prompt_loss_weight": [0, 0.1]}}
    }
    with (folder / "my.yaml").open("w") as file:
        YAML().dump(spec, file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=command.removeprefix("plw ")[:60])
        for page, command in ALL
        if page.name in RUN_PAGES and not OUTSIDE.search(command)
    ],
)
def test_a_command_of_the_docs_does_its_work(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(workplace)
    # Each final model is trained anew: another choice is not written over one that is there.
    shutil.rmtree(workplace / "runs" / "my" / "final", ignore_errors=True)
    shutil.rmtree(workplace / "scores", ignore_errors=True)
    if "short.jsonl" in command and "invert" not in command:
        write_data(workplace / "short.jsonl")
    elif "short.jsonl" in command:
        (workplace / "short.jsonl").unlink(missing_ok=True)
    result = plw(*shlex.split(command)[1:])
    assert result.output
