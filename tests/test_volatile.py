"""What changes in each request is no part of what identifies it, and other providers are not told it first."""

from __future__ import annotations

from typing import Any

import pytest

from router import volatile

HEADER = "x-anthropic-billing-header: cc_version=2.1.199.{0:03x}; cc_entrypoint=cli; cch={1:05x};"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HEADER.format(11, 4711), HEADER.format(12, 815)),
        ("Today is 2026-11-25.", "Today is 2026-11-26."),
        ("Current time: 9:12:44", "Current time: 10:01:02"),
        ("Session id: 5b0d6c1e-77a2-4c0e", "Session id: 61aa6c1e-0000-4c0e"),
        ("This is message 3 of 20.", "This is message 4 of 20."),
        ("nonce: 8f31a0", "nonce: 99b1c2"),
        ("build 0af3391c77", "build 1bf3391c78"),
        ("request_id=9f86d081884c7d659a2feaa0c55ad015", "request_id=00000d081884c7d659a2feaa0c55ad01"),
    ],
)
def test_what_changes_is_not_identity(one: str, other: str) -> None:
    around = "You are an agent of 3 tools.\n{}\nAnswer in at most 5 lines."
    assert volatile.stable(around.format(one)) == volatile.stable(around.format(other))
    assert "at most 5 lines" in volatile.stable(around.format(one))


@pytest.mark.parametrize("text", ["You are agent 7.", "Use Python 3.11 and port 8080.", "Rule 12: never push."])
def test_fixed_numbers_are_identity(text: str) -> None:
    assert volatile.stable(text) == text


def test_another_provider_is_told_no_line_for_the_books_and_what_changes_last() -> None:
    block = {"type": "text", "text": "You are an agent."}
    clock = {"type": "text", "text": "Current time: 2026-11-26 10:11"}
    given: dict[str, Any] = {"system": [{"type": "text", "text": HEADER.format(1, 2)}, clock, block], "messages": []}
    assert volatile.settled(given)["system"] == [block, clock]
    assert volatile.settled({"system": HEADER.format(1, 2) + "\nYou are an agent."})["system"] == "You are an agent."


@pytest.mark.parametrize(
    "system", ["You are an agent.\nToday is 2026-11-26.", None, [{"type": "text", "text": "Hi"}], 5, [7]]
)
def test_what_need_not_change_is_the_same_object(system: Any) -> None:
    body = {"system": system}
    assert volatile.settled(body) is body
