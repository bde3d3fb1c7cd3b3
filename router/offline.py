"""An embedded upstream for the demo and the tests: both providers' wire formats on a local socket, caches billed.

Replies are simulated; everything around them is meant to be what a provider does: required fields, error bodies,
streaming events, the per-model prefix cache with its minimum and TTL, and a bill. Written from the documented facts:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching,
https://developers.openai.com/api/docs/guides/prompt-caching and the SDKs' types (2026-11-22).

Two things no document states are assumed: tokens are counted by a rule of thumb (a piece for every five letters),
and OpenAI's implicit cache matches the longest stored prefix of whole messages.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from router import catalog
from router.catalog import Model

LOOK_BACK = 20
MAX_BREAKPOINTS = 4

_PIECE = re.compile(r"\w{1,5}|[^\w\s]")
_WORDS = ("Thank", "you", "for", "your", "message;", "here", "is", "what", "we", "can", "do", "about", "it", "today.")


@dataclass(frozen=True)
class Bill:
    """One billed request: tokens by kind, USD, and the model. `tag` is the request's x-demo-tag header."""

    model: str
    fresh: int
    read: int
    write_short: int
    write_long: int
    output: int
    usd: Decimal
    tag: str


@dataclass(frozen=True)
class Failure:
    """What the upstream does instead of answering one request for `model` (None: for any).

    It waits `delay_s`, then rejects with `status`, or, with `cut_after`, answers and breaks off after so many frames of
    the stream.
    """

    status: int = 529
    kind: str = "overloaded_error"
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] | None = None
    delay_s: float = 0.0
    cut_after: int | None = None


class _Rejected(Exception):
    def __init__(self, status: int, kind: str, message: str, failure: Failure | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.headers = failure.headers if failure else {}
        self.details = failure.details if failure else None


@dataclass
class _Block:
    """One position of the prompt: its place in the hash chain, tokens up to and including it, and its breakpoint."""

    chain: str
    tokens: int
    ttl_s: int | None = None
    is_long: bool = False


@dataclass
class Upstream:
    """Serves until closed: `with Upstream() as upstream: Anthropic(base_url=upstream.url, api_key="offline")`.

    `clock` gives seconds; a simulation passes its own, and caches expire by it.
    `requests` keeps each parsed body; each of `failures` happens once, in order.
    """

    clock: Callable[[], float] = time.time
    models: catalog.Catalog = field(default_factory=catalog.shipped)
    bills: list[Bill] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    _warm: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Upstream:
        upstream = self

        class Handler(_Handler):
            serves = upstream

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The base URL for the Anthropic SDK; the OpenAI SDK's ends in /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def forget(self) -> None:
        """Empty every cache, as on another account."""
        with self._lock:
            self._warm.clear()

    def _next_failure(self, model: object) -> Failure | None:
        with self._lock:
            at = next((i for i, f in enumerate(self.failures) if f.model in (None, model)), None)
            return None if at is None else self.failures.pop(at)

    def _model(self, body: Mapping[str, Any]) -> Model:
        model = self.models.find(str(body.get("model")))
        if model is None:
            raise _Rejected(404, "not_found_error", f"model: {body.get('model')}")
        return model

    def _bill(self, model: Model, fresh: int, read: int, short: int, long: int, output: int, tag: str) -> None:
        on = dt.datetime.fromtimestamp(self.clock(), dt.UTC).date()
        price = model.price(on, fresh + read + short + long)
        zero = Decimal(0)
        usd = (
            fresh * (price.input or zero)
            + read * (price.cache_read or zero)
            + short * (price.cache_write_short or zero)
            + long * (price.cache_write_long or zero)
            + output * (price.output or zero)
        ) / 1_000_000
        with self._lock:
            self.bills.append(Bill(model.id, fresh, read, short, long, output, usd, tag))

    def _anthropic_cache(self, model: Model, blocks: list[_Block]) -> tuple[int, int, int, int]:
        """(fresh, read, written 5m, written 1h) for one request; updates what is warm from its start on."""
        now = self.clock()
        marked = [i for i, block in enumerate(blocks) if block.ttl_s is not None]
        with self._lock:
            hit = -1
            for i in marked:
                for j in range(i, max(i - LOOK_BACK, -1), -1):
                    if self._warm.get((model.id, blocks[j].chain), (0.0, 0))[0] > now:
                        hit = max(hit, j)
                        break
            read = blocks[hit].tokens if hit >= 0 else 0
            if hit >= 0:
                expiry, ttl_s = self._warm[model.id, blocks[hit].chain]
                self._warm[model.id, blocks[hit].chain] = (max(expiry, now + ttl_s), ttl_s)
            done, short, long = read, 0, 0
            for i in marked:
                block = blocks[i]
                if block.tokens < model.cache_min_tokens or block.tokens <= done or block.ttl_s is None:
                    continue
                self._warm[model.id, block.chain] = (now + block.ttl_s, block.ttl_s)
                if block.is_long:
                    long += block.tokens - done
                else:
                    short += block.tokens - done
                done = block.tokens
        return blocks[-1].tokens - done, read, short, long

    def _openai_cache(self, model: Model, blocks: list[_Block]) -> tuple[int, int, int]:
        """(fresh, read, written): the longest stored prefix is read, 128 tokens at a time, and the whole is stored."""
        now = self.clock()
        total = blocks[-1].tokens
        if total < model.cache_min_tokens:
            return total, 0, 0
        with self._lock:
            warm = [b.tokens for b in blocks if self._warm.get((model.id, b.chain), (0.0, 0))[0] > now]
            read = max(warm, default=0) // 128 * 128
            read = read if read >= model.cache_min_tokens else 0
            for block in blocks:
                self._warm[model.id, block.chain] = (now + model.ttl_short_s, model.ttl_short_s)
        bills_writes = model.prices[0].cache_write_short is not None
        return (0, read, total - read) if bills_writes else (total - read, read, 0)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that did not wait for the answer, or left in the middle of it."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    serves: Upstream
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    _cut_after: int | None = None

    def do_POST(self) -> None:
        """Answer one request, or reject it in the provider's own words."""
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.partition("?")[0]
        replies = {
            "/v1/messages": self._messages,
            "/v1/messages/count_tokens": self._count_tokens,
            "/v1/chat/completions": self._chat,
            "/v1/responses": self._responses,
        }
        try:
            if path not in replies:
                raise _Rejected(404, "not_found_error", f"Not found: {path}")
            body = json.loads(raw)
            with self.serves._lock:
                self.serves.requests.append(body)
            key = self.headers.get("authorization", self.headers.get("x-api-key", ""))
            if key.removeprefix("Bearer ") in ("", "invalid"):
                raise _Rejected(401, "authentication_error", "invalid x-api-key")
            self._cut_after = None
            if failure := self.serves._next_failure(body.get("model")):
                time.sleep(failure.delay_s)
                self._cut_after = failure.cut_after
                if failure.cut_after is None:
                    raise _Rejected(failure.status, failure.kind, "simulated failure", failure)
            replies[path](body)
        except json.JSONDecodeError:
            self._error(path, _Rejected(400, "invalid_request_error", "The request body is not valid JSON"))
        except _Rejected as rejected:
            self._error(path, rejected)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr."""

    def _messages(self, body: dict[str, Any]) -> None:
        upstream, model = self.serves, self.serves._model(body)
        if not isinstance(body.get("max_tokens"), int):
            raise _Rejected(400, "invalid_request_error", "max_tokens: Field required")
        if self.headers.get("anthropic-version") == "2026-10-21":
            for name in ("temperature", "top_p", "top_k"):
                if name in body:
                    raise _Rejected(400, "invalid_request_error", f"{name}: Extra inputs are not permitted")
        blocks = list(_anthropic_blocks(body, model))
        text = _reply(body, model.id)
        fresh, read, short, long = upstream._anthropic_cache(model, blocks)
        output = min(_tokens(text), body["max_tokens"])
        upstream._bill(model, fresh, read, short, long, output, self.headers.get("x-demo-tag", ""))
        usage = {
            "input_tokens": fresh,
            "cache_creation_input_tokens": short + long,
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
            "output_tokens": output,
            "service_tier": "standard",
        }
        message = {
            "id": f"msg_{len(upstream.bills):08d}",
            "type": "message",
            "role": "assistant",
            "model": model.id,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
        if not body.get("stream"):
            return self._json(message)
        start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
        ]
        events += [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in _pieces(text)
        ]
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        events += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}},
            {"type": "message_stop"},
        ]
        return self._stream(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)

    def _count_tokens(self, body: dict[str, Any]) -> None:
        model = self.serves._model(body)
        self._json({"input_tokens": list(_anthropic_blocks(body, model))[-1].tokens})

    def _chat(self, body: dict[str, Any]) -> None:
        model, text, fresh, read, written, output = self._openai(body, "messages")
        usage = {
            "prompt_tokens": fresh + read + written,
            "completion_tokens": output,
            "total_tokens": fresh + read + written + output,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
        head: dict[str, Any] = {
            "id": f"chatcmpl-{len(self.serves.bills)}",
            "created": int(self.serves.clock()),
            "model": model.id,
        }
        if not body.get("stream"):
            message = {"role": "assistant", "content": text, "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return self._json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in _pieces(text)]
        choices: list[list[dict[str, Any]]] = [[{"index": 0, "delta": d, "finish_reason": None}] for d in deltas]
        choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        chunks = [{**head, "object": "chat.completion.chunk", "choices": c} for c in choices]
        if (body.get("stream_options") or {}).get("include_usage"):
            last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}
            chunks = [*({**chunk, "usage": None} for chunk in chunks), last]
        frames = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return self._stream(iter([*frames, "data: [DONE]\n\n"]))

    def _responses(self, body: dict[str, Any]) -> None:
        model, text, fresh, read, written, output = self._openai(body, "input")
        content = {"type": "output_text", "text": text, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [content]}
        response = {
            "id": f"resp_{len(self.serves.bills)}",
            "object": "response",
            "created_at": int(self.serves.clock()),
            "model": model.id,
            "status": "completed",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                "input_tokens": fresh + read + written,
                "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
                "output_tokens": output,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": fresh + read + written + output,
            },
        }
        if not body.get("stream"):
            return self._json(response)
        begun: dict[str, Any] = {**response, "status": "in_progress", "output": [], "usage": None}
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
            {"type": "response.content_part.added", **at, "part": {**content, "text": ""}},
        ]
        events += [{"type": "response.output_text.delta", **at, "delta": p, "logprobs": []} for p in _pieces(text)]
        events += [
            {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **at, "part": content},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": response},
        ]
        numbered = ({**event, "sequence_number": n} for n, event in enumerate(events))
        return self._stream(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in numbered)

    def _openai(self, body: dict[str, Any], prompt: str) -> tuple[Model, str, int, int, int, int]:
        model = self.serves._model(body)
        if not body.get(prompt):
            raise _Rejected(400, "invalid_request_error", f"Missing required parameter: '{prompt}'.")
        blocks = list(_openai_blocks(body, prompt))
        text = _reply(body, model.id)
        fresh, read, written = self.serves._openai_cache(model, blocks)
        output = _tokens(text)
        self.serves._bill(model, fresh, read, written, 0, output, self.headers.get("x-demo-tag", ""))
        return model, text, fresh, read, written, output

    def _json(self, value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        payload = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.send_header("request-id", "req_offline")
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(payload)

    def _stream(self, frames: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, frame in enumerate(frames):
            if number == self._cut_after:
                self.close_connection = True
                return  # no last chunk: the client sees the connection break
            data = frame.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _error(self, path: str, rejected: _Rejected) -> None:
        detail: dict[str, Any] = {"type": rejected.kind, "message": rejected.message}
        if path.startswith("/v1/messages"):
            if rejected.details:
                detail["details"] = rejected.details
            body = {"type": "error", "error": detail, "request_id": "req_offline"}
        else:
            body = {"error": {**detail, "param": None, "code": (rejected.details or {}).get("error_code")}}
        self._json(body, rejected.status, rejected.headers)


def _anthropic_blocks(body: Mapping[str, Any], model: Model) -> Iterator[_Block]:
    """The prompt's positions in the order tools, system, messages. Raises _Rejected on illegal cache_control."""
    parts: list[tuple[str, Any]] = [("tools", tool) for tool in body.get("tools") or ()]
    parts += [("system", block) for block in _as_blocks(body.get("system"))]
    for message in body.get("messages") or ():
        parts += [(str(message["role"]), block) for block in _as_blocks(message.get("content"))]
    if not parts or not body.get("messages"):
        raise _Rejected(400, "invalid_request_error", "messages: at least one message is required")
    marks = [block["cache_control"] for _, block in parts if block.get("cache_control")]
    _check_marks(marks)
    chain, tokens = "", 0
    for section, block in parts:
        mark = block.get("cache_control")
        content = json.dumps({k: v for k, v in block.items() if k != "cache_control"}, sort_keys=True)
        chain = hashlib.blake2b(f"{chain}{section}{content}".encode("utf-8", "replace"), digest_size=16).hexdigest()
        tokens += _tokens(content)
        is_long = bool(mark) and mark.get("ttl") == "1h"
        ttl_s = None if not mark else model.ttl_long_s if is_long else model.ttl_short_s
        yield _Block(chain, tokens, ttl_s, is_long)


def _check_marks(marks: list[Mapping[str, Any]]) -> None:
    if len(marks) > MAX_BREAKPOINTS:
        message = f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(marks)}."
        raise _Rejected(400, "invalid_request_error", message)
    seen_short = False
    for mark in marks:
        ttl = mark.get("ttl", "5m")
        if ttl not in ("5m", "1h"):
            raise _Rejected(400, "invalid_request_error", "cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
        if ttl == "1h" and seen_short:
            message = "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block."
            raise _Rejected(400, "invalid_request_error", message)
        seen_short = seen_short or ttl == "5m"


def _openai_blocks(body: Mapping[str, Any], prompt: str) -> Iterator[_Block]:
    parts: list[Any] = [*(body.get("tools") or ()), *([body["instructions"]] if body.get("instructions") else ())]
    given = body[prompt]
    parts += [given] if isinstance(given, str) else given
    chain, tokens = str(body.get("prompt_cache_key")), 0
    for part in parts:
        content = json.dumps(part, sort_keys=True)
        chain = hashlib.blake2b((chain + content).encode("utf-8", "replace"), digest_size=16).hexdigest()
        tokens += _tokens(content)
        yield _Block(chain, tokens)


def _as_blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content or ())


@lru_cache(maxsize=4096)
def _tokens(text: str) -> int:
    return len(_PIECE.findall(text))


def _reply(body: Mapping[str, Any], model_id: str) -> str:
    """A reply whose length (30 to 180 words) depends on the prompt alone, so that every model answers equally long."""
    prompt = json.dumps(body.get("messages", body.get("input")), sort_keys=True).encode("utf-8", "replace")
    n_words = 30 + int.from_bytes(hashlib.blake2b(prompt, digest_size=2).digest()) % 151
    return f"[simulated reply of {model_id}] " + " ".join(_WORDS[i % len(_WORDS)] for i in range(n_words))


def _pieces(text: str) -> list[str]:
    return re.findall(r".{1,40}", text, re.DOTALL)
