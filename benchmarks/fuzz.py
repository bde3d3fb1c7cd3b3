"""Mutated requests against a running gateway. JSON on stdout; exit 1 when it erred, hung or lost a record.

    python benchmarks/fuzz.py [--requests N] [--seed S] [--show NUMBER]

`tierwise serve` runs as a process before the embedded upstream, which rejects what the providers reject. Every request
must be answered: with the upstream's reply, or with an error in its API's shape. Whatever was answered with 200 must be
in the records, and the gateway's log must hold no error. A request is made from the seed and its number alone; --show
prints one as it goes over the wire.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mutations import PATHS, Request, reply, request

from router.offline import Upstream

ROOT = Path(__file__).parent.parent
HANGS_AFTER_S = 20.0
CONCURRENCY = 16
KEEP = 20
SETTINGS = """
{fleet}
[gateway]
port = {port}
state_dir = "{folder}/state"
max_body_bytes = 300_000
max_retries = {retries}
idle_timeout_s = 0.5
[gateway.upstreams.anthropic]
url = "{url}"
[gateway.upstreams.openai]
url = "{url}/v1"
"""
MIXED = """
fleet = "mixed"
[fleets.mixed]
simple = "gpt-6-luna"
moderate = "claude-sonnet-4-6"
complex = "gpt-6.1-sol"
"""


@dataclass
class Findings:
    """What came back."""

    by_status: Counter[str] = field(default_factory=Counter)
    by_framing: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    n_wrong: int = 0
    n_hangs: int = 0
    delivered: set[str] = field(default_factory=set)

    def note(self, number: int, what: str) -> None:
        """Something that must not happen."""
        self.n_wrong += 1
        if len(self.wrong) < KEEP:
            self.wrong.append(f"request {number}: {what}")


class Liar(ThreadingHTTPServer):
    """A provider whose answers went wrong, each in its own way; it stands in for the embedded upstream."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Lies)
        self.seed, self.numbers = seed, itertools.count()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Liar:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a gateway that hung up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Lies(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Liar

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr."""

    def do_POST(self) -> None:
        """Answer, right or wrong, as the number says."""
        asked = self.rfile.read(int(self.headers.get("content-length", 0)))
        stream = b'"stream":true' in asked.replace(b" ", b"")
        status, kind, pieces, ends = reply(self.server.seed, next(self.server.numbers), self.path, stream=stream)
        self.send_response(status)
        if kind:
            self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in filter(None, pieces):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        if ends:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = not ends or status == 204


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="how many (default 100,000)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other requests (default 1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first request (default 0)")
    parser.add_argument("--mixed", action="store_true", help="a fleet of both providers: bodies and replies translated")
    parser.add_argument(
        "--replies", action="store_true", help="well-formed requests, and the provider's replies mutated"
    )
    parser.add_argument("--log", type=Path, help="keep the gateway's log there")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="print this request and stop")
    options = parser.parse_args()
    lines = (ROOT / "data/conversations.jsonl").read_text("utf-8").splitlines()
    conversations = [json.loads(line) for line in lines]
    if options.show is not None:
        sys.stdout.buffer.write(b"".join(request(options.seed, options.show, conversations).sent))
        return
    with tempfile.TemporaryDirectory() as name, Liar(options.seed) if options.replies else Upstream() as upstream:
        report = run(Path(name), upstream, options, conversations)
    print(json.dumps(report))
    sys.exit(0 if report["ok"] else 1)


def run(
    folder: Path, upstream: Upstream | Liar, options: argparse.Namespace, conversations: list[Any]
) -> dict[str, Any]:
    """Start the gateway, send everything, stop it, look at what it kept."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config, log = folder / "tierwise.toml", folder / "log"
    config.write_text(
        SETTINGS.format(
            retries=0 if options.replies else 2,
            fleet=MIXED if options.mixed else "",
            port=port,
            folder=folder,
            url=upstream.url,
        )
    )
    command = [sys.executable, "-m", "router.cli", "serve", "--config", str(config)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ANTHROPIC_API_KEY": "offline", "OPENAI_API_KEY": "offline"}
    with log.open("wb") as out:
        gateway = subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=out)
    try:
        wait_until_serving(port, gateway, log)
        started, before_mb = time.monotonic(), rss_mb(gateway.pid)
        found = asyncio.run(send_all(port, options, conversations, upstream))
        elapsed_s, after_mb = time.monotonic() - started, rss_mb(gateway.pid)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            ready = json.load(answer)["status"]
        gateway.terminate()
        exit_code = gateway.wait(30)
    finally:
        gateway.kill()
        gateway.wait()
    with closing(sqlite3.connect(folder / "state/records.db")) as db:
        notes = [note for (row,) in db.execute("SELECT notes FROM records") for note in json.loads(row)]
    kept = {note.removeprefix("request ") for note in notes if note.startswith("request ")}
    if options.log:
        shutil.copy(log, options.log)
    errors = errors_of(log.read_text("utf-8", "replace"))
    lost = found.delivered - kept
    return {
        "ok": not (found.n_wrong or found.n_hangs or errors or lost or exit_code or ready != "ok"),
        "requests": options.requests,
        "seed": options.seed,
        "seconds": round(elapsed_s, 1),
        "by_status": dict(found.by_status.most_common()),
        "by_framing": dict(found.by_framing.most_common()),
        "hangs": found.n_hangs,
        "wrong": found.n_wrong,
        "wrong_first": found.wrong,
        "errors_logged": errors.total(),
        "errors_logged_kinds": dict(errors.most_common(KEEP)),
        "delivered": len(found.delivered),
        "records": len(kept),
        "records_lost": len(lost),
        "ready_afterwards": ready,
        "exit_code": exit_code,
        "rss_mb": [round(before_mb, 1), round(after_mb, 1)],
    }


def errors_of(log: str) -> Counter[str]:
    """What the gateway logged as errors, by exception and the place that raised it."""
    errors: Counter[str] = Counter()
    for said in re.split(r"^(?=\d{4}-\d\d-\d\d )", log, flags=re.MULTILINE):
        if " ERROR " in said or "Traceback" in said:
            lines = said.rstrip().splitlines()
            places = [line.strip() for line in lines if line.startswith("  File ")]
            last = re.sub(r"req_[0-9a-f]+|^[-0-9]+ [:,0-9]+ |0x..|[0-9]", "", lines[-1])[:60]
            errors[f"{last} {places[-1] if places else ''}".strip()] += 1
    return errors


async def send_all(
    port: int, options: argparse.Namespace, conversations: list[Any], upstream: Upstream | Liar
) -> Findings:
    """All requests, so many at once, with a line a few seconds to a terminal."""
    found, numbers = Findings(), iter(range(options.first, options.first + options.requests))

    async def work() -> None:
        for number in numbers:
            made = asked(options, number, conversations)
            found.by_framing[made.framing] += 1
            try:
                raw = await asyncio.wait_for(exchange(port, made), HANGS_AFTER_S)
            except TimeoutError:
                found.n_hangs += 1
                found.note(number, f"no end of the reply in {HANGS_AFTER_S:g} s ({made.framing})")
            except OSError as exc:
                found.by_status["reset"] += 1
                if made.is_whole:
                    found.note(number, f"{type(exc).__name__} ({made.framing})")
            else:
                judge(found, number, made, raw, upstream)
            if number % 1000 == 999 and isinstance(upstream, Upstream):
                upstream.log.clear()  # it keeps every request
                upstream.requests.clear()
            if number % 5000 == 4999 and sys.stderr.isatty():
                print(f"{number + 1:,} of {options.requests:,}", file=sys.stderr)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return found


def asked(options: argparse.Namespace, number: int, conversations: list[Any]) -> Request:
    """The request of that number: mutated, or a plain one whose reply will be."""
    if not options.replies:
        return request(options.seed, number, conversations)
    rng = random.Random(f"{options.seed}:{number}")
    row = rng.choice(conversations)
    body = {**row["body"], "model": rng.choice(("simple", "moderate", "complex", "auto")), "stream": rng.random() < 0.6}
    raw = json.dumps(body).encode()
    head = (
        f"POST {PATHS[row['api']]} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"connection: close\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    return Request((head.encode() + raw,), True, "plain")


async def exchange(port: int, made: Request) -> bytes:
    """Everything that comes back; b"" for a client that leaves."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, piece in enumerate(made.sent):
            if number:
                await asyncio.sleep(0.02)
            with suppress(ConnectionError):  # it may have answered without reading to the end
                writer.write(piece)
                await writer.drain()
        if made.leaves:
            await asyncio.sleep(0.001 * (len(made.sent[0]) % 20))
            return b""
        return await reader.read(-1)
    finally:
        writer.close()


def judge(found: Findings, number: int, made: Request, raw: bytes, upstream: Upstream | Liar) -> None:
    """Whether this is an answer that an SDK could read."""
    if made.leaves:
        found.by_status["left"] += 1
        return
    if raw.startswith(b"HTTP/1.1 100"):
        raw = raw.partition(b"\r\n\r\n")[2]
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    status = lines[0][9:12].decode("latin-1") if lines[0].startswith(b"HTTP/1.1 ") else "none"
    found.by_status[status] += 1
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if status == "none":
        if made.is_whole:
            found.note(number, f"closed without an answer ({made.framing})")
        return
    if int(status) >= 500 and (isinstance(upstream, Upstream) or b"a bug of" in body):
        found.note(number, f"status {status}: {body[:300]!r}")
    if (
        headers.get(b"transfer-encoding") == b"chunked"
        and made.framing != "pipelined"
        and not body.endswith(b"0\r\n\r\n")
    ):
        found.note(number, "the stream has no end")
    start = b"".join(made.sent)[:60]  # it may come in pieces
    is_ours = headers.get(b"content-type", b"").startswith(b"text/plain")  # the HTTP parser's refusal, and metrics
    if (
        int(status) >= 400
        and not is_ours
        and isinstance(upstream, Upstream)
        and start[:5] != b"HEAD "
        and made.framing != "pipelined"
    ):
        check_error(found, number, body)
    counts_only = b"count_tokens" in start or b"input_tokens" in start
    if status == "200" and b"x-tierwise-request-id" in headers and not counts_only:
        found.delivered.add(headers[b"x-tierwise-request-id"].decode())


def check_error(found: Findings, number: int, body: bytes) -> None:
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        found.note(number, f"not an error that SDKs read: {body[:200]!r}")
    else:
        if not isinstance(said, str) or not said:
            found.note(number, f"an error without a message: {body[:200]!r}")


def wait_until_serving(port: int, gateway: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if gateway.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the gateway does not serve: {log.read_text()[-2000:]}")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
