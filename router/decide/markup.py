"""A text -> the blocks that somebody marked in it: tags, bracketed and ruled sections, headings and labels; pure.

Each text is passed over once: every pattern here is anchored or bounded, so no text takes more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

READ_CHARS = 65_536
"""How much of a message is read: half of it from its start, half from its end."""

_TITLE_WORDS = 10
_CUT = "\n...\n"
_TAG = re.compile(r"```|<(/?)([^\W\d][\w.:-]{0,60})(?:[ \t\n][^<>]{0,400})?>")
_MARKER = re.compile(
    r"^[ \t]{0,4}(?:((?:#{1,6}[ \t]|\*\*|__|==|--|~~|\[|<\|)[^\n]{0,120}+)$|([^\W\d_][^\n:：.?!]{0,64}+)[:：])",
    re.MULTILINE,
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")
_DECORATION = "#*=_~-[]| :：\t>"


class Block(msgspec.Struct, frozen=True):
    """A marked stretch of a text: [start, end) with its marks, [inner_start, inner_end) without."""

    name: str
    start: int
    inner_start: int
    inner_end: int
    end: int


class Marker(msgspec.Struct, frozen=True):
    """A line, or the start of one, that names what follows: "## Title", "**Title**", "=== TITLE ===", "Title: ...".

    [start, end) is the mark itself; what it names begins at `end`. `is_label` is a name with text behind its colon.
    """

    title: str
    start: int
    end: int
    is_label: bool


def bounded(text: str) -> str:
    """The text, or the head and tail of a long one. A tag that the cut leaves open takes the rest of the head along."""
    if len(text) <= READ_CHARS:
        return text
    half = READ_CHARS // 2
    head, tail = text[:half], text[-half:]
    still_open: dict[str, int] = {}
    for closes, name, start, _ in _tags(head):
        if not closes:
            still_open.setdefault(name, start)
        else:
            still_open.pop(name, None)
    closed_later = {name for closes, name, _, _ in _tags(tail) if closes}
    cut = min((start for name, start in still_open.items() if name in closed_later and start > 0), default=half)
    return head[: max(cut, 1024)] + _CUT + tail if cut < half else head + _CUT + tail


def blocks(text: str) -> list[Block]:
    """The outermost tags that open at the start of a line, or behind another tag, and are closed; in their order.

    Tags inside a closed code fence are code. A tag that is never closed marks nothing.
    """
    if "<" not in text:
        return []
    found: list[Block] = []
    waiting: dict[str, list[tuple[int, int]]] = {}
    for closes, name, start, end in _tags(text):
        if not closes:
            if _opens_line(text, start):
                waiting.setdefault(name, []).append((start, end))
            elif name in waiting:
                waiting[name].append((-1, -1))  # one of the same name inside it, which its own end closes
        elif waiting.get(name):
            begin, inner = waiting[name].pop()
            if begin >= 0:
                found.append(Block(name, begin, inner, start, end))
    return _outermost(found)


def _outermost(found: list[Block]) -> list[Block]:
    kept: list[Block] = []
    for block in sorted(found, key=lambda block: (block.start, -block.end)):
        if not kept or block.start >= kept[-1].end:
            kept.append(block)
    return kept


def _tags(text: str) -> Iterator[tuple[bool, str, int, int]]:
    """(closes, name, start, end) of each tag outside of code."""
    fences = [match.start() for match in re.finditer("```", text)] if "```" in text else []
    last_pair = fences[len(fences) // 2 * 2 - 1] if len(fences) > 1 else -1
    in_code = False
    for match in _TAG.finditer(text):
        name = match.group(2)
        if name is None:
            in_code = not in_code and match.start() < last_pair
        elif not in_code and not match.group().endswith("/>"):
            yield match.group(1) == "/", name, match.start(), match.end()


def _opens_line(text: str, start: int) -> bool:
    before = text[max(start - 40, 0) : start].rstrip(" \t")
    return not before or before[-1] in "\n>"


def markers(text: str) -> list[Marker]:
    """The lines that may name what follows them, in their order."""
    found: list[Marker] = []
    for match in _MARKER.finditer(text):
        line, label = match.groups()
        if label is not None:
            if label.count(" ") > _TITLE_WORDS:
                continue
            found.append(Marker(label.strip(), match.start(), match.end(), True))
            continue
        title = line.strip(_DECORATION)
        if title and line[0] != "#" and line.rstrip()[-1] not in "*_=~-]:>":
            continue  # a flag, a comment, a line that only begins in bold
        if title:
            found.append(Marker(line.strip(), match.start(), match.end(), False))
        elif len(line.strip()) >= 4 and (above := _line_above(text, match.start())) is not None:
            found.append(Marker(text[above : match.start()].strip(), above, match.end(), False))
    return found


def _line_above(text: str, start: int) -> int | None:
    """Where the line above begins, if it is a short one that a rule can underline."""
    begin = text.rfind("\n", max(start - 64, 0), max(start - 1, 0)) + 1
    line = text[begin : start - 1] if start else ""
    return begin if 1 < len(line) <= 60 and line[-1] not in ".,;" else None


@lru_cache(maxsize=4096)
def words(name: str) -> tuple[str, ...]:
    """The words of a tag's name or a title, in lower case: userRequest, user_request and USER-REQUEST are the same."""
    return tuple(word.lower() for word in _WORD.findall(name[:80]))
