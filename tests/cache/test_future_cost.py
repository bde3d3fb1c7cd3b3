"""What prefixes will cost: the value iteration, and what is placed where because of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from router.cache.future_cost import FutureCost, Placed, Segment, UnitCosts, cheapest
from router.cache.returns import Returns
from router.types import Ttl

HAIKU = UnitCosts(0.10, (1.0, 1.25, 2.0), 5.0, 300, 3600)
SONNET = UnitCosts(0.30, (3.0, 3.75, 6.0), 15.0, 300, 3600)
OPUS = UnitCosts(0.50, (5.0, 6.25, 10.0), 25.0, 300, 3600)
NAMES = ("haiku", "sonnet", "opus")
FLEET = (HAIKU, SONNET, OPUS)
EVERY = (tuple(Ttl),) * 3
COLD, OPUS_WARM = 0, 9


def solve(cost: FutureCost, returns: Returns) -> None:
    cost.begin(returns)
    while not cost.sweep(7):
        pass


def learned(gap_s: float, n_turns: int, n: int = 400) -> Returns:
    returns = Returns((0.7, 0.2, 0.1))
    for at_s, c, t in sorted((c * 7.0 + t * gap_s, c, t) for c in range(n) for t in range(n_turns)):
        returns.arrive(str(c), at_s, 0, new_turn=True, units=1000.0 + t)
    return returns


def placed(returns: Returns, state: int, tier: int = 0, stage: int = 3, models: tuple[int, ...] = (0, 1, 2)) -> Placed:
    cost = FutureCost(FLEET, NAMES)
    solve(cost, returns)
    return cheapest([Segment({state: 10_000.0}, cost.value[stage], EVERY, NAMES)], FLEET, tier, models, 40)


def test_nothing_is_written_that_nobody_reads() -> None:
    assert placed(learned(60, 1), COLD, stage=0) == Placed(0, (Ttl.NONE,))


def test_what_comes_back_within_minutes_is_written_for_minutes() -> None:
    assert placed(learned(60, 12), COLD, stage=0) == Placed(0, (Ttl.SHORT,))


def test_what_comes_back_within_the_hour_is_written_for_an_hour() -> None:
    assert placed(learned(900, 8), COLD, stage=0) == Placed(0, (Ttl.LONG,))


def test_break_even_of_a_write() -> None:
    """At 1.25x / 0.1x a write pays from P(reuse) 0.22 on: (1.25 - 1) / (1.25 - 0.1)."""
    value = np.zeros((1, 3, 1))
    for p, ttl in ((0.21, Ttl.NONE), (0.23, Ttl.SHORT)):
        value[0, :, 0] = 1.25 * p, 0.10 * p, 0.10 * p  # cold is written again, warm is read
        got = cheapest([Segment({0: 1.0}, value, ((Ttl.NONE, Ttl.SHORT),), NAMES[:1])], (HAIKU,), 0, (0,), 0)
        assert got.ttls == (ttl,)


def test_a_stronger_model_that_is_warm_keeps_what_soon_ends() -> None:
    """0.5 read on Opus beats 1.25 written on Haiku, unless many more turns are to come (from the third on)."""
    assert placed(learned(60, 2), OPUS_WARM, stage=1).model == 2
    assert placed(learned(20, 40), OPUS_WARM, stage=3).model == 0


def test_never_below_what_is_needed() -> None:
    assert placed(learned(60, 12), COLD, tier=1, models=(1, 2)).model == 1


def test_a_long_lifetime_comes_first() -> None:
    value = np.zeros((3, 27, 3))
    value[:, 0] = value[:, 1] = 50  # only what is warm for long is worth anything
    segments = [
        Segment({0: 1000.0}, np.zeros((3, 27, 3)), EVERY, NAMES, grows=False),
        Segment({0: 1000.0}, value, EVERY, NAMES),
    ]
    assert cheapest(segments, FLEET, 0, (0,), 0).ttls == (Ttl.LONG, Ttl.LONG)


def test_what_is_not_sold_is_never_chosen() -> None:
    luna = UnitCosts(0.01, (0.1, 0.125, np.inf), 0.5, 1800, 1800)
    cost = FutureCost((luna,), NAMES[:1])
    solve(cost, Returns((1.0,)))
    assert np.isfinite(cost.value).all()
    got = cheapest([Segment({0: 5000.0}, cost.value[0], (tuple(Ttl),), NAMES[:1])], (luna,), 0, (0,), 1)
    assert got.ttls[0] is not Ttl.LONG


def test_no_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="no model"):
        cheapest([], FLEET, 0, (), 0)


def test_refreshing_again_changes_nothing() -> None:
    returns, cost = learned(60, 12), FutureCost(FLEET, NAMES)
    for _ in range(40):
        solve(cost, returns)
    before = cost.value
    solve(cost, returns)
    assert cost.value == pytest.approx(before, abs=0.05)


def test_what_one_writes_another_of_the_same_cache_reads() -> None:
    """Two tiers on one model: moving between them later costs nothing, so that the cheaper reply decides."""
    low, high = HAIKU, msgspec.structs.replace(HAIKU, output=3 * HAIKU.output)
    found = {}
    for names in (("one", "one"), ("one", "other")):
        cost, returns = FutureCost((low, high), names), Returns((0.5, 0.5))
        cost.begin(returns)
        while not cost.sweep(40):
            pass
        segment = Segment({0: 10_000.0}, cost.rows[3], ((Ttl.SHORT,), (Ttl.SHORT,)), names)
        found[names] = cheapest([segment], (low, high), 0, (0, 1), 1).model
    assert found == {("one", "one"): 0, ("one", "other"): 1}
