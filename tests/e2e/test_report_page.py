"""The report's page in a real browser: hover, keyboard, scales, samples, dark mode and print."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report
from tests.e2e.browser import DESK, PHONE, console, needs_browser, open_browser, set_phone
from tests.orchestrator.plw import plw
from tests.orchestrator.sweeps import write_hill

pytestmark = [pytest.mark.slow, needs_browser]
SCHEMES = ("light", "dark")
# (red, green, blue, alpha) of each text's colour and of the backgrounds behind it.
TEXT_COLOURS = """
const parse = (c) => c.match(/[\\d.]+/g).map(Number);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
  if (!text || element.closest("script, style") || !element.checkVisibility()) continue;
  const behind = [];
  for (let each = element; each; each = each.parentElement)
    behind.push(parse(getComputedStyle(each).backgroundColor));
  found.push([text.slice(0, 60), parse(getComputedStyle(element).color), behind]);
}
return found;
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A finished sweep of seven weights and three seeds, with 30 sampled outputs per trial."""
    folder = write_hill(tmp_path_factory.mktemp("report") / "runs" / "demo")
    for number, trial in enumerate(folder.read_trials()):
        samples = [
            {
                "measure": "essays.chrf",
                "id": str(item),
                "prompt": f"Describe <b>object {item}</b>.",
                "target": "str.split",
                "output": f"</script> output {item} of {trial.id}",
                "value": (item * number) % 7 / 7,
            }
            for item in range(30)
        ]
        text = "".join(json.dumps(sample) + "\n" for sample in samples)
        (folder.trial(trial.id) / "samples.jsonl").write_text(text)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(driver: webdriver.Chrome, sweep: SweepFolder) -> webdriver.Chrome:
    """A browser that shows the report in the light scheme."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.set_window_size(*DESK)
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    set_scheme(driver, "light")
    console(driver)
    driver.get(sweep.report_html.as_uri())
    return driver


def set_scheme(browser: webdriver.Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})


def focused(browser: webdriver.Chrome) -> WebElement:
    return browser.switch_to.active_element


def visible_scales(browser: webdriver.Chrome) -> list[str | None]:
    figures = browser.find_elements(By.CSS_SELECTOR, "#plots figure")
    return [figure.get_attribute("data-scale") for figure in figures if figure.is_displayed()]


def test_the_page_needs_no_other_file_and_logs_nothing(
    browser: webdriver.Chrome, sweep: SweepFolder
) -> None:
    requests = browser.execute_script(
        "return performance.getEntriesByType('resource').map((each) => each.name)"
    )
    assert [address for address in requests if not address.startswith("data:")] == []
    assert console(browser) == []
    html = sweep.report_html.read_text()
    assert re.findall(r'(?:src|href)="(?!data:image)', html) == []
    assert "://" not in re.sub(r"<pre.*?</pre>|<script.*?</script>", "", html, flags=re.DOTALL)


def test_a_point_shows_its_values_under_the_pointer(browser: webdriver.Chrome) -> None:
    [best] = browser.find_elements(
        By.CSS_SELECTOR, "#plots figure:first-child [aria-label^='PLW 0.25:']"
    )
    text = best.find_element(By.TAG_NAME, "span")
    assert not text.is_displayed()
    ActionChains(browser).move_to_element(best).perform()
    assert text.is_displayed()
    # 12 of hill's trials have this weight and seeds 0, 1, 2; the values are those of the table.
    row = browser.find_element(By.XPATH, "//table[@id='means']//tr[td[1]='0.25']").text
    value, low, high = re.findall(r"[\d.]+", row)[1:4]
    assert text.text.startswith(f"PLW 0.25: {value}, 95% interval {low} to {high}; by seed 0: ")


def test_points_lie_on_the_marks_of_the_plot(browser: webdriver.Chrome) -> None:
    """The pixel in the middle of each point is blue, in a screenshot of the figure."""
    figure = browser.find_element(By.CSS_SELECTOR, "#plots figure:first-child")
    browser.execute_script("arguments[0].scrollIntoView()", figure)
    box = figure.rect
    points = figure.find_elements(By.CLASS_NAME, "point")
    assert len(points) == 7
    places = [
        (
            point.rect["x"] + point.rect["width"] / 2 - box["x"],
            point.rect["y"] + point.rect["height"] / 2 - box["y"],
        )
        for point in points
    ]
    pixels = browser.execute_async_script(
        """
        const [source, places, done] = arguments;
        const image = new Image();
        image.onload = () => {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [image.width, image.height];
          const context = canvas.getContext("2d", {willReadFrequently: true});
          context.drawImage(image, 0, 0);
          done(places.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]));
        };
        image.src = source;
        """,
        f"data:image/png;base64,{figure.screenshot_as_base64}",
        places,
    )
    # BLUE of the plots is (31, 95, 168).
    for red, green, blue, _ in pixels:
        assert blue > 130
        assert red < 80
        assert green < 140


def test_the_keyboard_reaches_points_scales_tables_and_samples(browser: webdriver.Chrome) -> None:
    reached: set[str] = set()
    for _ in range(200):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        element = focused(browser)
        if element.tag_name == "body":
            break
        if element.get_attribute("class") == "point":
            assert element.find_element(By.TAG_NAME, "span").is_displayed()
        style = browser.execute_script(
            "return getComputedStyle(arguments[0]).outlineStyle", element
        )
        assert style != "none"
        reached.add(f"{element.tag_name} {element.get_attribute('class')}".strip())
    assert reached == {"input", "button point", "div wide", "select"}


def test_arrow_keys_switch_between_points_and_log_odds(browser: webdriver.Chrome) -> None:
    # The loss has one scale.
    assert visible_scales(browser) == [*["points"] * 4, None]
    browser.find_element(By.CSS_SELECTOR, "input[value='points']").send_keys(Keys.ARROW_DOWN)
    assert visible_scales(browser)[:4] == ["log-odds"] * 4
    images = browser.find_elements(By.CSS_SELECTOR, "#plots figure[data-scale='log-odds'] img")
    # ln(0.424 / 0.576) is -0.31.
    assert "PLW 0.25: -0.31, 95% interval" in str(images[0].get_attribute("alt"))


def test_two_trials_are_chosen_for_the_samples(browser: webdriver.Chrome) -> None:
    def outputs(side: int) -> list[str]:
        cells = browser.find_elements(By.CSS_SELECTOR, f"#samples td[data-side='{side}'] pre")
        return [cell.text for cell in cells]

    first, second = (
        Select(select)
        for select in browser.find_elements(By.CSS_SELECTOR, "#sample-choices select")
    )
    assert first.first_selected_option.text == "PLW 0, seed 0, 00"
    assert second.first_selected_option.text == "PLW 0.01, seed 0, 03"
    assert len(outputs(0)) == 20
    assert all(re.fullmatch(r"</script> output \d+ of 00", text) for text in outputs(0))
    second.select_by_visible_text("PLW 1, seed 0, 18")
    assert all(re.fullmatch(r"</script> output \d+ of 18", text) for text in outputs(1))
    assert all(text.endswith(" of 00") for text in outputs(0))
    headings = browser.find_elements(By.CSS_SELECTOR, "#samples th")
    assert headings[2].text == "B: PLW 1, seed 0, 18"
    assert console(browser) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_has_a_contrast_of_at_least_4_5(browser: webdriver.Chrome, scheme: str) -> None:
    set_scheme(browser, scheme)
    found = browser.execute_script(TEXT_COLOURS)
    assert len(found) > 300
    body = blended([0, 0, 0, 0], found[0][2])
    assert body == ([255, 255, 255] if scheme == "light" else [20, 20, 20])
    low = [
        (text, ratio)
        for text, colour, behind in found
        if (ratio := contrast(blended(colour, behind), blended([0, 0, 0, 0], behind))) < 4.5
    ]
    assert low == []


def blended(colour: list[float], behind: list[list[float]]) -> list[float]:
    """Return the colour that is seen over the backgrounds, from front to back, on white."""
    seen, share = [0.0, 0.0, 0.0], 1.0
    for red, green, blue, *alpha in (colour, *behind, [255, 255, 255]):
        part = share * (alpha[0] if alpha else 1.0)
        seen = [old + part * new for old, new in zip(seen, (red, green, blue), strict=True)]
        share -= part
    return [round(value) for value in seen]


def contrast(one: list[float], other: list[float]) -> float:
    """Return the contrast ratio of two sRGB colours. Source: WCAG 2.1, contrast ratio."""

    def luminance(colour: list[float]) -> float:
        linear = [
            c / 12.92 if (c := value / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for value in colour
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_known_colours() -> None:
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    # The grey that just passes on white.
    assert contrast([118, 118, 118], [255, 255, 255]) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("is_phone", [True, False], ids=["phone", "desk"])
def test_no_part_is_wider_than_the_screen(browser: webdriver.Chrome, is_phone: bool) -> None:
    if is_phone:
        set_phone(browser, PHONE)
    width, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width <= window


def test_without_scripts_the_page_shows_two_trials_and_both_scales(
    browser: webdriver.Chrome,
) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.refresh()
    assert not browser.find_element(By.ID, "sample-choices").is_displayed()
    assert browser.find_element(By.ID, "samples").text.count("</script> output") == 40
    browser.find_element(By.CSS_SELECTOR, "input[value='log-odds']").click()
    assert visible_scales(browser)[:4] == ["log-odds"] * 4
    [point] = browser.find_elements(
        By.CSS_SELECTOR, "#plots figure[data-scale='log-odds'] [aria-label^='PLW 0.1:']"
    )[:1]
    ActionChains(browser).move_to_element(point).perform()
    assert point.find_element(By.TAG_NAME, "span").is_displayed()


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext: poppler-utils")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_printed_page_is_complete(
    browser: webdriver.Chrome, sweep: SweepFolder, tmp_path: Path, scheme: str
) -> None:
    set_scheme(browser, scheme)
    texts: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, p, li, td, th')]"
        ".filter((each) => each.checkVisibility() && !each.closest('.choices'))"
        ".map((each) => each.innerText)"
    )
    printed: dict[str, Any] = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    path = tmp_path / "report.pdf"
    path.write_bytes(base64.b64decode(printed["data"]))
    found = subprocess.run(
        ["pdftotext", "-raw", str(path), "-"], capture_output=True, text=True, check=True
    )
    # Lines break elsewhere on paper, also within words.
    paper = "".join(found.stdout.split())
    assert len(texts) > 200
    assert [
        line for text in texts for line in text.splitlines() if "".join(line.split()) not in paper
    ] == []
    # The plots are part of the page.
    assert "(higherisbetter)" in paper


def test_the_comparison_page_has_both_schemes(
    browser: webdriver.Chrome, sweep: SweepFolder, tmp_path: Path
) -> None:
    page = tmp_path / "pair.html"
    plw("compare", sweep.trial("00"), sweep.trial("18"), "--html", page)
    browser.get(page.as_uri())
    for scheme in SCHEMES:
        set_scheme(browser, scheme)
        for text, colour, behind in browser.execute_script(TEXT_COLOURS):
            ratio = contrast(blended(colour, behind), blended([0, 0, 0, 0], behind))
            assert ratio >= 4.5, text
    assert console(browser) == []
