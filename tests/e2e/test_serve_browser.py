"""The page `/` of `plw serve` in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from orchestrator.report.pages import write_report
from tests.e2e.browser import PHONE, console, needs_browser, open_browser, page_text, set_phone
from tests.e2e.plw import poll
from tests.e2e.serve import Serve
from tests.orchestrator.serve.api import Server, chat_lines, config_of, jsonl, serving
from tests.orchestrator.sweeps import write_hill

pytestmark = [pytest.mark.slow, needs_browser]
# In CSS pixels: WCAG 2.2's smallest target.
SMALLEST_TARGET = 24


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with 21 jobs: one failed, one done with a report and a long name, others queued."""
    with serving(config_of(tmp_path / "model"), tmp_path / "data") as running:
        client, store = running.client(), running.service.store
        file = client.files.create(file=jsonl(chat_lines()), purpose="fine-tune").id
        jobs = [
            client.fine_tuning.jobs.create(
                model="tiny", training_file=file, suffix="s" * 64,
                extra_body={"prompt_loss_weight": "auto"},
            ).id
            for _ in range(21)
        ]  # fmt: skip
        error = {"code": "x", "message": f"not found: {'long' * 60}", "param": None}
        store.update_job(jobs[1], status="failed", error=error)
        record = store.job(jobs[0])
        assert record is not None
        store.update_job(jobs[0], status="succeeded", fine_tuned_model=record.model_name)
        write_report(write_hill(running.service.folder.job(jobs[0]).sweep))
        yield running


def assert_fits(browser: webdriver.Chrome) -> None:
    """Assert that nothing is wider than a phone's screen, and that links can be touched."""
    assert browser.execute_script("return window.innerWidth") == PHONE[0]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    for element in browser.find_elements(By.CSS_SELECTOR, "main *"):
        box = element.rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE[0]
    for link in browser.find_elements(By.TAG_NAME, "a"):
        assert link.rect["height"] >= SMALLEST_TARGET, link.text
    size = browser.execute_script("return getComputedStyle(document.body).fontSize")
    assert float(size.removesuffix("px")) >= 16


def test_jobs_and_their_report_are_readable_on_a_phone(
    server: Server, browser: webdriver.Chrome
) -> None:
    set_phone(browser, PHONE)
    browser.get(server.url)
    assert len(browser.find_elements(By.TAG_NAME, "article")) == 20
    assert_fits(browser)
    browser.find_element(By.LINK_TEXT, "older jobs").click()
    [oldest] = browser.find_elements(By.TAG_NAME, "article")
    assert "succeeded" in oldest.text
    assert_fits(browser)
    browser.find_element(By.LINK_TEXT, "report of the sweep").click()
    assert "PLW" in browser.find_element(By.TAG_NAME, "p").text
    images = browser.find_elements(By.TAG_NAME, "img")
    assert images
    assert all(image.get_property("naturalWidth") for image in images)
    assert console(browser) == []


def test_the_page_follows_a_job_without_a_reload(browser: webdriver.Chrome, tmp_path: Path) -> None:
    serve = Serve(tmp_path)
    serve.start()
    try:
        set_phone(browser, PHONE)
        browser.get(serve.url)
        assert "No jobs yet" in page_text(browser)
        browser.execute_script("window.isTheSamePage = true")
        job = serve.client.fine_tuning.jobs.create(
            model="tiny",
            training_file=serve.upload(),
            hyperparameters={"n_epochs": 20},
        )
        poll(lambda: "running" in page_text(browser), "the job to run", timeout_s=120)
        poll(lambda: "training loss" in page_text(browser), "the loss", timeout_s=120)
        poll(lambda: "succeeded" in page_text(browser), "the job's end", timeout_s=300)
        text = page_text(browser)
        assert job.id in text
        assert "step 100 of 100" in text
        assert str(serve.wait(job.id).fine_tuned_model) in text
        assert_fits(browser)
        assert browser.execute_script("return window.isTheSamePage")
        assert console(browser) == []
    finally:
        serve.close()
