"""Claude Code's session files.

One reply stands on several lines, each with its usage, and again in the files of sessions that were resumed from it.
The format is not documented; what is known of it is in the source of https://github.com/ryoppippi/ccusage (2026-11-27).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from router.audit.calls import Call, Log, Piece
from router.audit.files import MAX_TEXT, lines, seconds
from router.decide.task import read_task
from router.errors import RequestError
from router.formats.usage import read_usage
from router.types import Api, Usage

KIND = "Claude Code"
_SYNTHETIC = "<synthetic>"


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: dict[str, Any] | None = None
    content: str | list[_Block] = ""


class _Line(msgspec.Struct, rename="camel"):
    type: str = ""
    timestamp: str = ""
    session_id: str = ""
    agent_id: str = ""
    request_id: str = ""
    cwd: str = ""
    is_sidechain: bool = False
    is_meta: bool = False
    message: _Message | None = None


class _Reply(msgspec.Struct):
    """A reply as far as its lines were read."""

    line: _Line
    at_s: float
    given: dict[str, Any] | None
    usage: Usage
    conversation: str
    opens_turn: bool
    text: str | None
    pieces: list[Piece]


class _Session(msgspec.Struct):
    """What was said since the conversation's last reply, and whose its tool calls are."""

    pieces: list[Piece] = []
    tools: dict[str, tuple[str, str]] = {}
    text: str | None = None
    opens_turn: bool = False


def read_log(paths: Iterable[Path]) -> Log:
    """The calls of session files (`*.jsonl`), or of all in a folder, those of sub-agents included."""
    log = Log(KIND, [], [], Counter())
    replies: dict[tuple[str, str], _Reply] = {}
    by_id: dict[str, tuple[str, str]] = {}
    decoder = msgspec.json.Decoder(_Line)
    for path in paths:
        log.paths.append(path)
        sessions: dict[str, _Session] = {}
        for line in lines(path, decoder, log.skipped):
            conversation = _conversation(line, path)
            session = sessions.setdefault(conversation, _Session())
            if line.type == "user" and line.message is not None:
                _heard(line, session)
            elif line.type == "assistant" and line.message is not None:
                _replied(line, session, conversation, replies, by_id, log.skipped)
    log.calls = sorted((_call(reply) for reply in replies.values()), key=lambda call: call.at_s)
    return log


def _conversation(line: _Line, path: Path) -> str:
    if line.agent_id:
        return f"{line.session_id}/{line.agent_id}"
    if line.is_sidechain:
        return f"{line.session_id}/{path.stem}"
    return line.session_id or path.stem


def _heard(line: _Line, session: _Session) -> None:
    """A user's line: tool results, an ask, or what the program put in."""
    assert line.message is not None
    content = line.message.content
    blocks = [_Block("text", content)] if isinstance(content, str) else content
    said = []
    for block in blocks:
        if block.type == "tool_result":
            name, path = session.tools.get(block.tool_use_id, ("", ""))
            session.pieces.append(Piece("tool", _chars(block.content), name, path))
        elif block.type == "text":
            said.append(block.text)
            session.pieces.append(Piece("user", len(block.text)))
    if said and not line.is_meta and all(block.type != "tool_result" for block in blocks):
        session.text, session.opens_turn = _ask(said) or None, True


def _ask(said: list[str]) -> str:
    """What the user asked, without what the program wraps around it."""
    blocks = [{"type": "text", "text": text[:MAX_TEXT]} for text in said]
    try:
        return read_task({"messages": [{"role": "user", "content": blocks}]}).text[:MAX_TEXT]
    except RequestError:
        return ""


def _replied(
    line: _Line,
    session: _Session,
    conversation: str,
    replies: dict[tuple[str, str], _Reply],
    by_id: dict[str, tuple[str, str]],
    skipped: Counter[str],
) -> None:
    message = line.message
    assert message is not None
    _name_tools(message, session)
    key = message.id or f"\0{len(replies)}", line.request_id
    known = replies.get(key)
    if known is not None and known.conversation == conversation and known.given == message.usage:
        session.pieces, session.opens_turn = [], False  # most lines repeat the usage of the one before
        return
    if message.model == _SYNTHETIC:
        return
    usage = read_usage({"usage": message.usage}, Api.MESSAGES) if message.usage else Usage(reported=False)
    at_s = seconds(line.timestamp)
    if not usage.reported or at_s is None or not message.model:
        skipped["replies without usage" if not usage.reported else "replies without a time or a model"] += 1
        return
    if known is None and message.id and (other := by_id.get(message.id)) is not None:
        # The same reply under another request id is a copy only where one of the two is a sub-agent's line.
        found = replies[other]
        known = found if found.line.is_sidechain or line.is_sidechain else None
    if known is None:
        pieces, opens = session.pieces, session.opens_turn
        replies[key] = _Reply(line, at_s, message.usage, usage, conversation, opens, session.text, pieces)
        by_id.setdefault(message.id, key)
    elif known.conversation == conversation:
        known.usage = max(known.usage, usage, key=_total)
    else:
        skipped["replies that stand in two sessions"] += 1
        if known.line.is_sidechain and not line.is_sidechain:
            known.line, known.conversation = line, conversation
        known.usage = max(known.usage, usage, key=_total)
    session.pieces, session.opens_turn = [], False


def _name_tools(message: _Message, session: _Session) -> None:
    for block in message.content if isinstance(message.content, list) else ():
        if block.type == "tool_use":
            given: Mapping[str, Any] = block.input if isinstance(block.input, dict) else {}
            path = given.get("file_path") or given.get("path") or given.get("notebook_path")
            session.tools[block.id] = block.name, path if isinstance(path, str) else ""


def _total(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens


def _chars(content: Any) -> int:
    """Characters of a tool's result."""
    return sum(len(text) for text in _texts(content))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _call(reply: _Reply) -> Call:
    line = reply.line
    assert line.message is not None
    head = f"{KIND}\0{line.cwd}\0{'agent' if line.is_sidechain or line.agent_id else 'main'}"
    return Call(
        reply.at_s,
        line.message.model,
        reply.usage,
        reply.conversation,
        head,
        reply.opens_turn,
        reply.text,
        tuple(reply.pieces),
    )
