from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Reason, Tier, catalog
from router.decide import able, tiers
from router.types import Task, TurnState

FLEET = catalog.shipped().fleet("claude")
SIMPLE, MODERATE, COMPLEX = Tier
THRESHOLDS = {SIMPLE: 0.8, MODERATE: 0.9}
EVERY = list(Tier)


def q(simple: float, moderate: float) -> dict[Tier, float]:
    return {SIMPLE: simple, MODERATE: moderate, COMPLEX: 1.0}


@pytest.mark.parametrize(
    ("p", "allowed", "expected"),
    [
        (q(0.80, 0.85), EVERY, (SIMPLE, Reason.SUFFICES)),
        (q(0.79, 0.90), EVERY, (MODERATE, Reason.SUFFICES)),
        (q(0.79, 0.89), EVERY, (COMPLEX, Reason.BELOW_THRESHOLD)),
        (q(0.95, 0.96), [MODERATE, COMPLEX], (MODERATE, Reason.CONSTRAINT)),
        (q(0.95, 0.96), [COMPLEX], (COMPLEX, Reason.CONSTRAINT)),
        (q(0.10, 0.95), [SIMPLE, COMPLEX], (COMPLEX, Reason.CONSTRAINT)),
        (q(0.10, 0.20), [SIMPLE, MODERATE], (MODERATE, Reason.BELOW_THRESHOLD)),
        (q(math.nan, math.nan), EVERY, (COMPLEX, Reason.BELOW_THRESHOLD)),
    ],
)
def test_cheapest_tier_that_reaches_its_threshold(
    p: dict[Tier, float], allowed: list[Tier], expected: tuple[Tier, Reason]
) -> None:
    assert tiers.choose(p, THRESHOLDS, FLEET, allowed) == expected


probability = st.floats(0, 1)


@given(probability, probability, probability, probability, st.sampled_from([EVERY, EVERY[1:], EVERY[2:]]))
def test_raising_a_threshold_never_goes_down(
    simple: float, moderate: float, low: float, high: float, allowed: list[Tier]
) -> None:
    low, high = sorted((low, high))
    p = q(*sorted((simple, moderate)))
    rank = [EVERY.index(tiers.choose(p, {SIMPLE: t, MODERATE: t}, FLEET, allowed)[0]) for t in (low, high)]
    assert rank[0] <= rank[1]


def task(n_chars: int) -> Task:
    return Task("text", TurnState.USER_TURN, n_chars, has_images=False, has_tools=False)


def test_a_model_whose_window_is_too_small_is_passed_over() -> None:
    tiers, notes = able.able_tiers(FLEET, task(900_000))
    assert tiers == [MODERATE, COMPLEX]
    assert "claude-haiku-4-5 holds 200000" in notes[0]


def test_when_no_model_can_take_it_the_top_one_stays() -> None:
    tiers, notes = able.able_tiers(FLEET, task(50_000_000))
    assert tiers == [COMPLEX]
    assert len(notes) == 3
