"""Sizes that the code keeps, so that a function fits on a screen and a module can be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 400
MODULES = sorted(path for package in ("router", "training") for path in (ROOT / package).rglob("*.py"))

pytestmark = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


def test_functions_are_short(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    assert [(name, n) for name, n in lines if n > MAX_FUNCTION_LINES] == []


def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_MODULE_LINES


def test_no_function_is_called_just_read(path: Path) -> None:
    """The verb says what is read: read_labels, read_report."""
    top_level = ast.parse(path.read_text("utf-8")).body
    assert "read" not in [node.name for node in top_level if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
