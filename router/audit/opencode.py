"""opencode's sessions: a database since version 1.2, files of JSON before.

The format is not documented; what is known of it is in the source of https://github.com/sst/opencode (2026-11-27).
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from router.audit.calls import Call, Log
from router.audit.files import count, decoded, seconds
from router.types import Usage

KIND = "opencode"


def read_log(paths: Iterable[Path]) -> Log:
    """The calls of databases (`opencode.db`) and of the older folders (`storage`).

    A reply takes several calls where it uses tools; each is told by a part of the kind "step-finish". A message's own
    counts are those of its last call, so they count only where no such part is kept.
    """
    log = Log(KIND, [], [], Counter())
    seen: set[str] = set()
    for path in paths:
        log.paths.append(path)
        steps: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        rows = _stored(path, log.skipped) if path.is_file() else _files(path, log.skipped)
        messages = []
        for kind, name, owner, found in rows:
            if kind == "part" and found.get("type") == "step-finish":
                steps[owner].append(found)
            elif kind == "message" and found.get("role") == "assistant":
                messages.append((name, owner, found))
        for name, session, message in messages:
            if name in seen:
                log.skipped["replies that stand in two places"] += 1
                continue
            seen.add(name)
            calls = [call for step in steps.get(name) or [message] if (call := _call(session, message, step))]
            log.calls += calls
            if not calls:
                log.skipped["replies without usage, a time or a model"] += 1
    log.calls.sort(key=lambda call: call.at_s)
    return log


_Row = tuple[str, str, str, Mapping[str, Any]]
"""The kind, "message" or "part"; its id; whose it is, a session's or a message's; and what it holds."""


def _stored(path: Path, skipped: Counter[str]) -> Iterator[_Row]:
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.text_factory = _text
            for kind, owner in (("message", "session_id"), ("part", "message_id")):
                for name, whose, data in database.execute(f"SELECT id, {owner}, data FROM {kind} ORDER BY id"):
                    if (found := _decoded(data)) is not None:
                        yield kind, str(name), str(whose), found
                    else:
                        skipped["entries that are no JSON"] += 1
    except sqlite3.Error as exc:
        skipped[f"databases that cannot be read ({exc})"] += 1


def _files(path: Path, skipped: Counter[str]) -> Iterator[_Row]:
    for kind in ("message", "part"):
        for file in sorted((path / kind).rglob("*.json")):
            try:
                found = _decoded(file.read_bytes())
            except OSError:
                found = None
            if found is None:
                skipped["files that cannot be read"] += 1
            else:
                yield kind, file.stem, str(found.get("messageID") or file.parent.name), found


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _decoded(data: Any) -> Mapping[str, Any] | None:
    found = decoded(data)
    return found if isinstance(found, dict) else None


def _call(session: str, message: Mapping[str, Any], step: Mapping[str, Any]) -> Call | None:
    tokens, times, model = step.get("tokens"), message.get("time"), message.get("modelID")
    if not isinstance(tokens, dict) or not isinstance(times, dict) or not isinstance(model, str):
        return None
    cache = tokens.get("cache")
    cached: Mapping[str, Any] = cache if isinstance(cache, dict) else {}
    usage = Usage(
        fresh_tokens=count(tokens.get("input")),
        cache_read_tokens=count(cached.get("read")),
        cache_write_short_tokens=count(cached.get("write")),
        output_tokens=count(tokens.get("output")) + count(tokens.get("reasoning")),
    )
    at_s = seconds(times.get("created"))
    if at_s is None or not usage.input_tokens + usage.output_tokens:
        return None
    cost, folder = step.get("cost"), message.get("path")
    usd = Decimal(str(cost)) if isinstance(cost, (int, float)) and cost > 0 and cost is not True else None
    cwd = folder.get("cwd") if isinstance(folder, dict) else ""
    return Call(at_s, model, usage, session, f"{KIND}\0{cwd}\0{message.get('mode') or ''}", cost_usd=usd)
