"""Words of many languages, from words.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

_UNSPACED = ("ja", "ar", "hi")
"""Languages whose words are looked for anywhere: they have no spaces between them, or hang endings on them."""


@cache
def table(name: str) -> dict[str, Any]:
    """A table of the file."""
    found: dict[str, Any] = _file()[name]
    return found


@cache
def vocabulary(name: str) -> frozenset[str]:
    """A table of plain words, of all languages."""
    return frozenset(word for words in table(name).values() for word in words)


def alternatives(name: str) -> str:
    """All patterns of a table, as one of a regular expression."""
    return "|".join(pattern for patterns in table(name).values() for pattern in patterns)


def spaced(name: str) -> str:
    """Those that stand between word boundaries."""
    return "|".join(p for language, patterns in table(name).items() if language not in _UNSPACED for p in patterns)


def unspaced(name: str) -> str:
    """Those of the other languages."""
    return "|".join(p for language, patterns in table(name).items() if language in _UNSPACED for p in patterns)


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
