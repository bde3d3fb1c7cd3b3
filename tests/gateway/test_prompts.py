"""Prompts are kept only where that is turned on, redacted, for as long as was said, and then the loop closes."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router import Ledger, Router, Settings, Usage
from router.gateway.records import records
from router.offline import Upstream
from router.types import Api
from tests.gateway.conftest import HELLO, Running, Serve
from training.rows.errors import LabelError
from training.rows.traffic import TrafficFile, read_requests

ASK = "Summarise the mail of ann@example.com for me, key sk-ant-api03-0123456789abcdef."
KEPT = "Summarise the mail of [e-mail] for me, key [key]."


def prompts(database: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as found:
        return found.execute("SELECT text, class, conversation FROM prompts ORDER BY id").fetchall()


def ask(gateway: Running, text: str, **more: Any) -> None:
    body = {**HELLO, "messages": [{"role": "user", "content": text}], "router": {"traffic_class": "mail"}, **more}
    assert gateway.post("/v1/messages", body).status_code == 200


def test_nothing_is_kept_unless_it_is_turned_on(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url)
    ask(gateway, ASK)
    assert len(gateway.records(1)) == 1
    assert prompts(gateway.state / "records.db") == []
    assert not [path for path in gateway.state.rglob("*") if path.is_file() and b"Summarise" in path.read_bytes()]


def test_the_loop_closes(serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = serve(upstream.url, general={"store_prompts": True, "mode": "shadow"}, models={"claude-*": "auto"})
    ask(gateway, ASK)
    ask(gateway, ASK)
    ask(gateway, "And in German?", model="claude-opus-4-7")
    ask(gateway, "Not ours to decide.", model="gpt-6-luna")
    loop = [
        {"role": "user", "content": "Fix the test."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "run", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "ok"}]},
    ]
    tools = [{"name": "run", "input_schema": {"type": "object"}}]
    for messages in (loop[:1], loop):
        assert gateway.post("/v1/messages", {**HELLO, "messages": messages, "tools": tools}).status_code == 200
    rows = gateway.records(6)
    database = gateway.state / "records.db"
    kept = prompts(database)
    assert [text for text, _, _ in kept] == [KEPT, KEPT, "And in German?", "Fix the test."]
    assert kept[0][1] == "mail" and kept[0][2] == rows[0]["conversation"]

    found = list(read_requests(TrafficFile(database)))
    assert [text for _, text, _ in found] == [KEPT, "And in German?", "Fix the test."]
    assert found[0][2]["class"] == "mail"

    monkeypatch.setenv("TIERWISE_GATEWAY_STATE_DIR", str(gateway.state))
    done = CliRunner().invoke(records, ["--forget", rows[0]["conversation"]])
    assert "2 prompts deleted" in done.output
    assert [text for text, _, _ in prompts(database)] == ["And in German?", "Fix the test."]
    shown = CliRunner().invoke(records, ["--json"]).output
    assert "German" not in shown and json.loads(shown.splitlines()[0])["mode"] == "shadow"


def test_what_is_past_its_time_goes(tmp_path: Path) -> None:
    path, now = tmp_path / "l.db", dt.datetime.now(dt.UTC)
    with Ledger(path) as store:
        for days in (0, 40, 400):
            at_s = (now - dt.timedelta(days=days)).timestamp()
            router = Router.load(config=Settings(store_prompts=True), store=store, clock=lambda at_s=at_s: at_s)
            router.record(router.plan(HELLO, Api.MESSAGES), Usage(fresh_tokens=10, output_tokens=1))
    assert len(prompts(path)) == 3
    Settings(ledger=str(path)).open_ledger()
    with Ledger(path) as store:
        assert (len(prompts(path)), len(store.rows(now - dt.timedelta(days=999)))) == (1, 3)
    Settings(ledger=str(path), records_keep_days=100).open_ledger()
    with Ledger(path) as store:
        assert len(store.rows(now - dt.timedelta(days=999))) == 2


def test_a_database_without_prompts_is_no_traffic(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db"):
        pass
    with pytest.raises(LabelError, match="keeps no prompts; set store_prompts = true"):
        list(read_requests(TrafficFile(tmp_path / "l.db")))
    (tmp_path / "x.db").write_bytes(b"no database")
    with pytest.raises(LabelError, match="expected Tierwise's records"):
        list(read_requests(TrafficFile(tmp_path / "x.db")))
