"""Requests as harnesses and applications send them: the task that is read from each, and where its turn stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.decide.task import read_task
from tests.conftest import ROOT

TURNS = ("user_turn", "tool_loop", "retry", "sub_agent")
LINES = (ROOT / "data/conversations.jsonl").read_text("utf-8").strip().split("\n")
ROWS: list[dict[str, Any]] = [json.loads(line) for line in LINES]


def mistakes(row: dict[str, Any]) -> list[str]:
    """What is wrong with the reading of one row; empty when all of it is right."""
    expected = row["expected"]
    try:
        task = read_task(row["body"], headers=row.get("headers"))
    except (TypeError, ValueError, LookupError) as exc:  # a body that cannot be read is a miss like any other
        return [f"{type(exc).__name__}: {exc}"]
    wrong = [f"turn {task.turn} is not {expected['turn']}"] if task.turn != expected["turn"] else []
    side_call = expected.get("side")
    if side_call and task.side_call != side_call:
        wrong.append(f"side call {task.side_call} is not {side_call}")
    if not side_call and row["id"] > "c321" and task.side_call is not None:
        wrong.append(f"taken for a side call: {task.side_call}")
    wrong += [f"lacks {text!r}" for text in expected["task_contains"] if text not in task.text]
    return wrong + [f"holds {text!r}" for text in expected["task_excludes"] if text in task.text]


def test_the_suite_is_sound() -> None:
    assert len(ROWS) == 600
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert {row["expected"]["turn"] for row in ROWS} == set(TURNS)
    assert {row["expected"].get("side") for row in ROWS} == {None, "probe", "chore", "compaction"}
    assert {row["api"] for row in ROWS} == {"messages", "chat", "responses"}
    assert sum(row.get("held_out", False) for row in ROWS) == 93
    for row in ROWS:  # what must be in the task, or must not, is in the body
        body = json.dumps(row["body"], ensure_ascii=False)
        for text in row["expected"]["task_contains"]:
            assert json.dumps(text, ensure_ascii=False)[1:-1] in body, row["id"]


@pytest.mark.parametrize("part", ["all", "held out"])
def test_tasks_and_turns_are_read_from_97_percent_of_the_suite(part: str) -> None:
    rows = ROWS if part == "all" else [row for row in ROWS if row.get("held_out")]
    misses = [f"{row['id']} {row['shape']}: {'; '.join(wrong)}" for row in rows if (wrong := mistakes(row))]
    assert len(misses) <= 0.03 * len(rows), f"{len(misses)} of {len(rows)} read wrong\n" + "\n".join(misses)


def test_the_suite_is_not_read_by_taking_the_last_message() -> None:
    """A reader without rules is wrong on more than half of what was written for whose words these are."""
    rows = [row for row in ROWS if row["id"] > "c321"]
    wrong = 0
    for row in rows:
        last = [m for m in row["body"].get("messages", row["body"].get("input")) if m.get("role") == "user"][-1:]
        text = json.dumps(last, ensure_ascii=False)
        expected = row["expected"]
        wrong += (
            expected["turn"] != "user_turn"
            or bool(expected.get("side"))
            or any(json.dumps(part, ensure_ascii=False)[1:-1] not in text for part in expected["task_contains"])
            or any(json.dumps(part, ensure_ascii=False)[1:-1] in text for part in expected["task_excludes"])
        )
    assert wrong > 0.5 * len(rows)
