"""Requests as harnesses and applications send them: the task that is read from each, and where its turn stands."""

from __future__ import annotations

import json
from typing import Any

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
    wrong += [f"lacks {text!r}" for text in expected["task_contains"] if text not in task.text]
    return wrong + [f"holds {text!r}" for text in expected["task_excludes"] if text in task.text]


def test_the_suite_is_sound() -> None:
    assert len(ROWS) >= 220
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert {row["expected"]["turn"] for row in ROWS} == set(TURNS)
    assert {row["api"] for row in ROWS} == {"messages", "chat", "responses"}
    for row in ROWS:  # what must be in the task is in the body
        body = json.dumps(row["body"], ensure_ascii=False)
        for text in row["expected"]["task_contains"]:
            assert json.dumps(text, ensure_ascii=False)[1:-1] in body, row["id"]


def test_tasks_and_turns_are_read_from_95_percent_of_the_suite() -> None:
    misses = [f"{row['id']} {row['shape']}: {'; '.join(wrong)}" for row in ROWS if (wrong := mistakes(row))]
    assert len(misses) <= 0.05 * len(ROWS), f"{len(misses)} of {len(ROWS)} read wrong\n" + "\n".join(misses)
