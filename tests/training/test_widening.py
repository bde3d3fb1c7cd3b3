"""Thresholds that widen: the error is kept whenever one looks, and what was learned is served."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import widening as simulation
from router import Router, Settings, Usage
from router.accounts.ledger import Ledger
from router.cli import cli
from router.errors import RequestError, SettingsError
from router.types import Api, Tier
from tests.conftest import ROOT
from training.thresholds.betting import Capital
from training.thresholds.widening import SHIFTS, ZERO_SHOT, Widening, losses_at_each, thresholds_at

BASE = {Tier.SIMPLE: 0.8, Tier.MODERATE: 0.9}
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
LABELS = ROOT / "examples/labels.csv"


@pytest.mark.parametrize(("side", "risk"), [("below", 0.05), ("below", 0.3), ("above", 0.05), ("above", 0.01)])
def test_capital_seldom_grows_while_the_hypothesis_is_true(side: Any, risk: float) -> None:
    """2,000 players look after each of 400 losses; at most one in twenty ever has twenty times what they put in."""
    losses = (np.random.default_rng(0).random((400, 2000)) < risk).astype(float)
    capital, most = Capital(0.05, side, n=2000), np.zeros(2000)
    for row in losses:
        capital.add(row)
        most = np.maximum(most, capital.log)
    assert np.mean(most >= np.log(20)) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_capital_grows_where_the_hypothesis_is_false() -> None:
    good, bad = Capital(0.05, "below"), Capital(0.05, "above")
    for _ in range(100):
        good.add(np.zeros(1))
    for _ in range(40):
        bad.add(np.full(1, 0.4))
    assert good.log[0] > np.log(20) and bad.log[0] > np.log(20)


def test_weights_give_the_traffics_risk_back() -> None:
    """A fifth of the traffic is hard, and half of that goes too low; the draw takes hard requests a quarter as often.

    Counted as they come, the rows seem to say that the risk of .1 is below .08; by their weights they seldom do.
    """
    chance, n = np.random.default_rng(3), 2000
    share_drawn = 0.2 * 0.25 / (0.2 * 0.25 + 0.8)
    plain, weighed = Capital(0.08, "below", n=n), [Capital(0.08, "below") for _ in range(400)]
    most, most_weighed = np.zeros(n), np.zeros(len(weighed))
    for _ in range(300):
        is_hard = chance.random(n) < share_drawn
        losses = (is_hard & (chance.random(n) < 0.5)).astype(float)
        plain.add(losses)
        most = np.maximum(most, plain.log)
        for each, capital in enumerate(weighed):
            capital.add(losses[[each]], weight=1.0 if is_hard[each] else 0.25)
            most_weighed[each] = max(most_weighed[each], capital.log[0])
    assert np.mean(most >= np.log(20)) > 0.5
    assert np.mean(most_weighed >= np.log(20)) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(weighed))


def test_a_request_that_goes_up_needs_no_label_below_the_horizon() -> None:
    """What is known of each level is the same, label or not; nothing is said of levels above the horizon."""
    with_labels, without = Widening(0, 0.05, 0.05), Widening(0, 0.05, 0.05)
    chance, horizon = np.random.default_rng(4), 8
    for _ in range(200):
        first_sent_down = int(chance.integers(2, len(SHIFTS)))
        losses = (np.arange(len(SHIFTS)) >= first_sent_down) * float(chance.random() < 0.02)
        with_labels.add(losses)
        without.add(losses, horizon=horizon, is_labelled=first_sent_down <= horizon)
    one, other = with_labels.state(), without.state()
    assert (
        one.taken[: horizon + 1] == other.taken[: horizon + 1]
        and one.watched[: horizon + 1] == other.watched[: horizon + 1]
    )
    assert not np.any(other.taken[horizon + 1 :]) and 0 < without.level <= horizon
    assert other.n + other.n_free == 200 and 0 < other.n < 100
    assert Widening.of(other).state() == other


def test_levels_are_in_order() -> None:
    found = [thresholds_at(level, BASE) for level in range(len(SHIFTS))]
    assert found[0] == dict.fromkeys(BASE, 1.0)
    assert found[ZERO_SHOT] == pytest.approx(BASE)
    for one, other in pairwise(found):
        assert all(one[tier] > other[tier] for tier in BASE)
    losses = losses_at_each((0.6, 0.85), np.array([0.0, 0.3, 0.7]), BASE)
    assert (np.diff(losses) >= 0).all() and losses[0] == 0 and losses[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("is_judged", [False, True])
def test_it_is_bold_only_where_it_may_be_and_comes_back(is_judged: bool) -> None:
    arguments = simulation.argparse.Namespace(seed=1, labels=600, target=0.05, error=0.05, judged=is_judged)
    rows = [simulation.run(number, arguments) for number in range(60)]
    assert np.mean([row["exceeded"] for row in rows]) <= 0.1
    assert np.mean([row["part_of_best_300"] for row in rows]) > 0.6
    changed = [row for row in rows if row["bad_when_changed"]]
    assert len(changed) > 5 and np.mean([row["still_bad"] for row in changed]) < 0.4


def test_what_is_kept_goes_on_where_it_stood() -> None:
    chance = np.random.default_rng(2)
    rows = [np.sort(chance.random(len(SHIFTS)) < 0.02).astype(float) for _ in range(300)]
    whole, part = Widening(0, 0.05, 0.05), Widening(0, 0.05, 0.05)
    for number, row in enumerate(rows):
        whole.add(row)
        if number == 150:
            part = Widening.of(part.state())
        part.add(row)
    assert whole.state() == part.state() and whole.level > 0


def learn(*options: str) -> Any:
    result = CliRunner().invoke(cli, ["learn", "--labels", str(LABELS), "--json", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_what_was_learned_is_served() -> None:
    first = learn()
    assert {row["class"] for row in first["classes"]} == {"analysis", "support"}
    assert all(row["is_proved"] and row["too_low"] <= 0.05 for row in first["classes"])
    assert learn()["classes"] == []  # every label was seen
    router = Router.load()
    for row in first["classes"]:
        decision = router.decide(
            {"messages": [{"role": "user", "content": "hi"}], "router": {"traffic_class": row["class"]}}
        )
        assert decision.operating_point == f"learned-{row['class']}"
        assert router.policy.champion.manifest.operating_points[decision.operating_point].n_rows == row["n_labels"]
    assert router.decide("hi").operating_point == "balanced"
    body = {"messages": [{"role": "user", "content": "hi"}], "router": {"traffic_class": "support"}}
    assert (
        router.decide({**body, "router": {**body["router"], "operating_point": "quality"}}).operating_point == "quality"
    )


def test_batches_add_up(tmp_path: Path) -> None:
    with LABELS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, part in (("a.csv", rows[:200]), ("b.csv", rows[200:])):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(part)
    for name in ("a.csv", "b.csv"):
        got = CliRunner().invoke(cli, ["learn", "--labels", name, "--state", "parts.json", "--out", "parts.toml"])
        assert got.exit_code == 0, got.output
    learn("--state", "whole.json", "--out", "whole.toml")
    parts, whole = (json.loads(Path(f"{name}.json").read_text())["classes"] for name in ("parts", "whole"))
    assert parts == whole


def test_unequal_weights_need_their_most(tmp_path: Path) -> None:
    with LABELS.open(newline="") as file:
        rows = [{**row, "weight": 1 + number % 2} for number, row in enumerate(csv.DictReader(file))]
    with (tmp_path / "weighed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    args = ["learn", "--labels", str(tmp_path / "weighed.csv"), "--json", "--state", "w.json"]
    assert "not drawn evenly" in str(CliRunner().invoke(cli, args).exception)
    assert "above 1.5" in str(CliRunner().invoke(cli, [*args, "--max-weight", "1.5"]).exception)
    assert not Path("w.json").exists()
    got = CliRunner().invoke(cli, [*args, "--max-weight", "2"])
    assert got.exit_code == 0, got.output
    levels = {row["class"]: row["level"] for row in json.loads(got.stdout)["classes"]}
    even = {row["class"]: row["level"] for row in learn()["classes"]}
    assert all(0 < levels[name] <= even[name] for name in even)


def test_evidence_of_another_classifier_is_none() -> None:
    learn()
    found = json.loads(Path("learned.json").read_text())
    Path("learned.json").write_text(json.dumps({**found, "artifact": "complexity-v2"}))
    got = CliRunner().invoke(cli, ["learn", "--labels", str(LABELS)])
    assert isinstance(got.exception, SettingsError) and "begin anew with another --state" in str(got.exception)
    Path("learned.json").write_text("{")
    assert "restore it" in str(CliRunner().invoke(cli, ["learn", "--labels", str(LABELS)]).exception)


def test_an_unknown_point_is_refused_at_load() -> None:
    with pytest.raises(RequestError, match="unknown operating point 'nowhere'"):
        Router.load(config=Settings(classes={"support": "nowhere"}))


def test_what_is_known_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_LEDGER", "l.db")
    learn()
    with Ledger("l.db") as store:
        router = Router.load(store=store)
        for name in ("support", "search"):
            body = {**HI, "model": "auto", "router": {"traffic_class": name}}
            router.record(router.plan(body, Api.MESSAGES), Usage(fresh_tokens=1000, output_tokens=10))
    rows = {row["class"]: row for row in json.loads(CliRunner().invoke(cli, ["classes", "--json"]).stdout)}
    assert rows.keys() == {"analysis", "support", "search"}
    assert (rows["support"]["n_requests"], rows["support"]["operating_point"]) == (1, "learned-support")
    assert rows["support"]["cost_usd"] > 0 and sum(rows["support"]["shares"].values()) == 1
    assert rows["search"]["n_labels"] == 0 and "label 100 of its requests" in rows["search"]["next"]
    assert "support: 1 requests" in CliRunner().invoke(cli, ["classes"]).output
