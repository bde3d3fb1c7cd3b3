"""The command report says what the records say, to the last digit."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from router import Api, Ledger, Router, Settings, Usage
from router.accounts.ledger import REPORT_GROUPS
from router.gateway.records import records
from router.gateway.report import report
from router.offline import Upstream
from tests.conftest import ROOT
from tests.gateway.conftest import HELLO, Serve
from tests.gateway.test_access import ask, forget_when_checked, keys_of
from tests.gateway.test_hardening import HARD

SINCE = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def told(*arguments: str) -> Any:
    result = CliRunner().invoke(report, ["--json", *arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("elsewhere")
def test_a_gateways_records(serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = serve(upstream.url, access="keys")
    _, token = keys_of(gateway).create("ci")
    forget_when_checked(gateway)
    for messages in (HELLO["messages"], HARD, HARD):
        assert ask(gateway, token, messages=messages).status_code == 200
    assert ask(gateway, token, model="claude-sonnet-4-6").status_code == 200
    rows = gateway.records(4)
    monkeypatch.setenv("TIERWISE_GATEWAY_STATE_DIR", str(gateway.state))
    cost = sum(row["cost_picousd"] for row in rows) / 1e12
    saved = sum(r["baseline_cost_picousd"] - r["cost_picousd"] for r in rows if r["baseline_cost_picousd"]) / 1e12
    for by in REPORT_GROUPS:
        found = told("--since", "1d", "--by", by)
        assert found["total"]["n_requests"] == sum(row["n_requests"] for row in found[by]) == 4
        assert found["total"]["cost_usd"] == pytest.approx(cost, abs=1e-12)
        assert found["total"]["saved_usd"] == pytest.approx(saved, abs=1e-12)
    by_tier = {row["tier"]: row["n_requests"] for row in told("--by", "tier")["tier"]}
    assert by_tier == {"complex": 2, "moderate": 1, "simple": 1}
    text = CliRunner().invoke(report, ["--since", "1d"]).stdout
    assert "4 requests" in text
    assert f"{saved:,.4f}" in text


def test_a_librarys_ledger_and_a_time(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_LEDGER", str(elsewhere / "ledger.db"))
    now = [dt.datetime.now(dt.UTC).timestamp()]
    with Ledger(elsewhere / "ledger.db") as ledger:
        router = Router.load(config=Settings(), store=ledger, clock=lambda: now[0])
        for age_h in (1, 30, 24 * 10):
            now[0] = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=age_h)).timestamp()
            router.record(router.plan(HELLO, Api.MESSAGES), Usage(fresh_tokens=1000, output_tokens=100))
        router.record(
            router.plan({**HELLO, "model": "unheard-of"}, Api.MESSAGES), Usage(fresh_tokens=5, output_tokens=5)
        )
        (total,) = (row for row in ledger.report("model", SINCE) if row.name == "claude-haiku-4-5")
        assert total.cost_usd == 3 * Decimal("0.0015")
    assert [told("--since", since)["total"]["n_requests"] for since in ("24h", "7d", "4w")] == [1, 2, 4]
    assert told("--since", "2000-01-01")["total"]["n_unpriced"] == 1
    assert told("--since", "4w", "--until", "7d")["total"]["n_requests"] == 2
    yesterday, today = (told("--since", day)["total"]["n_requests"] for day in ("yesterday", "today"))
    assert told("--since", "yesterday", "--until", "today")["total"]["n_requests"] == yesterday - today
    assert yesterday in (1, 2) and today in (0, 1)  # by the hour in which this runs
    assert rows_of("--since", "4w", "--until", "7d", "--json").count("\n") == 2
    nothing = CliRunner().invoke(report, ["--since", "today", "--until", "today"])
    assert nothing.exit_code == 2 and "'today' is not after 'today'" in nothing.output
    empty = CliRunner().invoke(report, ["--since", "2000-01-01", "--until", "2000-01-02"]).stdout
    assert empty.endswith(f"UTC: 0 requests\nThe records are in {elsewhere / 'ledger.db'}.\n")


def rows_of(*options: str) -> str:
    result = CliRunner().invoke(records, options)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("elsewhere")
def test_the_records_themselves(serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = serve(upstream.url)
    for messages in (HELLO["messages"], HARD):
        gateway.post("/v1/messages", {**HELLO, "messages": messages, "router": {"traffic_class": "=support"}})
    stored = gateway.records(2)
    monkeypatch.setenv("TIERWISE_GATEWAY_STATE_DIR", str(gateway.state))
    rows = [json.loads(line) for line in rows_of("--json").splitlines()]
    assert [row["id"] for row in rows] == [2, 1]
    assert rows[0]["cost_usd"] == pytest.approx(stored[1]["cost_picousd"] / 1e12, abs=1e-12)
    assert rows[0]["p_suffices"].keys() == {"simple", "moderate", "complex"}
    assert rows[0]["total_ms"] >= rows[0]["first_byte_ms"] > 0
    assert [json.loads(line)["model"] for line in rows_of("--json", "--model", rows[1]["model"]).splitlines()] == [
        rows[1]["model"]
    ]
    assert rows_of("--json", "--limit", "1").count("\n") == 1
    assert "claude-haiku-4-5" in rows_of()
    table = list(csv.DictReader(io.StringIO(rows_of("--csv"))))
    assert table[0].keys() == rows[0].keys()
    assert not table[0]["class"].startswith("=")
    rows_of("--parquet", "out.parquet")
    assert [row["id"] for row in pq.read_table("out.parquet").to_pylist()] == [2, 1]


def test_the_documented_columns_are_those_there_are(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.db") as ledger, closing(sqlite3.connect(tmp_path / "l.db")) as database:
        assert ledger.rows(SINCE) == []
        there = {row[1] for row in database.execute("PRAGMA table_info(records)")}
    text = (ROOT / "docs/report.md").read_text("utf-8").partition("## Request by request")[2]
    named = {name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line)}
    assert there <= named, there - named


@pytest.mark.usefixtures("elsewhere")
def test_what_cannot_be_told_is_said() -> None:
    none = CliRunner().invoke(report)
    assert "no records" in str(none.exception)
    wrong = CliRunner().invoke(report, ["--since", "soon"])
    assert (wrong.exit_code, "expected 24h, 7d, 4w, today, yesterday or a day" in wrong.output) == (2, True)
