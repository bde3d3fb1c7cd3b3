"""What the columns of a table are, by their names as people write them: the text, the required tier, and the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from router.types import Tier
from training.rows.errors import LabelError

TEXT_COLUMNS = ("text", "prompt", "query")
TIER_COLUMN = "tier"
SLICES = ("language", "category", "key", "class")
SAME_IN_ANY_CASE = ("messages", "id", "query_id", "weight", "conversation", "language", "category", "class")
"""Columns that are read as these, however their names are capitalized. `class` is the class of traffic, no tier."""

_TEXT_WORDS = ("text", "prompt", "query", "question", "message", "request", "input", "content", "instruction")
_TIER_WORDS = ("tier", "label", "complexity", "difficulty")
_WORD = re.compile(r"[^\W\d_]+")
_HUMP = re.compile(r"([a-z])([A-Z])")

Say = Callable[[str], None]


def is_known(name: object) -> bool:
    """Whether a header's cell is the name of a column that is looked for."""
    words = _words(name)
    return bool(words) and (words[-1] in {*_TEXT_WORDS, *_TIER_WORDS} or " ".join(words) in SAME_IN_ANY_CASE)


def other_names(names: Sequence[str]) -> dict[str, str]:
    """The columns of SAME_IN_ANY_CASE that are written otherwise, with the names that they are read by."""
    found = {}
    for known in SAME_IN_ANY_CASE:
        near = [name for name in names if _plain(name) == known]
        if known not in names and len(near) == 1:
            found[near[0]] = known
    return found


def find_named(given: str, names: Sequence[str], path: Path, option: str) -> str:
    """The column that an option names, in any case. Raises LabelError, listing what is there."""
    if given in names:
        return given
    same = [name for name in names if _plain(name) == _plain(given)]
    if len(same) == 1:
        return same[0]
    near = get_close_matches(given, names, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"it has {listed(names)}"
    raise LabelError(f"{path} has no column {given!r} ({option}); {remedy}")


def has_text(names: Sequence[str], given: str | None) -> bool:
    """Whether one of the columns is the given one or, without one, may hold the texts."""
    if given is not None:
        return _plain(given) in map(_plain, names)
    return "messages" in map(_plain, names) or bool(_like(names, _TEXT_WORDS))


def find_text(names: Sequence[str], path: Path, say: Say) -> str:
    """The column of the texts: `text`, `prompt` or `query`, else a guess, which is said.

    Raises LabelError, listing the columns, when there is none or more than one.
    """
    for name in TEXT_COLUMNS:
        if name in names:
            return name
    found = _like(names, _TEXT_WORDS)
    if len(found) == 1:
        say(f'text column: "{found[0]}" (guessed; --text-column says otherwise)')
        return found[0]
    if found:
        raise LabelError(f"{path}: {listed(found)} may each hold the texts; say which: --text-column {_quoted(found)}")
    near = [match for name in TEXT_COLUMNS for match in get_close_matches(name, names, n=1)]
    remedy = f"is it {near[0]!r}?" if near else f"it has {listed(names)};"
    header = "; its first row must name the columns" if any(map(_is_data, names)) else ""
    raise LabelError(
        f"{path} has no column {' or '.join(TEXT_COLUMNS)}; {remedy} say which holds the texts: --text-column NAME"
        f"{header}"
    )


def find_tier(
    names: Sequence[str], values_of: Callable[[str], Iterable[Any]], path: Path, say: Say, *, needed: bool = True
) -> str | None:
    """The column of the required tier: `tier`, else a guess, which is said; None where no name is like it.

    `values_of(name)` are the first values of a column; they decide between several. Where the tier is not `needed`,
    because scores say it too, only a column of tiers' names is taken. Raises LabelError for a guess among several.
    """
    if TIER_COLUMN in names:
        return TIER_COLUMN
    like = _like(names, _TIER_WORDS)
    holding = [name for name in like if hold_tiers(values_of(name))]
    found = holding if holding or not needed else like
    if len(found) > 1:
        raise LabelError(f"{path}: {listed(found)} may each hold the tier; say which: --tier-column {_quoted(found)}")
    if not found:
        return None
    say(f'tier column: "{found[0]}" (guessed; --tier-column says otherwise)')
    return found[0]


def no_tier(names: Sequence[str], values_of: Callable[[str], Iterable[Any]], path: Path) -> LabelError:
    """The error of labels without a tier: it names a column that holds tiers, whatever its name."""
    holding = [name for name in names if hold_tiers(values_of(name))]
    remedy = (
        f"{listed(holding)} holds tiers: --tier-column {_quoted(holding)}" if holding else f"it has {listed(names)}"
    )
    return LabelError(f"{path} has no column tier, and no scores in [0, 1] of models; {remedy}")


def hold_tiers(values: Iterable[Any]) -> bool:
    """Whether most of the values that are there are names of tiers."""
    there = [str(value).strip().lower() for value in values if isinstance(value, str) and value.strip()]
    return 2 * sum(value in list(Tier) for value in there) > len(there)


def listed(names: Iterable[str]) -> str:
    """Names as an error lists them."""
    return ", ".join(f'"{name}"' if " " in str(name) else str(name) for name in names)


def _like(names: Sequence[str], words: Sequence[str]) -> list[str]:
    """The names that are one of the words, whatever their case and number; else those whose last word is one."""
    known = {*words, *(f"{word}s" for word in words if word != "message"), "queries"} if "text" in words else {*words}
    whole = [name for name in names if _plain(name) in known]
    return whole or [name for name in names if (parts := _words(name)) and parts[-1] in known]


def _plain(name: object) -> str:
    return str(name).strip().lower()


def _words(name: object) -> list[str]:
    """`userMessage`, `user_message` and `User message` are two words."""
    return _WORD.findall(_HUMP.sub(r"\1 \2", str(name)[:200]).lower())


def _quoted(names: Sequence[str]) -> str:
    return f'"{names[0]}"'


def _is_data(name: str) -> bool:
    """Whether a name looks like a value: the file may have no header."""
    return len(name) > 60 or _plain(name) in list(Tier)
