"""What passes through passes as it is: bytes, headers, statuses, frames as they come."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx2
import pytest

from router.offline import Upstream
from tests.gateway.conftest import HELLO, STREAM_HEAD, Exact, Serve, wait_for, whole

NAMED = {**HELLO, "model": "claude-sonnet-4-6"}
REPLY = b'{"id":"msg_1", "type":"message","model":"claude-sonnet-4-6", "unknown": [1.50, null] ,"usage":{"input_tokens":9,"output_tokens":3}}'  # fmt: skip # noqa: E501


def event(data: Any, *, name: str | None = None) -> bytes:
    return f"event: {name or data['type']}\ndata: {json.dumps(data)}\n\n".encode()


FRAMES = [
    event({"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}),
    event({"type": "ping"}),
    b": a comment\n\n",
    event({"type": "content_block_delta", "index": 0, "delta": {"type": "of_tomorrow", "text": "h\u00e9"}}),
    b"event: message_delta\r\ndata: {\"type\": \"message_delta\", \"usage\": {\"output_tokens\": 7}}\r\n\r\n",
    event({"type": "message_stop"}),
]  # fmt: skip


def test_a_named_models_body_passes_byte_for_byte(serve: Serve) -> None:
    raw = (
        b'{ "model": "claude-sonnet-4-6",\n "max_tokens": 5.0, "of_tomorrow": {"a": [1e2, "\\u00e9"]},'
        b'"messages":[{"role":"user","content":"hi \\ud83d\\ude00"}] }'
    )
    with Exact([whole(REPLY)]) as upstream:
        reply = serve(upstream.url).post("/v1/messages", raw)
        assert upstream.body == raw
        assert reply.content == REPLY


def test_of_an_auto_body_only_the_model_and_cache_fields_change(serve: Serve) -> None:
    body = {**HELLO, "of_tomorrow": {"a": [1.5, 2**70, None]}, "router": {"min_tier": "complex"}}
    with Exact([whole(REPLY)]) as upstream:
        serve(upstream.url).post("/v1/messages", body)
        sent = json.loads(upstream.body)
    assert sent["model"].startswith("claude-opus")
    del body["router"]
    assert {**sent, "model": "auto"} == body


def test_headers_pass_both_ways(serve: Serve) -> None:
    reply_headers = ["request-id: req_9", "anthropic-ratelimit-requests-remaining: 12", "x-new: a", "x-new: b"]
    with Exact([whole(REPLY, "200 OK", *reply_headers)]) as upstream:
        sent = {
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "one-2026-01-01,two",
            "user-agent": "claude-cli/2.1",
            "x-of-tomorrow": "yes",
            "cookie": "session=secret",
            "x-api-key": "the caller's",
        }
        reply = serve(upstream.url).post("/v1/messages?beta=true&x=%20y", NAMED, sent)
        assert upstream.requests[0].startswith(b"POST /v1/messages?beta=true&x=%20y HTTP/1.1\r\n")
        got = upstream.headers
    assert {n: got.get(n) for n in sent} == {**sent, "cookie": None, "x-api-key": "sk-canary-anthropic"}
    assert {"traceparent", "x-forwarded-for"} & set(got) == set()
    assert reply.headers["request-id"] == "req_9"
    assert reply.headers.get_list("x-new") == ["a", "b"]
    assert reply.headers["anthropic-ratelimit-requests-remaining"] == "12"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("400 Bad Request", b'{"type": "error",  "error": {"type": "invalid_request_error", "message": "no"}}', "json"),
        ("401 Unauthorized", b'{"type":"error","error":{"type":"authentication_error","message":"no"}}', "json"),
        ("413 Too Large", b"<html>Cloudflare</html>", "html"),
        ("422 Unprocessable", b"", "json"),
        ("529 Overloaded", b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "json"),
        ("304 Not Modified", b"", "json"),
    ],
)
def test_errors_pass_byte_for_byte(serve: Serve, status: str, body: bytes, kind: str) -> None:
    with Exact(
        [whole(body, status, f"content-type: text/{kind}", "x-should-retry: false", "retry-after: 9")]
    ) as upstream:
        reply = serve(upstream.url, max_retries=0).post("/v1/messages", NAMED)
    assert (reply.status_code, reply.content) == (int(status[:3]), body)
    assert (reply.headers["content-type"], reply.headers["x-should-retry"]) == (f"text/{kind}", "false")
    assert reply.headers["retry-after"] == "9"


@pytest.mark.parametrize("model", ["auto", "claude-sonnet-4-6"])
def test_a_streams_bytes_are_the_same_however_they_are_cut(serve: Serve, model: str) -> None:
    """Frames cut at every byte, \\r\\n and \\n mixed, comments and pings; usage is read on the way."""
    stream = b"".join(FRAMES)
    pieces = [bytes([byte]) for byte in stream]
    with Exact([STREAM_HEAD, *pieces]) as upstream:
        gateway = serve(upstream.url)
        reply = gateway.post("/v1/messages", {**HELLO, "model": model, "stream": True})
        assert reply.content == stream
        (row,) = gateway.records(1)
    assert (row["fresh_tokens"], row["output_tokens"]) == (9, 7)


def test_frames_and_pings_are_relayed_as_they_come(serve: Serve) -> None:
    """Each frame arrives before the next is sent: nothing is buffered."""
    gates = [threading.Event() for _ in FRAMES]
    pieces: list[Any] = [STREAM_HEAD]
    for frame, gate in zip(FRAMES, gates, strict=True):
        pieces += [frame, gate]
    with Exact(pieces) as upstream:
        gateway = serve(upstream.url)
        url = f"{gateway.url}/v1/messages"
        with httpx2.stream("POST", url, json={**NAMED, "stream": True}, timeout=5) as reply:
            got = b""
            for chunk in reply.iter_raw():
                got += chunk
                for number, gate in enumerate(gates):
                    if got.startswith(b"".join(FRAMES[: number + 1])):
                        gate.set()
    assert got == b"".join(FRAMES)
    assert all(gate.is_set() for gate in gates)


def test_the_record_is_kept_before_the_last_frame_leaves(serve: Serve) -> None:
    gate = threading.Event()
    with Exact([STREAM_HEAD, *FRAMES, gate]) as upstream:
        gateway = serve(upstream.url)
        with httpx2.stream("POST", f"{gateway.url}/v1/messages", json={**NAMED, "stream": True}, timeout=5) as reply:
            got = b""
            for chunk in reply.iter_raw():
                got += chunk
                if b"message_stop" in got:
                    break
            journal = b"".join(path.read_bytes() for path in (gateway.state / "journal").glob("*.journal"))
            assert journal.count(b'"request_id"') == 1
            gate.set()


@pytest.mark.parametrize("moment", ["before the headers", "in the stream"])
def test_a_caller_who_leaves_ends_the_upstream_call(serve: Serve, moment: str) -> None:
    pieces = [STREAM_HEAD, *FRAMES[:2]] if moment == "in the stream" else []
    with Exact([*pieces, 10.0]) as upstream:
        gateway = serve(upstream.url)
        with (
            httpx2.Client(timeout=httpx2.Timeout(5, read=0.4)) as client,
            pytest.raises(httpx2.ReadTimeout),
            client.stream("POST", f"{gateway.url}/v1/messages", json={**NAMED, "stream": True}) as reply,
        ):
            reply.read()
        assert upstream.left.wait(3)
        wait_for(lambda: gateway.gateway.slots.n_running == 0)
        if moment == "in the stream":
            (row,) = gateway.records(1)
            assert (row["fresh_tokens"], "the caller left" in row["notes"]) == (9, True)
        assert 'tierwise_refused_total{why="caller_left"} 1.0' in gateway.metrics()


def test_a_large_body_passes_and_is_not_sent_twice(serve: Serve) -> None:
    body = {**NAMED, "messages": [{"role": "user", "content": "x" * 3_000_000}]}
    with Exact([whole(REPLY)]) as upstream:
        reply = serve(upstream.url).post("/v1/messages", body)
        assert reply.content == REPLY
        assert json.loads(upstream.body) == body
        assert len(upstream.requests) == 1


def test_compressed_replies_are_not_asked_for(serve: Serve) -> None:
    with Exact([whole(REPLY)]) as upstream:
        serve(upstream.url).post("/v1/messages", NAMED, {"accept-encoding": "gzip, br"})
        assert upstream.headers["accept-encoding"] == "identity"


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    with Exact([whole(b"", "307 Temporary Redirect", "location: http://127.0.0.1:1/")]) as upstream:
        reply = serve(upstream.url).post("/v1/messages", NAMED)
    assert (reply.status_code, reply.headers["location"]) == (307, "http://127.0.0.1:1/")


def test_what_the_chosen_model_does_not_take_is_adapted_and_noted(serve: Serve, upstream: Upstream) -> None:
    """The caller of "auto" cannot know which model it will be."""
    gateway = serve(upstream.url)
    reply = gateway.post("/v1/chat/completions", {**HELLO, "model": "auto", "temperature": 0.3})
    assert reply.status_code == 200, reply.text
    assert upstream.requests[0]["max_completion_tokens"] == HELLO["max_tokens"]
    assert "max_tokens sent as max_completion_tokens" in gateway.records(1)[0]["notes"]
