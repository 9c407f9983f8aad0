"""MkDocs hooks: pages outside of docs/, and links that also work in the repository.

A page links to files by their path in the repository, such as `../examples/demo.yaml`, so that the
links work where the repository is browsed. In the site, README.md is `index.md`, and each other
linked file outside of docs/ is `repository/PATH`.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
HOME, OUTSIDE = "README.md", "repository"
# Pages of the site that no page links to, or that only other such pages link to.
_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "examples/README.md")
# The target of a link or image without scheme, in text but not in code blocks.
_LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?(\))")
_CODE_BLOCK = re.compile(r"(^ *```.*?^ *```)", re.DOTALL | re.MULTILINE)


def site_path(path: str) -> str:
    """Return the source path in the site of a file, given its path in the repository."""
    if path == HOME:
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{OUTSIDE}/{path}"


def repository_path(path: str) -> str:
    """Return the path in the repository of a file, given its source path in the site."""
    if path == "index.md":
        return HOME
    return path.removeprefix(f"{OUTSIDE}/") if path.startswith(f"{OUTSIDE}/") else f"docs/{path}"


def links_of(text: str, path: str) -> set[str]:
    """Return the files, by their path in the repository, that the page at `path` links to."""
    folder = posixpath.dirname(path)
    texts = _CODE_BLOCK.split(text)[::2]
    return {
        posixpath.normpath(posixpath.join(folder, match[2]))
        for part in texts
        for match in _LINK.finditer(part)
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md, and the files outside of docs/ that pages link to."""
    pages = {
        HOME,
        *_PAGES,
        *(repository_path(file.src_uri) for file in files.documentation_pages()),
    }
    linked = {
        target
        for page in pages
        for target in links_of((ROOT / page).read_text(encoding="utf-8"), page)
    }
    for path in sorted({HOME, *_PAGES, *linked}):
        if not path.startswith("docs/") and (ROOT / path).is_file():
            source = str(ROOT / path)
            files.append(File.generated(config, site_path(path), abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links to source paths of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(repository_path(here))

    def replaced(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        link = posixpath.relpath(site_path(target), posixpath.dirname(here) or ".")
        return f"{match[1]}{link}{match[3] or ''}{match[4]}"

    parts = _CODE_BLOCK.split(markdown)
    parts[::2] = [_LINK.sub(replaced, part) for part in parts[::2]]
    return "".join(parts)
