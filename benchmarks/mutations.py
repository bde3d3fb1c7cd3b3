"""Requests that no client should send: real-shaped bodies, mutated; bytes on the wire, broken. All from one seed."""

from __future__ import annotations

import copy
import gzip
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

PATHS = {"messages": "/v1/messages", "chat": "/v1/chat/completions", "responses": "/v1/responses"}
RELAYED = (*PATHS.values(), "/v1/messages/count_tokens", "/v1/responses/input_tokens")
OTHERS = (
    *RELAYED[3:],
    *("/v1/feedback", "/v1/models", "/v1/models/auto", "/healthz", "/readyz", "/metrics", "/api/hello", "/v1", "/"),
)
MODELS = ("auto", "auto", "auto:economy", "auto:quality", "auto:none", "auto:", "simple", "complex", "gpt-6-luna", "x")
RAW = "\x00raw:"  # a string that is replaced by what follows, after the rest has become JSON
_RAW_STRING = re.compile(r'"(?:\\u0000|\x00)raw:((?:[^"\\]|\\.)*)"')
DEEP = (3, 60, 900, 20_000)
JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, "", " ", "auto", "user", [], {}, [[]], [None], {"": None}, {"type": "text"},
    {"type": "ephemeral"}, {"type": "text", "text": None}, {"role": "user", "content": "hi"}, "\ud800", "a\udfffb",
    "\x00", "\u202e\u2066", "\U0001f9d1\u200d\U0001f680" * 40, "x" * 5000, 2**31, 2**63, 2**64, -(2**63), 10**30,
    RAW + "1e400", RAW + "-1e-400", RAW + "1" + "0" * 400, RAW + "NaN", RAW + "-Infinity", RAW + "01", RAW + "1.",
    RAW + '"\\ud83d"', RAW + '"\\u0000"', RAW + '"\\x"', RAW + "'a'",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What goes over the wire. `is_whole`: the bytes are HTTP, so there must be a reply to them."""

    sent: tuple[bytes, ...]
    is_whole: bool
    framing: str
    leaves: bool = False


def request(seed: int, number: int, conversations: list[dict[str, Any]]) -> Request:
    """The request of that number, always the same."""
    rng = random.Random(f"{seed}:{number}")
    row = rng.choice(conversations)
    path = PATHS[row["api"]] if rng.random() < 0.85 else rng.choice((*PATHS.values(), *OTHERS))
    body = _structural(rng, row["body"], conversations)
    raw = _textual(rng, _encode(rng, body))
    made = _framed(rng, path, raw)
    is_posted = path in RELAYED and made.sent[0][:5] == b"POST "
    return made if is_posted else replace(made, is_whole=False)  # who sends the others a body may be cut off


def _structural(rng: random.Random, body: dict[str, Any], conversations: list[dict[str, Any]]) -> Any:
    body = copy.deepcopy(body)
    if rng.random() < 0.8:
        body["model"] = rng.choice(MODELS)
    if rng.random() < 0.3:
        body["stream"] = True
    if rng.random() < 0.1:
        body["router"] = {rng.choice(("min_tier", "max_tier", "session", "operating_point")): _junk(rng)}
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 6))):
        holders = list(_holders(body))
        if not holders:
            break
        holder = rng.choice(holders)
        at = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        rng.choice(_MUTATIONS)(rng, holder, at, rng.choice(conversations)["body"])
    return body if rng.random() > 0.01 else rng.choice((_junk(rng), [body], body.get("messages")))


def _junk(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(JUNK))


def _holders(value: Any) -> Any:
    """Every list and dict in it that is not empty."""
    if isinstance(value, (dict, list)) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def _replace(rng: random.Random, holder: Any, at: Any, _: Any) -> None:
    holder[at] = _junk(rng)


def _drop(_rng: random.Random, holder: Any, at: Any, _: Any) -> None:
    del holder[at]


def _repeat(rng: random.Random, holder: Any, at: Any, _: Any) -> None:
    if isinstance(holder, list):
        holder[at:at] = [holder[at]] * rng.choice((1, 2, 8))
    else:
        holder[f"{at}_"] = holder[at]


def _retype(rng: random.Random, holder: Any, at: Any, _: Any) -> None:
    value = holder[at]
    others: list[Any] = [[value], {"a": value}, str(value), json.dumps(value), not value]
    if isinstance(value, str):
        others += [list(value[:50]), {"text": value}, [{"type": "text", "text": value}], len(value), value[::-1]]
    if isinstance(value, dict):
        others += [list(value), list(value.values()), [[k, v] for k, v in value.items()]]
    if isinstance(value, list):
        others += [{str(i): inner for i, inner in enumerate(value)}, value[0] if value else None]
    holder[at] = rng.choice(others)


def _nest(rng: random.Random, holder: Any, at: Any, _: Any) -> None:
    depth = rng.choice(DEEP)
    opens, closes = rng.choice((("[", "]"), ('{"a":', "}"), ('[{"content":', "}]")))
    holder[at] = f"{RAW}{opens * depth}1{closes * depth}"


def _rename(rng: random.Random, holder: Any, at: Any, _: Any) -> None:
    if isinstance(holder, dict):
        holder[rng.choice((at.upper(), f"{at}\x00", "type", "cache_control", "content", "\ud800", ""))] = holder.pop(at)


def _graft(rng: random.Random, holder: Any, at: Any, other: Any) -> None:
    key = rng.choice(list(other))
    if isinstance(holder, dict):
        holder[key] = copy.deepcopy(other[key])
    else:
        holder[at] = copy.deepcopy(other[key])


def _spoil(rng: random.Random, holder: Any, at: Any, _: Any) -> None:
    value = holder[at]
    if isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        piece = rng.choice(
            ("\ud83d", "\x00", "\r\n\r\n", "data: [DONE]\n\n", "\u2028", "<system-reminder>", "\x7f", "é" * 99)
        )
        holder[at] = value[:cut] + piece + value[cut:]
    elif isinstance(value, (int, float)):
        holder[at] = rng.choice((-value, value * 1e9, value + 0.5, float(value), 2**62))
    else:
        holder[at] = _junk(rng)


def _mark(rng: random.Random, holder: Any, _at: Any, _: Any) -> None:
    if isinstance(holder, dict):
        holder["cache_control"] = {
            "type": rng.choice(("ephemeral", "x", None)),
            "ttl": rng.choice(("5m", "1h", "9d", 5)),
        }


_MUTATIONS: tuple[Callable[[random.Random, Any, Any, Any], None], ...] = (
    _replace, _drop, _repeat, _retype, _nest, _rename, _graft, _spoil, _mark,
)  # fmt: skip


def _encode(rng: random.Random, body: Any) -> bytes:
    text = json.dumps(body, ensure_ascii=rng.random() < 0.3, separators=rng.choice(((",", ":"), (", ", ": "))))
    if "raw:" in text:
        text = _RAW_STRING.sub(lambda found: json.loads(f'"{found[1]}"'), text, count=8)
    return text[:2_000_000].encode("utf-8", "surrogatepass")  # invalid UTF-8 where a surrogate stands alone


def _textual(rng: random.Random, raw: bytes) -> bytes:
    """Leave most bodies alone."""
    cut = rng.randrange(len(raw) + 1)
    after = min(cut + rng.randrange(20), len(raw))
    kind = rng.randrange(40)
    if kind == 0:
        return raw[:cut]
    if kind == 1:
        return raw[:cut] + raw[after:]
    if kind == 2:
        return (
            raw[:cut]
            + rng.choice((b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf", b"\xf5\x80"))
            + raw[cut:]
        )
    if kind == 3:
        return raw[:cut] + bytes(b ^ 1 << rng.randrange(8) for b in raw[cut:after]) + raw[after:]
    if kind == 4:
        return rng.choice(
            (b"", b"{}", b"null", b"[]", b'"auto"', b"{" * 5000, b"\xef\xbb\xbf" + raw, raw + b"x", raw * 2)
        )
    if kind == 5:
        return raw.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32-le", "utf-8-sig")))
    if kind == 6:  # a key twice
        keys = list(re.finditer(rb'"(\w+)":', raw))
        if keys:
            key = rng.choice(keys)
            junk = rng.choice((b"null", b'"auto"', b"[]", b'{"type":"x"}', b"1e5"))
            return raw[: key.start()] + key[0] + junk + b"," + raw[key.start() :]
    if kind == 7:
        return gzip.compress(raw, 1)
    if kind == 8 and rng.random() < 0.2:
        return raw + b" " * rng.choice((200_000, 400_000))
    return raw


def _framed(rng: random.Random, path: str, raw: bytes) -> Request:
    method = "POST" if path in PATHS.values() or rng.random() < 0.5 else rng.choice(("GET", "HEAD"))
    if method != "POST":
        raw = raw[:2000]
    query = rng.choice(("", "", "", "?beta=true", "?a=%ff&b", "?limit=1000", "?" + "q" * 3000))
    lines = [f"{method} {path}{query} HTTP/1.1".encode(), b"host: localhost", b"connection: close"]
    kinds = (*[b"content-type: application/json"] * 8, b"content-type: text/plain", b"content-type: \xff")
    lines.append(rng.choice(kinds))
    for header in rng.sample(_HEADERS, rng.choice((0, 0, 0, 1, 2))):
        lines.append(header)
    length = f"content-length: {len(raw)}".encode()
    kind = rng.choice(_FRAMINGS) if rng.random() < 0.3 else "length"
    if kind == "chunked" or kind == "bad chunk":
        wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in _parts(rng, raw)) + b"0\r\n\r\n"
        if kind == "bad chunk":
            cut = rng.randrange(len(wire))
            wire = wire[:cut] + rng.choice((b"\r\n", b"zz", b"-1\r\n", b"ffffffffffffffffff\r\n")) + wire[cut:]
        head = b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", b""])
        return Request((head + wire,), kind == "chunked", kind)
    wrong = _LENGTHS.get(kind)
    if wrong is not None:
        length = b"content-length: " + wrong(len(raw))
    if kind == "none":
        length = b"x-length: none"
    if kind == "both":
        length += b"\r\ntransfer-encoding: chunked"
    if kind == "1.0":
        lines[0] = lines[0].replace(b"HTTP/1.1", b"HTTP/1.0")
    if kind == "expect":
        length += b"\r\nexpect: 100-continue"
    head = b"\r\n".join([*lines, length, b"", b""])
    if kind == "pipelined":
        first = head.replace(b"connection: close", b"connection: keep-alive") + raw
        return Request((first + b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",), True, kind)
    if kind == "slow":
        cut = rng.randrange(len(head + raw))
        return Request(((head + raw)[:cut], (head + raw)[cut:]), True, kind)
    if kind == "leaves early":
        return Request(((head + raw)[: rng.randrange(len(head + raw))],), False, kind, leaves=True)
    if kind == "leaves":
        return Request((head + raw,), False, kind, leaves=True)
    return Request((head + raw,), kind in ("length", "1.0", "expect"), kind)


def _parts(rng: random.Random, raw: bytes) -> list[bytes]:
    parts = []
    while raw:
        size = rng.choice((1, 7, 100, 5000, 70_000))
        parts.append(raw[:size])
        raw = raw[size:]
    return parts if len(parts) < 2000 else [b"".join(parts)]


_LENGTHS: dict[str, Callable[[int], bytes]] = {
    "too long": lambda n: b"%d" % (n + 10),
    "too short": lambda n: b"%d" % max(n - 10, 0),
    "huge": lambda _: b"9" * 15,
    "no number": lambda _: b"ten",
    "negative": lambda _: b"-1",
    "twice": lambda n: b"%d\r\ncontent-length: %d" % (n, n + 1),
}
_FRAMINGS = (
    *("chunked", "slow", "leaves", "leaves early", "pipelined", "chunked", "slow", "leaves"),
    *("bad chunk", "none", "both", "1.0", "expect", *_LENGTHS),
)
_HEADERS = (
    b"anthropic-version: 2023-06-01",
    b"anthropic-version: \xff\xfe",
    b"anthropic-beta: a,b\r\nanthropic-beta: c",
    b"x-api-key: \xe9",
    b"authorization: Bearer",
    b"authorization: bearer tw-\xff",
    b"content-encoding: gzip",
    b"content-encoding: identity",
    b"x-claude-code-session-id: " + b"s" * 500,
    b"x-claude-code-session-id: \xf0\x9f",
    b"accept: text/event-stream",
    b"x-large: " + b"l" * 40_000,
    b"x-empty:",
    b"cookie: a=b",
    b"te: trailers",
    b"user-agent: \xc3\xa9",
)


_ANTHROPIC_USAGE = {
    "input_tokens": 9,
    "cache_read_input_tokens": 2,
    "cache_creation_input_tokens": 1,
    "output_tokens": 5,
}
_OPENAI_USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
_RESPONSES_USAGE = {"input_tokens": 9, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 2}}
_TEXT = {"type": "text", "text": "Hello."}
_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
_TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}
_OUTPUT = [
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello.", "annotations": []}]},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
]
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-6",
    "stop_reason": "end_turn",
}
_COMPLETION = {"id": "c_1", "object": "chat.completion", "created": 1795348800, "model": "gpt-6-luna"}
_RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-6-luna", "output": _OUTPUT}
_WHOLE: dict[str, Any] = {
    "messages": {**_MESSAGE, "content": [_TEXT, _TOOL_USE], "usage": _ANTHROPIC_USAGE},
    "completions": {
        **_COMPLETION,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hello.", "tool_calls": [_CALL]},
            }
        ],
        "usage": _OPENAI_USAGE,
    },
    "responses": {**_RESPONSE, "usage": _RESPONSES_USAGE},
}
_FRAMES: dict[str, list[Any]] = {
    "messages": [
        {"type": "message_start", "message": {**_MESSAGE, "content": [], "usage": _ANTHROPIC_USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {**_TOOL_USE, "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ],
    "completions": [
        {**_COMPLETION, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello."}}]},
        {**_COMPLETION, "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **_CALL}]}}]},
        {**_COMPLETION, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**_COMPLETION, "choices": [], "usage": _OPENAI_USAGE},
        "[DONE]",
    ],
    "responses": [
        {"type": "response.created", "response": {**_RESPONSE, "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": _OUTPUT[0]},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hello."},
        {"type": "response.output_item.done", "output_index": 0, "item": _OUTPUT[0]},
        {"type": "response.output_item.added", "output_index": 1, "item": _OUTPUT[1]},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
        {"type": "response.output_item.done", "output_index": 1, "item": _OUTPUT[1]},
        {"type": "response.completed", "response": {**_RESPONSE, "usage": _RESPONSES_USAGE}},
    ],
}  # fmt: skip
_ERRORS = {"type": "error", "error": {"type": "overloaded_error", "message": "busy", "code": None, "param": None}}
_STATUSES = (400, 404, 413, 429, 500, 503, 529, 302, 204, 201)


def reply(seed: int, number: int, path: str, *, stream: bool) -> tuple[int, str, list[bytes], bool]:
    """A provider's answer gone wrong: status, content type, pieces, and whether the connection ends as it should."""
    rng = random.Random(f"reply:{seed}:{number}")
    kind = next(name for name in _WHOLE if name in path)
    status = rng.choice(_STATUSES) if rng.random() < 0.1 else 200
    streams = stream if rng.random() < 0.95 else not stream
    if status != 200:
        return status, "application/json", [_textual(rng, _encode(rng, _mutated(rng, _ERRORS)))], True
    if not streams:
        content_type = rng.choice(("application/json", "application/json", "text/html", ""))
        return 200, content_type, [_textual(rng, _encode(rng, _mutated(rng, _WHOLE[kind])))], rng.random() < 0.95
    frames = copy.deepcopy(_FRAMES[kind])
    if rng.random() < 0.1:
        frames.insert(rng.randrange(len(frames)), _ERRORS)
    if rng.random() < 0.3:
        del frames[rng.randrange(len(frames))]
    if rng.random() < 0.2:
        rng.shuffle(frames)
    pieces = []
    for frame in frames:
        event = _mutated(rng, frame) if rng.random() < 0.3 else frame
        data = _textual(rng, event.encode() if isinstance(event, str) else _encode(rng, event))
        name = event["type"] if isinstance(event, dict) and isinstance(event.get("type"), str) else "message"
        end = rng.choice((b"\n\n", b"\n\n", b"\r\n\r\n", b"\n"))
        pieces.append(b"event: %b\ndata: %b%b" % (name.encode("utf-8", "replace"), data, end))
    if rng.random() < 0.3:  # other bounds than the frames'
        whole = b"".join(pieces)
        pieces = [whole[at : at + 37] for at in range(0, min(len(whole), 4000), 37)]
    return 200, "text/event-stream", pieces, rng.random() < 0.9


def _mutated(rng: random.Random, value: Any) -> Any:
    value = copy.deepcopy(value)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        holders = list(_holders(value))
        if holders:
            holder = rng.choice(holders)
            at = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            rng.choice(_MUTATIONS)(rng, holder, at, _WHOLE["messages"])
    return value
