"""Pages of the documentation: links, commands that exist, and the width of prose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from r1ray.cli import build_app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
KNOWN: dict[str, set[str]] = {
    "r1ray": set(typer.main.get_command(build_app()).commands),  # type: ignore[attr-defined]
    "make": set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)),
}
COMMAND = re.compile(r"(?:^|`|\$ |  )(r1ray|make) ([a-z][\w-]*)", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_anchor_is_a_heading(page: Path) -> None:
    anchors = [(link, anchor) for link, anchor in ANCHOR.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [a for link, a in anchors if a not in headings(page.parent / link if link else page)] == []


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists(page: Path) -> None:
    """In code, where a command begins a line, a span or a prompt; `r1ray` in a sentence is not a command."""
    code = "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    assert [found for found in COMMAND.findall(code) if found[1] not in KNOWN[found[0]]] == []


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
        queue += [(page.parent / link).resolve() for link in links]
    assert set(PAGES) - seen == set()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_prose_is_within_100_columns(page: Path) -> None:
    """Tables, code and lines of one unbreakable word are not prose."""
    code, wide = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        code ^= line.startswith("```")
        if len(line) > 100 and not code and not line.startswith(("|", "    ")) and " " in line.strip()[:100]:
            wide.append(number)
    assert wide == []
