"""The documentation as a site: it builds without warnings, and its links lead to files."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[1]


class Links(HTMLParser):
    """Addresses of links and images, and ids of elements, of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("a", "img"):
            self.addresses += [value for name in ("href", "src") if (value := values.get(name))]
        if values.get("id"):
            self.ids.add(str(values["id"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_every_page_is_in_the_site_and_the_readme_is_its_home(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("index.html")}
    for source in (ROOT / "docs").rglob("*.md"):
        path = source.relative_to(ROOT / "docs").with_suffix("")
        place = path.parent if path.name == "README" else path
        assert f"{place.as_posix()}/index.html" in pages
    assert {f"repository/{name}/index.html" for name in ("CONTRIBUTING", "CHANGELOG")} <= pages
    home = (site / "index.html").read_text()
    assert "make demo" in home
    assert "tied for best: PLW 0 and 0.242" in home


def test_links_of_the_site_lead_to_files_and_anchors(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 25
    broken = []
    for path, page in pages.items():
        for address in page.addresses:
            if re.match(r"[a-z]+:", address):
                continue
            place, anchor = urldefrag(address)
            target = (path.parent / unquote(place)).resolve() if place else path
            target = target / "index.html" if target.is_dir() else target
            is_found = target.is_file()
            if is_found and anchor and target in pages:
                is_found = unquote(anchor) in pages[target].ids
            if not is_found:
                broken.append(f"{path.relative_to(site)}: {address}")
    assert broken == []


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]


@pytest.mark.parametrize(
    "page",
    [*PAGES, *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_links_work_where_the_repository_is_browsed(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text)
    broken = []
    for place, anchor in links:
        if re.match(r"[a-z]+:", place):
            continue
        target = (page.parent / place).resolve() if place else page
        is_found = target.exists() and target.is_relative_to(ROOT)
        if is_found and anchor:
            is_found = anchor in anchors_of(target)
        if not is_found:
            broken.append(f"{place}#{anchor}")
    assert broken == []


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    }


def test_the_reference_of_commands_is_that_of_the_code() -> None:
    # In a process of its own: click keeps the help option of the first context of a command.
    command = [sys.executable, "-m", "orchestrator.cli.reference"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "commands.md").read_text() == found.stdout
