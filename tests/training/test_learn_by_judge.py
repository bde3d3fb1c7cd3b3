"""`tierwise learn --from`: judged where it matters, within a sum, in blocks that a run can be cut after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from router import Router, catalog
from router.cli import cli
from router.errors import SettingsError
from router.offline import Upstream
from router.types import Tier
from tests.conftest import ROOT
from training.labelling.paid_calls import CallsFailed
from training.thresholds.learned import p_suffices
from training.thresholds.pools import BLOCK, Asked, Pool
from training.thresholds.widening import Widening

CLAUDE = catalog.shipped().fleets["claude"]
ROWS = [json.loads(line) for line in (ROOT / "data/queries.jsonl").read_text("utf-8").splitlines()][:900]
NEEDED = {row["text"]: Tier(row["tier"]) for row in ROWS}


def speak(body: dict[str, Any], model_id: str) -> str:
    """Models that do what our labels say that their tier does; a judge that sees it, whichever way round."""
    prompt = body["messages"][0]["content"]
    text = prompt if isinstance(prompt, str) else prompt[0]["text"]
    if "<answer_a>" in text:
        a, b = (text.split(f"<answer_{side}>\n")[1].startswith("wrong") for side in "ab")
        return "SAME" if a == b else "B" if a else "A"
    tier = next(tier for tier, model in CLAUDE.models.items() if model.id == model_id)
    return "right" if tier.rank >= NEEDED[text].rank else "wrong"


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    with Upstream(reply=speak) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "offline")
        yield running


@pytest.fixture
def traffic(tmp_path: Path) -> Path:
    path = tmp_path / "traffic.jsonl"
    rows = ({"text": row["text"], "class": "easy" if row["tier"] == "simple" else "hard"} for row in ROWS)
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "of no class"}])))
    return path


def learn(traffic: Path, *options: str) -> dict[str, Any]:
    got = CliRunner().invoke(cli, ["learn", "--from", str(traffic), "--json", *options])
    assert got.exit_code == 0, (got.output, got.exception)
    return dict(json.loads(got.stdout))


def test_an_easy_class_widens_and_a_hard_one_does_not(upstream: Upstream, traffic: Path) -> None:
    found = learn(traffic, "--usd", "2.5")
    rows = {row["class"]: row for row in found["classes"]}
    assert 0 < found["usd"] <= 2.5
    assert float(sum(bill.usd for bill in upstream.bills)) == pytest.approx(found["usd"])
    assert rows["easy"]["level"] > 0 and rows["easy"]["is_proved"] and rows["easy"]["too_low"] == 0
    assert rows.get("hard", {"level": 0})["level"] < rows["easy"]["level"]
    assert Router.load().decide({"messages": [{"role": "user", "content": "hi"}], "router": {"traffic_class": "easy"}})
    labels = [json.loads(line) for line in Path("learned.jsonl").read_text().splitlines()]
    assert sum(row["n_labels"] for row in rows.values()) == len(labels)
    router = Router.load()
    assert all(any(p_suffices(label["text"], label["class"], router)) for label in labels)
    for label in labels:
        assert label["p_required"].index(1.0) == NEEDED[label["text"]].rank


def test_a_block_ends_with_a_request_that_needs_a_label() -> None:
    """To end before the next such request would count free ones that come before it, and not it."""
    up, down = (0.0, 0.0), (1.0, 1.0)
    waiting = [Asked(str(n), {}, down if n % 3 == 2 else up) for n in range(200)]
    pool, router = Pool("support", Widening(0, 0.05, 0.05), waiting, 200), Router.load()
    seen: list[tuple[Asked, bool]] = []
    while block := pool.block(router):
        assert block[-1][1] or len(pool.waiting) == len(block)
        assert sum(needs for _, needs in block) <= BLOCK
        seen += block
        pool.drop(block)
    assert [each for each, _ in seen] == [Asked(str(n), {}, down if n % 3 == 2 else up) for n in range(200)]
    assert [needs for _, needs in seen] == [n % 3 == 2 for n in range(200)]


def test_a_run_goes_on_where_the_last_one_stood(upstream: Upstream, traffic: Path) -> None:
    first = learn(traffic, "--usd", "0.8")
    n_bills = len(upstream.bills)
    second = learn(traffic, "--usd", "0.8")
    assert len(upstream.bills) > n_bills and second["usd"] <= 0.8
    asked = [json.loads(line)["text"] for line in Path("learned.jsonl").read_text().splitlines()]
    assert len(asked) == len(set(asked))
    before, after = ({row["class"]: row["n_labels"] for row in each["classes"]} for each in (first, second))
    assert all(after[name] > before[name] for name in before.keys() & after.keys())


def test_a_day_has_its_sum(upstream: Upstream, traffic: Path) -> None:
    Path("tierwise.toml").write_text("[learning]\nusd_a_day = 0.8\n")
    assert 0 < learn(traffic)["usd"] <= 0.8
    n_labels = len(Path("learned.jsonl").read_text().splitlines())
    learn(traffic)
    assert float(sum(bill.usd for bill in upstream.bills)) <= 0.8
    state = json.loads(Path("learned.json").read_text())
    Path("learned.json").write_text(json.dumps({**state, "day": "2026-01-01"}))
    learn(traffic)
    assert len(Path("learned.jsonl").read_text().splitlines()) > n_labels


def test_nothing_is_paid_unless_a_sum_is_set(
    upstream: Upstream, traffic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = CliRunner().invoke(cli, ["learn", "--from", str(traffic)])
    assert isinstance(got.exception, SettingsError) and "usd_a_day" in str(got.exception)
    assert "expected one of --labels" in CliRunner().invoke(cli, ["learn"]).output
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    got = CliRunner().invoke(cli, ["learn", "--from", str(traffic), "--usd", "1"])
    assert isinstance(got.exception, CallsFailed) and not upstream.bills
