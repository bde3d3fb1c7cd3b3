"""The provider fails in every way, before and within a reply: retried, a tier up, or its own error; never cheaper."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import anthropic
import pytest

from router.offline import Failure, Upstream
from router.send import faults
from tests.gateway.conftest import HELLO, STREAM_HEAD, Exact, Serve, whole
from tests.gateway.test_fidelity import FRAMES, NAMED

OVERLOADED = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.01)


@pytest.mark.parametrize("model", ["simple", "claude-sonnet-4-6"])
@pytest.mark.parametrize(
    "failure",
    [
        Failure(429, "rate_limit_error"),
        Failure(429, "rate_limit_error", headers={"retry-after-ms": "20"}),
        Failure(500, "api_error"),
        Failure(503, "api_error"),
        Failure(529),
        Failure(is_reset=True),
    ],
    ids=lambda failure: f"{failure.status}{'reset' if failure.is_reset else ''}{dict(failure.headers)}",
)
def test_a_fault_that_passes_is_not_seen(serve: Serve, upstream: Upstream, failure: Failure, model: str) -> None:
    gateway = serve(upstream.url)
    upstream.failures += [failure, failure]
    reply = gateway.post("/v1/messages", {**HELLO, "model": model})
    assert reply.status_code == 200, reply.text
    assert len({body["model"] for body in upstream.requests}) == 1
    assert len(upstream.requests) == 3
    (row,) = gateway.records(1)
    assert len(upstream.bills) == 1
    assert len(json.loads(row["notes"])) >= 3  # two faults and the request's id


def test_a_model_that_keeps_failing_is_replaced_by_a_stronger_one(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, max_retries=1)
    upstream.failures += [Failure(529)] * 2
    reply = gateway.post("/v1/messages", {**HELLO, "model": "auto", "router": {"max_tier": "moderate"}, "stream": True})
    first, second, third = (body["model"] for body in upstream.requests)
    assert first == second != third
    assert reply.headers["x-tierwise-reason"] == "provider_fault"
    assert reply.headers["x-tierwise-model"] == third
    assert b"message_stop" in reply.content
    (row,) = gateway.records(1)
    assert (row["model"], row["reason"]) == (third, "provider_fault")


def test_when_all_fail_the_last_error_passes_as_it_is(serve: Serve) -> None:
    with Exact([whole(OVERLOADED, "529 Overloaded", "retry-after: 0")]) as upstream:
        gateway = serve(upstream.url, max_retries=1)
        reply = gateway.post("/v1/messages", {**HELLO, "model": "auto"})
        assert (reply.status_code, reply.content) == (529, OVERLOADED)
        models = [json.loads(raw.partition(b"\r\n\r\n")[2])["model"] for raw in upstream.requests]
    assert len(models) == 2 * len(set(models)) > 2
    assert gateway.records(0) == []


def test_a_named_model_is_never_replaced(serve: Serve) -> None:
    with Exact([whole(OVERLOADED, "529 Overloaded")]) as upstream:
        reply = serve(upstream.url, max_retries=1).post("/v1/messages", NAMED)
        assert (reply.status_code, len(upstream.requests)) == (529, 2)


def test_a_wait_beyond_the_budget_is_the_callers_to_decide(serve: Serve) -> None:
    limited = b'{"type":"error","error":{"type":"rate_limit_error","message":"later"}}'
    with Exact([whole(limited, "429 Too Many Requests", "retry-after: 3600")]) as upstream:
        reply = serve(upstream.url).post("/v1/messages", {**HELLO, "model": "complex"})
        assert (reply.status_code, reply.headers["retry-after"], reply.content) == (429, "3600", limited)
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_what_no_attempt_can_mend_is_asked_once(serve: Serve, upstream: Upstream, status: int) -> None:
    upstream.failures.append(Failure(status, "some_error"))
    reply = serve(upstream.url).post("/v1/messages", HELLO)
    assert (reply.status_code, len(upstream.requests)) == (status, 1)
    assert reply.json()["error"]["message"] == "simulated failure"


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
def test_a_refused_connection(serve: Serve, path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    body = {**HELLO, "input": "hi"} if path == "/v1/responses" else HELLO
    reply = serve(f"http://127.0.0.1:{port}").post(path, body)
    assert reply.status_code == 502
    assert "no answer from the provider" in reply.json()["error"]["message"]
    assert (reply.json().get("type") == "error") is (path == "/v1/messages")


def test_a_refused_connection_goes_up_to_another_address(serve: Serve, upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own = {"llama": {"base_url": f"http://127.0.0.1:{port}/v1", "context_tokens": 9000}}
    fleet = {"simple": "llama", "moderate": "gpt-4o-mini", "complex": "gpt-4o"}
    gateway = serve(upstream.url, general={"models": own, "fleets": {"mine": fleet}, "fleet": "mine"}, max_retries=1)
    reply = gateway.post("/v1/chat/completions", HELLO)
    assert (reply.status_code, reply.headers["x-tierwise-model"]) == (200, "gpt-4o-mini")
    (row,) = gateway.records(1)
    assert json.loads(row["notes"])[:3] == ["llama failed 2 times: no connection", *["llama: no connection"] * 2]


def test_headers_that_do_not_come(serve: Serve) -> None:
    with Exact([5.0]) as upstream:
        gateway = serve(upstream.url, first_byte_timeout_s=0.2, max_retries=0)
        started = time.monotonic()
        reply = gateway.post("/v1/messages", {**HELLO, "model": "complex"})
        assert (reply.status_code, reply.json()["error"]["type"]) == (504, "timeout_error")
        assert time.monotonic() - started < 5
        assert upstream.left.wait(2)


def test_an_error_that_opens_a_stream_is_retried(serve: Serve, upstream: Upstream) -> None:
    upstream.failures.append(Failure(529, "overloaded_error", error_after=0))
    gateway = serve(upstream.url)
    reply = gateway.post("/v1/messages", {**HELLO, "stream": True})
    assert (reply.status_code, len(upstream.requests)) == (200, 2)
    assert b"event: error" not in reply.content


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/responses"])
def test_a_stream_that_breaks_off_says_so(serve: Serve, upstream: Upstream, path: str) -> None:
    """An error event in the API's own shape, and a record with what had been reported; no second attempt."""
    body: dict[str, Any] = {"model": "auto", "stream": True}
    body |= {"input": "hi"} if path == "/v1/responses" else {"messages": HELLO["messages"], "max_tokens": 50}
    upstream.failures.append(Failure(cut_after=3))
    gateway = serve(upstream.url)
    reply = gateway.post(path, body)
    last = reply.text.rstrip().rpartition("\n\n")[2]
    data = json.loads(last.partition("data: ")[2])
    assert reply.status_code == 200
    assert "the stream ended early" in json.dumps(data)
    assert last.startswith("event: error") is (path != "/v1/chat/completions")
    assert len(upstream.requests) == 1
    (row,) = gateway.records(1)
    assert "the stream ended early" in row["notes"]


def test_the_sdk_raises_on_a_stream_that_breaks_off(serve: Serve, upstream: Upstream) -> None:
    upstream.failures.append(Failure(cut_after=3))
    url = serve(upstream.url).url
    with (
        anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client,
        pytest.raises(anthropic.APIError, match="ended early"),
        client.messages.stream(model="auto", max_tokens=50, messages=[{"role": "user", "content": "hi"}]) as stream,
    ):
        stream.get_final_message()


def test_silence_within_a_stream_ends_it(serve: Serve) -> None:
    with Exact([STREAM_HEAD, *FRAMES[:2], 5.0]) as upstream:
        gateway = serve(upstream.url, idle_timeout_s=0.3)
        reply = gateway.post("/v1/messages", {**NAMED, "stream": True})
        assert reply.content.startswith(b"".join(FRAMES[:2]) + b"event: error\n")
        assert "nothing came" in reply.text
        assert upstream.left.wait(2)


def test_malformed_events_pass_and_the_rest_is_counted(serve: Serve) -> None:
    junk = [
        b'event: x\ndata: {"usage": {"output_tokens": \n\n',
        b"data: \xff\xfe\n\n",
        b'data: {"usage": 5}\n\n',
        b"\n\n",
    ]
    junk += [b'data: {"type": "message_delta", "usage": {"output_tokens": "many"}}\n\n']
    stream = b"".join([*FRAMES[:2], *junk, *FRAMES[2:]])
    with Exact([STREAM_HEAD, stream]) as upstream:
        gateway = serve(upstream.url)
        reply = gateway.post("/v1/messages", {**NAMED, "stream": True})
    assert reply.content == stream
    assert len(gateway.records(1)) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"usage": 3}', b'{"usage": {"output_tokens": "x"}}', b""])
def test_a_reply_that_is_none_passes_and_its_cost_is_unknown(serve: Serve, body: bytes) -> None:
    with Exact([whole(body)]) as upstream:
        gateway = serve(upstream.url)
        reply = gateway.post("/v1/messages", HELLO)
        assert (reply.status_code, reply.content) == (200, body)
    (row,) = gateway.records(1)
    assert (row["usage_reported"], row["cost_picousd"]) == (0, None)
    assert "x-tierwise-cost-usd" not in reply.headers


def test_a_reply_cut_within_its_body_is_asked_again(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    with Exact([head]) as upstream:
        reply = serve(upstream.url, max_retries=1).post("/v1/messages", NAMED)
        assert (reply.status_code, len(upstream.requests)) == (502, 2)
