"""Parse a report's HTML page for tests."""

from html.parser import HTMLParser
from pathlib import Path

from orchestrator.record.folder import SweepFolder
from orchestrator.report.pages import write_report

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Content of a page: text by element id, tables by id, images, addresses and headings.

    Images on the scale of log odds, which are hidden at first, are separate. `points` are the
    texts of the points of plots.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[dict[str, str]] = []
        self.log_odds_images: list[dict[str, str]] = []
        self.points: list[str] = []
        self._scale: str | None = None
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self._open: list[tuple[str, str | None]] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.addresses += [values[key] for key in ("src", "href", "srcset") if key in values]
        if tag == "figure":
            self._scale = values.get("data-scale")
        if tag == "img":
            found = self.log_odds_images if self._scale == "log-odds" else self.images
            found.append(values)
        if values.get("class") == "point":
            self.points.append(values["aria-label"])
        if tag in VOID:
            return
        self._open.append((tag, values.get("id")))
        if tag == "table":
            self.tables[values.get("id", f"table {len(self.tables)}")] = []
        if tag == "tr":
            list(self.tables.values())[-1].append([])
        if tag in ("td", "th"):
            list(self.tables.values())[-1][-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1][0] == tag
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for tag, element_id in self._open:
            if element_id:
                self.ids[element_id] = self.ids.get(element_id, "") + data
            if tag in ("td", "th"):
                list(self.tables.values())[-1][-1][-1] += data
            if tag in ("h1", "h2"):
                self.headings[-1] += data


def read_page(folder: SweepFolder) -> Page:
    """Write the report of the sweep in `folder` and return its page."""
    return Page(write_report(folder))
