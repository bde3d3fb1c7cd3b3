"""The documentation against the tree: links, the annotated tree and commands. test_docs_run.py runs its blocks."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from router.cli import cli
from tests.conftest import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "examples/README.md")]
PAGES = [ROOT / "README.md", *OTHERS, *DOCS]
TREE_PAGE = ROOT / "docs" / "how-it-is-built.md"
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """A page's headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tree() -> Iterator[tuple[str, str]]:
    """(path, what it is for) of each line of the annotated tree."""
    folders: list[str] = []
    for line in next(block for block in blocks(TREE_PAGE, "text") if "router/" in block).splitlines():
        name, _, purpose = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        yield "".join(folders), purpose.strip()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 1200


@EVERY_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_every_page_of_docs_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert [page.name for page in DOCS if page.name != "index.md" and f"({page.name})" not in index] == []


def test_the_tree_names_what_is_there() -> None:
    for path, purpose in tree():
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), f"{path} is not there"
        assert purpose, f"{path}: what is it for?"


def test_the_tree_names_every_module_and_folder() -> None:
    named = {path for path, _ in tree()}
    modules = [module for package in ("router", "training") for module in (ROOT / package).rglob("*.py")]
    expected = {module.relative_to(ROOT).as_posix() for module in modules if module.name != "__init__.py"}
    expected |= {f"{module.parent.relative_to(ROOT).as_posix()}/" for module in modules}
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["sdist"]
    expected |= {f"{path[1:]}/" for path in shipped["include"] if (ROOT / path[1:]).is_dir()}
    assert expected - named == set()


@EVERY_PAGE
def test_commands_exist(page: Path) -> None:
    """`tierwise X` in console blocks and between backticks; X may have commands of its own."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    spans = re.findall(r"`([^`]+)`", prose(page))
    for line in [*lines, *spans]:
        for name, option in re.findall(r"(?<![\w./-])tierwise (\w[\w-]*)(?: (\w[\w-]*))?", line):
            command = cli.get_command(click.Context(cli), name)
            assert command is not None, f"tierwise {name}: no such command"
            if isinstance(command, click.Group) and option:
                assert option in command.commands, f"tierwise {name} {option}: no such command"
