"""Drift: the index by hand, quiet where nothing changed, loud where it did, per class and in the metrics."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from router import Ledger, Router, Settings, Usage
from router.gateway import drift
from router.gateway.sqlite import SqliteStore
from router.offline import Upstream
from router.types import Api, Record
from tests.gateway.conftest import HELLO, Serve, wait_for

WEEK, MONTH = dt.timedelta(days=7), dt.timedelta(days=30)


def kept(path: Path, scores: dict[tuple[str, int], np.ndarray]) -> None:
    """Records of classes, so many days old, with these scores."""
    router = Router.load(config=Settings())
    record = router.record(router.plan(HELLO, Api.MESSAGES), Usage(fresh_tokens=1, output_tokens=1))
    values = {name: getattr(record, name) for name in Record.__struct_fields__}
    with SqliteStore(path) as store:
        for (name, days), of_class in scores.items():
            at = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
            for score in of_class:
                p = {"simple": float(score), "moderate": 0.9, "complex": 1.0}
                store.write(Record(**{**values, "at": at, "traffic_class": name, "p_suffices": p}))


def test_the_index_by_hand() -> None:
    before = np.arange(1000) / 1000
    assert drift.psi(before, before) == pytest.approx(0, abs=1e-12)
    # All in the highest tenth: 9 bins of half a request beside a tenth each, and one with nearly all.
    got = drift.psi(np.full(1000, 0.999), before)
    part, whole = 0.5 / 1005, 1000.5 / 1005
    assert got == pytest.approx(9 * (part - 0.1) * np.log(part / 0.1) + (whole - 0.1) * np.log(whole / 0.1), rel=1e-6)


def test_chance_is_no_alert_and_a_change_is(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    same = {("support", 2): chance.beta(4, 2, 300), ("support", 20): chance.beta(4, 2, 900)}
    changed = {("search", 2): chance.beta(2, 4, 300), ("search", 20): chance.beta(4, 2, 900)}
    kept(tmp_path / "l.db", {**same, **changed, ("new", 1): chance.beta(2, 2, 50)})
    with SqliteStore(tmp_path / "l.db") as store:
        found = {row.name: row for row in drift.measure(store, WEEK, MONTH)}
    assert next(iter(found)) == "all"
    assert not found["support"].is_alert and found["search"].is_alert
    assert found["new"].psi is None and found["new"].n_late == 50


def test_false_alarms_are_rare() -> None:
    chance = np.random.default_rng(1)
    limit = drift._CHANCE * (1 / 400 + 1 / 1200)
    found = [drift.psi(chance.beta(4, 2, 400), chance.beta(4, 2, 1200)) > limit for _ in range(400)]
    assert np.mean(found) < 0.1


def test_the_command_and_the_metric(
    serve: Serve, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(2)
    kept(tmp_path / "l.db", {("a", 1): chance.beta(2, 4, 200), ("a", 20): chance.beta(4, 2, 200)})
    monkeypatch.setenv("TIERWISE_LEDGER", str(tmp_path / "l.db"))
    (whole, of_class) = json.loads(CliRunner().invoke(drift.command, ["--json"]).stdout)
    assert whole["is_alert"] and whole["psi"] == of_class["psi"] > drift.ALERT
    told = CliRunner().invoke(drift.command).output
    assert "CHANGED" in told and "tierwise label" in told
    gateway = serve(upstream.url, general={"ledger": str(tmp_path / "l.db")})
    gateway.post("/v1/messages", HELLO)
    # Measured before or after the request above was recorded.
    wait_for(lambda: "tierwise_drift_psi 0.0" not in gateway.metrics())
    shown = float(gateway.metrics().partition("\ntierwise_drift_psi ")[2].partition("\n")[0])
    assert shown == pytest.approx(whole["psi"], rel=0.1)
    with Ledger(tmp_path / "none.db"):
        monkeypatch.setenv("TIERWISE_LEDGER", str(tmp_path / "none.db"))
        assert "no request was judged" in CliRunner().invoke(drift.command).output
