"""Who may come in and how much they may take; and that no secret leaves."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from router.errors import SettingsError
from router.gateway.keys import KeyFile
from router.gateway.serving import Serving
from router.offline import Failure, Reply, Upstream
from router.settings import GatewaySettings, Settings, UpstreamSettings
from router.types import Tier
from tests.gateway.conftest import HELLO, Exact, Running, Serve, process, wait_for, whole
from tests.gateway.test_fidelity import NAMED, REPLY

JSON_HEAD = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def ask(gateway: Running, token: str, **changes: Any) -> httpx2.Response:
    return gateway.post("/v1/messages", {**HELLO, **changes}, {"authorization": f"Bearer {token}"})


def keys_of(gateway: Running) -> KeyFile:
    return KeyFile(gateway.state / "keys.json")


def forget_when_checked(gateway: Running) -> None:
    """A gateway looks at the file of keys once a second; let it look now."""
    gateway.gateway.keys._checked_s = float("-inf")


def test_only_live_keys_come_in(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci")
    forget_when_checked(gateway)
    for wrong in ("", "tw-", "sk-else", token[:-1], f"{token}x", f"tw-00000000-{'x' * 43}"):
        reply = ask(gateway, wrong) if wrong else gateway.post("/v1/messages", HELLO)
        assert (reply.status_code, reply.json()["error"]["type"]) == (401, "authentication_error")
        assert reply.headers["x-should-retry"] == "false"
    assert upstream.requests == []
    assert ask(gateway, token).status_code == 200
    assert gateway.post("/v1/messages", HELLO, {"x-api-key": token}).status_code == 200
    assert httpx2.get(f"{gateway.url}/v1/models").status_code == 401
    assert httpx2.get(f"{gateway.url}/healthz").status_code == 200
    keys_of(gateway).revoke("ci")
    forget_when_checked(gateway)
    assert ask(gateway, token).status_code == 401


def test_a_key_may_have_a_fleet_and_an_operating_point_of_its_own(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci", fleet="gpt", operating_point="quality")
    forget_when_checked(gateway)
    headers = {"authorization": f"Bearer {token}"}
    reply = gateway.post("/v1/chat/completions", {**HELLO, "model": "auto"}, headers)
    assert reply.headers["x-tierwise-model"].startswith("gpt-")
    assert "key ci" in gateway.records(1)[0]["notes"]


@pytest.mark.parametrize("period", ["usd_a_day", "usd_a_month"])
def test_a_budget_ends(serve: Serve, upstream: Upstream, period: str) -> None:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci", **{period: Decimal("0.000001")})
    forget_when_checked(gateway)
    assert ask(gateway, token).status_code == 200
    reply = ask(gateway, token)
    assert (reply.status_code, reply.json()["error"]["type"]) == (429, "billing_error")
    assert reply.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == 1


def test_a_budget_outlives_the_process(serve: Serve, upstream: Upstream, tmp_path: Path) -> None:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci", usd_a_day=Decimal("0.000001"))
    forget_when_checked(gateway)
    assert ask(gateway, token).status_code == 200
    gateway.records(1)
    (tmp_path / "state1").symlink_to(gateway.state)
    again = serve(upstream.url, access="keys")
    wait_for(lambda: ask(again, token).status_code == 429)


def test_requests_a_minute(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci", requests_a_minute=3)
    _, other = keys_of(gateway).create("other")
    forget_when_checked(gateway)
    replies = [ask(gateway, token) for _ in range(4)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
    assert 0 < int(replies[3].headers["retry-after"]) <= 20
    assert ask(gateway, other).status_code == 200


def test_pass_through_sends_the_callers_key_and_none_of_ours(serve: Serve) -> None:
    with Exact([whole(REPLY)]) as upstream:
        gateway = serve(upstream.url, access="pass-through")
        gateway.post("/v1/messages", NAMED, {"x-api-key": "theirs"})
        assert upstream.headers["x-api-key"] == "theirs"
        gateway.post("/v1/messages", NAMED, {"authorization": "Bearer theirs"})
        assert upstream.headers["authorization"] == "Bearer theirs"
        assert "x-api-key" not in upstream.headers


def test_without_the_providers_key_the_remedy_is_named(serve: Serve, upstream: Upstream) -> None:
    reply = serve(upstream.url, environ={}).post("/v1/messages", HELLO)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (503, "false")
    assert "set ANTHROPIC_API_KEY where it runs" in reply.json()["error"]["message"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", ""])
def test_without_keys_it_binds_to_loopback_only(host: str) -> None:
    with pytest.raises(SettingsError, match="anybody who reaches it could spend your money"):
        Serving.load(Settings(gateway=GatewaySettings(host=host)), {})
    assert Serving.load(Settings(gateway=GatewaySettings(host=host, access="keys")), {}).gateway.host == host


def test_every_mistake_is_named_at_once() -> None:
    wrong = GatewaySettings(host="::", models={"a": "autoo"}, upstreams={"openai": UpstreamSettings(url="ftp://x")})
    with pytest.raises(SettingsError) as refused:
        Serving.load(Settings(gateway=wrong), {})
    assert [line.split()[0] for line in str(refused.value).splitlines()] == [
        "gateway.host",
        "gateway.upstreams.openai.url",
        "gateway.models.'a'",
    ]
    with pytest.raises(SettingsError, match=r"gateway\.host(.|\n)*unknown fleet 'clade'"):
        Serving.load(Settings(fleet="clade", gateway=wrong), {})


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_may_only_be_so_large(serve: Serve, upstream: Upstream, is_chunked: bool) -> None:
    gateway = serve(upstream.url, max_body_bytes=10_000)
    large = json.dumps({**HELLO, "system": "x" * 20_000}).encode()
    content: Any = (large[at : at + 1000] for at in range(0, len(large), 1000)) if is_chunked else large
    headers = {"content-type": "application/json"}
    reply = httpx2.post(f"{gateway.url}/v1/messages", content=content, headers=headers, timeout=5)
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "request_too_large")
    assert upstream.requests == []
    assert gateway.post("/v1/messages", HELLO).status_code == 200


def test_headers_may_only_be_so_large(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, max_header_bytes=2000)
    assert gateway.post("/v1/messages", HELLO, {"x-large": "x" * 3000}).status_code == 431


@pytest.mark.parametrize("start", [b"", b"{"])
def test_a_body_that_stops_coming_is_given_up(serve: Serve, upstream: Upstream, start: bytes) -> None:
    gateway = serve(upstream.url, idle_timeout_s=0.2)
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as slow:
        slow.sendall(JSON_HEAD + b"content-length: 100\r\n\r\n" + start)
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "JSON list, expected an object"),
        (b'{"model": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model": 5}', "`model`"),
        (b'{"messages": []}', "`model`"),
        (b'{"model": "auto:none", "messages": [{"role": "user", "content": "hi"}]}', "auto:none|operating point"),
        (b'{"model": "auto", "router": {"min_tier": "huge"}, "messages": []}', "min_tier"),
    ],
)
def test_a_body_that_is_none_is_named(gateway: Running, upstream: Upstream, body: bytes, says: str) -> None:
    reply = gateway.post("/v1/messages", body)
    assert reply.status_code == 400
    assert any(word in reply.json()["error"]["message"] for word in says.split("|")), reply.text
    assert upstream.requests == []


def test_wrong_paths_and_methods(gateway: Running) -> None:
    assert httpx2.get(f"{gateway.url}/none").status_code == 404
    assert httpx2.get(f"{gateway.url}/v1/messages").status_code == 405
    assert httpx2.post(f"{gateway.url}/v1/embeddings", json={}).json()["error"]["type"] == "not_found_error"


def test_beyond_the_queue_callers_are_turned_away(serve: Serve) -> None:
    """One runs, one waits, the third gets 429 at once; the second is served when the first is done."""
    gate = threading.Event()
    with Exact([gate, whole(REPLY)]) as upstream:
        gateway = serve(upstream.url, max_concurrent=1, max_queue=1)
        slots, replies = gateway.gateway.slots, []
        threads = [threading.Thread(target=lambda: replies.append(gateway.post("/v1/messages", NAMED))) for _ in "12"]
        threads[0].start()
        wait_for(lambda: slots.n_running == 1)
        threads[1].start()
        wait_for(lambda: slots.n_waiting == 1)
        reply = gateway.post("/v1/messages", NAMED)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        assert "1 requests run and 1 wait" in reply.json()["error"]["message"]
        gate.set()
        for thread in threads:
            thread.join(5)
        assert [reply.status_code for reply in replies] == [200, 200]
        assert (slots.n_running, slots.n_waiting) == (0, 0)


def test_who_waits_too_long_is_told(serve: Serve) -> None:
    with Exact([1.0, whole(REPLY)]) as upstream:
        gateway = serve(upstream.url, max_concurrent=1, queue_timeout_s=0.2)
        first = threading.Thread(target=lambda: gateway.post("/v1/messages", NAMED))
        first.start()
        wait_for(lambda: gateway.gateway.slots.n_running == 1)
        assert gateway.post("/v1/messages", NAMED).status_code == 429
        first.join(5)


def test_keys_on_the_command_line(tmp_path: Path) -> None:
    config = tmp_path / "tierwise.toml"
    config.write_text(f'[gateway]\nstate_dir = "{tmp_path}/state"\naccess = "keys"\n')

    def run(*args: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "router.cli", "keys", *args, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    limits = ("--usd-a-day", "2.50", "--requests-a-minute", "60", "--fleet", "claude", "--max-tier", "moderate")
    code, token, said = run("create", "ci", *limits)
    assert (code, token.startswith("tw-"), "not shown again" in said) == (0, True, True)
    assert run("create", "ci")[0] != 0
    assert "unknown" in run("create", "other", "--fleet", "none")[2]
    (row,) = json.loads(run("list", "--json")[1])
    assert (row["name"], row["usd_a_day"], row["requests_a_minute"], row["fleet"]) == ("ci", "2.50", 60, "claude")
    assert row["max_tier"] == "moderate"
    found = KeyFile(tmp_path / "state/keys.json").find(token.strip())
    assert found is not None and found.max_tier is Tier.MODERATE
    assert "digest" not in row
    stored = (tmp_path / "state/keys.json").read_text()
    assert token.strip() not in stored and token.strip().split("-", 2)[2] not in stored
    assert (tmp_path / "state/keys.json").stat().st_mode & 0o777 == 0o600
    code, said, _ = run("revoke", "ci")
    assert (code, said) == (0, f"revoked {row['id']} (ci)\n")
    assert "revoked_at" in run("list")[1]
    assert "no live key" in run("revoke", "ci")[2]


CANARY = "zq9-canary"


def test_no_secret_and_no_prompt_is_found_anywhere(tmp_path: Path, upstream: Upstream) -> None:
    """Planted in every input, looked for in every output: log, journal, records, keys, metrics, errors, headers."""
    keys = KeyFile(tmp_path / "state/keys.json")
    (_, token), (_, admin) = keys.create("ci"), keys.create("admin", admin=True)
    with process(
        tmp_path,
        upstream.url,
        TIERWISE_GATEWAY_ACCESS="keys",
        TIERWISE_GATEWAY_LOG_REQUESTS="true",
        TIERWISE_GATEWAY_MAX_RETRIES="0",
        ANTHROPIC_API_KEY=f"sk-ant-{CANARY}",
        OPENAI_API_KEY=f"sk-{CANARY}",
    ) as (running, url, log):
        seen: list[str] = []
        upstream.scripts += [Reply(f"reply {CANARY}")]
        kind = {"content-type": "application/json"}
        headers = {"authorization": f"Bearer {token}", "x-note": CANARY, "cookie": CANARY, **kind}

        def post(path: str, content: bytes, **more: str) -> None:
            reply = httpx2.post(f"{url}{path}", content=content, headers={**headers, **more}, timeout=10)
            seen.extend(f"{name}: {value}" for name, value in reply.headers.items())
            if reply.status_code != 200:
                seen.append(reply.text)

        prompt = {**HELLO, "messages": [{"role": "user", "content": f"hi {CANARY}"}], "metadata": {"user_id": CANARY}}
        post("/v1/messages", json.dumps(prompt).encode())
        post("/v1/chat/completions", json.dumps({**prompt, "stream": True}).encode())
        post("/v1/messages", b'{"' + CANARY.encode())
        post("/v1/messages", json.dumps({**prompt, "messages": CANARY}).encode())
        post(f"/v1/messages?key={CANARY}", json.dumps(prompt).encode())
        post("/v1/messages", json.dumps(prompt).encode(), authorization=f"Bearer tw-{CANARY}")
        upstream.failures += [Failure(500, "api_error"), Failure(is_reset=True), Failure(cut_after=2)]
        for _ in range(3):
            post("/v1/messages", json.dumps({**prompt, "model": "complex", "stream": True}).encode())
        wait_for(lambda: upstream.failures == [])
        seen.append(httpx2.get(f"{url}/metrics", headers={"x-api-key": admin}).raise_for_status().text)
        seen.append(httpx2.get(f"{url}/readyz").text)
        running.terminate()
        assert running.wait(10) == 0
    written = [log, *(path for path in (tmp_path / "state").rglob("*") if path.is_file())]
    assert len(written) >= 3
    for what in (CANARY, token, *(key.split("-", 2)[2] for key in (token, admin))):  # a secret may hold dashes itself
        assert not [text for text in seen if what in text]
        assert not [path for path in written if what.encode() in path.read_bytes()]
    assert "200" in log.read_text()
