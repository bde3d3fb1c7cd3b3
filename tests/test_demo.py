from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import pytest

from router import ClientError, Router, Tier, demo


def quiet(_: str, calls: Iterable[demo.CustomerMessage]) -> Iterable[demo.CustomerMessage]:
    return calls


def test_workload_is_a_real_stretch_of_a_day() -> None:
    calls = demo.workload(300)
    assert len(calls) == 300
    assert [c.at_s for c in calls] == sorted(c.at_s for c in calls)
    busy = [c.at_s for c in calls if c.at_s > demo.BUSY_HOUR * 3600]
    quiet_ = [c.at_s for c in calls if c.at_s < demo.BUSY_HOUR * 3600]
    per_call = [(s[-1] - s[0]) / len(s) for s in (busy, quiet_)]
    assert per_call[0] * 5 < per_call[1]
    assert {c.required for c in calls} == set(Tier)
    assert demo.workload(300) == calls


def test_offline_report_adds_up(shipped: Router) -> None:
    report = demo.offline(shipped, 60, quiet)
    routed, baselines = report["routed"], report["baselines_usd"]
    assert report["simulated"]
    assert routed["records_match_bill"]
    assert report["openai"]["records_match_bill"]
    assert sum(row["n_requests"] for row in report["by_model"]) == report["n_calls"] == 60
    assert sum(row["cost_usd"] for row in report["by_model"]) == routed["cost_usd"]
    assert baselines["all Sonnet, cached 5m"] < baselines["all Sonnet, uncached"]
    assert routed["cost_usd"] < baselines["all Sonnet, uncached"]
    # The records' counterfactual baseline against really sending everything to Opus with caching.
    counterfactual = routed["cost_usd"] + routed["saved_by_records_usd"]
    opus = min(baselines["all Opus, cached 5m"], baselines["all Opus, cached 1h"])
    assert counterfactual == pytest.approx(opus, rel=Decimal("0.03"))


def test_live_needs_a_key(shipped: Router) -> None:
    with pytest.raises(ClientError, match="ANTHROPIC_API_KEY or OPENAI_API_KEY"):
        demo.live(shipped, quiet)
