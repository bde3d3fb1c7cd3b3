"""No budget is walked around, no reply is free because it was left early, and no key sees another's conversation."""

from __future__ import annotations

import gc
import json
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
import pytest

import router as tierwise
from router import Api, RequestError, Router, Settings, Usage
from router.accounts.ledger import Ledger
from router.accounts.record import CUT, ESTIMATED
from router.cache.breakpoints import MAX_MESSAGES
from router.cache.memory import InProcessMemory, SqliteMemory
from router.gateway.journal import Journal
from router.gateway.keys import KeyFile
from router.gateway.sqlite import SqliteStore
from router.gateway.store import JournalEntry, StoreAway
from router.offline import Upstream
from tests.gateway.conftest import HELLO, STREAM_HEAD, Exact, Serve, wait_for, whole
from tests.gateway.test_access import ask, forget_when_checked, keys_of
from tests.gateway.test_hardening import HARD, made

SHORT = b'{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"hi"}],"model":"m",' \
    b'"usage":{"input_tokens":100000,"output_tokens":10000},"stop_reason":"end_turn"}'  # fmt: skip


def test_running_requests_hold_back_what_they_may_cost(serve: Serve) -> None:
    hold = threading.Event()
    with Exact([hold, whole(SHORT)]) as upstream:
        gateway = serve(upstream.url, access="keys", max_retries=0)
        _, token = keys_of(gateway).create("ci", usd_a_day=Decimal("0.50"))
        forget_when_checked(gateway)
        body = {"model": "claude-opus-4-7", "max_tokens": 32_000}
        statuses: list[int] = []
        callers = [threading.Thread(target=lambda: statuses.append(ask(gateway, token, **body).status_code))]
        callers[0].start()
        wait_for(lambda: bool(upstream.requests))
        refused = ask(gateway, token, **body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "is held for" in refused.json()["error"]["message"]
        hold.set()
        callers[0].join(20)
        assert statuses == [200]
    wait_for(lambda: gateway.gateway.budgets._reserved == {})
    final = ask(gateway, token, **body)  # $0.75 were spent
    assert (final.status_code, final.json()["error"]["type"]) == (429, "billing_error")


@pytest.mark.parametrize("model", ["some-model-of-tomorrow", "claude-opus-9"])
def test_what_has_no_price_is_charged_at_the_dearest(serve: Serve, model: str) -> None:
    with Exact([whole(SHORT)]) as upstream:
        gateway = serve(upstream.url, access="keys", max_retries=0)
        _, token = keys_of(gateway).create("ci", usd_a_day=Decimal("0.01"))
        forget_when_checked(gateway)
        assert ask(gateway, token, model=model).status_code == 200
        again = ask(gateway, token, model=model)
        assert (again.status_code, again.json()["error"]["type"]) == (429, "billing_error")
    (row,) = gateway.records(1)
    assert row["cost_picousd"] is None  # the record does not pretend to know


EVENTS = {
    "/v1/messages": [
        'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
        '"content":[],"model":"m","usage":{"input_tokens":50,"output_tokens":1}}}\n\n',
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        '"text":"%s"}}\n\n',
    ],
    "/v1/chat/completions": [
        'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
        '"delta":{"role":"assistant","content":""}}]}\n\n',
        'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
        '"delta":{"content":"%s"}}]}\n\n',
    ],
    "/v1/responses": [
        'event: response.created\ndata: {"type":"response.created","response":{"id":"r"},"sequence_number":0}\n\n',
        'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"i",'
        '"output_index":0,"content_index":0,"delta":"%s","sequence_number":1}\n\n',
    ],
}


@pytest.mark.parametrize("path", list(EVENTS))
def test_a_stream_that_is_left_is_billed_by_what_passed(serve: Serve, path: str) -> None:
    opening, delta = EVENTS[path]
    said = "word " * 400  # 2,000 characters, some 500 tokens
    never = threading.Event()
    with Exact([STREAM_HEAD + (opening + delta % said).encode(), never]) as upstream:
        gateway = serve(upstream.url, max_retries=0)
        body: dict[str, Any] = {"model": "claude-opus-4-7" if "messages" in path else "gpt-5.5", "stream": True}
        body |= {"input": "hi"} if "responses" in path else {"messages": HELLO["messages"], "max_tokens": 4000}
        with httpx2.stream("POST", gateway.url + path, json=body, timeout=10) as reply:
            seen = b""
            for chunk in reply.iter_raw():
                seen += chunk
                if b"word" in seen:
                    break
        never.set()
        (row,) = gateway.records(1)
    assert 300 < row["output_tokens"] < 900
    assert row["cost_picousd"] > 0
    assert {CUT, ESTIMATED} & set(json.loads(row["notes"]))


def test_an_sdks_stream_that_nobody_reads_is_billed(upstream: Upstream) -> None:
    with anthropic.Anthropic(base_url=upstream.url, api_key="any", max_retries=0) as plain:
        client: Any = tierwise.wrap(plain)
        stream = client.messages.create(model="auto", max_tokens=50, messages=HARD, stream=True)
        assert client.last_record is None
        stream.response.close()
        del stream
        gc.collect()
        assert client.last_record.usage.fresh_tokens > 0
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="any", max_retries=0) as other:
        gpt: Any = tierwise.wrap(other)
        with gpt.chat.completions.create(model="auto", messages=HARD, stream=True):
            pass
        assert gpt.last_record.usage.fresh_tokens > 0


# ---- the journal and the files


def entry(name: str) -> JournalEntry:
    router = Router.load(config=Settings())
    plan = router.plan(HELLO, Api.MESSAGES)
    return JournalEntry(name, router.record(plan, Usage(fresh_tokens=5, output_tokens=5)))


def test_a_line_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    lines = [msgspec.json.encode(entry(name)) for name in ("a", "b", "c")]
    lines[1] = lines[1].replace(b"claude-haiku", b"claude-hai\xff\xff", 1)
    (folder / "00000000000000000001-left.journal").write_bytes(b"\n".join([*lines, b'{"no": "record"}', b""]))
    database = tmp_path / "records.db"
    for _ in range(2):  # and over a restart
        journal = Journal(folder, SqliteStore(database))
        wait_for(lambda journal=journal: journal.backlog_bytes == 0)
        journal.append(entry("d"))
        journal.close()
    assert len((folder / "unreadable.jsonl").read_bytes().splitlines()) == 2
    assert (folder / "unreadable.jsonl").stat().st_mode & 0o777 == 0o600
    with Ledger(database) as ledger:
        assert [row[0] for row in ledger._db.execute("SELECT request_id FROM records")] == ["a", "c", "d", "d"]


def test_a_damaged_database_loses_no_record(tmp_path: Path) -> None:
    database = tmp_path / "records.db"
    store = SqliteStore(database)
    store.write_all([entry("a")], "j", 1)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.write(b"\xff" * database.stat().st_size)
    store._db.execute("PRAGMA shrink_memory")  # of what is in memory it would go on for a while
    with pytest.raises(StoreAway):
        SqliteStore.write_all(store, [entry("b")], "j", 2)
    store.close()


def test_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").close()
    memory = SqliteMemory(tmp_path / "state.db")
    memory.put(["a"], b"b")
    KeyFile(tmp_path / "keys.json").create("ci")
    modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert len(modes) >= 3
    assert set(modes.values()) == {0}


# ---- what is remembered, of whom


def tool_loop(text: str) -> dict[str, Any]:
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": [use]}]
    messages.append({"role": "user", "content": [result]})
    return {"messages": messages, "tools": [{"name": "f", "input_schema": {"type": "object"}}]}


@pytest.mark.parametrize("name", ["mine", "x" * 5000, None])
def test_a_conversation_is_its_keys_own(serve: Serve, upstream: Upstream, name: str | None) -> None:
    """By name and by history: another key's same words are another conversation."""
    gateway, one = made(serve, upstream)
    _, other = keys_of(gateway).create("other")
    forget_when_checked(gateway)
    text = "Translate 'good morning' into Dutch"
    options = {"conversation_id": name} if name else {}
    opened = tool_loop(text)
    first = {**opened, "messages": opened["messages"][:1], "router": {**options, "min_tier": "complex"}}
    assert ask(gateway, one, **first).headers["x-tierwise-tier"] == "complex"
    later = {**opened, "router": options}
    theirs, own = ask(gateway, other, **later), ask(gateway, one, **later)
    assert (theirs.headers["x-tierwise-tier"], theirs.headers["x-tierwise-reason"]) == ("simple", "suffices")
    assert (own.headers["x-tierwise-tier"], own.headers["x-tierwise-reason"]) == ("complex", "held")


def test_memory_is_bounded_in_bytes() -> None:
    memory = InProcessMemory(max_bytes=10_000)
    for number in range(100):
        memory.put([f"{number:03}"], b"x" * 997)
    assert memory.first(["089"]) is None
    assert memory.first(["099"]) is not None
    memory.put(["099"], b"")
    memory.put(["new"], b"x" * 997)
    assert memory.first(["091"]) is not None


def test_a_body_has_so_many_messages_and_parts_at_most(serve: Serve, upstream: Upstream) -> None:
    many = {**HELLO, "messages": HELLO["messages"] * (MAX_MESSAGES + 1)}
    with pytest.raises(RequestError, match=r"50,001 messages, expected at most 50,000"):
        Router.load(config=Settings()).plan(many, Api.MESSAGES)
    gateway = serve(upstream.url)
    assert gateway.post("/v1/messages", many).status_code == 400
    numbers = b'{"model": "auto", "messages": [' + b"1," * 3_100_000 + b"1]}"
    assert gateway.post("/v1/messages", numbers).status_code == 413
    parts = b'{"model": "auto", "messages": [' + b"{}," * 400_000 + b"{}]}"
    reply = gateway.post("/v1/messages", parts)
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "request_too_large")
    assert gateway.post("/v1/messages", {**HELLO, "system": "x" * 2_000_000}).status_code == 200
    assert upstream.requests


def test_names_of_models_are_short() -> None:
    with pytest.raises(RequestError, match="expected a string"):
        Router.load(config=Settings()).plan({**HELLO, "model": "x" * 1000}, Api.MESSAGES)
