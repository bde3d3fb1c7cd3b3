"""How long does another client wait while one hostile body is served? JSON on stdout; exit 1 above --limit-ms.

    python benchmarks/hostile.py [--megabytes N] [--limit-ms N]

A gateway process before the embedded upstream. For each kind of body a client posts one of up to 32 MB, another asks
small questions all the while. `longest_ms` is the longest that it waited; `alone_ms` the same with nobody else there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

SMALL = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}


def body(messages: bytes) -> bytes:
    """A body around the bytes of its messages."""
    return b'{"model": "auto", "max_tokens": 20, "messages": [' + messages + b"]}"


def said(text: bytes) -> bytes:
    """A body whose user says this."""
    return body(b'{"role": "user", "content": "' + text + b'"}')


def repeated(unit: bytes, size: int) -> bytes:
    """So many bytes of it."""
    return unit * (size // len(unit))


KINDS: dict[str, Callable[[int], bytes]] = {
    "plain text": lambda n: said(repeated(b"word ", n)),
    "unclosed tags": lambda n: said(repeated(b"<a-b ", n)),
    "innocent html": lambda n: said(repeated(b"<my-card><p>text ", n)),
    "empty messages": lambda n: body(repeated(b"{},", n) + b"{}"),
    "short messages": lambda n: body(repeated(b'{"role":"user","content":"a"},', n) + b'{"role":"user","content":"a"}'),
    "long fractions": lambda n: body(b"{}").replace(b"{}", b"[1." + repeated(b"9" * 300 + b"e-300,1.", n) + b"0]"),
    "numbers": lambda n: body(b"[" + repeated(b"1,", n) + b"1]"),
    "nested lists": lambda n: body(repeated(b"[", n)),
    "no json": lambda n: repeated(b"x", n),
    "escapes": lambda n: said(repeated(b"\\u00e9", n)),
    "conversation id": lambda n: b'{"router": {"conversation_id": "' + repeated(b"c", n) + b'"}, ' + body(b"")[1:],
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=31.0, help="of each body (default 31)")
    parser.add_argument(
        "--limit-ms", type=float, default=250.0, help="the longest wait that is all right (default 250)"
    )
    given = parser.parse_args()
    size = int(given.megabytes * 1e6)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as url:
        alone = longest_wait(url, lambda: time.sleep(2))
        report = {kind: measured(url, make(size)) for kind, make in KINDS.items()}
    longest = max(row["longest_ms"] for row in report.values())
    print(json.dumps({"alone_ms": alone, "longest_ms": longest, "limit_ms": given.limit_ms, "kinds": report}))
    return int(longest > given.limit_ms)


@contextmanager
def process(*arguments: str, environ: dict[str, str] | None = None, mark: str = "http://") -> Iterator[str]:
    """A program of this package; the address that it says it listens on."""
    command = [sys.executable, "-m", *arguments]
    running = subprocess.Popen(
        command, env={**os.environ, **(environ or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert running.stdout is not None
    try:
        line = next((line for line in running.stdout if mark in line), None)
        if line is None:
            raise RuntimeError(f"{' '.join(arguments)} did not start")
        threading.Thread(target=running.stdout.read, daemon=True).start()
        yield mark + line.split(mark)[1].split(",")[0].strip()
    finally:
        running.terminate()
        running.wait(20)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A gateway; the hostile body's provider is another process than that of the small questions."""
    with process("router.offline") as theirs, process("router.offline") as others:
        config = folder / "tierwise.toml"
        upstreams = (
            f'[gateway.upstreams.anthropic]\nurl = "{theirs}"\n[gateway.upstreams.openai]\nurl = "{others}/v1"\n'
        )
        config.write_text(upstreams)
        environ = {
            "TIERWISE_GATEWAY_PORT": "0",
            "TIERWISE_GATEWAY_STATE_DIR": str(folder / "state"),
            "TIERWISE_CONFIG": str(config),
            "ANTHROPIC_API_KEY": "none",
            "OPENAI_API_KEY": "none",
        }
        with process("router.cli", "serve", environ=environ) as url:
            yield url


def measured(url: str, raw: bytes) -> dict[str, float]:
    """The longest wait of another client during this body, and its own time and status."""
    own: dict[str, float] = {}

    def send() -> None:
        start = time.perf_counter()
        headers = {"content-type": "application/json"}
        try:
            own["status"] = httpx2.post(f"{url}/v1/messages", content=raw, headers=headers, timeout=120).status_code
        except httpx2.HTTPError:
            own["status"] = 0
        own["seconds"] = round(time.perf_counter() - start, 2)

    return {"longest_ms": longest_wait(url, send), **own}


def longest_wait(url: str, meanwhile: Callable[[], object]) -> float:
    """Of small requests, one after another, until `meanwhile` is over; ms."""
    other = threading.Thread(target=meanwhile)
    waits = []
    with httpx2.Client(timeout=60) as client:
        client.post(f"{url}/v1/chat/completions", json=SMALL)
        other.start()
        while other.is_alive():
            start = time.perf_counter()
            client.post(f"{url}/v1/chat/completions", json=SMALL).raise_for_status()
            waits.append(time.perf_counter() - start)
            time.sleep(0.01)
    return round(max(waits) * 1e3, 1)


if __name__ == "__main__":
    sys.exit(main())
