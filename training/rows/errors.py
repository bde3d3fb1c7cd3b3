"""What is said of rows that cannot be used: the file, the row as a spreadsheet numbers it, and how its text starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from router.errors import TierwiseError

START = 40
"""Characters of a text that stand for it in an error."""


class LabelError(TierwiseError):
    """Rows that cannot be used: a wrong file, column or value, or too few of something."""


def row_of(number: int, text: Any = None) -> str:
    """`row 7 ("How do I reset my")`; without a text, `row 7`."""
    start = " ".join(text[: 4 * START].split()) if isinstance(text, str) else ""
    if len(start) > START:
        start = f"{start[:START].rstrip()}..."
    return f'row {number} ("{start}")' if start else f"row {number}"


def bad_row(path: Path, number: int, text: Any, why: str) -> LabelError:
    """The error of one row."""
    return LabelError(f"{path}: {row_of(number, text)}: {why}")
