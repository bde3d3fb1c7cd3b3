"""PostgreSQL and Redis, where they are installed: shared by replicas, and what happens while they are away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from pathlib import Path

import httpx2
import pytest

from router import rollout
from router.gateway.keys import KeyFile
from router.offline import Upstream
from router.rollout import Pointer
from tests.conftest import artifact_that_says
from tests.gateway.conftest import HELLO, KEYS, Running, Serve, wait_for

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("redis")

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
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url) as db:
            return list(db.execute(query).fetchall())

    def _run(self, *command: str) -> None:
        subprocess.run([*AS_SERVER, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if shutil.which("initdb") is None or (AS_SERVER and shutil.which("setpriv") is None):
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())  # not below pytest's: root's alone
    server = Postgres(folder)
    server.start()
    try:
        yield server
    finally:
        subprocess.run([*AS_SERVER, "pg_ctl", "-D", str(server.data), "-m", "immediate", "stop"], check=False, cwd="/")
        shutil.rmtree(folder)


@contextmanager
def redis_server(port: int) -> Iterator[None]:
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
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
        rollout.write(folder, Pointer("old-v1", "new-v1", 0.5))
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
        wait_for(lambda folder=folder: rollout.read(folder) == Pointer("old-v1"))
    counted = dict(postgres.rows("SELECT artifact, COUNT(*) FROM tierwise_feedback GROUP BY artifact"))
    assert counted == served
    assert (
        dict(postgres.rows("SELECT artifact, COUNT(DISTINCT conversation) FROM tierwise_records GROUP BY 1")) == served
    )
    postgres.stop()
    reply = first.post("/v1/feedback", {"conversation_id": "c1", "good": True})
    assert (reply.status_code, "pg-canary" in reply.text) == (503, False)


def test_replicas_share_rates_in_redis_and_count_alone_without_it(serve: Serve, upstream: Upstream) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis server is installed")
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
