"""What does the gateway cost? JSON on stdout: requests a second, latency, CPU and memory, beside what it is made of.

    python benchmarks/gateway.py [--rounds N] [--seconds S] [--soak S] [--litellm EXE] [--portkey JS]

One process on one core, the load (wrk) and a compiled upstream on another, everything on loopback. Variants: `direct`
(no proxy), `bare` (Starlette and aiohttp that only pass bytes on), `gateway` (decision, cache plan, usage and records
on, SQLite) and, where their programs are named, LiteLLM's proxy and Portkey's gateway. Every round runs each variant
once a cell in random order; medians are given. On a shared machine trust `cpu_us_per_request` first.
Needs wrk and cc. Streams are paced, one event every 5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACE_MS = 5
NAMED = "gpt-6-luna"
SYSTEM = "You answer questions about lighthouses, briefly and kindly, and never about anything else. "
ASK = "Compare the two lamps in the table and say which one needs less care in a salty climate, with a reason. "
TICKS = os.sysconf("SC_CLK_TCK")

WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer offline"
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.status + e.connect + e.read + e.write + e.timeout
  io.write(string.format('\\nRESULT {"requests": %d, "failed": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d}\\n',
    summary.requests, failed, summary.duration, latency:percentile(50), latency:percentile(99)))
end
"""

BARE = """
import sys
import aiohttp, uvicorn
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

@asynccontextmanager
async def lifespan(app):
    app.state.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    yield
    await app.state.session.close()

async def forward(request):
    body = await request.body()
    headers = {"content-type": "application/json", "authorization": request.headers.get("authorization", "")}
    reply = await app.state.session.post(sys.argv[2] + request.url.path, data=body, headers=headers)
    kind = reply.headers["content-type"]
    if kind.startswith("text/event-stream"):
        return StreamingResponse(reply.content.iter_any(), reply.status, {"content-type": kind})
    return Response(await reply.read(), reply.status, {"content-type": kind})

app = Starlette(routes=[Route("/v1/{path:path}", forward, methods=["POST"])], lifespan=lifespan)
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="error")
"""


def body(kind: str, n_bytes: int, *, stream: bool, model: str) -> bytes:
    """A request of about that size: one turn, or a long system prompt and ten turns."""
    turns: list[dict[str, str]] = [{"role": "user", "content": ASK}]
    if n_bytes > 4000:
        for _ in range(10):
            turns += [{"role": "assistant", "content": "The second one. " * 30}, {"role": "user", "content": ASK}]
    left = max(n_bytes - len(json.dumps(turns)) - 150, 0)
    system = (SYSTEM * (left // len(SYSTEM) + 1))[:left]
    request: dict[str, Any] = {"model": model, "max_tokens": 64, "stream": stream, "messages": turns}
    if kind == "messages":
        request["system"] = system
    else:
        request["messages"] = [{"role": "system", "content": system}, *turns]
        if stream:
            request["stream_options"] = {"include_usage": True}
    return json.dumps(request, separators=(",", ":")).encode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, core: int, env: dict[str, str], log: Path) -> Iterator[int]:
    """A server pinned to a core until the block ends; gives its process id once it listens."""
    with log.open("wb") as out:
        process = subprocess.Popen(["taskset", "-c", str(core), *command], env=env, stdout=out, stderr=out)
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended: {log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found += map(int, children.read_text().split()) if children.exists() else []
    return found


def cpu_s(pid: int) -> float:
    ticks = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def rss_mb(pid: int) -> float:
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(url: str, payload: Path, script: Path, connections: int, seconds: float, pid: int | None) -> dict[str, float]:
    """One run of wrk."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
    before = cpu_s(pid) if pid else 0.0
    done = subprocess.run(
        [*command, "-s", str(script), url],
        env={**os.environ, "BODY": str(payload)},
        capture_output=True,
        text=True,
        check=True,
    )
    used = cpu_s(pid) - before if pid else 0.0
    found = json.loads(done.stdout.rpartition("RESULT ")[2])
    n = max(found["requests"], 1)
    return {
        "requests_a_second": found["requests"] / found["duration_us"] * 1e6,
        "p50_ms": found["p50_us"] / 1000,
        "p99_ms": found["p99_us"] / 1000,
        "cpu_us_per_request": used / n * 1e6,
        "failed": found["failed"],
    }


def settings_of(folder: Path, port: int, upstream: str) -> dict[str, str]:
    """The environment in which the gateway runs."""
    config = folder / "tierwise.toml"
    config.write_text(
        f'[gateway]\nport = {port}\nstate_dir = "{folder}/state"\n'
        f'[gateway.upstreams.anthropic]\nurl = "{upstream}"\n[gateway.upstreams.openai]\nurl = "{upstream}/v1"\n'
    )
    keys = {"ANTHROPIC_API_KEY": "offline", "OPENAI_API_KEY": "offline"}
    return {**os.environ, **keys, "TIERWISE_CONFIG": str(config), "PYTHONPATH": str(HERE.parent)}


def litellm_config(folder: Path, upstream: str) -> Path:
    path = folder / "litellm.yaml"
    path.write_text(
        "model_list:\n"
        "  - {model_name: auto, "
        f"litellm_params: {{model: openai/gpt-4o-mini, api_base: {upstream}/v1, api_key: k}}}}\n"
    )
    return path


def median_cell(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def soak(url: str, payload: Path, script: Path, seconds: float, pid: int) -> dict[str, Any]:
    """c=16 for a while: memory each five seconds, its slope over the second half."""
    started, points = time.time(), []
    failed = requests = 0.0
    while time.time() - started < seconds:
        row = load(url, payload, script, 16, 5, pid)
        failed += row["failed"]
        requests += row["requests_a_second"] * 5
        points.append((time.time() - started, rss_mb(pid)))
    later = points[len(points) // 2 :]
    slope = statistics.linear_regression(*zip(*later, strict=True)).slope if len(later) > 2 else 0.0
    return {
        "seconds": round(seconds),
        "requests": round(requests),
        "failed": failed,
        "rss_mb_first": round(points[0][1], 1),
        "rss_mb_last": round(points[-1][1], 1),
        "slope_mb_a_minute": round(slope * 60, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs a cell and variant (default 3)")
    parser.add_argument("--seconds", type=float, default=2, help="length of a run (default 2)")
    parser.add_argument("--soak", type=float, default=0, help="seconds of a soak at the end (default none)")
    parser.add_argument("--quick", action="store_true", help="c=1 and c=16, 1 KB, not streaming")
    parser.add_argument("--api", choices=["chat", "messages"], default="chat", help="the wire format (default chat)")
    parser.add_argument("--litellm", help="LiteLLM's executable, to compare")
    parser.add_argument("--portkey", help="Portkey's start-server.js, to compare")
    options = parser.parse_args()
    for tool in ("wrk", "cc", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed: apt-get install wrk gcc util-linux")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        print(json.dumps(measure(Path(name), stack, options)))


def start(folder: Path, stack: ExitStack, options: argparse.Namespace) -> dict[str, tuple[str, int | None]]:
    """Every variant's base URL and process."""
    binary = folder / "upstream"
    subprocess.run(["cc", "-O2", "-o", str(binary), str(HERE / "upstream.c")], check=True)
    port = free_port()
    upstream = f"http://127.0.0.1:{port}"
    env = dict(os.environ)
    stack.enter_context(running([str(binary), str(port), str(PACE_MS)], port, 1, env, folder / "upstream.log"))
    variants: dict[str, tuple[str, int | None]] = {"direct": (upstream, None)}

    def add(name: str, command: list[str], port: int, env: dict[str, str]) -> None:
        pid = stack.enter_context(running(command, port, 0, env, folder / f"{name}.log"))
        variants[name] = (f"http://127.0.0.1:{port}", pid)

    port = free_port()
    add("bare", [sys.executable, "-c", BARE, str(port), upstream], port, env)
    port = free_port()
    add("gateway", [sys.executable, "-m", "router.cli", "serve"], port, settings_of(folder, port, upstream))
    variants["gateway named"] = variants["gateway"]  # the same process: a model that the caller names, so no decision
    if options.litellm:
        port, config = free_port(), litellm_config(folder, upstream)
        quiet = {**env, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        add(
            "litellm",
            [options.litellm, "--config", str(config), "--port", str(port), "--host", "127.0.0.1"],
            port,
            quiet,
        )
    if options.portkey:
        port = free_port()
        add("portkey", ["node", options.portkey, f"--port={port}", "--headless"], port, env)
    return variants


def measure(folder: Path, stack: ExitStack, options: argparse.Namespace) -> dict[str, Any]:
    """The whole report."""
    script = folder / "post.lua"
    script.write_text(WRK_SCRIPT)
    variants = start(folder, stack, options)
    path = "/v1/chat/completions" if options.api == "chat" else "/v1/messages"
    wait_until_serving(variants, path, body(options.api, 1000, stream=False, model="auto"))
    cells: list[tuple[str, int, bool, int]] = [("1 KB", 1000, False, c) for c in (1, 16)]
    if not options.quick:
        sizes = (("1 KB", 1000), ("40 KB", 40_000))
        cells = [(label, size, stream, c) for label, size in sizes for stream in (False, True) for c in (1, 16, 64)]
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for number in range(options.rounds):
        for label, size, stream, connections in cells:
            cell = rows.setdefault(f"{label} {'stream' if stream else 'whole'} c={connections}", {})
            for name in random.sample(list(variants), len(variants)):
                base, pid = variants[name]
                payload = folder / "body"
                model = NAMED if name == "gateway named" else "auto"
                payload.write_bytes(body(options.api, size, stream=stream, model=model))
                row = load(base + path, payload, script, connections, options.seconds, pid)
                cell.setdefault(name, []).append(row)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    report: dict[str, Any] = {"cells": {c: {n: median_cell(r) for n, r in of.items()} for c, of in rows.items()}}
    report["api"] = options.api
    report["rss_mb"] = {name: round(rss_mb(pid), 1) for name, (_, pid) in variants.items() if pid}
    if options.soak:
        base, pid = variants["gateway"]
        payload.write_bytes(body(options.api, 1000, stream=False, model="auto"))
        assert pid is not None
        report["soak"] = soak(base + path, payload, script, options.soak, pid)
    at16, at1 = (report["cells"][f"1 KB whole c={c}"] for c in (16, 1))
    for name in ("bare", "litellm", "portkey"):
        if name in at16:
            times = at16["gateway"]["requests_a_second"] / at16[name]["requests_a_second"]
            report[f"times_{name}_c16_1kb"] = round(times, 3)
    report["added_p50_ms_c1"] = round(at1["gateway"]["p50_ms"] - at1["direct"]["p50_ms"], 3)
    return report


def wait_until_serving(variants: dict[str, tuple[str, int | None]], path: str, payload: bytes) -> None:
    """One answered request each; LiteLLM listens long before it serves."""
    headers = {"content-type": "application/json", "authorization": "Bearer offline"}
    for name, (base, _) in variants.items():
        for attempt in range(120):
            try:
                with urllib.request.urlopen(urllib.request.Request(base + path, payload, headers), timeout=30) as reply:
                    reply.read()
                break
            except (urllib.error.URLError, ConnectionError) as exc:
                if attempt == 119:
                    raise SystemExit(f"{name} does not answer: {exc}") from exc
                time.sleep(0.5)


if __name__ == "__main__":
    main()
