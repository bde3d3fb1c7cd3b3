"""Files of a log, line by line; what cannot be read is counted and costs nothing else."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

MAX_TEXT = 20_000
"""Characters of an ask that are looked at."""


def lines(path: Path, decoder: msgspec.json.Decoder[T], skipped: Counter[str]) -> Iterator[T]:
    """The lines of a file of JSON, decoded. A last line without an end is one that is being written."""
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except msgspec.ValidationError:
                    skipped["lines of an unknown kind"] += 1
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    skipped["lines that are no JSON" if line.endswith(b"\n") else "truncated lines"] += 1
    except OSError as exc:
        skipped[f"files that cannot be opened ({exc.strerror})"] += 1


def seconds(value: Any) -> float | None:
    """A time as logs give it, in seconds since the epoch: ISO 8601 (UTC unless it says), or a number of seconds or
    milliseconds. None for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) / 1000 if value > 1e11 else float(value)
    if not isinstance(value, str):
        return None
    try:
        at = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()


def count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    return (
        max(int(value), 0) if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value else 0
    )
