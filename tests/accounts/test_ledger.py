"""The store of records."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

from router import Ledger, Reason, Record, Tier, Usage

NOW = 1795348800.0


def record(cost: str | None, tier: Tier = Tier.SIMPLE) -> Record:
    return Record(
        at=dt.datetime.fromtimestamp(NOW, dt.UTC),
        tier=tier,
        model="claude-haiku-4-5",
        reason=Reason.SUFFICES,
        p_suffices={Tier.SIMPLE: 0.9},
        usage=Usage(10, 20, 30, 40, 50),
        cost_usd=None if cost is None else Decimal(cost),
        baseline_model="claude-opus-4-7",
        baseline_cost_usd=Decimal("0.5"),
        saved_usd=None,
        notes=("a note",),
    )


def test_store_sums_exactly_and_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(path) as store:
        for _ in range(3):
            store.write(record("0.0000001"))
        store.write(record(None))
        store.write(record("0.1", Tier.COMPLEX))
    with Ledger(path) as store:
        simple, complex_ = store.by_model()
    assert simple["cost_usd"] == Decimal("0.0000003")
    assert (simple["n_requests"], simple["n_unpriced"], simple["cache_read_tokens"]) == (4, 1, 80)
    assert simple["baseline_cost_usd"] == Decimal(2)
    assert (complex_["tier"], complex_["cost_usd"]) == ("complex", Decimal("0.1"))


def test_store_says_unknown_when_nothing_has_a_price() -> None:
    with Ledger() as store:
        store.write(record(None))
        assert store.by_model()[0]["cost_usd"] is None
