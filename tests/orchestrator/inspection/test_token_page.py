"""Tests of the page of `plw data show --html`."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from tests.orchestrator.plw import plw, refused
from tests.tiny_model import save_tiny_model


class PageText(HTMLParser):
    """Collects the tags of a page, the titles of its tokens, and its text by class."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "i":
            self.titles.append(str(given["title"]))
        self.links += [str(given[key]) for key in ("href", "src") if key in given]


def test_the_page_shows_text_and_tokens_and_needs_nothing_else(tmp_path: Path) -> None:
    rows = [
        {"prompt": "<script>x</script>", "completion": "a & b"},
        {"prompt": "Q", "response": "k"},
    ]
    data, page = tmp_path / "d.jsonl", tmp_path / "page.html"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = save_tiny_model(tmp_path / "model")
    options = ("data", "show", data, "--model", model, "--template", "plain", "--html", page)
    assert plw(*options, "--plw", 0.5).output == f"wrote {page}: 2 of 2 examples\n"
    content = page.read_text()
    found = PageText(content)
    assert "script" not in found.tags
    assert found.links == ["#e0", "#e1"]
    assert "http" not in content
    assert "&lt;script&gt;x&lt;/script&gt;" in content  # rendered text
    assert "<b>user, weight 0.5, 18 tokens</b>" in content
    assert found.titles[-1] == "position 4, id 1 <eos>, completion, weight 1"
    assert re.search(r"prefers-color-scheme: dark", content)
    assert "file exists" in refused(*options)
