"""Which logs there are, what kind each is, and who reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from router.audit import bodies, claude_code, codex, litellm, opencode, own_records, usage_exports
from router.audit.calls import Log
from router.errors import RequestError

Progress = Callable[[str, Iterable[Path]], Iterator[Path]]

_READERS: dict[str, Callable[[Iterable[Path]], Log]] = {
    module.KIND: module.read_log
    for module in (claude_code, codex, opencode, litellm, usage_exports, bodies, own_records)
}
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".db", ".sqlite")
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
    """The logs of files and folders, one for each kind. Raises RequestError for what is none, naming it."""
    found: dict[str, list[Path]] = defaultdict(list)
    for place in places:
        if not place.exists():
            raise RequestError(f"no file or folder {str(place)!r}")
        if place.is_dir() and (place / "message").is_dir():
            found[opencode.KIND].append(place)
            continue
        kinds = [(kind_of(file), file) for file in _files(place)]
        if not any(kind for kind, _ in kinds):
            raise RequestError(f"{place}: no calls recognised in {len(kinds):,} files; {_EXPECTED}")
        for kind, file in kinds:
            if kind is not None:
                found[kind].append(file)
    return [_READERS[kind](progress(kind, paths)) for kind, paths in found.items()]


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def kind_of(path: Path) -> str | None:
    """The kind of a file by its first lines; None for one that is nobody's."""
    try:
        with path.open("rb") as file:
            head = file.read() if path.suffix.lower() == ".json" else file.read(_HEAD_BYTES)
    except OSError:
        return None
    if head.startswith(b"SQLite format 3\0"):
        return opencode.KIND if path.name == "opencode.db" else own_records.KIND
    if path.suffix.lower() == ".csv":
        first = head.partition(b"\n")[0]
        return litellm.KIND if b"prompt_tokens" in first and b"startTime" in first else None
    for row in _objects(head):
        if (kind := _kind(row)) is not None:
            return kind
    return None


def _objects(head: bytes) -> Iterator[Mapping[str, Any]]:
    """The first objects of a file of JSON or of lines of JSON, and the first of a list that one holds as `data`."""
    try:
        whole = msgspec.json.decode(head)
        rows = whole if isinstance(whole, list) else [whole]
    except (msgspec.DecodeError, UnicodeDecodeError):
        rows = [_decoded(line) for line in head.split(b"\n", _HEAD_LINES)[:_HEAD_LINES]]
    for row in rows[:_HEAD_LINES]:
        if isinstance(row, dict):
            yield row
            yield from (inner for inner in _listed(row.get("data"))[:1] if isinstance(inner, dict))


def _decoded(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


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
