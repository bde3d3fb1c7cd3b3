"""The behavioural suite: what must not change a tier, what must not lower it, what is plainly hard or easy.

Minimum functionality, invariance and directional tests after Ribeiro et al. 2020, "Beyond Accuracy: Behavioral Testing
of NLP Models with CheckList" (https://aclanthology.org/2020.acl-main.442, read 2026-11-22).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.decide.task import read_task
from router.types import Tier
from training.build.corpora import DATA

CASES = DATA / "behaviour.jsonl"
POINT = "balanced"
"""The operating point at which the suite runs."""


@dataclass(frozen=True)
class Case:
    """`task` must reach `at_least` or stay `at_most` (MFT), get `versus`'s tier (INV) or none below it (DIR)."""

    id: str
    kind: str
    group: str
    task: str
    versus: str | None
    at_least: Tier | None
    at_most: Tier | None

    def holds(self, tier: int, versus: int | None) -> bool:
        """Whether the case passes, given the tier numbers chosen for `task` and for `versus`."""
        order = list(Tier)
        if self.kind == "MFT":
            lowest = order.index(self.at_least) if self.at_least else 0
            highest = order.index(self.at_most) if self.at_most else len(order) - 1
            return lowest <= tier <= highest
        if versus is None:
            raise ValueError(f"case {self.id} is {self.kind} and has nothing to compare with: give `versus`")
        return tier == versus if self.kind == "INV" else tier >= versus


def cases(path: Path = CASES) -> list[Case]:
    """The suite; a conversation is read as the router reads it."""
    return [_case(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def run(suite: list[Case], route: Callable[[list[str]], list[int]]) -> dict[str, Any]:
    """Passed and total by group, and the ids that failed. `route` maps texts to tier numbers."""
    chosen = route([case.task for case in suite])
    against = iter(route([case.versus for case in suite if case.versus is not None]))
    groups: dict[str, dict[str, Any]] = {}
    failed = []
    for case, tier in zip(suite, chosen, strict=True):
        holds = case.holds(tier, next(against) if case.versus is not None else None)
        group = groups.setdefault(case.group, {"kind": case.kind, "passed": 0, "n": 0})
        group["passed"] += holds
        group["n"] += 1
        if not holds:
            failed.append(case.id)
    return {"passed": len(suite) - len(failed), "n": len(suite), "groups": groups, "failed": failed}


def _case(row: dict[str, Any]) -> Case:
    task = row["text"] if "text" in row else read_task({"messages": row["messages"]}).text
    bounds = (Tier(row[key]) if key in row else None for key in ("at_least", "at_most"))
    return Case(row["id"], row["kind"], row["group"], task, row.get("versus"), *bounds)
