"""The gateway in a thread or a process, before the embedded upstream or one that says exactly what it is told."""

from __future__ import annotations

import os
import re
import select
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
import pytest

from router.gateway.gateway import Gateway
from router.gateway.server import Server
from router.gateway.serving import Serving
from router.offline import Upstream
from router.settings import GatewaySettings, Settings, UpstreamSettings
from tests.conftest import ROOT

KEYS = {"ANTHROPIC_API_KEY": "sk-canary-anthropic", "OPENAI_API_KEY": "sk-canary-openai"}
HELLO = {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Running:
    """A gateway that serves. `records` waits for the journal, which is applied five times a second."""

    url: str
    gateway: Gateway
    state: Path

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        given = {"content-type": "application/json", **(headers or {})}
        return httpx2.post(self.url + path, content=content, headers=given, timeout=20)

    def records(self, count: int) -> list[dict[str, Any]]:
        return records(self.state / "records.db", count)

    def metrics(self) -> str:
        return httpx2.get(f"{self.url}/metrics").text


def records(database: Path, count: int) -> list[dict[str, Any]]:
    """All records, once there are `count`; those there are after 5 s otherwise."""
    until = time.monotonic() + 5
    while True:
        with closing(sqlite3.connect(database)) as ledger:
            ledger.row_factory = sqlite3.Row
            found = [dict(row) for row in ledger.execute("SELECT * FROM records ORDER BY id")]
        if len(found) >= count or time.monotonic() > until:
            return found
        time.sleep(0.05)


Serve = Callable[..., Running]


@pytest.fixture(scope="session")
def stopping() -> Iterator[list[threading.Thread]]:
    """The gateways that were told to stop: each takes 0.2 s, which no test need wait for."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def serve(tmp_path: Path, stopping: list[threading.Thread]) -> Iterator[Serve]:
    """`serve(url, **settings)` starts a gateway before the upstream at that address; all are stopped at the end."""
    started: list[tuple[Server, threading.Thread]] = []

    def start(upstream: str, environ: Mapping[str, str] = KEYS, general: Any = None, **settings: Any) -> Running:
        openai = UpstreamSettings(url=f"{upstream}/v1")
        gemini = UpstreamSettings(url=f"{upstream}/v1", key_env="OPENAI_API_KEY")
        upstreams = {"anthropic": UpstreamSettings(url=upstream), "openai": openai, "gemini": gemini}
        state = tmp_path / f"state{len(started)}"
        chosen = GatewaySettings(port=0, state_dir=str(state), upstreams=upstreams, **settings)
        gateway = Gateway(lambda: Serving.load(Settings(gateway=chosen, **(general or {})), environ))
        server = Server(gateway)
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        started.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        return Running(f"http://127.0.0.1:{listener.getsockname()[1]}", gateway, state)

    yield start
    for server, thread in started:
        server.should_exit = True
        stopping.append(thread)


@pytest.fixture
def gateway(serve: Serve, upstream: Upstream) -> Running:
    """With its defaults, before the embedded upstream."""
    return serve(upstream.url)


@pytest.fixture
def claude(gateway: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(gateway: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@dataclass
class Exact:
    """An upstream that keeps the bytes of each request, and answers with given pieces.

    A piece is bytes to send, seconds to wait, or an event to wait for. `left` is set when a client hangs up.
    """

    pieces: Iterable[bytes | float | threading.Event] = ()
    requests: list[bytes] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Exact:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def headers(self) -> dict[str, str]:
        """Of the last request."""
        lines = self.requests[-1].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        """Of the last request."""
        return self.requests[-1].partition(b"\r\n\r\n")[2]

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            raw = b""
            while (end := raw.find(b"\r\n\r\n")) < 0 or len(raw) < end + 4 + _length(raw[:end]):
                chunk = connection.recv(65536)
                if not chunk:
                    return
                raw += chunk
            self.requests.append(raw)
            try:
                for piece in self.pieces:
                    if isinstance(piece, bytes):
                        connection.sendall(piece)
                    elif self._waits(connection, piece):
                        self.left.set()
                        return
            except OSError:
                self.left.set()

    def _waits(self, connection: socket.socket, piece: float | threading.Event) -> bool:
        """Wait, and say whether the client has gone meanwhile."""
        until = time.monotonic() + (piece if isinstance(piece, float) else 10)
        while time.monotonic() < until and not (isinstance(piece, threading.Event) and piece.is_set()):
            if select.select([connection], [], [], 0.01)[0] and not connection.recv(1, socket.MSG_PEEK):
                return True
        return False


def _length(head: bytes) -> int:
    found = re.search(rb"content-length: (\d+)", head.lower())
    return int(found[1]) if found else 0


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A reply as bytes; the connection is closed behind it."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    if not any(line.lower().startswith("content-type") for line in headers):
        lines.append("content-type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@contextmanager
def process(tmp_path: Path, upstream: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """`tierwise serve` as a process: it, its address, its log. The settings are in tierwise.toml of `tmp_path`."""
    file = tmp_path / "tierwise.toml"
    if not file.exists():
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        file.write_text(
            f'[gateway]\nport = {port}\nstate_dir = "{tmp_path}/state"\n'
            f'[gateway.upstreams.anthropic]\nurl = "{upstream}"\n[gateway.upstreams.openai]\nurl = "{upstream}/v1"\n'
        )
    port = int(re.findall(r"port = (\d+)", file.read_text())[0])
    log = tmp_path / "log"
    with log.open("ab") as out:
        running = subprocess.Popen(
            [sys.executable, "-m", "router.cli", "serve", "--config", str(file)],
            env={**os.environ, **KEYS, "PYTHONPATH": str(ROOT), **variables},
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(lambda: _listens(port) or running.poll() is not None)
        assert running.poll() is None, log.read_text()
        yield running, f"http://127.0.0.1:{port}", log
    finally:
        running.kill()
        running.wait()


def wait_for(happens: Callable[[], Any], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
