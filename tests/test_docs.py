"""The README, CONTRIBUTING.md and docs/: their `plw` commands run, the paths they name exist."""

import ast
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from orchestrator.cli.main import main
from tests.evals.benchmark_files import write_data_root
from tests.evals.judge_endpoint import Endpoint, serving
from tests.orchestrator.plw import plw
from tests.orchestrator.sweeps import BASE, card, trial, write_sweep
from tests.test_layers import MODULES, ORDER
from tests.tiny_model import save_tiny_model
from tests.trainers.tiny_runs import whole_settings, write_data

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MAPS = (ROOT / "CONTRIBUTING.md", ARCHITECTURE)
# Commands that are only parsed here, by the reason. All others run.
PARSED_ONLY = {
    "a cluster": (
        "plw submit my.yaml --cluster cluster.yaml",
        "plw submit my.yaml --cluster examples/clusters/on-premise.yaml",
        "plw ls --cluster cluster.yaml",
        "plw status my --cluster cluster.yaml -w",
        "plw logs my TRIAL --cluster cluster.yaml -f",
        "plw stop my --cluster cluster.yaml",
        "plw ui --cluster cluster.yaml",
        "plw status /mnt/sweeps/demo",
        "plw clean /mnt/sweeps/my --keep best",
    ),
    "a paid endpoint, or a model or data of a hub": (
        "plw judge validate --data testset-v1.json --base-url https://api.openai.com/v1 "
        "--model gpt-4o-mini -o validation",
        "plw judge validate --data testset-v1.json --local-model Qwen/Qwen2.5-7B-Instruct "
        "-o validation",
        "plw eval out/model --tasks arc_challenge,piqa --limit 100 -o scores-tasks",
        "plw eval CHECKPOINT --tasks piqa --num-fewshot 5 --seed 1 -o scores",
    ),
    # tests/e2e/test_sweep.py, tests/orchestrator/cli/test_demo.py and test_notify.py
    "minutes of training with Ray": (
        "plw demo",
        "plw sweep my.yaml",
        "plw sweep demo.yaml --set 'search.seeds=[0, 1, 2, 3, 4, 5]'",
        'plw sweep my.yaml --notify \'mail -s "$PLW_SWEEP: $PLW_STATE" me@example.org < '
        '"$PLW_FOLDER/report.md"\'',
    ),
    # tests/e2e/test_browser.py, tests/e2e/test_serve.py, tests/orchestrator/monitoring
    "a server, or a running sweep": (
        "plw ui demo",
        "plw serve --config serve.yaml",
        "plw stop demo [TRIAL]",
        "plw stop demo 3f7b",
    ),
}
# Other programs in the pages, with the reason why they are not run.
OTHER_PROGRAMS = {
    **dict.fromkeys(("make",), "the targets exist; CI runs make test-all"),
    **dict.fromkeys(("source", "python3", "pip", "uv", "pipx"), "network; see test_package.py"),
    **dict.fromkeys(("docker",), "no builder in CI"),
    **dict.fromkeys(("torchrun",), "as python -m trainers, which tests/e2e runs on two ranks"),
    **dict.fromkeys(("aws", "ray", "SG", "FS", "for", "$EDITOR"), "an account of AWS, or hosts"),
}
WEIGHTS = (0.0, 0.01, 0.1, 0.5, 1.0)
ACCURACY = "quiz.acc"
DEPENDENCIES = (
    *("deepspeed", "lm_eval", "mlflow", "optuna", "peft", "ray.train", "ray.tune"),
    *("ray.job_submission", "sacrebleu"),
)


def commands_of(page: Path) -> list[str]:
    """Return the `plw` commands in a page's code blocks, without prompt and comment.

    In a block with prompts, lines without one are output.
    """
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language in ("", "console")]
    lines = []
    for block in blocks:
        found = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        prompted = [line.removeprefix("$ ") for line in found if line.startswith("$ ")]
        lines += prompted or found
    return [line.split(" #")[0].strip() for line in lines if line.startswith("plw ")]


COMMANDS = [(page, command) for page in PAGES for command in commands_of(page)]
ALL_PARSED_ONLY = [*chain(*PARSED_ONLY.values())]


def test_pages_contain_commands() -> None:
    assert len(COMMANDS) > 40
    assert {page.name for page, _ in COMMANDS} >= {"README.md", "clusters.md", "data.md"}


def test_commands_that_are_only_parsed_occur_in_a_page() -> None:
    assert set(ALL_PARSED_ONLY) - {command for _, command in COMMANDS} == set()


def test_other_programs_are_listed_and_make_has_the_targets() -> None:
    lines = [
        line
        for page in PAGES
        for line in re.findall(r"^ *\$ (.+)$", page.read_text(), re.MULTILINE)
        if not line.startswith("plw ")
    ]
    assert {re.split(r"[ =]", line)[0] for line in lines} == set(OTHER_PROGRAMS)
    targets = {line.split()[1] for line in lines if line.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert targets >= {"demo", "setup", "test"}
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("command", sorted({command for _, command in COMMANDS}))
def test_plw_has_the_command_and_its_options(command: str) -> None:
    # Brackets mark optional arguments.
    words = shlex.split(re.sub(r"[\[\]]", "", command))[1:]
    found: click.Command = main
    context = click.Context(main)
    while isinstance(found, click.Group):
        if found.invoke_without_command and (not words or words[0].startswith("-")):
            break
        assert words, f"{command} names no command"
        subcommand = found.get_command(context, words[0])
        assert subcommand is not None, f"{command}: plw has no command {words[0]}"
        found, words = subcommand, words[1:]
    # Raises for an unknown option.
    found.make_parser(click.Context(found)).parse_args(words)


# A path below one of the repository's folders.
PATH = re.compile(
    r"`((?:trainers|evals|orchestrator|benchmarks|tests|docs|examples|\.ci)/[\w./-]*)`"
)
# `name` in `path`, also `name` of `class` in `path` and several names in one path.
NAMED = re.compile(r"((?:`\w+`(?:, | and | or )?)+)(?: of `\w+`)? in `([\w./-]+\.py)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_named_in_a_page_exist(page: Path) -> None:
    paths = set(PATH.findall(page.read_text()))
    assert len(paths) > 30 or page not in MAPS
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.name)
def test_names_are_defined_in_the_files_that_a_page_names(page: Path) -> None:
    pairs = [
        (name, path)
        for names, path in NAMED.findall(page.read_text())
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert len(pairs) > 10
    assert [
        f"{name} in {path}" for name, path in pairs if name not in defined_in(ROOT / path)
    ] == []


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.name)
def test_constants_and_classes_that_a_page_names_exist(page: Path) -> None:
    sources = [
        path for top in (*ORDER, "benchmarks", "tests") for path in ROOT.glob(f"{top}/**/*.py")
    ]
    defined = set().union(*map(defined_in, sources))
    # Constants such as A_NAME, classes such as SomeName, both also with a leading underscore.
    names = set(re.findall(r"`(_?[A-Z]+_[A-Z_]+|_?(?:[A-Z][a-z]+){2,})`", page.read_text()))
    assert len(names) >= 3
    assert names - defined == set()


def defined_in(path: Path) -> set[str]:
    """Return the functions, classes, fields and constants of a module, none if it is missing."""
    if not path.exists():
        return set()
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("package", ORDER)
def test_architecture_lists_the_packages_in_import_order(package: str) -> None:
    section = ARCHITECTURE.read_text().split(f"### {package}/")[1].split("\n#")[0]
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)] == [
        *ORDER[package]
    ]


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_architecture_names_the_modules_that_import_a_dependency(dependency: str) -> None:
    [row] = [
        line
        for line in ARCHITECTURE.read_text().splitlines()
        if line.startswith(f"| `{dependency}` |")
    ]
    importing = {
        str(path.relative_to(ROOT))
        for path in MODULES.values()
        if any(
            name == dependency or name.startswith(f"{dependency}.")
            for name in imports_at_run_time(path)
        )
    }
    assert set(re.findall(r"`([\w/]+\.py)`", row)) == importing


def imports_at_run_time(path: Path) -> set[str]:
    """Return the modules that a file imports, without those for type checkers alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_dependencies_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    table = (ROOT / "docs" / "dependencies.md").read_text().split("## Size")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    first_cells = [cell for cell in first_cells if cell != " package "]
    listed = [
        name.split("[")[0].strip()
        for cell in first_cells
        for name in re.sub(r"\[.*?\]", "", cell).split(",")
    ]
    assert set(listed) == {re.split(r"[\[>=]", requirement)[0] for requirement in required}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with every file that the pages' commands read, under the names that they use."""
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
    _write_sweep(folder, "my")
    _write_sweep(folder, "demo")
    _write_tables(folder)
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
    judgements = [
        {"idx": n, "gpt_result": verdict} for n, verdict in enumerate(["1", "2", "2", "2", "Tie"])
    ]
    (folder / "gpt-3.5-turbo-testset-v1.json").write_text(json.dumps(judgements))


def _write_tables(folder: Path) -> None:
    for name, sign in (("my", 1), ("losses", -1)):
        rows = [
            f"quiz,{plw},{seed},{0.5 + sign * 0.1 * plw + 0.01 * seed + 0.001 * (seed * plw % 0.3)}"
            for plw in WEIGHTS
            for seed in range(3)
        ]
        (folder / f"{name}.csv").write_text("\n".join(["benchmark,plw,seed,score", *rows]) + "\n")
    write_data(folder / "my.jsonl")
    save_tiny_model(folder / "my-model")


def _write_sweep(folder: Path, name: str) -> None:
    """Write runs/NAME, in which PLW 0.1 is clearly best, and NAME.yaml with the same settings.

    Two trials of the sweep have the ids that pages use.
    """
    trials, cards = [], {}
    # Residuals of up to 0.4 points, by weight and seed.
    noise = [[0, 2, -2], [1, -2, 1], [-1, 0, 1], [2, -1, -1], [-2, 1, 1]]
    for weight, residuals in zip(WEIGHTS, noise, strict=True):
        for seed in (0, 1, 2):
            one = trial(weight, seed=seed).model_copy(
                update={"settings": whole_settings(folder, weight) | {"seed": seed}}
            )
            value = (
                0.8 - 0.6 * (weight**0.30103 - 0.5) ** 2 + 0.002 * seed + 0.002 * residuals[seed]
            )
            named = {(0.0, 0): "3f7b03f0a0", (0.0, 1): "badc85df90"}
            one = one.model_copy(update={"id": named.get((weight, seed), one.id)})
            trials.append(one)
            cards[one.id] = card({ACCURACY: (value, value - 0.03, value + 0.03)})
    untuned = card({ACCURACY: (0.4, 0.35, 0.45)})
    written = write_sweep(folder / "runs" / name, trials, cards, untuned)
    (written.baseline(BASE) / "log.txt").write_text("scoring the untuned model\n")
    written.log.write_text("sweep ended\n")
    for one in trials:
        samples = [
            {"measure": "quiz", "id": str(item), "prompt": f"Question {item}?", "target": "yes",
             "output": f"{one.id} {item}", "value": float(item % 3 > one.settings["seed"] % 2)}
            for item in range(12)
        ]  # fmt: skip
        text = "".join(json.dumps(sample) + "\n" for sample in samples)
        (written.trial(one.id) / "samples.jsonl").write_text(text)
    spec = whole_settings(folder, 0.1) | {
        "search": {"space": {"loss.prompt_loss_weight": [0, 0.1]}}
    }
    with (folder / f"{name}.yaml").open("w") as file:
        YAML().dump(spec, file)
    with (folder / "config.yaml").open("w") as file:
        YAML().dump(whole_settings(folder, 0.1), file)


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=command.removeprefix("plw ")[:60])
        for command in dict.fromkeys(command for _, command in COMMANDS)
        if command not in ALL_PARSED_ONLY
    ],
)
def test_a_documented_command_runs(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(workspace)
    # `plw train --best` refuses to replace another choice, so each command starts without one.
    shutil.rmtree(workspace / "runs" / "my" / "final", ignore_errors=True)
    for name in ("scores", "out", "final", "plw-serve"):
        shutil.rmtree(workspace / name, ignore_errors=True)
    # Commands refuse to replace what another command wrote.
    for path in (*workspace.glob("*.html"), *workspace.glob("swift*")):
        path.unlink()
    if "out/model" in command:
        save_tiny_model(workspace / "out" / "model")
    if command.startswith("plw init"):
        (workspace / "new").mkdir()
        monkeypatch.chdir(workspace / "new")
    if command in ("plw serve keys list", "plw serve keys remove ann"):
        plw("serve", "keys", "add", "ann")
    command = (
        command.replace("SWEEP", "demo")
        .replace("TRIAL1", "3f7b")
        .replace("TRIAL2", "badc")
        .replace("TRIAL", "3f7b")
    )
    if "short.jsonl" in command and "invert" not in command:
        write_data(workspace / "short.jsonl")
    elif "short.jsonl" in command:
        (workspace / "short.jsonl").unlink(missing_ok=True)
    spec = (workspace / "my.yaml").read_text()
    if "--spec my.yaml" in command:
        (workspace / "my.yaml").unlink()
    result = plw(*shlex.split(command)[1:])
    assert result.output
    (workspace / "my.yaml").write_text(spec)
