"""Which logs there are, what kind each is, and who reads it."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from router.audit import bodies, claude_code, codex, litellm, opencode, own_records, usage_exports
from router.audit.calls import Call, Log
from router.audit.files import MOST_TOKENS, as_text, decoded
from router.errors import RequestError

Progress = Callable[[str, Iterable[Path]], Iterator[Path]]

_READERS: dict[str, Callable[[Iterable[Path]], Log]] = {
    module.KIND: module.read_log
    for module in (claude_code, codex, opencode, bodies, own_records, litellm, usage_exports)
}
"""By kind, those that tell most of a call first."""
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".db", ".sqlite", ".sqlite3")
_MOST_OF_A_CALL = 10**9
_LEAST_OF_A_MATCH, _MATCH_S = 1_000, 300.0
_OTHERS = "other files"
_HEAD_BYTES, _HEAD_LINES = 4_000_000, 50
_EXPECTED = (
    "expected sessions of Claude Code, Codex or opencode, LiteLLM's spend logs, a usage export of OpenAI or Anthropic, "
    "JSONL of request bodies and usage, or Tierwise's records"
)


def find(environ: Mapping[str, str], home: Path) -> list[tuple[str, Path]]:
    """(kind, folder or file) of what is in the usual places."""
    claude = [Path(part) for part in environ.get("CLAUDE_CONFIG_DIR", "").split(",") if part.strip()]
    claude = claude or [home / ".claude", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "claude"]
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    places = [
        *((claude_code.KIND, folder / "projects") for folder in claude),
        (codex.KIND, Path(environ.get("CODEX_HOME") or home / ".codex") / "sessions"),
        (opencode.KIND, data / "opencode/opencode.db"),
        (opencode.KIND, data / "opencode/storage"),
    ]
    return [(kind, path) for kind, path in places if _holds(path)]


def _holds(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and next(path.rglob("*.json*"), None) is not None)


def read_logs(places: Sequence[Path], progress: Progress = lambda _, items: iter(items)) -> list[Log]:
    """The logs of files and folders, one for each kind, and one without calls that counts the files which were left
    out. A file counts once, however often it is named. Raises RequestError for a place that holds no log, naming it."""
    found: dict[str, list[Path]] = defaultdict(list)
    others, known = Log(_OTHERS, [], [], Counter()), set[str]()
    for place in places:
        if not place.exists():
            raise RequestError(f"no file or folder {str(place)!r}")
        skipped = Counter[str]()
        kinds = [(_kind_or_why(file, skipped), file) for file in _files(place, skipped)]
        if not any(kind for kind, _ in kinds):
            why = "".join(f", {n:,} {reason}" for reason, n in skipped.items() if reason != _UNKNOWN)
            raise RequestError(f"{place}: no calls recognised in {len(kinds):,} files{why}; {_EXPECTED}")
        for kind, file in kinds:
            if (real := os.path.realpath(file)) not in known:
                known.add(real)
                (others.paths if kind is None else found[kind]).append(file)
        others.skipped += skipped
    logs = [_plausible(_READERS[kind](progress(kind, paths))) for kind, paths in found.items()]
    _count_once(logs)
    return [*logs, others] if others.skipped else logs


def _files(place: Path, skipped: Counter[str]) -> list[Path]:
    """The files at a place that may be logs; a folder of opencode's counts as one."""
    if place.is_file():
        return [place]

    def failed(exc: OSError) -> None:
        skipped[f"folders that cannot be opened ({exc.strerror})"] += 1

    found = list[Path]()
    for folder, folders, names in os.walk(place, onerror=failed):
        if "message" in folders and (Path(folder).name == "storage" or Path(folder) == place):
            found.append(Path(folder))
            folders.clear()
            continue
        paths = (Path(folder, name) for name in names)
        found += (path for path in paths if path.suffix.lower() in _SUFFIXES and (path.is_file() or not path.exists()))
    return sorted(found)


_UNKNOWN = "files that are no log"


def _kind_or_why(path: Path, skipped: Counter[str]) -> str | None:
    if path.is_dir():
        return opencode.KIND
    try:
        kind = kind_of(path)
        if kind is None and path.stat().st_size:
            skipped[_UNKNOWN] += 1
    except OSError as exc:
        skipped[f"files that cannot be opened ({exc.strerror})"] += 1
        return None
    return kind


def _plausible(log: Log) -> Log:
    """The log without calls of so many tokens that no model takes or writes them: what they say is wrong."""

    def is_possible(call: Call) -> bool:
        n_tokens = call.usage.input_tokens + call.usage.output_tokens
        return n_tokens < (_MOST_OF_A_CALL if call.n_requests == 1 else MOST_TOKENS)

    kept = [call for call in log.calls if is_possible(call)]
    if len(kept) < len(log.calls):
        log.skipped["calls of more tokens than a model can take"] += len(log.calls) - len(kept)
        log.calls = kept
    return log


def _count_once(logs: Sequence[Log]) -> None:
    """Take out of each log the calls that one of a kind that tells more tells of too: of as many tokens, at that time.

    An agent's sessions and the records of a gateway that it went through are two logs of the same calls. Small calls
    are left alone, for two of them may well be of the same size.
    """
    ranks = list(_READERS)
    times: dict[tuple[int, int], list[float]] = defaultdict(list)
    for log in sorted(logs, key=lambda log: ranks.index(log.kind)) if len(logs) > 1 else ():
        kept, new = list[Call](), defaultdict[tuple[int, int], list[float]](list)
        begin: dict[tuple[int, int], int] = {}
        for call in log.calls:
            size = call.usage.input_tokens, call.usage.output_tokens
            known, at = times.get(size, ()), begin.get(size, 0)
            while at < len(known) and known[at] < call.at_s - _MATCH_S:
                at += 1
            if at < len(known) and known[at] <= call.at_s + _MATCH_S and call.n_requests == 1:
                begin[size] = at + 1
                log.skipped["calls that another log tells of too"] += 1
                continue
            begin[size] = at
            kept.append(call)
            if call.n_requests == 1 and size[0] >= _LEAST_OF_A_MATCH:
                new[size].append(call.at_s)
        log.calls = kept
        for size, at_s in new.items():
            times[size] = sorted(times[size] + at_s)


def kind_of(path: Path) -> str | None:
    """The kind of a file by its first lines; None for one that is nobody's. Raises OSError."""
    with path.open("rb") as file:
        # To the end of a line, however long: the first may be a whole prompt.
        head = file.read() if path.suffix.lower() == ".json" else file.read(_HEAD_BYTES) + file.readline()
    if head.startswith(b"SQLite format 3\0"):
        return _kind_of_database(path)
    head = as_text(head).encode() if head[:2] in (b"\xff\xfe", b"\xfe\xff") else head
    if path.suffix.lower() == ".csv":
        first = head.partition(b"\n")[0]
        return litellm.KIND if b"prompt_tokens" in first and b"startTime" in first else None
    for row in _objects(head):
        if (kind := _kind(row)) is not None:
            return kind
    return None


def _objects(head: bytes) -> Iterator[Mapping[str, Any]]:
    """The first objects of a file of JSON or of lines of JSON, and the first of a list that one holds as `data`."""
    whole = decoded(head)
    rows: Iterable[Any] = whole[:_HEAD_LINES] if isinstance(whole, list) else [whole]
    if whole is None:
        rows = (decoded(line) for line in head.split(b"\n", _HEAD_LINES)[:_HEAD_LINES])
    for row in rows:
        if isinstance(row, dict):
            yield row
            yield from (inner for inner in _listed(row.get("data"))[:1] if isinstance(inner, dict))


def _kind_of_database(path: Path) -> str | None:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:  # its reader says why
        return opencode.KIND if path.name == "opencode.db" else own_records.KIND
    if {"message", "part"} <= tables:
        return opencode.KIND
    return own_records.KIND if "records" in tables else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _kind(row: Mapping[str, Any]) -> str | None:
    if "payload" in row and "timestamp" in row:
        return codex.KIND
    if "sessionId" in row or (row.get("type") in ("summary", "file-history-snapshot") and "message" not in row):
        return claude_code.KIND
    if "startTime" in row and "prompt_tokens" in row:
        return litellm.KIND
    if isinstance(row.get("results"), list) and ("start_time" in row or "starting_at" in row):
        return usage_exports.KIND
    return bodies.KIND if bodies.body_of(row) is not None else None
