"""Whom the gateway keeps out, and what it lets nobody do to the others: web pages, idle connections, keys, headers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from router.gateway.keys import KeyFile
from router.offline import Upstream
from tests.gateway.conftest import HELLO, Exact, Running, Serve, wait_for, whole
from tests.gateway.test_access import JSON_HEAD, ask, forget_when_checked, keys_of
from tests.gateway.test_fidelity import NAMED, REPLY

FOREIGN = [
    ({"host": "evil.example:8484"}, 421),
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://127.0.0.1.evil.example"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"content-type": "text/plain"}, 415),
    ({"content-type": "application/x-www-form-urlencoded"}, 415),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_a_foreign_web_page_spends_nothing(gateway: Running, upstream: Upstream, headers: Any, status: int) -> None:
    reply = gateway.post("/v1/messages", HELLO, headers)
    assert (reply.status_code, upstream.requests) == (status, [])
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/readyz"])
def test_a_foreign_name_reads_nothing(gateway: Running, path: str) -> None:
    reply = httpx2.get(gateway.url + path, headers={"host": "evil.example"})
    assert reply.status_code == 421
    assert "add the name to gateway.hosts" in reply.text


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:1"},
        {"host": "[::1]:8484"},
        {"host": "127.8.9.1"},
        {"host": "gateway.internal"},
        {"origin": "http://localhost:3000"},
        {"content-type": "application/json; charset=utf-8"},
    ],
)
def test_this_machine_and_named_hosts_are_served(serve: Serve, upstream: Upstream, headers: dict[str, str]) -> None:
    gateway = serve(upstream.url, hosts=("gateway.internal",))
    assert gateway.post("/v1/messages", HELLO, headers).status_code == 200


def test_with_keys_it_may_be_asked_by_any_name(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci")
    forget_when_checked(gateway)
    headers = {"host": "llm.example", "x-api-key": token}
    assert gateway.post("/v1/messages", HELLO, headers).status_code == 200


@pytest.mark.parametrize("wish", ["h2c", "websocket"])
def test_the_wish_for_another_protocol_is_overheard(gateway: Running, wish: str) -> None:
    headers = {"connection": "Upgrade, HTTP2-Settings", "upgrade": wish, "http2-settings": "AAMAAABkAAQAAP__"}
    assert gateway.post("/v1/messages", HELLO, headers).status_code == 200


def test_what_a_provider_sends_of_its_own_hop_stays_there(serve: Serve) -> None:
    extra = (
        "set-cookie: a=b",
        "access-control-allow-origin: *",
        "x-tierwise-tier: fake",
        "connection: x-hop",
        "x-hop: 1",
    )
    with Exact([whole(REPLY, 200, *extra, "x-kept: yes")]) as upstream:
        reply = serve(upstream.url).post("/v1/messages", NAMED)
    assert reply.headers["x-kept"] == "yes"
    assert not {"set-cookie", "access-control-allow-origin", "x-hop"} & reply.headers.keys()
    assert reply.headers.get("x-tierwise-tier") != "fake"


def test_what_a_browser_and_an_account_say_is_not_sent_on(serve: Serve) -> None:
    told = {"openai-organization": "org", "cookie": "a=b", "origin": "http://localhost", "x-kept": "yes", "sec-x": "1"}
    with Exact([whole(REPLY)]) as upstream:
        serve(upstream.url).post("/v1/messages", NAMED, told)
    sent = upstream.requests[0].lower()
    assert b"x-kept: yes" in sent
    assert not [name for name in told if name != "x-kept" and name.encode() in sent]


def test_a_status_that_is_none_is_no_answer(serve: Serve) -> None:
    with Exact([whole(REPLY, 700)]) as upstream:
        assert serve(upstream.url, max_retries=0).post("/v1/messages", NAMED).status_code == 502


# ---- connections


@contextmanager
def idle(gateway: Running, count: int, start: bytes = b"") -> Iterator[list[socket.socket]]:
    host, port = gateway.url.removeprefix("http://").split(":")
    callers = [socket.create_connection((host, int(port)), 5) for _ in range(count)]
    try:
        for caller in callers:
            caller.sendall(start)
        yield callers
    finally:
        for caller in callers:
            caller.close()


def is_closed(caller: socket.socket) -> bool:
    try:
        return caller.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("start", [b"", b"POST /v1/messages HTTP/1.1\r\nx: "])
def test_idle_connections_make_room(serve: Serve, upstream: Upstream, start: bytes, caplog: Any) -> None:
    gateway = serve(upstream.url, max_connections=10)
    with idle(gateway, 30, start) as callers:
        assert gateway.post("/v1/messages", HELLO).status_code == 200
        wait_for(lambda: sum(map(is_closed, callers)) >= 20)
    assert caplog.text.count("all 10 connections are taken") == 1
    assert gateway.post("/v1/messages", HELLO).status_code == 200


def test_a_head_that_does_not_come_is_given_up(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, head_timeout_s=0.2)
    with idle(gateway, 3, b"POST /v1/messages HTTP/1.1\r\n") as callers:
        wait_for(lambda: all(map(is_closed, callers)))


def test_a_body_must_come_to_its_end(serve: Serve, upstream: Upstream) -> None:
    """However steadily it comes."""
    gateway = serve(upstream.url, body_timeout_s=0.5)
    with idle(gateway, 1, JSON_HEAD + b"content-length: 1000\r\n\r\n") as (caller,):
        caller.settimeout(0.1)
        seen = b""
        for _ in range(100):
            caller.sendall(b" ")
            try:
                seen = caller.recv(4096)
                break
            except TimeoutError:
                continue
    assert seen.startswith(b"HTTP/1.1 408 ")


def test_bodies_together_have_room_for_so_much(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, max_upload_bytes=50_000)
    with idle(gateway, 1, JSON_HEAD + b"content-length: 60000\r\n\r\n" + b" " * 49_000):
        wait_for(lambda: gateway.gateway.uploads._left < 2000)
        reply = gateway.post("/v1/messages", {**HELLO, "system": "x" * 3000})
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
    wait_for(lambda: gateway.gateway.uploads._left == 50_000)
    assert gateway.post("/v1/messages", HELLO).status_code == 200


# ---- keys


def made(serve: Serve, upstream: Upstream, **limits: Any) -> tuple[Running, str]:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci", **limits)
    forget_when_checked(gateway)
    return gateway, token


HARD = [{"role": "user", "content": "Prove that every bipartite regular graph has a perfect matching, in all detail."}]


@pytest.mark.parametrize(
    ("limits", "model", "status", "tier"),
    [
        ({"max_tier": "moderate"}, "auto", 200, "moderate"),
        ({"max_tier": "moderate"}, "complex", 403, None),
        ({"max_tier": "moderate"}, "claude-opus-4-7", 403, None),
        ({"max_tier": "moderate"}, "claude-haiku-4-5", 200, "simple"),
        ({"max_tier": "moderate"}, "gpt-5.5", 403, None),
        ({"models": ["claude-haiku-*"]}, "auto", 200, "simple"),
        ({"models": ["claude-haiku-*"]}, "claude-haiku-4-5", 200, "simple"),
        ({"models": ["claude-haiku-*"]}, "claude-sonnet-4-6", 403, None),
        ({"models": ["auto"]}, "auto", 200, "complex"),
        ({"models": ["auto"]}, "claude-opus-4-7", 403, None),
        ({"models": ["moderate"]}, "auto", 200, "moderate"),
        ({"models": ["claude"]}, "claude-opus-4-7", 200, "complex"),
        ({"models": ["claude"]}, "some-model-of-tomorrow", 403, None),
        ({"models": ["claude-haiku-4-5", "claude-opus-4-7"]}, "auto", 403, None),
    ],
)
def test_a_key_may_use_what_it_says(
    serve: Serve, upstream: Upstream, limits: Any, model: str, status: int, tier: str | None
) -> None:
    gateway, token = made(serve, upstream, **limits)
    reply = ask(gateway, token, model=model, messages=HARD)
    assert (reply.status_code, reply.headers.get("x-tierwise-tier")) == (status, tier)
    if status == 403:
        assert "'ci'" in reply.json()["error"]["message"]
        assert upstream.requests == []


def test_a_callers_own_bounds_stay_within_those_of_the_key(serve: Serve, upstream: Upstream) -> None:
    gateway, token = made(serve, upstream, max_tier="moderate")
    low = ask(gateway, token, messages=HARD, router={"max_tier": "simple"})
    assert low.headers["x-tierwise-tier"] == "simple"
    assert ask(gateway, token, messages=HARD, router={"min_tier": "complex"}).status_code == 403


def test_metrics_are_an_administrators(serve: Serve, upstream: Upstream) -> None:
    gateway, token = made(serve, upstream)
    _, admin = keys_of(gateway).create("prometheus", admin=True)
    forget_when_checked(gateway)

    def status(key: str) -> int:
        return httpx2.get(f"{gateway.url}/metrics", headers={"authorization": f"Bearer {key}"}).status_code

    assert [status("none"), status(token), status(admin)] == [401, 403, 200]


def test_keys_that_cannot_be_read_are_not_good_for_ever(tmp_path: Path) -> None:
    now = [0.0]
    file = KeyFile(tmp_path / "keys.json", lambda: now[0])
    _, token = file.create("ci")
    assert file.find(token) is not None
    whole_file = file.path.read_bytes()
    file.path.write_text("{")
    for now[0], is_in_force in ((2.0, True), (40.0, True), (64.0, False)):
        assert (file.find(token) is not None) is is_in_force
        assert file.trouble is not None
    file.path.write_bytes(whole_file)
    now[0] = 66.0
    assert file.find(token) is not None
    assert file.trouble is None


def test_a_file_of_keys_keeps_its_mode(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.create("one")
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.path.chmod(0o640)
    file.revoke("one")
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert file.path.stat().st_uid == os.geteuid()


# ---- keys that are passed through

OWN_SERVERS = {
    "models": {
        "my-llama": {"base_url": "http://127.0.0.1:1/v1", "context_tokens": 32_768, "api_key_env": "LLAMA"},
        "our-claude": {"like": "claude-opus-4-7", "base_url": "http://127.0.0.1:1", "discount": "0"},
    }
}


@pytest.mark.parametrize(
    ("path", "model", "key"),
    [
        ("/v1/chat/completions", "my-llama", "Bearer sk-proj-1"),
        ("/v1/chat/completions", "gemini-3.5-flash-lite", "Bearer sk-proj-1"),
        ("/v1/chat/completions", "gpt-5.5", "Bearer sk-ant-api-1"),
        ("/v1/chat/completions", "gpt-5.5", "Bearer AIza-1"),
        ("/v1/messages", "our-claude", "Bearer sk-ant-api-1"),
        ("/v1/chat/completions", "a-model-of-tomorrow", "Bearer sk-ant-api-1"),
        ("/v1/messages", "a-model-of-tomorrow", "Bearer sk-proj-1"),
    ],
)
def test_a_callers_key_goes_to_its_own_provider_alone(
    serve: Serve, upstream: Upstream, path: str, model: str, key: str
) -> None:
    gateway = serve(upstream.url, general=OWN_SERVERS, access="pass-through", environ={"LLAMA": "the operator's"})
    reply = gateway.post(path, {**HELLO, "model": model}, {"authorization": key})
    assert (reply.status_code, upstream.requests) == (400, [])
    assert "the key that is passed through" in reply.json()["error"]["message"]


def test_a_mixed_fleet_goes_where_the_callers_key_is_good(serve: Serve, upstream: Upstream) -> None:
    fleet = {"simple": "gpt-5.4-mini", "moderate": "claude-sonnet-4-6", "complex": "claude-opus-4-7"}
    gateway = serve(upstream.url, general={"fleets": {"mixed": fleet}, "fleet": "mixed"}, access="pass-through")
    reply = gateway.post("/v1/messages", HELLO, {"x-api-key": "sk-ant-mine"})
    assert (reply.status_code, reply.headers["x-tierwise-model"]) == (200, "claude-sonnet-4-6")


# ---- where a request would go


def test_a_route_is_told_and_nothing_sent(serve: Serve, upstream: Upstream) -> None:
    gateway, token = made(serve, upstream, max_tier="moderate")
    headers = {"x-api-key": token}
    found = gateway.post("/v1/route", {"messages": HARD}, headers).json()
    assert (found["tier"], found["operating_point"]) == ("moderate", "balanced")
    assert "Prove" in [word["word"] for word in found["words"][:8]]
    assert gateway.post("/v1/route", {"input": "hi", "model": "auto:quality"}, headers).json()["tier"] == "simple"
    for body, status in (({"messages": HARD, "model": "gpt-5.5"}, 403), ({"messages": HARD, "model": "moderate"}, 200)):
        assert gateway.post("/v1/route", body, headers).status_code == status
    assert gateway.post("/v1/route", {"messages": 5}, headers).status_code in (200, 400)
    assert gateway.post("/v1/route", {"messages": HARD}).status_code == 401
    assert upstream.requests == []


def test_a_route_of_a_named_model_is_no_decision(gateway: Running) -> None:
    reply = gateway.post("/v1/route", {"messages": HARD, "model": "claude-opus-4-7"})
    assert (reply.status_code, "so nothing is decided" in reply.text) == (400, True)
