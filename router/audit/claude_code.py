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
from router.audit.files import ask, lines, seconds
from router.formats.usage import read_usage
from router.types import Api, Usage

KIND = "Claude Code"
_SYNTHETIC = "<synthetic>"


class _Block(msgspec.Struct):
    type: str | None = ""
    text: str | None = ""
    id: str | None = ""
    name: str | None = ""
    input: Any = None
    tool_use_id: str | None = ""
    content: Any = None


class _Message(msgspec.Struct):
    id: str | None = ""
    model: str | None = ""
    usage: dict[str, Any] | None = None
    content: str | list[_Block | str] | None = ""


class _Line(msgspec.Struct, rename="camel"):
    type: str | None = ""
    timestamp: str | float | None = ""
    session_id: str | None = ""
    agent_id: str | None = ""
    request_id: str | None = ""
    cwd: str | None = ""
    is_sidechain: bool | None = False
    is_meta: bool | None = False
    message: _Message | None = None


class _Reply(msgspec.Struct):
    """A reply as far as its lines were read. What was said in them is not kept."""

    head: str
    is_sidechain: bool
    request_id: str
    model: str
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
    session = line.session_id or path.stem
    if line.agent_id:
        return f"{session}/{line.agent_id}"
    return f"{session}/{path.stem}" if line.is_sidechain else session


def _heard(line: _Line, session: _Session) -> None:
    """A user's line: tool results, an ask, or what the program put in."""
    assert line.message is not None
    content = line.message.content
    blocks = [content] if isinstance(content, str) else content or []
    said, has_results = [], False
    for given in blocks:
        block = _Block("text", given) if isinstance(given, str) else given
        if block.type == "tool_result":
            has_results = True
            name, path = session.tools.get(block.tool_use_id or "", ("", ""))
            session.pieces.append(Piece("tool", _chars(block.content), name, path))
        elif block.type == "text" and block.text:
            said.append(block.text)
            session.pieces.append(Piece("user", len(block.text)))
    if said and not line.is_meta and not has_results:
        session.text, session.opens_turn = ask(said) or None, True


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
    request_id, is_sidechain = line.request_id or "", bool(line.is_sidechain)
    key = message.id or f"\0{len(replies)}", request_id
    known = replies.get(key)
    if known is not None and known.conversation == conversation and known.given == message.usage:
        session.pieces, session.opens_turn = [], False  # most lines repeat the usage of the one before
        return
    if message.model == _SYNTHETIC:
        return
    usage = read_usage({"usage": message.usage}, Api.MESSAGES) if message.usage else Usage(reported=False)
    at_s = seconds(line.timestamp)
    is_empty = not usage.input_tokens + usage.output_tokens
    if is_empty or at_s is None or not message.model:
        skipped["replies without usage" if is_empty else "replies without a time or a model"] += 1
        return
    if known is None and message.id and (other := by_id.get(message.id)) is not None:
        # Under another request id it is a copy only where one of the two is a sub-agent's line, or has no request id.
        found = replies[other]
        is_copy = found.is_sidechain or is_sidechain or not (found.request_id and request_id)
        known = found if is_copy else None
    if known is None:
        replies[key] = _Reply(
            _head(line),
            is_sidechain,
            request_id,
            message.model,
            at_s,
            message.usage,
            usage,
            conversation,
            session.opens_turn,
            session.text,
            session.pieces,
        )
        by_id.setdefault(key[0], key)
    elif known.conversation == conversation:
        known.usage = max(known.usage, usage, key=_total)
    else:
        skipped["replies that stand in two sessions"] += 1
        if known.is_sidechain and not is_sidechain:
            known.head, known.is_sidechain, known.conversation = _head(line), False, conversation
        known.usage = max(known.usage, usage, key=_total)
    session.pieces, session.opens_turn = [], False


def _name_tools(message: _Message, session: _Session) -> None:
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, _Block) and block.type == "tool_use":
            given: Mapping[str, Any] = block.input if isinstance(block.input, dict) else {}
            path = given.get("file_path") or given.get("path") or given.get("notebook_path")
            session.tools[block.id or ""] = block.name or "", path if isinstance(path, str) else ""


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


def _head(line: _Line) -> str:
    return f"{KIND}\0{line.cwd or ''}\0{'agent' if line.is_sidechain or line.agent_id else 'main'}"


def _call(reply: _Reply) -> Call:
    return Call(
        reply.at_s,
        reply.model,
        reply.usage,
        reply.conversation,
        reply.head,
        reply.opens_turn,
        reply.text,
        tuple(reply.pieces),
    )
