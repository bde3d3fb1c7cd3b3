"""The behavioural suite against the shipped artifact, through the router that users call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router import Router, Tier
from router.classifier import artifact
from training import behaviour

SUITE = behaviour.cases()
ROWS = {row["id"]: row for row in map(json.loads, behaviour.CASES.read_text("utf-8").splitlines())}
DECLARED: dict[str, Any] = artifact.load().manifest.metrics["behaviour"]  # type: ignore[assignment]

# What the shipped model must keep, by group; the exact counts are in its card.
FLOORS = {
    "hard_but_short": 0.9,
    "hard": 0.9,
    "common_words": 0.4,
    "easy": 0.9,
    "long_but_easy": 0.8,
    "anaphora": 0.6,
    "constraint_added": 0.9,
    "pasted_context": 0.6,
    "politeness": 0.8,
    "typo": 0.8,
    "upper_case": 1.0,
    "lower_case": 0.8,
    "thanks": 0.8,
    "translation": 0.5,
    "formatting": 0.5,
}


def number(router: Router, row: dict[str, Any], key: str) -> int:
    decision = router.decide(messages=row["messages"]) if key not in row else router.decide(row[key])
    return list(Tier).index(decision.tier)


@pytest.mark.parametrize("case", SUITE, ids=lambda case: f"{case.id}-{case.group}")
def test_case_holds_unless_the_artifact_declares_it_failed(case: behaviour.Case, shipped: Router) -> None:
    row = ROWS[case.id]
    versus = number(shipped, row, "versus") if case.versus is not None else None
    assert case.holds(number(shipped, row, "text"), versus) == (case.id not in DECLARED["failed"])


@pytest.mark.parametrize("group", FLOORS)
def test_groups_keep_their_floor(group: str) -> None:
    counted = DECLARED["groups"][group]
    assert counted["passed"] / counted["n"] >= FLOORS[group]


def test_suite_is_whole() -> None:
    assert len(SUITE) >= 150
    assert {case.group for case in SUITE} == set(FLOORS)
    assert DECLARED["n"] == len(SUITE)
    assert len({case.task for case in SUITE}) == len(SUITE)


@pytest.mark.parametrize(
    ("kind", "bound", "tier", "versus", "holds"),
    [
        ("MFT", {"at_least": Tier.COMPLEX}, 1, None, False),
        ("MFT", {"at_most": Tier.SIMPLE}, 0, None, True),
        ("INV", {}, 1, 2, False),
        ("DIR", {}, 2, 1, True),
        ("DIR", {}, 0, 1, False),
    ],
)
def test_what_a_case_asks(kind: str, bound: dict[str, Tier], tier: int, versus: int | None, holds: bool) -> None:
    case = behaviour.Case("b1", kind, "g", "t", None, bound.get("at_least"), bound.get("at_most"))
    assert case.holds(tier, versus) is holds


def test_a_comparison_without_its_other_half_is_named() -> None:
    with pytest.raises(ValueError, match="case b9 is INV"):
        behaviour.Case("b9", "INV", "g", "t", None, None, None).holds(0, None)
