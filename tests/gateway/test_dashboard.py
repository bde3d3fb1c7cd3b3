"""The dashboard: who sees it, that it says what the records say, and that nothing in it is anybody else's."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import time

import httpx2
import pytest

from router import Ledger, Router, Settings, Usage
from router.accounts.ledger import Totals
from router.gateway import overview
from router.gateway.overview import Overviews
from router.offline import Upstream
from router.types import Api
from tests.gateway.conftest import HELLO, Running, Serve
from tests.gateway.test_access import forget_when_checked, keys_of
from tests.gateway.test_hardening import HARD


def page(gateway: Running, **headers: str) -> httpx2.Response:
    return httpx2.get(f"{gateway.url}/dashboard", headers={k.replace("_", "-"): v for k, v in headers.items()})


def test_it_is_empty_before_the_first_request(serve: Serve, upstream: Upstream) -> None:
    reply = page(serve(upstream.url))
    assert reply.status_code == 200
    assert "No requests yet" in reply.text


def test_it_says_what_the_records_say(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url)
    for messages in (HELLO["messages"], HARD, HARD):
        gateway.post("/v1/messages", {**HELLO, "messages": messages, "router": {"traffic_class": "<b>support</b>"}})
    gateway.post("/v1/messages", {**HELLO, "model": "claude-opus-4-7"})
    rows = gateway.records(4)
    text = page(gateway).text
    spent = sum(row["cost_picousd"] for row in rows) / 1e12
    saved = sum(r["baseline_cost_picousd"] - r["cost_picousd"] for r in rows if r["baseline_cost_picousd"]) / 1e12
    shown = dict(re.findall(r'<span class="soft">([^<]+)</span><b[^>]*>([^<]+)</b>', text))
    assert shown["requests"] == "4"
    assert float(shown["spent in 30 days"].removeprefix("$")) == pytest.approx(spent, abs=6e-3 if spent >= 1 else 6e-5)
    assert float(shown["saved in 30 days, net"].removeprefix("$")) == pytest.approx(saved, abs=6e-5)
    (unrouted,) = re.findall(
        r"unrouted \$([0-9.]+)</title>(?=</rect>\n<rect class=\"cost\"[^>]* height=\"(?!0\.0))", text
    )
    assert float(unrouted) == pytest.approx(spent + saved, abs=1.5e-4)  # what was named is in both, and saves nothing
    assert text.count("below_threshold") == sum(row["reason"] == "below_threshold" for row in rows) > 0
    assert "&lt;b&gt;support" in text and "<b>support" not in text
    assert "hi" not in re.findall(r"<td[^>]*>([^<]*)</td>", text)


def test_nothing_is_loaded_and_no_script_runs(serve: Serve, upstream: Upstream) -> None:
    reply = page(serve(upstream.url))
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy
    (nonce,) = re.findall(r'<style nonce="([^"]+)">', reply.text)
    assert f"'nonce-{nonce}'" in policy
    assert not re.search(r"<script|\son\w+=|\sstyle=|\ssrc=|https?://", reply.text)
    assert reply.headers["cache-control"] == "no-store"


def test_an_administrator_alone_sees_it(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys")
    keys = keys_of(gateway)
    (_, plain), (_, admin) = keys.create("ci"), keys.create("boss", admin=True)
    forget_when_checked(gateway)
    asked = page(gateway)
    assert asked.status_code == 401 and "An administrator" in asked.text and "No requests" not in asked.text
    assert page(gateway, authorization=f"Bearer {plain}").status_code == 401
    assert page(gateway, authorization=f"Bearer {admin}").status_code == 200
    with httpx2.Client() as browser:
        for wrong in (plain, "tw-0-x", "", "é" * 3000):
            refused = browser.post(f"{gateway.url}/dashboard/login", data={"key": wrong})
            assert refused.status_code in (401, 403, 413) and "set-cookie" not in refused.headers
        entered = browser.post(f"{gateway.url}/dashboard/login", data={"key": admin})
        assert (entered.status_code, entered.headers["location"]) == (303, "/dashboard")
        cookie = entered.headers["set-cookie"].lower()
        assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/dashboard"))
        seen = browser.get(f"{gateway.url}/dashboard")
        assert seen.status_code == 200 and admin not in seen.text
        # The cookie is for the page alone: it pays for no request.
        assert browser.post(f"{gateway.url}/v1/messages", json=HELLO).status_code == 401
        keys.revoke("boss")
        forget_when_checked(gateway)
        assert browser.get(f"{gateway.url}/dashboard").status_code == 401


def test_no_other_site_reads_it(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url)
    assert page(gateway, origin="https://evil.example").status_code == 403
    assert page(gateway, sec_fetch_site="cross-site").status_code == 403
    assert page(gateway, host="evil.example").status_code == 421


def test_records_that_take_long_are_waited_for_elsewhere(
    serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = serve(upstream.url)
    made, read = Overviews(gateway.gateway), overview._read
    monkeypatch.setattr(overview, "_PATIENCE_S", 0.02)
    monkeypatch.setattr(overview, "_read", lambda of: (time.sleep(0.2), read(of))[1])

    async def asked() -> None:
        assert await made.get() is None
        for _ in range(100):
            if (found := await made.get()) is not None:
                break
        assert found is not None and found.total.n_requests == 0
        assert await made.get() is found

    asyncio.run(asked())


def test_lines_by_each_group_come_of_one_pass() -> None:
    with Ledger() as store:
        router = Router.load(config=Settings(), store=store)
        for messages in (HELLO["messages"], HARD):
            for name in ("a", "b"):
                body = {**HELLO, "messages": messages, "router": {"traffic_class": name}}
                router.record(router.plan(body, Api.MESSAGES), Usage(fresh_tokens=1000, output_tokens=100))
        since = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
        lines = overview._lines(store.report(",".join(overview._GROUPS), since))
        for by, rows in lines.items():
            assert rows == sorted(store.report(by, since), key=lambda row: -row.cost_usd), by
            assert Totals.of(rows) == Totals.of(lines["day"])
