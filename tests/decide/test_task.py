from __future__ import annotations

from typing import Any

import pytest

from router import RequestError
from router.decide.task import read_task
from router.types import TurnState

ASK = "Find why the nightly build fails and fix it without changing the public API."
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 5000}}

TOOL_LOOP_ANTHROPIC: list[dict[str, Any]] = [
    {"role": "user", "content": ASK},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "run", "input": {"cmd": "make"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "error: flaky" * 50}]},
]
TOOL_LOOP_CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "You are a build engineer."},
    {"role": "user", "content": [{"type": "text", "text": ASK}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "t1", "type": "function", "function": {}}]},
    {"role": "tool", "tool_call_id": "t1", "content": "error: flaky"},
]
TOOL_LOOP_RESPONSES: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "input_text", "text": ASK}]},
    {"type": "function_call", "call_id": "t1", "name": "run", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "t1", "output": "error: flaky"},
]


@pytest.mark.parametrize(
    "body",
    [{"messages": TOOL_LOOP_ANTHROPIC}, {"messages": TOOL_LOOP_CHAT}, {"input": TOOL_LOOP_RESPONSES}],
    ids=["anthropic", "chat", "responses"],
)
def test_inside_a_tool_loop_the_task_is_what_opened_it(body: dict[str, Any]) -> None:
    task = read_task(body)
    assert task.text == ASK
    assert task.turn is TurnState.TOOL_LOOP


def test_short_follow_up_is_read_with_what_it_answers() -> None:
    said = [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": "Shall I bisect?"},
        {"role": "user", "content": "yes"},
    ]
    task = read_task({"messages": said})
    assert task.text == f"{ASK}\n\nShall I bisect?\n\nyes"
    assert task.turn is TurnState.USER_TURN


def test_a_new_task_stands_alone() -> None:
    new = "Now translate the release notes of that build into Portuguese, please."
    task = read_task({"messages": [{"role": "user", "content": ASK}, {"role": "user", "content": new}]})
    assert task.text == new


def test_plain_input_string() -> None:
    assert read_task({"input": "hello there"}).text == "hello there"


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "x"}], [{"role": "user", "content": [IMAGE]}]])
def test_no_user_text_is_an_empty_task(messages: list[dict[str, Any]]) -> None:
    assert read_task({"messages": messages}).text == ""


def test_images_and_tools_are_seen_but_not_counted_as_text() -> None:
    content = [{"type": "text", "text": "What is on it?"}, IMAGE]
    task = read_task({"messages": [{"role": "user", "content": content}], "tools": [{"name": "t"}]})
    assert task.has_images
    assert task.has_tools
    assert task.n_chars < 200


def test_n_chars_counts_system_and_history() -> None:
    body = {"system": "s" * 1000, "messages": [{"role": "user", "content": "u" * 500}]}
    assert 1500 <= read_task(body).n_chars < 1600


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, "neither"),
        ({"messages": None}, "neither"),
        ({"messages": 5}, "a int"),
        ({"messages": "hi"}, "a str"),
        ({"messages": {"role": "user"}}, "a dict"),
        ({"messages": ["hi"]}, "message 0 is a str"),
    ],
)
def test_unreadable_bodies(body: dict[str, Any], found: str) -> None:
    with pytest.raises(RequestError, match=found):
        read_task(body)


def test_deep_nesting_is_no_trouble() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert read_task({"messages": [{"role": "user", "content": "hi"}], "tools": deep}).n_chars == 7


def test_odd_content_is_skipped_not_fatal() -> None:
    content = [{"type": "text", "text": None}, "loose", 5, {"type": "text", "text": "real"}]
    assert read_task({"messages": [{"role": "user", "content": content}, {"role": "user"}]}).text == "real"
