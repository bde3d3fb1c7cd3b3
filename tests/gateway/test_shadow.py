"""Shadow and canary: what is decided and not acted on changes nothing, and is priced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from click.testing import CliRunner

from router import Ledger, Router, Settings, record_of, wrap
from router.decide.mode import Trial
from router.demo import system_prompt
from router.gateway.report import report
from router.offline import Upstream
from tests.conftest import Clock
from tests.gateway.conftest import HELLO, Exact, Serve, whole
from tests.gateway.test_access import forget_when_checked, keys_of
from tests.gateway.test_fidelity import REPLY
from tests.gateway.test_hardening import HARD

MAPPED = {"claude-*": "auto"}
ASKS = ("Where is my parcel?", "Translate good morning into Dutch.", "Thanks, that is all.", "What are your hours?") * 3


def send_all(url: str, **more: Any) -> list[Any]:
    """A bot's calls for the strongest model, which it does not cache."""
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        return [
            client.messages.create(
                model="claude-opus-4-7",
                max_tokens=60,
                system=system_prompt(),
                messages=[{"role": "user", "content": ask}],
                **more,
            )
            for ask in ASKS
        ]


def test_it_sends_what_the_caller_sent_and_prices_what_was_decided(
    serve: Serve, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = serve(upstream.url, general={"mode": "shadow"}, models=MAPPED)
    assert {reply.model for reply in send_all(shadow.url)} == {"claude-opus-4-7"}
    as_sent = [(bill.model, bill.fresh, bill.read, bill.output) for bill in upstream.bills]
    rows = shadow.records(len(ASKS))
    upstream.bills.clear()
    upstream.forget()
    send_all(upstream.url)
    assert as_sent == [(bill.model, bill.fresh, bill.read, bill.output) for bill in upstream.bills]
    assert {row["mode"] for row in rows} == {"shadow"}
    assert sum(row["cost_picousd"] for row in rows) == sum(int(bill.usd * 10**12) for bill in upstream.bills)
    assert {row["baseline_cost_picousd"] for row in rows} == {None}

    upstream.bills.clear()
    upstream.forget()
    routed = serve(upstream.url, models=MAPPED)
    went = [reply.model for reply in send_all(routed.url)]
    assert [row["shadow_model"] for row in rows] == went
    truly = sum(int(bill.usd * 10**12) for bill in upstream.bills)
    assert sum(row["shadow_cost_picousd"] for row in rows) == pytest.approx(truly, rel=0.03)

    monkeypatch.setenv("TIERWISE_GATEWAY_STATE_DIR", str(shadow.state))
    told = CliRunner().invoke(report, ["--by", "mode"])
    assert "12 requests were decided and not routed (mode): $" in told.output
    found = json.loads(CliRunner().invoke(report, ["--by", "mode", "--json"]).stdout)
    assert (found["mode"][0]["mode"], found["mode"][0]["n_shadow"]) == ("shadow", 12)


def test_bytes_pass_as_they_came(serve: Serve) -> None:
    body = b'{ "model":"claude-opus-4-7",  "max_tokens":9,"messages":[{"role":"user","content":"h\\u0069"}] }'
    with Exact([whole(REPLY)]) as upstream:
        reply = serve(upstream.url, general={"mode": "shadow"}, models=MAPPED).post("/v1/messages", body)
        assert reply.content == REPLY
        assert reply.headers["x-tierwise-shadow-model"] == "claude-haiku-4-5"
        assert reply.headers["x-tierwise-model"] == "claude-opus-4-7"
        assert upstream.body == body


def test_auto_goes_to_the_strongest(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, general={"mode": "shadow"})
    for model in ("auto", "auto:economy", "simple"):
        reply = gateway.post("/v1/messages", {**HELLO, "model": model, "router": {"conversation_id": "c"}})
        assert reply.headers["x-tierwise-model"] == "claude-opus-4-7", reply.text


def test_the_keys_mode_wins_over_the_callers_and_theirs_over_the_settings(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, access="keys", general={"mode": "shadow"}, models=MAPPED)
    keys = keys_of(gateway)
    (_, free), (_, bound) = keys.create("free"), keys.create("bound", mode="on")
    forget_when_checked(gateway)

    def model(token: str, mode: str | None = None) -> str:
        headers = {"authorization": f"Bearer {token}", **({"x-tierwise-mode": mode} if mode else {})}
        reply = gateway.post("/v1/messages", {**HELLO, "model": "claude-opus-4-7"}, headers)
        return str(reply.headers["x-tierwise-model"]) if reply.status_code == 200 else reply.text

    assert model(free) == "claude-opus-4-7"
    assert model(free, "on") == model(bound, "shadow") == model(bound) == "claude-haiku-4-5"
    assert "x-tierwise-mode is 'never', expected one of on, shadow, canary" in model(free, "never")


def test_a_canary_routes_whole_conversations(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, general={"mode": "canary", "mode_share": 0.3}, models=MAPPED)
    went: dict[int, set[str]] = {}
    for _ in range(2):
        for number in range(40):
            body = {**HELLO, "model": "claude-opus-4-7", "router": {"conversation_id": f"c{number}"}}
            went.setdefault(number, set()).add(gateway.post("/v1/messages", body).headers["x-tierwise-model"])
    assert {len(models) for models in went.values()} == {1}
    n_routed = sum(models == {"claude-haiku-4-5"} for models in went.values())
    assert 4 <= n_routed <= 22
    rows = gateway.records(80)
    assert {(row["model"], round(row["propensity"], 3), row["shadow_model"]) for row in rows} == {
        ("claude-haiku-4-5", 0.3, ""),
        ("claude-opus-4-7", 0.7, "claude-haiku-4-5"),
    }
    assert all(row["total_ms"] >= row["first_byte_ms"] > 0 for row in rows)


def test_a_share_is_a_share() -> None:
    trial = Trial("canary", 0.25)
    assert sum(trial.routes(f"c{n}") for n in range(4000)) / 4000 == pytest.approx(0.25, abs=0.03)
    assert sum(trial.routes("") for _ in range(4000)) / 4000 == pytest.approx(0.25, abs=0.03)
    assert trial.propensity(routed=True) == 0.25 and trial.propensity(routed=False) == 0.75
    assert not any(Trial("shadow").routes(name) for name in ("", "a")) and Trial().routes("a")


def test_the_library_keeps_to_the_strongest(tmp_path: Path, upstream: Upstream, clock: Clock) -> None:
    with Ledger(tmp_path / "l.db") as store:
        router = Router.load(config=Settings(mode="shadow"), store=store, clock=clock)
        with anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0) as plain:
            reply = wrap(plain, router).messages.create(**{**HELLO, "messages": HELLO["messages"]})
        record = record_of(reply)
        assert record is not None
        assert (record.model, record.shadow_model, record.mode) == ("claude-opus-4-7", "claude-haiku-4-5", "shadow")
        assert record.cost_usd is not None and record.shadow_cost_usd is not None
        assert record.cost_usd > record.shadow_cost_usd > 0
        (totals,) = store.report("mode", record.at.replace(year=2000))
        assert (totals.n_shadow, totals.shadow_usd, totals.shadowed_usd) == (1, record.shadow_cost_usd, record.cost_usd)


def test_hard_requests_would_have_stayed(serve: Serve, upstream: Upstream) -> None:
    gateway = serve(upstream.url, general={"mode": "shadow"}, models=MAPPED)
    gateway.post("/v1/messages", {**HELLO, "model": "claude-opus-4-7", "messages": HARD})
    (row,) = gateway.records(1)
    assert row["shadow_model"] == "claude-opus-4-7"
