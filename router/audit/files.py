"""Files of a log, line by line; what cannot be read is counted and costs nothing else."""

from __future__ import annotations

import codecs
import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from router.decide.task import read_task
from router.errors import RequestError

T = TypeVar("T")

MAX_TEXT = 20_000
"""Characters of an ask that are looked at."""
MOST_TOKENS = 10**15
"""No count is larger, so that sums stay whole numbers of 64 bits."""
_MOST_SECONDS = 1e11
"""Times in seconds are smaller: it is in the year 5138. A larger one is in milli-, micro- or nanoseconds."""
_MOST_TEXTS = 100
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ANYTHING = msgspec.json.Decoder()


def lines(path: Path, decoder: msgspec.json.Decoder[T], skipped: Counter[str]) -> Iterator[T]:
    """The lines of a file of JSON, decoded. A last line without an end is one that is being written."""
    try:
        for line in raw_lines(path):
            if not line.strip():
                continue
            try:
                found = _read(line, decoder)
            except msgspec.ValidationError:
                skipped["lines of an unknown kind"] += 1
            except (ValueError, RecursionError):
                skipped["lines that are no JSON" if line.endswith(b"\n") else "truncated lines"] += 1
            else:
                yield found
    except OSError as exc:
        skipped[f"files that cannot be opened ({exc.strerror})"] += 1


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file in UTF-8; one in UTF-16 is converted. Raises OSError."""
    if encoding(path) == "utf-16":
        with path.open(encoding="utf-16", errors="replace") as text:
            yield from (line.encode() for line in text)
        return
    with path.open("rb") as file:
        yield from file


def encoding(path: Path) -> str:
    """The name of a file's encoding, by its first bytes: PowerShell writes UTF-16. Raises OSError."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in _WIDE else "utf-8-sig"


def decoded(data: Any) -> Any:
    """JSON, decoded; None for what is none."""
    try:
        return _read(data, _ANYTHING)
    except (TypeError, ValueError, RecursionError):
        return None


def _read(data: bytes | str, decoder: msgspec.json.Decoder[T]) -> T:
    """JSON, or what writers make of it: half an emoji where JavaScript cut a text, Python's NaN, a byte order mark."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        raise
    except ValueError:
        text = as_text(data) if isinstance(data, bytes) else data
        found = json.loads(text, parse_constant=lambda _: None)
        return decoder.decode(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))


def as_text(data: bytes) -> str:
    """A file's text; what is none is replaced."""
    return data.decode("utf-16" if data[:2] in _WIDE else "utf-8-sig", "replace")


def ask(texts: Sequence[str]) -> str:
    """What the user asked in the texts of a message, without what a program wraps around it."""
    blocks = [{"type": "text", "text": text[:MAX_TEXT]} for text in texts[-_MOST_TEXTS:]]
    try:
        return read_task({"messages": [{"role": "user", "content": blocks}]}).text[:MAX_TEXT]
    except RequestError:
        return ""


def seconds(value: Any) -> float | None:
    """A time as logs give it, in seconds since the epoch: ISO 8601 (UTC unless it says), or a number of seconds,
    milliseconds or less. None for anything else, and for what is before 1970 or after the year 5138."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value < _MOST_SECONDS * 1e9:
            return None
        while value >= _MOST_SECONDS:
            value /= 1000
        return float(value)
    if not isinstance(value, str):
        return None
    try:
        at = dt.datetime.fromisoformat(value)
        at_s = (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return at_s if 0 <= at_s < _MOST_SECONDS else None


def count(value: Any) -> int:
    """A number of tokens, at most MOST_TOKENS; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return 0
    return int(min(value, MOST_TOKENS))
