"""What in a request is not text: what kind it is, and about how many tokens it takes; pure.

An image is width x height / 750 tokens at Anthropic, which makes a large one smaller
(https://platform.claude.com/docs/en/build-with-claude/vision); a page of a PDF is 1,500 to 3,000 tokens of text and an
image (.../pdf-support), both 2026-11-26. Other providers' rules lie in the same range. These are estimates, for windows
and cache minimums, never for a bill.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

KINDS = (
    *("image", "image_url", "input_image"),
    *("document", "file", "input_file", "input_audio", "audio", "container_upload"),
)
"""The types of content parts, in every format, that hold what is not text."""

CHARS_PER_TOKEN = 3.5
"""What a token of it counts as in characters, where a prompt's size is told in these."""

_IMAGES = KINDS[:3]
_IMAGE_TOKENS = 1500
_MIN_IMAGE_TOKENS, _MAX_IMAGE_TOKENS = 60, 1600
_PIXELS_PER_TOKEN = 750
_BYTES_PER_DOCUMENT_TOKEN = 30
"""A page of 75 KB makes 2,500 tokens."""

_HEAD_CHARS = 8192
_HEADS = (
    *(("/9j/", "image/jpeg"), ("iVBORw0KGgo", "image/png"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp")),
    ("JVBERi0", "application/pdf"),
)
_JPEG_SIZES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


def kind_of(data: str) -> str | None:
    """The media type of base64 data, by its first bytes; None where they say nothing."""
    return next((kind for head, kind in _HEADS if data.startswith(head)), None)


def n_tokens(part: Mapping[str, Any]) -> int:
    """About how many tokens an image, a document or a recording takes."""
    data = _payload(part)
    if part.get("type") in _IMAGES:
        size = _pixels(data[:_HEAD_CHARS]) if data else None
        if size is None:
            return _IMAGE_TOKENS
        return min(max(size // _PIXELS_PER_TOKEN, _MIN_IMAGE_TOKENS), _MAX_IMAGE_TOKENS)
    return max(len(data) * 3 // 4 // _BYTES_PER_DOCUMENT_TOKEN, _IMAGE_TOKENS)


def excess_chars(value: Any) -> int:
    """By how many characters what is not text is longer, as it is written in a message, than its tokens amount to.

    Negative where a mere address stands for an image. Plain text in a document is text.
    """
    excess, pending = 0, [value]
    while pending:  # a loop, so that no nesting is too deep
        part = pending.pop()
        if isinstance(part, list | tuple):
            pending.extend(part)
        elif isinstance(part, Mapping):
            if part.get("type") not in KINDS:
                pending.extend(inner for inner in part.values() if isinstance(inner, Mapping | list | tuple))
            elif not _is_text(part):
                excess += len(_payload(part)) - int(n_tokens(part) * CHARS_PER_TOKEN)
    return excess


def _is_text(part: Mapping[str, Any]) -> bool:
    source = part.get("source")
    return isinstance(source, Mapping) and source.get("type") in ("text", "content")


def _payload(part: Mapping[str, Any]) -> str:
    """The base64 data of a part, "" where there is none."""
    for text in _texts(part):
        if text.startswith("data:"):
            return text.partition(",")[2]
        if len(text) > 1000 and " " not in text[:1000]:
            return text
    source = part.get("source")
    data = source.get("data") if isinstance(source, Mapping) and source.get("type") == "base64" else None
    return data if isinstance(data, str) else ""


def _texts(part: Mapping[str, Any]) -> Iterator[str]:
    for value in part.values():
        inner = value.values() if isinstance(value, Mapping) else (value,)
        yield from (text for text in inner if isinstance(text, str))


def _pixels(head: str) -> int | None:
    """Width times height of an image, from the first base64 characters of it; None where they do not say."""
    try:
        data = base64.b64decode(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])
    if data.startswith(b"GIF8") and len(data) >= 10:
        return int.from_bytes(data[6:8], "little") * int.from_bytes(data[8:10], "little")
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X" and len(data) >= 30:
        return (int.from_bytes(data[24:27], "little") + 1) * (int.from_bytes(data[27:30], "little") + 1)
    return _jpeg_pixels(data) if data.startswith(b"\xff\xd8") else None


def _jpeg_pixels(data: bytes) -> int | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _JPEG_SIZES:
            return int.from_bytes(data[at + 5 : at + 7]) * int.from_bytes(data[at + 7 : at + 9])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
