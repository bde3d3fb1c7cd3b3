"""A long text with what was pasted into it cut short; pure."""

from __future__ import annotations

import re

_CHARS = 1200
_LINES = 12
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.S)
_BLANK = re.compile(r"\n[ \t]{0,80}\n")


def unpasted(text: str) -> str:
    """A long text with its fenced blocks, quotes, logs and other many-lined passages cut to their first lines."""
    if len(text) < 400 or text.count("\n") < _LINES:
        return text
    text = _FENCE.sub(lambda found: _first_lines(found.group()), text)
    paragraphs, kept = _BLANK.split(text), []
    long = len(text) > _CHARS
    for at, paragraph in enumerate(paragraphs):
        is_edge = at in (0, len(paragraphs) - 1)
        if paragraph.count("\n") >= _LINES or (long and not is_edge and len(paragraphs) > 8):
            lines = paragraph.split("\n")
            # The ask stands at the outer edge of a text: the head of its first paragraph, the tail of its last.
            paragraph = "\n".join([*lines[:3], "...", *lines[-3:]]) if is_edge else _first_lines(paragraph)
        kept.append(paragraph)
    return "\n\n".join(kept)


def _first_lines(block: str, n_lines: int = 3) -> str:
    lines = block.split("\n")
    return block if len(lines) <= n_lines + 1 else "\n".join([*lines[:n_lines], "..."])
