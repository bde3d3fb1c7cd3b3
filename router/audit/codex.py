"""Codex's session files: rollout-*.jsonl.

Usage comes as events that count from the session's beginning; a fork repeats its parent's. The format is not
documented; what is known of it is in the sources of https://github.com/openai/codex and
https://github.com/ryoppippi/ccusage (2026-11-27).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from router.audit.calls import Call, Log, Piece
from router.audit.files import ask, count, lines, seconds
from router.types import Usage

KIND = "Codex"


class _Line(msgspec.Struct):
    timestamp: str = ""
    type: str = ""
    payload: dict[str, Any] = {}


class _Session(msgspec.Struct):
    """One file so far. `total` is the newest total of its counters."""

    name: str
    cwd: str = ""
    model: str = ""
    is_agent: bool = False
    total: tuple[int, ...] = ()
    pieces: list[Piece] = []
    tools: dict[str, str] = {}
    text: str | None = None
    opens_turn: bool = False


def read_log(paths: Iterable[Path]) -> Log:
    """The calls of session files."""
    log = Log(KIND, [], [], Counter())
    decoder = msgspec.json.Decoder(_Line)
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for path in paths:
        log.paths.append(path)
        session = _Session(path.stem)
        for line in lines(path, decoder, log.skipped):
            payload, kind = line.payload, line.payload.get("type")
            if line.type == "session_meta":
                _met(payload, session)
            elif line.type == "turn_context" and isinstance(payload.get("model"), str):
                session.model = payload["model"]
            elif line.type == "response_item":
                _said(payload, session)
            elif line.type == "event_msg" and kind == "token_count":
                call = _counted(line, session, seen, log.skipped)
                if call is not None:
                    log.calls.append(call)
    log.calls.sort(key=lambda call: call.at_s)
    return log


def _met(payload: Mapping[str, Any], session: _Session) -> None:
    name, cwd, source = payload.get("id"), payload.get("cwd"), payload.get("source")
    session.name = name if isinstance(name, str) else session.name
    session.cwd = cwd if isinstance(cwd, str) else ""
    session.is_agent = isinstance(source, dict) and "subagent" in source


def _said(payload: Mapping[str, Any], session: _Session) -> None:
    """One item of the conversation: a message, a tool call or a tool's output."""
    kind, call_id = payload.get("type"), str(payload.get("call_id"))
    if kind == "message" and payload.get("role") == "user":
        parts = payload.get("content")
        texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)] if (
            isinstance(parts, list)) else []  # fmt: skip
        session.pieces += [Piece("user", len(text)) for text in texts]
        if asked := ask(texts):
            session.text, session.opens_turn = asked, True
    elif kind in ("function_call", "custom_tool_call"):
        session.tools[call_id] = str(payload.get("name") or "")
    elif kind in ("function_call_output", "custom_tool_call_output"):
        output = payload.get("output")
        text = output if isinstance(output, str) else json.dumps(output)
        session.pieces.append(Piece("tool", len(text), session.tools.get(call_id, "")))


def _counted(
    line: _Line, session: _Session, seen: set[tuple[str, tuple[int, ...]]], skipped: Counter[str]
) -> Call | None:
    """The call that an event of counters tells of; None where it tells of none, or of one that was counted before."""
    info = line.payload.get("info")
    if not isinstance(info, dict):
        return None
    total, last = _numbers(info.get("total_token_usage")), info.get("last_token_usage")
    at_s = seconds(line.timestamp)
    if total == session.total:
        return None
    session.total = total
    if not isinstance(last, dict) or at_s is None or not session.model:
        skipped["replies without usage, a time or a model"] += 1
        return None
    if (session.model, total) in seen:
        skipped["replies that a fork repeats"] += 1
        return None
    if not count(last.get("input_tokens")) + count(last.get("output_tokens")):
        return None  # the counters began anew
    seen.add((session.model, total))
    read = min(count(last.get("cached_input_tokens")), count(last.get("input_tokens")))
    written = min(count(last.get("cache_write_input_tokens")), count(last.get("input_tokens")) - read)
    usage = Usage(
        fresh_tokens=count(last.get("input_tokens")) - read - written,
        cache_read_tokens=read,
        cache_write_short_tokens=written,
        output_tokens=count(last.get("output_tokens")),
    )
    head = f"{KIND}\0{session.cwd}\0{'agent' if session.is_agent else 'main'}"
    pieces, opens = tuple(session.pieces), session.opens_turn
    session.pieces, session.opens_turn = [], False
    return Call(at_s, session.model, usage, session.name, head, opens, session.text, pieces)


def _numbers(total: Any) -> tuple[int, ...]:
    if not isinstance(total, dict):
        return ()
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens", "total_tokens")
    return tuple(count(total.get(name)) for name in names)
