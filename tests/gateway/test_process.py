"""`tierwise serve` as a process: signals, kill -9, its settings, its start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from router.offline import Upstream
from tests.gateway.conftest import HELLO, STREAM_HEAD, Exact, Serve, process, records, wait_for
from tests.gateway.test_fidelity import FRAMES, NAMED


def test_kill_9_under_load_loses_no_record_of_a_delivered_reply(tmp_path: Path, upstream: Upstream) -> None:
    """Eight callers, streaming and not; the delivered replies are in the database once each after the next start.

    And each record is one of the upstream's bills, token for token.
    """
    delivered: set[str] = set()
    stop = threading.Event()

    def call(number: int) -> None:
        with httpx2.Client(timeout=5) as client:
            while not stop.is_set():
                try:
                    body = {**HELLO, "stream": number % 2 == 0}
                    reply = client.post(f"{url}/v1/messages", json=body)
                except httpx2.HTTPError:
                    return
                if reply.status_code == 200:
                    delivered.add(reply.headers["x-tierwise-request-id"])

    with process(tmp_path, upstream.url) as (running, url, _):
        threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(delivered) > 150)
        os.kill(running.pid, signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join()
    with process(tmp_path, upstream.url) as (running, url, _):
        wait_for(lambda: httpx2.get(f"{url}/readyz").json()["journal_backlog_bytes"] == 0)
        running.terminate()
        assert running.wait(10) == 0
    rows = records(tmp_path / "state/records.db", len(delivered))
    kept = [next(n.removeprefix("request ") for n in json.loads(r["notes"]) if n.startswith("request ")) for r in rows]
    assert len(kept) == len(set(kept))
    assert delivered <= set(kept)
    recorded = Counter((r["model"], r["fresh_tokens"], r["cache_read_tokens"], r["output_tokens"]) for r in rows)
    assert recorded <= Counter((b.model, b.fresh, b.read, b.output) for b in upstream.bills)
    assert not list((tmp_path / "state/journal").iterdir())


def test_a_stopped_gateway_finishes_its_streams(tmp_path: Path) -> None:
    gate = threading.Event()
    with (
        Exact([STREAM_HEAD, FRAMES[0], gate, *FRAMES[1:]]) as upstream,
        process(tmp_path, upstream.url) as (running, url, _),
        httpx2.stream("POST", f"{url}/v1/messages", json={**NAMED, "stream": True}, timeout=10) as reply,
    ):
        pieces = reply.iter_raw()
        got = next(pieces)
        running.terminate()
        time.sleep(0.3)
        assert running.poll() is None
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/healthz")
        gate.set()
        assert got + b"".join(pieces) == b"".join(FRAMES)
        assert running.wait(10) == 0
    assert len(records(tmp_path / "state/records.db", 1)) == 1


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with (
        Exact([STREAM_HEAD, FRAMES[0], 20.0]) as upstream,
        process(tmp_path, upstream.url) as (running, url, log),
        httpx2.stream("POST", f"{url}/v1/messages", json={**NAMED, "stream": True}, timeout=10) as reply,
    ):
        pieces = reply.iter_raw()
        next(pieces)
        running.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        running.wait(5)
        assert "Traceback" not in log.read_text()
    (row,) = records(tmp_path / "state/records.db", 1)
    assert (row["fresh_tokens"], "the gateway was stopped before the end" in row["notes"]) == (9, True)


def test_sighup_takes_new_settings_and_keeps_the_old_ones_when_they_are_wrong(
    tmp_path: Path, upstream: Upstream
) -> None:
    file = tmp_path / "tierwise.toml"
    with process(tmp_path, upstream.url) as (running, url, log):
        good = file.read_text()

        def model_after(settings: str, says: str) -> str:
            file.write_text(settings)
            seen = log.read_text().count(says)
            running.send_signal(signal.SIGHUP)
            wait_for(lambda: log.read_text().count(says) > seen)
            reply = httpx2.post(f"{url}/v1/messages", json={**HELLO, "model": "mine"}, timeout=5)
            return reply.headers["x-tierwise-model"]

        mapped = f'{good}\n[gateway.models]\nmine = "claude-sonnet-4-6"\n'
        assert model_after(mapped, "reloaded: artifact") == "claude-sonnet-4-6"
        for broken in (
            f"{good}\n[gateway.models]\nmine = 'none'\n",
            f"{good}\n[[[",
            f"bad_key = 1\n{good}",
            f'artifact = "{tmp_path}/none"\n{good}',
        ):
            assert model_after(broken, "not reloaded") == "claude-sonnet-4-6"
        assert model_after(mapped.replace("sonnet-4-6", "haiku-4-5"), "reloaded: artifact") == "claude-haiku-4-5"
        assert "Traceback" not in log.read_text()


def test_a_reload_forgets_no_conversation(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url).gateway
    before = gateway.serving
    asyncio.run(gateway.reload())
    assert gateway.serving is not before
    assert gateway.serving.router.accounts.placement.memory is before.router.accounts.placement.memory


def test_records_wait_on_disk_while_the_database_is_away(tmp_path: Path, upstream: Upstream) -> None:
    """Another process holds the database locked: served, said on /readyz and in the metrics, applied afterwards."""
    with process(tmp_path, upstream.url) as (_, url, log):
        httpx2.post(f"{url}/v1/messages", json=HELLO, timeout=5)
        database = tmp_path / "state/records.db"
        assert len(records(database, 1)) == 1
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(3):
                assert httpx2.post(f"{url}/v1/messages", json=HELLO, timeout=5).status_code == 200
            wait_for(lambda: httpx2.get(f"{url}/readyz").json()["status"] == "degraded", 15)
            assert "tierwise_database_up 0.0" in httpx2.get(f"{url}/metrics").text
            other.execute("ROLLBACK")
        assert len(records(database, 4)) == 4
        wait_for(lambda: httpx2.get(f"{url}/readyz").json()["status"] == "ok")
        assert "kept on disk until the database is back" in log.read_text()


def cli(tmp_path: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router.cli", *args]
    return subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_check_names_every_mistake(tmp_path: Path) -> None:
    (tmp_path / "tierwise.toml").write_text(
        'operating_poin = "quality"\n[gateway]\nport = 70000\nacces = "keys"\nmax_queue = "many"\n'
        "[gateway.upstreams.antropic]\n[gateway.upstreams.openai]\nkey = 'sk-canary'\n"
    )
    done = cli(tmp_path, "serve", "--check", TIERWISE_GATEWAY_MAX_BODY_BYTES="0")
    assert done.returncode != 0
    for said in ("'operating_point'", "gateway.port", "'access'", "max_queue", "antropic", "MAX_BODY_BYTES", "key_env"):
        assert said in done.stderr
    assert "sk-canary" not in done.stderr
    (tmp_path / "tierwise.toml").write_text('[gateway]\naccess = "keys"\n')
    done = cli(tmp_path, "serve", "--check", ANTHROPIC_API_KEY="k")
    assert (done.returncode, done.stdout) == (0, "settings ok: access keys, provider keys: anthropic\n")


def test_a_log_of_json_has_an_object_a_line(tmp_path: Path, upstream: Upstream) -> None:
    variables = {"TIERWISE_GATEWAY_LOG_FORMAT": "json", "TIERWISE_GATEWAY_LOG_REQUESTS": "true"}
    with process(tmp_path, upstream.url, **variables) as (_, url, log):
        reply = httpx2.post(f"{url}/v1/messages", json={**HELLO, "model": "simple"}, timeout=5)
        wait_for(lambda: "total_ms" in log.read_text())
        told = [json.loads(line) for line in log.read_text().splitlines()]
    assert {event["level"] for event in told} == {"WARNING", "INFO"}
    assert all(event["message"] and event["timestamp"].startswith("20") for event in told)
    assert told[-1]["request_id"] == reply.headers["x-tierwise-request-id"]
    assert (told[-1]["status"], told[-1]["tier"], told[-1]["path"]) == (200, "simple", "/v1/messages")


def test_an_address_in_use_is_said(tmp_path: Path, upstream: Upstream) -> None:
    with process(tmp_path, upstream.url) as (_, url, _):
        done = cli(
            tmp_path, "serve", "--port", url.rpartition(":")[2], TIERWISE_GATEWAY_STATE_DIR=str(tmp_path / "other")
        )
    assert done.returncode != 0
    assert "is it in use? choose --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_looks_at_everything_and_sends_no_key(tmp_path: Path) -> None:
    with Exact() as upstream:
        (tmp_path / "tierwise.toml").write_text(
            f'[gateway]\nstate_dir = "{tmp_path}/state"\nport = 0\n'
            f'[gateway.upstreams]\nanthropic.url = "{upstream.url}"\nopenai.url = "http://127.0.0.1:1"\n'
            f'gemini.url = "{upstream.url}"\n'
        )
        done = cli(tmp_path, "doctor", "--json", ANTHROPIC_API_KEY="sk-canary", OPENAI_API_KEY="sk-canary")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert any(finding["verdict"] == "fail" and "openai" in name for name, finding in found.items()), found
    assert "sk-canary" not in done.stdout + done.stderr
    assert not any(b"sk-canary" in request for request in upstream.requests)
