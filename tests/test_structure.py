"""Imports that point one way, functions that fit on a screen, modules that can be read in one go."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from tests.conftest import ROOT

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 400
MODULES = sorted(
    path for package in ("router", "training", "benchmarks", "examples") for path in (ROOT / package).rglob("*.py")
)

EVERY_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def test_imports_point_one_way() -> None:
    """The layers of pyproject.toml, as `make lint` checks them."""
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("router", "training", exclude_type_checking_imports=False)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert list(graphlib.TopologicalSorter(imports).static_order())


@EVERY_MODULE
def test_functions_are_short(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    assert [(name, n) for name, n in lines if n > MAX_FUNCTION_LINES] == []


@EVERY_MODULE
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_MODULE_LINES


@EVERY_MODULE
def test_no_function_is_called_just_read(path: Path) -> None:
    """The verb says what is read: read_labels, read_report."""
    top_level = ast.parse(path.read_text("utf-8")).body
    assert "read" not in [node.name for node in top_level if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
