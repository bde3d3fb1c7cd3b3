"""POST /v1/feedback, a canary behind the gateway, and a reload onto what was promoted."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import threading
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from router.classifier import artifact, pointer
from router.classifier.pointer import Pointer
from router.gateway.keys import KeyFile
from router.gateway.store import StoreAway
from router.offline import Upstream
from tests.conftest import artifact_that_says
from tests.gateway.conftest import HELLO, STREAM_HEAD, Exact, Running, Serve, process, records, wait_for
from tests.gateway.test_fidelity import FRAMES

CAPITAL = {**HELLO, "messages": [{"role": "user", "content": "What is the capital of Peru?"}]}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Old says complex, new says simple; half of the conversations are the new one's."""
    folder = tmp_path / "models"
    artifact_that_says("complex", folder / "old-v1")
    artifact_that_says("simple", folder / "new-v1")
    pointer.write_pointer(folder, Pointer("old-v1", "new-v1", 0.5))
    return folder


def ask(gateway: Running, conversation: str, **headers: str) -> httpx2.Response:
    reply = gateway.post("/v1/messages", {**CAPITAL, "router": {"conversation_id": conversation}}, headers)
    assert reply.status_code == 200
    return reply


def feedback(gateway: Running, good: bool, **about: str) -> Any:
    reply = gateway.post("/v1/feedback", {"good": good, **about})
    assert reply.status_code == 200, reply.text
    return reply.json()


def said(gateway: Running) -> dict[str, tuple[int, int]]:
    with closing(sqlite3.connect(gateway.state / "records.db")) as db:
        rows = db.execute("SELECT artifact, COUNT(*), SUM(1 - good) FROM feedback GROUP BY artifact").fetchall()
    return {name: (n, n_bad) for name, n, n_bad in rows}


def test_by_request_or_conversation_it_counts_once(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url)
    request_id = ask(gateway, "c1").headers["x-tierwise-request-id"]
    found = feedback(gateway, True, request_id=request_id)  # at once: its record may still be on its way
    assert found == {"artifact": artifact.SHIPPED, "counted": True, "verdict": "hold"}
    for good in (True, False, True):
        feedback(gateway, good, conversation_id="c1")
    ask(gateway, "c2")
    feedback(gateway, True, conversation_id="c2")
    anonymous = gateway.post("/v1/messages", CAPITAL).headers["x-tierwise-request-id"]
    feedback(gateway, True, request_id=anonymous)
    assert said(gateway) == {artifact.SHIPPED: (3, 1)}
    named = gateway.post("/v1/messages", {**CAPITAL, "model": "claude-haiku-4-5"}).headers["x-tierwise-request-id"]
    assert feedback(gateway, True, request_id=named) == {"artifact": None, "counted": False, "verdict": "hold"}
    rows = gateway.records(4)
    assert [row["artifact"] for row in rows] == [artifact.SHIPPED] * 3 + [""]
    assert rows[0]["request_id"] == request_id
    assert "c1" not in str(rows[0]["conversation"])


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"request_id": "req_0", "good": True}, 404, "no such request"),
        ({"request_id": "' OR 1=1 --", "good": True}, 404, "no such request"),
        ({"conversation_id": "\ud800", "good": True}, 404, "no such request or conversation"),
        ({"conversation_id": "c", "good": "yes"}, 400, "Expected `bool`"),
        ({"conversation_id": "c"}, 400, "missing required field `good`"),
        ({"good": True}, 400, "one of request_id and conversation_id"),
        ({"good": True, "request_id": "a", "conversation_id": "b"}, 400, "one of request_id and conversation_id"),
        ({"good": True, "requestid": "a"}, 400, "unknown field `requestid`"),
        (b"{", 400, "not JSON"),
        (b'{"good": true, "conversation_id": "%b"}' % (b"x" * 20_000), 413, "exceeds"),
    ],
)
def test_what_is_wrong_is_said(gateway: Running, body: Any, status: int, says: str) -> None:
    reply = gateway.post("/v1/feedback", body if isinstance(body, bytes) else json.dumps(body).encode())
    assert (reply.status_code, says in reply.json()["error"]["message"]) == (status, True), reply.text
    assert httpx2.get(f"{gateway.url}/v1/feedback").status_code == 405


def test_only_the_key_that_asked_may_judge(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys")
    tokens = [KeyFile(gateway.state / "keys.json").create(name)[1] for name in ("mine", "other")]
    gateway.gateway.keys._checked_s = float("-inf")
    request_id = ask(gateway, "c", **{"x-api-key": tokens[0]}).headers["x-tierwise-request-id"]
    for about in ({"request_id": request_id}, {"conversation_id": "c"}):
        body = {**about, "good": False}
        assert gateway.post("/v1/feedback", body).status_code == 401
        assert gateway.post("/v1/feedback", body, {"x-api-key": tokens[1]}).status_code == 404
        assert gateway.post("/v1/feedback", body, {"x-api-key": tokens[0]}).json()["counted"]
    assert said(gateway) == {artifact.SHIPPED: (1, 1)}


def test_while_the_database_is_away_it_says_so(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(gateway, "c")
    gateway.records(1)
    monkeypatch.setattr("router.gateway.sqlite.SqliteStore.keep_feedback", away)
    reply = gateway.post("/v1/feedback", {"conversation_id": "c", "good": True})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")


def away(*_: object, **__: object) -> None:
    raise StoreAway("database is locked")


def test_a_worse_canary_is_rolled_back_without_a_restart(
    serve: Serve, upstream: Upstream, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = serve(upstream.url, general={"artifact": str(models)})
    served: dict[str, list[str]] = {"complex": [], "simple": []}
    with httpx2.Client(base_url=gateway.url, timeout=20) as client:
        for number in count():
            reply = client.post("/v1/messages", json={**CAPITAL, "router": {"conversation_id": f"c{number}"}})
            served[reply.headers["x-tierwise-tier"]].append(f"c{number}")
            if min(map(len, served.values())) == 100:
                break
        gateway.records(number + 1)

        def said_of(tier: str) -> list[dict[str, Any]]:
            bodies = [{"conversation_id": name, "good": tier == "complex"} for name in served[tier]]
            return [client.post("/v1/feedback", json=body).json() for body in bodies]

        assert {(row["artifact"], row["verdict"]) for row in said_of("complex")} == {("old-v1", "hold")}
        found = said_of("simple")
    assert {row["artifact"] for row in found} == {"new-v1"}
    assert [row["verdict"] for row in found[:100]] == ["hold"] * 99 + ["roll_back"]
    assert pointer.read_pointer(models) == Pointer("old-v1")
    assert "the canary new-v1 is rolled back, old-v1 serves" in caplog.text
    assert {ask(gateway, c).headers["x-tierwise-tier"] for c in served["simple"][:20]} == {"complex"}
    assert said(gateway) == {"old-v1": (len(served["complex"]), 0), "new-v1": (len(found), len(found))}


def test_a_reload_takes_the_promoted_artifact_and_drops_nothing(tmp_path: Path, models: Path) -> None:
    """Streams open before, during and after; callers that never pause. A broken artifact changes nothing."""
    pointer.write_pointer(models, Pointer("old-v1"))
    gate, stop = threading.Event(), threading.Event()
    statuses: list[tuple[int, str]] = []

    def call() -> None:
        with httpx2.Client(timeout=10) as client:
            while not stop.is_set():
                reply = client.post(f"{url}/v1/messages", json={**CAPITAL, "stream": True})
                statuses.append((reply.status_code, reply.headers["x-tierwise-tier"]))

    with (
        Exact([STREAM_HEAD, FRAMES[0], gate, *FRAMES[1:]]) as slow,
        process(tmp_path, slow.url, TIERWISE_ARTIFACT=str(models)) as (running, url, log),
    ):
        said = "reloaded: artifact new-v1"
        with httpx2.stream("POST", f"{url}/v1/messages", json={**CAPITAL, "stream": True}, timeout=20) as before:
            pieces = before.iter_raw()
            got = next(pieces)
            pointer.write_pointer(models, Pointer("new-v1", history=("old-v1",)))
            running.send_signal(signal.SIGHUP)
            during = threading.Thread(target=call)
            during.start()
            wait_for(lambda: said in log.read_text())
            gate.set()
            wait_for(lambda: "simple" in [tier for _, tier in statuses])
            assert got + b"".join(pieces) == b"".join(FRAMES)
            assert before.headers["x-tierwise-tier"] == "complex"
        path = models / "broken-v1"
        artifact_that_says("moderate", path)
        (path / "model.onnx").write_bytes(b"not a graph")
        pointer.write_pointer(models, Pointer("broken-v1", history=("old-v1", "new-v1")))
        running.send_signal(signal.SIGHUP)
        wait_for(lambda: "not reloaded" in log.read_text())
        n = len(statuses)
        wait_for(lambda: len(statuses) > n + 5)
        stop.set()
        during.join()
        assert {status for status, _ in statuses} == {200}
        assert {tier for _, tier in statuses[n:]} == {"simple"}
        assert "Traceback" not in log.read_text()
        rows = records(tmp_path / "state/records.db", len(statuses) + 1)
    assert len(rows) == len(statuses) + 1
    assert {row["artifact"] for row in rows} == {"old-v1", "new-v1"}
    assert all((row["artifact"] == "new-v1") == (row["tier"] == "simple") for row in rows)


def test_a_reload_remembers_conversations(serve: Serve, upstream: Upstream, models: Path) -> None:
    """In the middle of a tool loop the turn goes on where it began, whatever another artifact would say."""
    pointer.write_pointer(models, Pointer("old-v1"))
    gateway = serve(upstream.url, general={"artifact": str(models)})
    tool = {"name": "look", "input_schema": {"type": "object"}}
    opened = {**CAPITAL, "tools": [tool], "router": {"conversation_id": "c"}}
    assert gateway.post("/v1/messages", opened).headers["x-tierwise-tier"] == "complex"
    gateway.records(1)
    pointer.write_pointer(models, Pointer("new-v1"))
    asyncio.run(gateway.gateway.reload())
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "Lima"}
    turn = [*CAPITAL["messages"], {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    held = gateway.post("/v1/messages", {**opened, "messages": turn})
    assert (held.headers["x-tierwise-tier"], held.headers["x-tierwise-reason"]) == ("complex", "held")
    assert ask(gateway, "another").headers["x-tierwise-tier"] == "simple"


def test_one_key_says_so_much_and_promotes_nothing(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys", general={"promote_canary": True})
    _, token = KeyFile(gateway.state / "keys.json").create("ci")
    gateway.gateway.keys._checked_s = float("-inf")
    headers = {"x-api-key": token}
    said = [gateway.post("/v1/feedback", {"good": False, "request_id": f"r{n}"}, headers) for n in range(40)]
    assert [reply.status_code for reply in said[:30]] == [404] * 30
    assert {reply.status_code for reply in said[31:]} == {429}
    assert "retry-after" in said[-1].headers
