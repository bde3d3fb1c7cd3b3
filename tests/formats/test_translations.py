"""A body in other formats: made once, and refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from router import RequestError, Router, catalog
from router.formats import accepts, messages_chat, translations
from router.formats.translations import Translations
from router.types import Api


@pytest.mark.parametrize(
    ("body", "asked", "model"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, Api.MESSAGES, "gpt-6-luna"),
        ({"messages": 3}, Api.MESSAGES, "gpt-6-luna"),
        ({"messages": ["x"]}, Api.CHAT, "claude-opus-4-7"),
        ({"input": [{"role": "user"}]}, Api.RESPONSES, "claude-opus-4-7"),
        ({"input": ["x"]}, Api.RESPONSES, "gemini-4-argon"),
    ],
)
def test_a_body_that_cannot_be_read_is_the_callers_mistake(body: dict[str, Any], asked: Api, model: str) -> None:
    found = catalog.shipped().find(model)
    assert found is not None
    with pytest.raises(RequestError, match=f"the body cannot be read as {asked}, to say it as /"):
        Translations(body, asked).to(accepts.spoken(body, asked, found))


def test_a_tool_loop_over_chat_is_translated_once(shipped: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns: list[Any] = [{"role": "user", "content": "Go on."}]
    turns += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ] * 100
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    made: list[Api] = []
    real = translations._translated

    def counting(body: Any, asked: Api, api: Api) -> Any:
        made.append(api)
        return real(body, asked, api)

    monkeypatch.setattr(translations, "_translated", counting)
    for fleet, api in (("claude", Api.MESSAGES), ("gpt", Api.RESPONSES)):
        made.clear()
        plan = shipped.with_fleet(fleet).plan({"model": "auto", "messages": turns, "tools": tools}, Api.CHAT)
        assert made == [plan.api] == [api]
        assert plan.asked is Api.CHAT


def test_what_cannot_be_said_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Translations({"messages": [{"role": "user"}], "n": 2}, Api.CHAT)
    calls: list[int] = []
    real = messages_chat.to_messages
    monkeypatch.setattr(messages_chat, "to_messages", lambda body: (calls.append(1), real(body))[1])
    for _ in range(2):
        with pytest.raises(RequestError, match="cannot translate n=2"):
            said.to(Api.MESSAGES)
    assert len(calls) == 1
