"""The audit against what the same calls do cost: the simulation's, and the embedded upstream's bill."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import numpy as np
import pytest
from click.testing import CliRunner

from router import Router, Settings, Tier, wrap
from router.accounts.bill import cost
from router.audit import sources
from router.audit.audit import audit
from router.audit.calls import Call, Log
from router.audit.changes import changes
from router.audit.levers import group, named
from router.audit.page import page
from router.catalog import Fleet, shipped
from router.cli import cli
from router.demo import system_prompt, workload
from router.offline import Upstream
from router.simulate import replay
from router.simulate.trace import Trace
from router.types import Ttl, Usage
from tests.audit.test_logs import reply, said, written
from tests.conftest import Clock

TODAY = dt.date(2026, 11, 27)
OPUS = shipped().models["claude-opus-4-7"]


@pytest.fixture
def shipped_one() -> Router:
    return Router.load(config=Settings())


def sessions(n: int, seed: int) -> Trace:
    """Coding sessions: long heads, tool loops, pauses, now and then a prompt that begins anew."""
    chance = np.random.default_rng(seed)
    rows = []
    n_blocks = 0
    for conversation in range(n):
        at_s, blocks = chance.uniform(0, 20_000), []
        for call in range(int(chance.integers(2, 60))):
            opens = call == 0 or chance.random() < 0.15
            at_s += chance.exponential(900 if opens and call else 12)
            if not blocks or chance.random() < 0.01:
                blocks = []
            new = int(chance.integers(150, 400)) if not blocks else int(chance.integers(1, 60))
            blocks = [*blocks, *range(n_blocks, n_blocks + new)]
            n_blocks += new
            rows.append((at_s, conversation, len(blocks) * 64 + 5, int(chance.integers(50, 900)), opens, blocks))
    rows.sort(key=lambda row: row[0])
    at, conversations, inputs, outputs, opens_turn, parts = zip(*rows, strict=True)
    marks = [(np.arange(len(blocks)) + 1) * 64 for blocks in parts]
    columns = [np.array(column) for column in (at, conversations, inputs, outputs, opens_turn)]
    return Trace(*columns, [np.array(blocks) for blocks in parts], marks, n_blocks)


def logged(trace: Trace, ttl: Ttl, folder: Path) -> None:
    """The session files that a client leaves which sends every call to the top model, cached for `ttl`."""
    cache = replay._Cache(trace, 1, (1.0,))
    rows: dict[int, list[Any]] = {}
    for i in range(len(trace)):
        usage = cache.use(i, 0, OPUS, ttl, ttl, float(trace.at_s[i]))
        at = dt.datetime.fromtimestamp(1_795_000_000 + float(trace.at_s[i]), dt.UTC)
        more = {"timestamp": at.isoformat(), "sessionId": f"s{trace.conversations[i]}"}
        counts = {
            "input_tokens": usage.fresh_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "cache_creation_input_tokens": usage.cache_write_short_tokens + usage.cache_write_long_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": usage.cache_write_short_tokens,
                "ephemeral_1h_input_tokens": usage.cache_write_long_tokens,
            },
            "output_tokens": usage.output_tokens,
        }
        asked = [{"type": "text", "text": " "}] if trace.new_turn[i] else [{"type": "tool_result", "content": "ok"}]  # type: ignore[index]
        rows.setdefault(int(trace.conversations[i]), []).extend(
            [said(asked, **more), reply(i, message={"usage": counts, "model": OPUS.id}, **more)]
        )
    for number, lines in rows.items():
        written(folder / f"s{number}.jsonl", lines)


@pytest.mark.parametrize("ttl", [Ttl.SHORT, Ttl.LONG])
def test_sessions_cost_what_the_simulation_says(tmp_path: Path, shipped_one: Router, ttl: Ttl) -> None:
    """The simulation knows every prompt, the audit only sizes: what both levers make of the log differs by 3 %."""
    trace = sessions(40, seed=3)
    logged(trace, ttl, tmp_path / "sessions")
    (log,) = sources.read_logs([tmp_path / "sessions"])
    needed = np.random.default_rng(0).choice(3, len(trace), p=(0.7, 0.2, 0.1))
    at = {f"{s:.3f}": int(n) for s, n in zip(trace.at_s + 1_795_000_000, needed, strict=True)}
    tiers = [list(Tier)[at[f"{call.at_s:.3f}"]] for call in log.calls]
    found = group(
        OPUS, log.calls, shipped_one, tiers, today=TODAY, effort_output=0.4, progress=lambda _, items: iter(items)
    )
    truly = replay.ours(trace, shipped_one, needed, "turn", (1.0,) * 3, range(len(trace)))
    assert found.costs["together"].sum() == pytest.approx(truly.usd.sum(), rel=0.03)
    assert found.costs["replayed"].sum() == pytest.approx(found.usd.sum(), rel=0.01)


def spent(upstream: Upstream) -> float:
    """What the upstream has billed since the last time; its caches are cold again."""
    total = 0.0
    for bill in upstream.bills:
        usage = Usage(bill.fresh, bill.read, bill.write_short, bill.write_long, bill.output)
        total += float(cost(usage, shipped().find(bill.model), TODAY) or 0)
    upstream.bills.clear()
    upstream.forget()
    return total


def test_a_bots_day_costs_what_the_upstream_bills(tmp_path: Path, upstream: Upstream, clock: Clock) -> None:
    """A bot that caches nothing is audited; then the same calls are sent with each lever."""
    midnight, calls = clock.now, workload(300)
    router = Router.load(config=Settings(), clock=clock)
    alone = Router(router.policy.champion, router.catalog, Fleet("alone", {Tier.COMPLEX: OPUS}), clock=clock)
    billed = {}
    with anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0) as plain:

        def send(client: Any, model: Callable[[str], str]) -> list[dict[str, Any]]:
            rows = []
            for call in calls:
                clock.now = midnight + call.at_s
                body: dict[str, Any] = {"max_tokens": 512, "system": system_prompt()}
                body |= {"model": model(call.text), "messages": [{"role": "user", "content": call.text}]}
                reply = client.messages.create(**body)
                rows.append({"at": clock.now, "body": body, "usage": reply.usage.model_dump()})
            return rows

        written(tmp_path / "bot.jsonl", send(plain, lambda _: OPUS.id))
        billed["uncached"] = spent(upstream)
        send(wrap(plain, alone), lambda _: "auto")
        billed["caching"] = spent(upstream)
        send(plain, lambda text: router.decide(text).model)
        billed["routing"] = spent(upstream)
        send(wrap(plain, router), lambda _: "auto")
        billed["together"] = spent(upstream)
    found = audit(sources.read_logs([tmp_path / "bot.jsonl"]), router, today=TODAY)
    assert found.usd == pytest.approx(billed["uncached"], rel=1e-9)
    assert found.n_read == len(calls)
    for lever in ("uncached", "caching", "routing"):
        assert found.levers[lever].usd == pytest.approx(billed[lever], rel=0.01), lever
    # Nearly equal choices fall otherwise: 2.8 % at 300 calls, 1.4 % at 2,000.
    assert found.levers["together"].usd == pytest.approx(billed["together"], rel=0.05)
    assert found.weights.n_misses["not cached"] > 290


def test_sums_are_routed_by_the_mix(shipped_one: Router) -> None:
    calls = [Call(1.795e9, OPUS.id, Usage(fresh_tokens=10**6, output_tokens=10**5), n_requests=100)]
    found = audit([Log("usage export", [], calls, Counter())], shipped_one, today=TODAY, mix=(0, 0, 1))
    assert (found.n_summed, found.n_replayed) == (1, 0)
    assert found.levers["routing"].usd == pytest.approx(found.usd)
    cheap = audit([Log("usage export", [], calls, Counter())], shipped_one, today=TODAY, mix=(1, 0, 0))
    haiku = cost(calls[0].usage, shipped().find("claude-haiku-4-5"), TODAY)
    assert cheap.levers["together"].usd == pytest.approx(float(haiku or 0))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("anthropic/claude-opus-4-7", "claude-opus-4-7"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("openai/gpt-5.5-2026-04-23", "gpt-5.5"),
        ("mistral-large", None),
    ],
)
def test_models_as_logs_name_them(name: str, model: str | None) -> None:
    found = named(shipped(), name)
    assert (found and found.id) == model


def log_of_two(folder: Path) -> Path:
    lines = [said("Why does the login test fail?"), reply(1, 1), reply(2, 2), reply(3, 3, message={"model": "llama"})]
    written(folder / "s.jsonl", [*lines, "{broken\n"])
    return folder


def test_the_command(tmp_path: Path) -> None:
    places = log_of_two(tmp_path / "p")
    got = CliRunner().invoke(cli, ["audit", str(places)])
    assert got.exit_code == 0, got.output
    assert "left out: 1 lines that are no JSON" in got.output
    assert "llama" in got.output and "no price" in got.output
    assert "read from text for 67% of the calls" in got.output
    got = CliRunner().invoke(cli, ["audit", str(places), "--json", "--html", str(tmp_path / "a.html")])
    found = json.loads(got.stdout)
    assert found["n_calls"] == 3 and len(found["levers"]) == 5
    assert "<script" not in (tmp_path / "a.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "no file or folder 'nowhere'"),
        (["p", "--mix", "70,30"], "expected three shares"),
        (["p", "--since", "1"], "no calls in Claude Code"),
        ([], "nothing in the usual places"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str) -> None:
    log_of_two(tmp_path / "p")
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    got = CliRunner().invoke(cli, ["audit", *options])
    assert got.exit_code and message in str(got.exception or "") + got.output


def test_the_usual_places_are_read_once_it_was_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    log_of_two(tmp_path / ".claude/projects/p")
    refused = CliRunner().invoke(cli, ["audit"])
    assert refused.exit_code and "tierwise audit --yes" in str(refused.exception or "") + refused.output
    got = CliRunner().invoke(cli, ["audit", "--yes"])
    assert got.exit_code == 0 and "found Claude Code" in got.output


def test_a_page_escapes_what_the_log_holds(tmp_path: Path, shipped_one: Router) -> None:
    call = {"type": "tool_use", "id": "t", "name": "<img src=x>", "input": {"file_path": "</script><b>"}}
    result = [{"type": "tool_result", "tool_use_id": "t", "content": "x" * 4000}]
    rows = [said("Fix it."), reply(1, 1, message={"content": [call]}), said(result), reply(2, 2), reply(3, 3)]
    written(tmp_path / "s.jsonl", rows)
    found = audit(sources.read_logs([tmp_path / "s.jsonl"]), shipped_one, today=TODAY)
    html = page(found, changes(found, shipped_one.fleet, OPUS))
    assert "&lt;img src=x&gt;" in html and "<img" not in html and "<b>" not in html
    assert found.weights.files[0].name == "</script><b>" and found.weights.files[0].n_times == 1
