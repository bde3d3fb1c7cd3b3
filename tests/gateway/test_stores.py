"""PostgreSQL and Redis, where they are installed: shared by replicas, and what happens while they are away."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from itertools import count
from pathlib import Path

import httpx2
import pytest

from router.accounts.ledger import REPORT_GROUPS, Totals
from router.cache.memory import KEEP_S, RedisMemory
from router.classifier import pointer
from router.classifier.pointer import Pointer
from router.gateway.keys import KeyFile
from router.offline import Failure, Upstream
from tests.conftest import artifact_that_says
from tests.gateway.conftest import HELLO, KEYS, Running, Serve, wait_for

psycopg = pytest.importorskip("psycopg")
redis = pytest.importorskip("redis")

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path(shutil.which("initdb") or "none").parent)
AS_SERVER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups") if os.getuid() == 0 else ()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Postgres:
    """A server of the tests' own, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"postgresql://postgres:pg-canary@127.0.0.1:{self.port}/postgres"
        if AS_SERVER:
            shutil.chown(folder, "postgres")
        self._run(str(BIN / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run(str(BIN / "pg_ctl"), "-D", str(self.data), "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run(str(BIN / "pg_ctl"), "-D", str(self.data), "-m", "immediate", "stop")

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url) as db:
            try:
                return list(db.execute(query).fetchall())
            except psycopg.errors.UndefinedTable:  # the gateways make it when they first write
                return [(0,)]

    def _run(self, *command: str) -> None:
        subprocess.run([*AS_SERVER, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if not (BIN / "initdb").exists() or (AS_SERVER and shutil.which("setpriv") is None):
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())  # not below pytest's: root's alone
    server = Postgres(folder)
    server.start()
    try:
        yield server
    finally:
        command = [*AS_SERVER, str(BIN / "pg_ctl"), "-D", str(server.data), "-m", "immediate", "stop"]
        subprocess.run(command, check=False, cwd="/")
        shutil.rmtree(folder)


@contextmanager
def redis_server(port: int, *options: str) -> Iterator[None]:
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis server is installed")
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no", *options]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port))
        yield
    finally:
        running.kill()
        running.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_replicas_share_records_and_budgets_in_postgres(serve: Serve, upstream: Upstream, postgres: Postgres) -> None:
    """And while the server is away records wait on disk, which is said without its password, and are applied once."""
    first = serve(upstream.url, access="keys", database_url=postgres.url)
    second = serve(upstream.url, access="keys", database_url=postgres.url)
    _, token = KeyFile(first.state / "keys.json").create("ci", usd_a_day=Decimal("0.05"))
    shutil.copy(first.state / "keys.json", second.state / "keys.json")
    for gateway in (first, second):
        gateway.gateway.keys._checked_s = float("-inf")

    def ask(gateway: Running) -> int:
        return gateway.post("/v1/messages", HELLO, {"x-api-key": token}).status_code

    def count() -> int:
        return int(str(postgres.rows("SELECT COUNT(*) FROM tierwise_records")[0][0]))

    assert [ask(first), ask(second)] == [200, 200]
    wait_for(lambda: count() == 2)
    (total,) = postgres.rows("SELECT SUM(cost_picousd) FROM tierwise_records")[0]
    from router.gateway.postgres import PostgresStore  # psycopg is an extra

    told = PostgresStore(postgres.url)
    for by in REPORT_GROUPS:
        start = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
        sums = Totals.of(told.report(by, start))
        assert told.report(by, start, start.replace(year=2001)) == []
        assert sums.cost_usd * 10**12 == int(str(total))
    told.close()
    assert total == sum(int(bill.usd * 10**12) for bill in upstream.bills)
    postgres.stop()
    assert [ask(first) for _ in range(3)] == [200] * 3
    wait_for(lambda: httpx2.get(f"{first.url}/readyz").json()["status"] == "degraded")
    assert "pg-canary" not in httpx2.get(f"{first.url}/readyz").text
    postgres.start()
    wait_for(lambda: count() == 5, 20)
    ids = postgres.rows("SELECT COUNT(DISTINCT request_id) FROM tierwise_records")
    assert ids == [(5,)]
    with psycopg.connect(postgres.url) as db:  # as if the second replica had spent it
        db.execute("UPDATE tierwise_spend SET picousd = 60000000000")
    wait_for(lambda: ask(first) == 429, 15)


def test_replicas_hold_budgets_back_together(serve: Serve, upstream: Upstream, postgres: Postgres) -> None:
    """What one replica's running requests may cost, another does not spend; a request that is over holds no longer."""
    port = free_port()
    with redis_server(port):
        shared = {"access": "keys", "database_url": postgres.url, "redis_url": f"redis://127.0.0.1:{port}"}
        first, second = serve(upstream.url, **shared), serve(upstream.url, **shared)
        _, token = KeyFile(first.state / "keys.json").create("shared", usd_a_day=Decimal("0.003"))
        shutil.copy(first.state / "keys.json", second.state / "keys.json")
        for gateway in (first, second):
            gateway.gateway.keys._checked_s = float("-inf")

        def ask(gateway: Running) -> int:
            return gateway.post("/v1/messages", {**HELLO, "max_tokens": 4000}, {"x-api-key": token}).status_code

        upstream.failures.append(Failure(200, delay_s=1.0))
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(ask, (first, second) * 4))
        assert sorted(found) == [200] + [429] * 7
        known = redis.Redis(port=port)
        (name,) = known.keys("tierwise:held:*")
        wait_for(
            lambda: known.zrange(name, 0, -1, withscores=True)[0][1] - time.time() <= 15
        )  # its cost, till it is read
        assert ask(second) == 200
    assert ask(first) == 200  # without Redis each holds back its own


def test_prompts_in_postgres(serve: Serve, upstream: Upstream, postgres: Postgres) -> None:
    gateway = serve(upstream.url, database_url=postgres.url, general={"store_prompts": True})
    before = int(str(postgres.rows("SELECT COALESCE(MAX(id), 0) FROM tierwise_records")[0][0]))
    body = {**HELLO, "messages": [{"role": "user", "content": "mail ann@example.com \x00"}]}
    assert gateway.post("/v1/messages", body).status_code == 200
    wait_for(lambda: postgres.rows("SELECT text FROM tierwise_prompts") == [("mail [e-mail] \ufffd",)])
    from router.gateway.postgres import PostgresStore

    told, now = PostgresStore(postgres.url), dt.datetime.now(dt.UTC)
    (row,) = [row for row in told.rows(now - dt.timedelta(days=1), model=None, key=None, limit=9) if row["id"] > before]
    assert row["model"] == "claude-haiku-4-5" and row["total_ms"] > 0
    assert told.forget_prompts("nobody") == 0
    assert told.forget_prompts(row["conversation"]) == 1
    told.expire(prompts_before=now, records_before=now + dt.timedelta(days=1))
    assert told.rows(now - dt.timedelta(days=1), model=None, key=None, limit=9) == []
    told.close()


OLD_RECORDS = """
CREATE TABLE tierwise_records (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, key TEXT,
  at TIMESTAMPTZ NOT NULL, tier TEXT, model TEXT NOT NULL, reason TEXT NOT NULL, p_suffices JSONB NOT NULL,
  fresh_tokens BIGINT NOT NULL, cache_read_tokens BIGINT NOT NULL,
  cache_write_short_tokens BIGINT NOT NULL, cache_write_long_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL, usage_reported BOOLEAN NOT NULL,
  cost_picousd BIGINT, baseline_model TEXT, baseline_cost_picousd BIGINT, notes JSONB NOT NULL
)
"""


def test_replicas_share_feedback_and_both_let_a_worse_canary_go(
    serve: Serve, upstream: Upstream, postgres: Postgres, tmp_path: Path
) -> None:
    """Each has models of its own, and only one hears the users. The records' table is that of the version before."""
    with psycopg.connect(postgres.url) as db:
        db.execute(OLD_RECORDS)
    folders = [tmp_path / "models1", tmp_path / "models2"]
    for folder in folders:
        artifact_that_says("complex", folder / "old-v1")
        artifact_that_says("simple", folder / "new-v1")
        pointer.write_pointer(folder, Pointer("old-v1", "new-v1", 0.5))
    first, second = (
        serve(upstream.url, general={"artifact": str(folder)}, database_url=postgres.url) for folder in folders
    )
    body = {**HELLO, "messages": [{"role": "user", "content": "What is the capital of Peru?"}]}
    served: dict[str, int] = {"old-v1": 0, "new-v1": 0}
    with httpx2.Client(base_url=first.url, timeout=20) as client, httpx2.Client(base_url=second.url) as other:
        for number in count():
            named = {**body, "router": {"conversation_id": f"c{number}"}}
            replies = [gateway.post("/v1/messages", json=named) for gateway in (client, other)]
            assert replies[0].headers["x-tierwise-tier"] == replies[1].headers["x-tierwise-tier"]
            name = "new-v1" if replies[0].headers["x-tierwise-tier"] == "simple" else "old-v1"
            served[name] += 1
            if min(served.values()) == 110:
                break
        wait_for(lambda: postgres.rows("SELECT COUNT(*) FROM tierwise_records") == [(2 * number + 2,)])
        for n in range(number + 1):
            about = {"conversation_id": f"c{n}", "good": True}
            if client.post("/v1/feedback", json=about).json()["artifact"] == "new-v1":
                client.post("/v1/feedback", json={**about, "good": False})
    for folder in folders:
        wait_for(lambda folder=folder: pointer.read_pointer(folder) == Pointer("old-v1"))
    counted = dict(postgres.rows("SELECT artifact, COUNT(*) FROM tierwise_feedback GROUP BY artifact"))
    assert counted == served
    assert (
        dict(postgres.rows("SELECT artifact, COUNT(DISTINCT conversation) FROM tierwise_records GROUP BY 1")) == served
    )
    postgres.stop()
    reply = first.post("/v1/feedback", {"conversation_id": "c1", "good": True})
    assert (reply.status_code, "pg-canary" in reply.text) == (503, False)


def test_replicas_share_rates_in_redis_and_count_alone_without_it(serve: Serve, upstream: Upstream) -> None:
    port = free_port()
    with redis_server(port):
        gateways = [serve(upstream.url, KEYS, access="keys", redis_url=f"redis://127.0.0.1:{port}") for _ in "12"]
        _, token = KeyFile(gateways[0].state / "keys.json").create("ci", requests_a_minute=4)
        shutil.copy(gateways[0].state / "keys.json", gateways[1].state / "keys.json")
        for gateway in gateways:
            gateway.gateway.keys._checked_s = float("-inf")

        def ask(number: int) -> int:
            return gateways[number % 2].post("/v1/messages", HELLO, {"x-api-key": token}).status_code

        assert [ask(number) for number in range(6)] == [200] * 4 + [429] * 2
    assert [ask(0) for _ in range(5)] == [200] * 4 + [429]
    found = httpx2.get(f"{gateways[0].url}/readyz").json()
    assert (found["status"], found["redis"].startswith("away: ")) == ("degraded", True)


class RoundRobin:
    """A proxy that sends each connection to the next of some servers."""

    def __init__(self, urls: list[str]) -> None:
        self._ports = itertools.cycle([int(url.rpartition(":")[2]) for url in urls])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", next(self._ports)))
                for one, other in ((caller, server), (server, caller)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), source:
            while chunk := source.recv(65536):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


SYSTEM = "You answer with care and cite the manual of the lighthouse where it helps. " * 600


def converse(gateways: list[Running], title: str) -> list[str]:
    """An easy question that is asked of the middle tier, then easy ones that are not: the models that answered."""
    proxy = RoundRobin([gateway.url for gateway in gateways])
    messages: list[dict[str, str]] = []
    models = []
    for ask in ("What is 2 + 2?", "And the capital of France?", "Say hello in Spanish.", "And in French?"):
        messages.append({"role": "user", "content": ask})
        body = {"model": "auto", "max_tokens": 50, "system": [{"type": "text", "text": title + SYSTEM}]}
        body |= {"messages": messages, "router": {} if models else {"min_tier": "moderate"}}
        reply = httpx2.post(f"{proxy.url}/v1/messages", json=body, timeout=20)
        messages.append({"role": "assistant", "content": reply.json()["content"][0]["text"]})
        models.append(reply.headers["x-tierwise-model"])
    proxy.close()
    return models


def test_replicas_behind_a_proxy_share_conversations_and_what_is_cached(serve: Serve, upstream: Upstream) -> None:
    """Held on one model, whose cache every turn after the first reads; replicas that share nothing fall apart."""
    assert len(set(converse([serve(upstream.url) for _ in "12"], "One. "))) == 2
    upstream.bills.clear()
    port = free_port()
    with redis_server(port):
        models = converse([serve(upstream.url, redis_url=f"redis://127.0.0.1:{port}") for _ in "12"], "Two. ")
    assert models == ["claude-sonnet-4-6"] * 4
    whole = [bill.read + bill.write_short for bill in upstream.bills]
    assert [bill.read for bill in upstream.bills] == [0, *whole[:-1]]


def test_redis_keeps_state_and_while_it_is_away_the_process_does(serve: Serve, upstream: Upstream) -> None:
    port = free_port()
    url = f"redis://:redis-canary@127.0.0.1:{port}"
    with redis_server(port, "--requirepass", "redis-canary"):
        one, other = RedisMemory(url), RedisMemory(url)
        one.put(["a", "b"], b"1")
        other.put(["b"], b"2")
        assert [one.first(keys) for keys in (["a"], ["none", "b", "a"], ["none"])] == [b"1", b"2", None]
        seconds = int(redis.Redis.from_url(url).ttl("tierwise:a"))
        assert KEEP_S - 60 < seconds <= KEEP_S
        gateway = serve(upstream.url, general={"state": url})
        assert gateway.post("/v1/messages", HELLO).status_code == 200
        assert httpx2.get(f"{gateway.url}/readyz").json()["state"] == "ok"
    one.put(["a"], b"3")
    assert (one.first(["a"]), one.trouble) == (b"3", "ConnectionError")
    assert gateway.post("/v1/messages", HELLO).status_code == 200
    ready = httpx2.get(f"{gateway.url}/readyz")
    assert (ready.json()["status"], ready.json()["state"]) == ("degraded", "away: ConnectionError")
    assert "redis-canary" not in ready.text
    with redis_server(port, "--requirepass", "redis-canary"):
        one._away_until_s = 0.0
        one.put(["a"], b"4")
        assert (RedisMemory(url).first(["a"]), one.trouble) == (b"4", None)
