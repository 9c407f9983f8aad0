"""The report and MLflow's pages in a real browser."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import mlflow
import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By

from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report
from tests.e2e.browser import DESK, PHONE, needs_browser, open_browser, page_text
from tests.e2e.plw import poll
from tests.orchestrator.plw import plw
from tests.orchestrator.sweeps import write_hill

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep of seven weights and three seeds, with a report and MLflow runs."""
    folder = write_hill(tmp_path_factory.mktemp("pages") / "runs" / "demo")
    write_report(folder)
    plw("sync", folder.root)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def first_page(sweep: SweepFolder) -> Iterator[str]:
    """Start `plw ui` and return the page that it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [Path(sys.executable).with_name("plw"), "ui", sweep.root, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        printed = server.stdout.readline()
        poll(lambda: _answers(f"http://127.0.0.1:{port}"), "MLflow to answer")
        yield printed.removeprefix("MLflow: ").split()[0]
    finally:
        server.terminate()
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def pages(first_page: str) -> str:
    """Return the address of MLflow's pages."""
    return first_page.partition("/#")[0]


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.ConnectionError:
        return False


def shown(browser: webdriver.Chrome, address: str, *texts: str) -> str:
    """Return the text of a page once it contains all of `texts`."""
    browser.get("about:blank")
    browser.get(address)
    poll(lambda: all(text in page_text(browser) for text in texts), f"{address} to show {texts}")
    return page_text(browser)


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_report_starts_with_the_answer_and_fits_the_screen(
    sweep: SweepFolder, browser: webdriver.Chrome, size: tuple[int, int]
) -> None:
    browser.set_window_size(*size)
    browser.get(sweep.report_html.as_uri())
    first = browser.find_element(By.TAG_NAME, "p")
    assert "PLW" in first.text
    assert first.rect["y"] < size[1] / 2
    width, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width <= window
    images = browser.find_elements(By.TAG_NAME, "img")
    assert images
    assert all(image.get_attribute("alt") for image in images)
    assert all(image.get_property("naturalWidth") for image in images)


def test_plw_ui_opens_the_charts_of_the_sweeps_trials(
    sweep: SweepFolder, browser: webdriver.Chrome, first_page: str
) -> None:
    browser.set_window_size(*DESK)
    browser.set_script_timeout(300)
    losses = {
        path.parent.name: score["value"]
        for path in sweep.root.glob("trials/*/scores.json")
        for score in json.loads(path.read_text())["scores"]
        if score["name"] == "heldout_completion_loss"
    }
    best = sorted(losses, key=lambda trial: losses[trial])
    assert len(best) == 21
    text = shown(browser, first_page, "21 matching runs", f" · {best[-1]}\n", "eval/aggregate")
    lines = text.splitlines()
    listed = [line for line in lines if line.startswith("PLW ") and "(" not in line]
    # The sweep's own run has no chart; the trials are sorted by the objective.
    assert [line.rpartition(" · ")[2] for line in listed] == best
    assert "Sort: eval/heldout_completion_loss" in lines
    sections = [lines[n - 1] for n, line in enumerate(lines) if re.fullmatch(r"\(\d+\)", line)]
    assert sections == ["eval", "interval", "train", "Model metrics", "System metrics"]


def runs_of(sweep: SweepFolder) -> tuple[str, dict[str, str]]:
    """Return the experiment's id, and the ids of its runs by name."""
    client = mlflow.MlflowClient(f"sqlite:///{sweep.root.parent / 'mlflow.db'}")
    [experiment] = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    return experiment.experiment_id, {run.info.run_name: run.info.run_id for run in runs}


def test_the_sweep_run_shows_the_answer_and_the_report(
    sweep: SweepFolder, browser: webdriver.Chrome, pages: str
) -> None:
    browser.set_window_size(*DESK)
    experiment, runs = runs_of(sweep)
    page = f"{pages}/#/experiments/{experiment}/runs/{runs['demo']}"
    shown(browser, page, "Overall: best PLW 0.2", "answer/overall_best_plw")
    shown(browser, f"{page}/artifacts", "report.html", "plots")


def test_mlflow_compares_two_weights(
    sweep: SweepFolder, browser: webdriver.Chrome, pages: str
) -> None:
    experiment, runs = runs_of(sweep)
    chosen = [
        run for name, run in runs.items() if name.startswith(("PLW 0 · seed 0", "PLW 1 · seed 0"))
    ]
    assert len(chosen) == 2
    query = f"runs={quote(json.dumps(chosen))}&experiments={quote(json.dumps([experiment]))}"
    text = shown(
        browser,
        f"{pages}/#/compare-runs?{query}",
        "PLW 0 · seed 0",
        "PLW 1 · seed 0",
        "eval/aggregate_multiple_choice",
    )
    assert "loss.prompt_loss_weight" in text


def test_a_trial_run_names_its_data_and_its_model_can_be_registered(
    sweep: SweepFolder, browser: webdriver.Chrome, pages: str
) -> None:
    experiment, runs = runs_of(sweep)
    [trial] = [run for name, run in runs.items() if name.startswith("PLW 0.1 · seed 0")]
    shown(
        browser,
        f"{pages}/#/experiments/{experiment}/runs/{trial}",
        "demo:python-docs-short",
        "System metrics",
        "plw-0_1-seed-0",
    )
    client = mlflow.MlflowClient(f"sqlite:///{sweep.root.parent / 'mlflow.db'}")
    [model] = client.search_logged_models([experiment], f"source_run_id = '{trial}'")
    shown(
        browser,
        f"{pages}/#/experiments/{experiment}/models/{model.model_id}",
        "Register model",
        "eval/aggregate_multiple_choice",
        "Ready",
    )
