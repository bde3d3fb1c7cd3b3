"""The embedded upstream against the documented rules, through the plain SDKs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from router.offline import Failure, Upstream
from tests.conftest import ROOT

LONG = "A rule about shipping parcels by night train, which nobody remembers. " * 400
HAIKU, SONNET = "claude-haiku-4-5", "claude-sonnet-4-6"


def send(client: anthropic.Anthropic, model: str = SONNET, text: str = LONG, ttl: str = "5m", user: str = "hi") -> Any:
    system: Any = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}}]
    return client.messages.create(
        model=model, max_tokens=50, system=system, messages=[{"role": "user", "content": user}]
    ).usage


def test_write_then_read_then_expiry_from_the_request_start(claude: anthropic.Anthropic, clock: Any) -> None:
    first = send(claude)
    assert (first.cache_read_input_tokens, first.cache_creation.ephemeral_5m_input_tokens > 4000) == (0, True)
    clock.now += 299
    assert send(claude, user="other").cache_read_input_tokens == first.cache_creation_input_tokens
    clock.now += 299  # the read has refreshed it
    assert send(claude).cache_read_input_tokens == first.cache_creation_input_tokens
    clock.now += 301
    assert send(claude).cache_read_input_tokens == 0


def test_an_hour_is_an_hour(claude: anthropic.Anthropic, clock: Any) -> None:
    assert send(claude, ttl="1h").cache_creation.ephemeral_1h_input_tokens > 4000
    clock.now += 3599
    assert send(claude, ttl="1h").cache_read_input_tokens > 4000
    clock.now += 3601
    assert send(claude, ttl="1h").cache_read_input_tokens == 0


def test_caches_are_per_model_and_respect_the_minimum(claude: anthropic.Anthropic) -> None:
    short = LONG[: len(LONG) // 3]
    assert send(claude, SONNET).cache_creation_input_tokens > 0
    assert send(claude, HAIKU).cache_read_input_tokens == 0
    assert send(claude, SONNET, short).cache_creation_input_tokens > 1024
    usage = send(claude, HAIKU, short)  # below Haiku 4.5's 4,096: silently not cached
    assert (usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (0, 0)


def test_a_changed_prefix_misses(claude: anthropic.Anthropic) -> None:
    send(claude)
    assert send(claude, text=f"Today is Monday. {LONG}").cache_read_input_tokens == 0


def test_look_back_reaches_twenty_positions(claude: anthropic.Anthropic) -> None:
    def turn(n_blocks: int) -> Any:
        blocks: Any = [{"type": "text", "text": f"{LONG[:9000]} {n}"} for n in range(n_blocks)]
        blocks[-1] = {**blocks[-1], "cache_control": {"type": "ephemeral"}}
        return claude.messages.create(model=SONNET, max_tokens=5, messages=[{"role": "user", "content": blocks}]).usage

    turn(2)
    assert turn(21).cache_read_input_tokens > 0
    assert turn(42).cache_read_input_tokens == 0  # 21 positions further: out of reach


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "claude-none"}, "model: claude-none"),
        ({"messages": []}, "at least one message"),
        ({"extra_body": {"temperature": 1}}, "temperature"),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": 3600}}]}, "ttl"),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}] * 5}, "Found 5"),
        (
            {"system": [
                {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "y", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            ]},
            "must not come after",
        ),
    ],
)  # fmt: skip
def test_what_a_provider_rejects_is_rejected(claude: Any, changes: dict[str, Any], message: str) -> None:
    body: dict[str, Any] = {"model": SONNET, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(anthropic.APIStatusError, match=message) as caught:
        claude.messages.create(**(body | changes))
    assert caught.value.status_code in (400, 404)


def test_an_invalid_key_is_refused(upstream: Upstream) -> None:
    with (
        anthropic.Anthropic(base_url=upstream.url, api_key="invalid", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        send(client)


def test_unknown_path(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        gpt.embeddings.create(model="x", input="y")
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'messages'"):
        gpt.chat.completions.create(model="gpt-4o", messages=[])


def test_openai_caches_on_its_own_and_newer_models_bill_the_write(gpt: openai.OpenAI, clock: Any) -> None:
    def ask(model: str) -> Any:
        messages: Any = [{"role": "system", "content": LONG}, {"role": "user", "content": "hi"}]
        return gpt.chat.completions.create(model=model, messages=messages).usage.prompt_tokens_details

    older, newer = ask("gpt-4o"), ask("gpt-6-luna")
    assert (older.cached_tokens, older.cache_write_tokens) == (0, 0)
    assert newer.cache_write_tokens > 4000
    assert ask("gpt-4o").cached_tokens % 128 == 0 < ask("gpt-6-luna").cached_tokens
    clock.now += 1801
    assert ask("gpt-6-luna").cached_tokens == 0


FIRST = {"model": SONNET, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(429, "rate_limit_error", headers={"retry-after": "7"}), anthropic.RateLimitError),
        (Failure(429, "rate_limit_error"), anthropic.RateLimitError),
        (Failure(529), anthropic.OverloadedError),
        (Failure(500, "api_error"), anthropic.InternalServerError),
        (Failure(503, "api_error"), anthropic.ServiceUnavailableError),
        (Failure(400, "invalid_request_error"), anthropic.BadRequestError),
        (Failure(401, "authentication_error"), anthropic.AuthenticationError),
        (Failure(is_reset=True), anthropic.APIConnectionError),
    ],
    ids=str,
)
def test_failures_are_the_providers(claude: Any, upstream: Upstream, failure: Failure, error: type[Exception]) -> None:
    upstream.failures.append(failure)
    with pytest.raises(error) as caught:
        claude.messages.create(**FIRST)
    response = getattr(caught.value, "response", None)
    if response is not None:
        assert response.status_code == failure.status
        assert response.headers.get("retry-after") == failure.headers.get("retry-after")
        assert response.headers["request-id"] == upstream.log[-1].request_id == caught.value.request_id
    assert upstream.bills == []
    assert claude.messages.create(**FIRST).content  # once


def test_openai_failures(gpt: openai.OpenAI, upstream: Upstream) -> None:
    details = {"error_code": "insufficient_quota"}
    upstream.failures += [Failure(429, "rate_limit_error", details=details), Failure(is_reset=True)]
    with pytest.raises(openai.RateLimitError) as caught:
        gpt.responses.create(model="gpt-6-luna", input="hi")
    assert (caught.value.code, caught.value.request_id) == ("insufficient_quota", upstream.log[-1].request_id)
    with pytest.raises(openai.APIConnectionError):
        gpt.responses.create(model="gpt-6-luna", input="hi")


def test_late_but_answered_and_free_for_a_client_that_left(claude: Any, upstream: Upstream) -> None:
    upstream.failures += [Failure(200, delay_s=0.2), Failure(200, delay_s=0.4)]
    assert claude.messages.create(**FIRST).content
    with pytest.raises(anthropic.APITimeoutError):
        claude.with_options(timeout=0.1).messages.create(**FIRST)
    time.sleep(0.5)
    assert [bill.request_id for bill in upstream.bills] == [upstream.log[0].request_id]


def test_until_the_response_begins_nothing_can_be_read(claude: Any, upstream: Upstream) -> None:
    upstream.failures.append(Failure(200, delay_s=0.5, model=SONNET))
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(send, claude)
        while not upstream.log:
            time.sleep(0.01)
        meanwhile = send(claude)
    assert (meanwhile.cache_read_input_tokens, slow.result().cache_read_input_tokens) == (0, 0)
    assert send(claude).cache_read_input_tokens == meanwhile.cache_creation_input_tokens


@pytest.mark.parametrize("after", [0, 3])
def test_streams_can_break(claude: Any, gpt: Any, upstream: Upstream, after: int) -> None:
    def stream(kind: str) -> Any:
        if kind == "messages":
            return claude.messages.create(**FIRST, stream=True)
        if kind == "chat":
            return gpt.chat.completions.create(model="gpt-6-luna", messages=FIRST["messages"], stream=True)
        return gpt.responses.create(model="gpt-6-luna", input="hi", stream=True)

    for kind, broken, told in (
        ("messages", httpx2.RemoteProtocolError, anthropic.APIStatusError),
        ("chat", openai.APIConnectionError, openai.APIError),
        ("responses", openai.APIConnectionError, None),  # an error is an event like others, for the caller to see
    ):
        upstream.failures += [Failure(cut_after=after), Failure(malformed_after=after), Failure(error_after=after)]
        with pytest.raises(broken):
            list(stream(kind))
        with pytest.raises(json.JSONDecodeError):
            list(stream(kind))
        if told is None:
            last = list(stream(kind))[-1]
            assert (last.type, last.code, last.sequence_number) == ("error", "overloaded_error", after)
            continue
        with pytest.raises(told, match="simulated failure") as caught:
            list(stream(kind))
        if kind == "messages":
            assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")


def test_the_log_has_everything_but_the_key(upstream: Upstream) -> None:
    key = "sk-very-secret"
    with anthropic.Anthropic(base_url=upstream.url, api_key=key, max_retries=0) as client:
        client.messages.create(**FIRST, extra_headers={"x-demo-tag": "t", "x-api-key": key})
    exchange, bill = upstream.log[0], upstream.bills[0]
    assert (exchange.method, exchange.path, exchange.body) == ("POST", "/v1/messages", FIRST)
    assert exchange.body is upstream.requests[0]
    assert exchange.headers["anthropic-version"] == "2026-10-21"
    assert (bill.request_id, bill.tag) == (exchange.request_id, "t")
    assert key not in repr(upstream.log)


def test_what_is_no_json(upstream: Upstream) -> None:
    for content in (b"{", b"[1]", b"\xff"):
        reply = httpx2.post(f"{upstream.url}/v1/messages", content=content, headers={"x-api-key": "k"})
        assert (reply.status_code, reply.json()["type"]) == (400, "error")
    assert upstream.requests == []


def test_it_serves_by_hand() -> None:
    command = [sys.executable, "-m", "router.offline", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
                assert client.messages.create(**FIRST).content
        finally:
            process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stderr and process.stderr.read()) == (0, "stopped\n")


def test_a_port_that_is_taken(upstream: Upstream) -> None:
    port = upstream.url.rpartition(":")[2]
    command = [sys.executable, "-m", "router.offline", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen on port {port}" in done.stderr
