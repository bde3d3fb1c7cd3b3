"""What a reply costs, by hand and by property, and the counterfactual beside it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Usage, catalog
from router.accounts.baseline import Baseline, cost

MODELS = catalog.shipped().models
TODAY = dt.date(2026, 11, 22)
NOW = 1795348800.0


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        ("claude-haiku-4-5", Usage(1000, 0, 0, 0, 100), "0.0015"),
        ("claude-haiku-4-5", Usage(10, 5000, 0, 0, 100), "0.00101"),
        ("claude-opus-4-7", Usage(0, 0, 1000, 1000, 0), "0.01625"),
        ("claude-sonnet-5-5", Usage(0, 1_000_000, 0, 0, 0), "0.10"),
        ("claude-haiku-5-5", Usage(60_000, 60_000, 0, 0, 1000), "0.0355"),
        ("gpt-6-luna", Usage(0, 128, 128, 0, 0), "0.00001728"),
        ("gpt-4o", Usage(0, 0, 0, 0, 1), "0.00001"),
    ],
)
def test_cost_by_hand(model: str, usage: Usage, usd: str) -> None:
    assert cost(usage, MODELS[model], TODAY) == Decimal(usd)


def test_unknown_is_unknown_never_zero() -> None:
    assert cost(Usage(1, 1, 1, 1, 1), None, TODAY) is None
    assert cost(Usage(reported=False), MODELS["gpt-4o"], TODAY) is None
    assert cost(Usage(cache_write_long_tokens=5), MODELS["gpt-5.4"], TODAY) is None


def test_a_batch_costs_half_on_the_baseline_too() -> None:
    usage, opus = Usage(100, 5000, 300, 200, 70), MODELS["claude-opus-4-7"]
    batch = msgspec.structs.replace(usage, is_batch=True)
    whole, half = (cost(each, opus, TODAY) for each in (usage, batch))
    assert whole == 2 * (half or 0) > 0
    for tokens, conversation in ((5000, ""), (10, ""), (5000, "c")):
        on_top, in_batch = (
            [Baseline(opus).cost(each, "k", tokens, NOW, conversation=conversation) for _ in range(2)]
            for each in (usage, batch)
        )
        assert [2 * (usd or 0) for usd in in_batch] == on_top


counts = st.integers(0, 10_000)


@given(counts, counts, counts, counts, counts)
def test_cost_is_the_sum_of_its_parts(fresh: int, read: int, short: int, long: int, output: int) -> None:
    opus = MODELS["claude-opus-4-7"]
    whole = cost(Usage(fresh, read, short, long, output), opus, TODAY)
    parts = [
        Usage(fresh_tokens=fresh),
        Usage(cache_read_tokens=read),
        Usage(cache_write_short_tokens=short),
        Usage(cache_write_long_tokens=long),
        Usage(output_tokens=output),
    ]
    assert whole == sum((cost(part, opus, TODAY) or Decimal(0) for part in parts), Decimal(0))


class TestBaseline:
    """5,000 cacheable tokens of 5,100 on Opus 4.7: fresh 5, write 6.25 / 10, read .50 USD a million."""

    usage = Usage(fresh_tokens=5100)
    cold_5m, warm = Decimal("0.03175"), Decimal("0.003")

    def test_first_call_writes_the_second_reads(self) -> None:
        baseline = Baseline(MODELS["claude-opus-4-7"])
        assert baseline.cost(self.usage, "k", 5000, NOW) == self.cold_5m
        assert baseline.cost(self.usage, "k", 5000, NOW + 299) == self.warm
        assert baseline.cost(self.usage, "other", 5000, NOW + 299) == self.cold_5m

    def test_a_read_refreshes_the_lifetime(self) -> None:
        baseline = Baseline(MODELS["claude-opus-4-7"])
        costs = [baseline.cost(self.usage, "k", 5000, NOW + 200 * n) for n in range(5)]
        assert costs == [self.cold_5m] + [self.warm] * 4

    def test_the_better_ttl_is_taken_once_it_is_better(self) -> None:
        baseline = Baseline(MODELS["claude-opus-4-7"])
        costs = [baseline.cost(self.usage, "k", 5000, NOW + 600 * n) for n in range(4)]
        # Every gap is 10 minutes, so an hour's dearer write (.0505) pays from the second call on.
        assert costs == [self.cold_5m, Decimal("0.0535") - self.cold_5m, self.warm, self.warm]

    def test_below_the_minimum_or_without_a_prefix_all_is_fresh(self) -> None:
        baseline = Baseline(MODELS["claude-opus-4-7"])
        fresh = Decimal("0.0255")
        assert [baseline.cost(self.usage, "k", 2047, NOW) for _ in range(2)] == [fresh] * 2
        assert [baseline.cost(self.usage, "", 5000, NOW) for _ in range(2)] == [fresh] * 2

    def test_a_growing_prefix_reads_what_it_had_and_writes_the_rest(self) -> None:
        baseline = Baseline(MODELS["claude-opus-4-7"])
        baseline.cost(Usage(fresh_tokens=5000), "k", 5000, NOW)
        grown = baseline.cost(Usage(fresh_tokens=6000), "k", 6000, NOW + 10)
        assert grown == (5000 * Decimal("0.50") + 1000 * Decimal("6.25")) / 1_000_000

    def test_free_writes_cost_what_input_costs(self) -> None:
        baseline = Baseline(MODELS["gpt-4o"])
        assert baseline.cost(self.usage, "k", 5000, NOW) == Decimal("0.01275")
        assert baseline.cost(self.usage, "k", 5000, NOW + 1) == Decimal("0.0065")

    def test_memory_is_bounded(self) -> None:
        baseline = Baseline(MODELS["claude-opus-4-7"], max_prefixes=10)
        for number in range(100):
            baseline.cost(self.usage, str(number), 5000, NOW)
        assert all(len(arm.warm) == 10 for arm in baseline._arms)

    def test_unreported_usage_has_no_baseline(self) -> None:
        assert Baseline(MODELS["claude-opus-4-7"]).cost(Usage(reported=False), "k", 5000, NOW) is None
