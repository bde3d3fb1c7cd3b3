"""What no client should send: every request is answered as its API answers, and what was delivered is recorded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from router.offline import Upstream
from router.types import Tier
from tests.conftest import ROOT
from tests.gateway.conftest import HELLO, STREAM_HEAD, Exact, Running, Serve, whole
from tests.gateway.test_fidelity import REPLY

FUZZ = ROOT / "benchmarks/fuzz.py"
REQUESTS = os.environ.get("TIERWISE_FUZZ_REQUESTS", "600")
SEED = os.environ.get("TIERWISE_FUZZ_SEED", "1")


@pytest.mark.parametrize("what", ["requests", "replies"])
def test_mutations_meet_no_bug_and_no_hang_and_lose_no_record(what: str) -> None:
    """A few of what benchmarks/fuzz.py sends; TIERWISE_FUZZ_REQUESTS=100000 sends what it does by default."""
    options = ["--replies"] if what == "replies" else []
    command = [sys.executable, str(FUZZ), "--mixed", "--requests", REQUESTS, "--seed", SEED, *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["ok"], report
    assert report["delivered"] > int(REQUESTS) // 10
    assert {"400", "413", "404"} <= report["by_status"].keys()


@pytest.mark.parametrize("odd", [["text"], {"a": 1}, "a\ud800"])
def test_types_that_have_no_hash_and_text_that_has_no_bytes(gateway: Running, odd: Any) -> None:
    message = {"role": "user", "content": [{"type": odd, "text": "hi"}, {"type": "text", "text": "hi"}], "type": odd}
    for path, body in (
        ("/v1/messages", {**HELLO, "messages": [message]}),
        ("/v1/messages", {**HELLO, "router": {"min_tier": odd}}),
        ("/v1/messages", {**HELLO, "model": f"auto:{odd}"}),
        ("/v1/chat/completions", {**HELLO, "messages": [{"role": odd, "content": "hi"}, message]}),
        ("/v1/feedback", {"good": odd, "request_id": "req_1"}),
        ("/v1/responses", {"model": "auto", "input": [message, {"type": odd}], "tools": [{"type": odd}]}),
    ):
        reply = gateway.post(path, json.dumps(body).encode())
        assert reply.status_code in (200, 400), reply.text
        assert "a bug of" not in reply.text


def test_a_name_that_has_no_bytes_is_recorded(serve: Serve) -> None:
    with Exact([whole(REPLY)]) as upstream:
        gateway = serve(upstream.url)
        reply = gateway.post("/v1/messages", json.dumps({**HELLO, "model": "claude\ud800"}).encode())
        assert reply.status_code == 200
        (row,) = gateway.records(1)
    assert (row["model"], row["fresh_tokens"]) == ("claude?", 9)


@pytest.mark.parametrize("deep", [490, 990, 20_000])
def test_a_body_nested_too_deeply_is_refused_or_sent_on(gateway: Running, deep: int) -> None:
    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}, "x": "here"}
    raw = json.dumps({**HELLO, "messages": [{"role": "user", "content": [block]}]})
    raw = raw.replace('"here"', "[" * deep + "]" * deep)
    reply = gateway.post("/v1/messages", raw.encode())
    assert reply.status_code in (200, 400)
    assert "a bug of" not in reply.text


def test_a_reply_that_has_no_bytes_is_paid_for(serve: Serve) -> None:
    odd = REPLY.replace(b'"msg_1"', b'"msg_\\ud83d"')
    with Exact([whole(odd)]) as upstream:
        gateway = serve(upstream.url)
        assert gateway.post("/v1/messages", HELLO).content == odd
        (row,) = gateway.records(1)
    assert (row["usage_reported"], row["fresh_tokens"]) == (1, 9)


def test_a_refusal_reaches_a_caller_who_is_still_sending(serve: Serve, upstream: Upstream) -> None:
    """Closed with bytes unread, the connection would be reset and the reply lost: what a proxy in front would see."""
    gateway = serve(upstream.url, max_body_bytes=1000)
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    body = b"x" * 4_000_000
    head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(head + body)
        got = b"".join(iter(lambda: caller.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 413 ")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["type"] == "request_too_large"


def test_a_refused_body_that_breaks_its_framing_gets_one_reply(gateway: Running) -> None:
    """A second one behind it would be read as the next request's."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(head + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        got = caller.recv(65536)
        caller.sendall(b"no size\r\n")
        got += b"".join(iter(lambda: caller.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 415 ")
    assert got.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("fleet", ["claude", "gpt"])
def test_a_stream_whose_usage_is_nested_too_deeply_comes_to_its_end(serve: Serve, fleet: str) -> None:
    """As it came, and translated: what nothing can be built of must not take the reply and its record with it."""
    deep = "[" * 490 + "]" * 490
    claude = (
        f'{{"type":"message_start","message":{{"id":"msg_1","content":[],"usage":{{"input_tokens":9,"x":{deep}}}}}}}',
        f'{{"type":"content_block_start","index":0,"content_block":{{"type":"text","text":"hi","x":{deep}}}}}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}',
        '{"type":"message_stop"}',
    )
    gpt = (
        f'{{"id":"c","choices":[{{"index":0,"delta":{{"role":"assistant","content":"hi","x":{deep}}}}}]}}',
        '{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        f'{{"id":"c","choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":3,"x":{deep}}}}}',
        "[DONE]",
    )
    sent = "".join(f"data: {data}\n\n" for data in (claude if fleet == "claude" else gpt))
    with Exact([STREAM_HEAD + sent.encode()]) as upstream:
        gateway = serve(upstream.url, general={"fleet": fleet})
        reply = gateway.post("/v1/messages", {**HELLO, "model": "simple", "stream": True})
        assert reply.status_code == 200
        assert b"message_stop" in reply.content
        (row,) = gateway.records(1)
    assert (row["fresh_tokens"], row["output_tokens"]) == (9, 3)


def test_a_body_that_no_stronger_model_takes_gets_the_error_of_the_first(serve: Serve) -> None:
    """It is no fault of the caller's that the model a tier up speaks another format."""
    mixed = {Tier.SIMPLE: "claude-haiku-4-5", Tier.COMPLEX: "gpt-6.1-sol"}
    odd = {"role": "user", "content": [{"type": "image", "source": "nothing"}, {"type": "text", "text": "hi"}]}
    error = b'{"type":"error","error":{"type":"api_error","message":"no"}}'
    with Exact([whole(error, "503 Service Unavailable")]) as upstream:
        gateway = serve(upstream.url, general={"fleets": {"mixed": mixed}, "fleet": "mixed"}, max_retries=0)
        reply = gateway.post("/v1/messages", {**HELLO, "model": "auto", "messages": [odd]})
    assert (reply.status_code, reply.content) == (503, error)
