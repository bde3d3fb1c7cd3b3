"""Request bodies both ways, checked against the SDKs' own types."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from anthropic.types import Message, MessageCreateParams
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import CompletionCreateParams
from pydantic import TypeAdapter

from router import RequestError
from router.formats import messages_chat

MESSAGES_TYPE: Any = TypeAdapter(MessageCreateParams)
CHAT_TYPE: Any = TypeAdapter(CompletionCreateParams)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "iVBORw0KGgo="


def read_all(value: Any) -> Any:
    """pydantic validates an Iterable only as it is read."""
    if isinstance(value, Mapping):
        return {name: read_all(item) for name, item in value.items()}
    return value if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else [read_all(v) for v in value]


def to_chat(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    before = copy.deepcopy(body)
    chat, notes = messages_chat.to_chat(body)
    assert body == before
    read_all(CHAT_TYPE.validate_python(chat))
    return chat, notes


def to_messages(body: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    before = copy.deepcopy(body)
    sent, notes = messages_chat.to_messages(body)
    assert body == before
    typed = {name: value for name, value in sent.items() if name not in ("temperature", "top_p")}
    read_all(MESSAGES_TYPE.validate_python(typed))
    return sent, notes


AGENT = {
    "model": "m",
    "max_tokens": 1024,
    "system": [{"type": "text", "text": "You are kind.", "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "weather", "description": "The weather.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "metadata": {"user_id": "u-1"},
    "stream": True,
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this, and the weather there?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Łódź"}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no city"}],
                },
                {"type": "text", "text": "Go on."},
            ],
        },
    ],
}

AGENT_AS_CHAT = {
    "model": "m",
    "max_completion_tokens": 1024,
    "tools": [
        {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}}
    ],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "stop": ["END"],
    "user": "u-1",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [
        {"role": "system", "content": "You are kind."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this, and the weather there?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Łódź"}'}},
                {"id": "toolu_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no city"},
        {"role": "user", "content": "Go on."},
    ],
}


def test_an_agents_turn_to_chat() -> None:
    chat, notes = to_chat(AGENT)
    assert chat == AGENT_AS_CHAT
    assert notes == ("thinking blocks dropped: another model cannot read them",)


def test_an_agents_turn_to_messages() -> None:
    sent, notes = to_messages(AGENT_AS_CHAT)
    expected = copy.deepcopy(AGENT)
    expected["system"] = [{"type": "text", "text": "You are kind."}]
    del expected["messages"][1]["content"][0]
    expected["messages"][2]["content"][1] = {
        "type": "tool_result",
        "tool_use_id": "toolu_2",
        "content": "Error: no city",
    }
    assert sent == expected
    assert notes == ()


@pytest.mark.parametrize(
    ("fields", "expected", "note"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}, ""),
        ({"top_k": 5}, {}, "top_k dropped: Chat Completions has no such field"),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}, ""),
        (
            {"tool_choice": {"type": "tool", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            "",
        ),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}, ""),
        ({"thinking": {"type": "adaptive"}}, {}, ""),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_effort": "low"}, ""),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, {"reasoning_effort": "medium"}, ""),
        ({"thinking": {"type": "enabled", "budget_tokens": 50_000}}, {"reasoning_effort": "high"}, ""),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}, ""),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
            "",
        ),
        ({"stop_sequences": list("abcde")}, {"stop": list("abcd")}, "cut to 4"),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}, ""),
        ({"system": "One.", "cache_control": {"type": "ephemeral"}}, {}, ""),
    ],
)
def test_settings_to_chat(fields: dict[str, Any], expected: dict[str, Any], note: str) -> None:
    chat, notes = to_chat({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields})
    chat.pop("messages")
    assert chat == {"model": "m", "max_completion_tokens": 9, **expected}
    assert note in "; ".join(notes)
    assert bool(note) == bool(notes)


@pytest.mark.parametrize(
    ("fields", "expected", "note"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}, ""),
        ({}, {"max_tokens": messages_chat.DEFAULT_MAX_TOKENS}, ""),
        ({"temperature": 1.5}, {"temperature": 1}, "temperature 1.5 sent as 1"),
        ({"seed": 3, "logprobs": True}, {}, "seed dropped: Messages has no such field; logprobs dropped"),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, ""),
        ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}, ""),
        ({"tool_choice": "none"}, {"tool_choice": {"type": "none"}}, ""),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "tool", "name": "f"}},
            "",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "",
        ),
        ({"response_format": {"type": "json_object"}}, {}, "json_object dropped"),
        ({"stop": "END"}, {"stop_sequences": ["END"]}, ""),
        ({"stop": ["\n", "END"]}, {"stop_sequences": ["END"]}, "blank stop sequences dropped"),
        ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}, ""),
        ({"prompt_cache_key": "k", "n": 1, "stream_options": {"include_usage": True}}, {}, ""),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}], "parallel_tool_calls": False},
            {
                "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
                "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            },
            "",
        ),
    ],
)
def test_settings_to_messages(fields: dict[str, Any], expected: dict[str, Any], note: str) -> None:
    sent, notes = to_messages({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})
    sent.pop("messages")
    assert sent == {"model": "m", "max_tokens": messages_chat.DEFAULT_MAX_TOKENS, **expected}
    assert note in "; ".join(notes)
    assert bool(note) == bool(notes)


def chat_user(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (
            chat_user({"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}}),
            "a block of type 'document' from a url",
        ),
        (
            chat_user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
            "a block of type 'image' from a file",
        ),
        ({"messages": [], "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "at Anthropic only"),
    ],
)
def test_what_chat_cannot_say_is_refused(body: dict[str, Any], what: str) -> None:
    with pytest.raises(RequestError, match=f"{what}.*model of the same format"):
        messages_chat.to_chat(body)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (chat_user({"type": "input_audio", "input_audio": {}}), "a part of type 'input_audio'"),
        (chat_user({"type": "file", "file": {"file_id": "f"}}), "a part of type 'file' by id"),
        ({"messages": [], "n": 2}, "n=2"),
        ({"messages": [], "tools": [{"type": "custom", "custom": {"name": "x"}}]}, "a tool of type 'custom'"),
        ({"messages": [], "tool_choice": {"type": "allowed_tools"}}, "tool_choice 'allowed_tools'"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "role 'function'"),
    ],
)
def test_what_messages_cannot_say_is_refused(body: dict[str, Any], what: str) -> None:
    with pytest.raises(RequestError, match=f"{what}.*model of the same format"):
        messages_chat.to_messages(body)


def test_documents_and_images_in_results() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    shot = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "seen"}, shot]}
    blocks = [result, {"type": "document", "source": pdf, "title": "bill.pdf"}]
    chat, _ = to_chat({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": blocks}]})
    assert [m["role"] for m in chat["messages"]] == ["tool", "user"]
    assert [part["type"] for part in chat["messages"][1]["content"]] == ["image_url", "file"]
    back, _ = to_messages(chat)
    assert back["messages"][0]["content"][2] == {"type": "document", "source": pdf, "title": "bill.pdf"}


def test_later_system_messages_keep_their_place() -> None:
    turns = [{"role": "developer", "content": "A."}, {"role": "user", "content": "hi"}]
    sent, _ = to_messages({"model": "m", "messages": [*turns, {"role": "system", "content": "B."}]})
    assert sent["system"] == [{"type": "text", "text": "A."}]
    assert sent["messages"][1] == {"role": "system", "content": [{"type": "text", "text": "B."}]}


def test_broken_arguments_are_kept_and_said() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": '}}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    sent, notes = to_messages({"model": "m", "messages": turns})
    assert sent["messages"][1]["content"][0]["input"] == {"arguments": '{"city": '}
    assert "no JSON object" in notes[0]


def test_an_sdks_own_reply_may_be_sent_back() -> None:
    content = [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}}]
    usage = {"input_tokens": 1, "output_tokens": 1}
    fields = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": content, "usage": usage}
    reply = Message.model_validate({**fields, "stop_reason": "tool_use", "stop_sequence": None})
    chat, _ = messages_chat.to_chat({"model": "m", "messages": [{"role": "assistant", "content": reply.content}]})
    assert chat["messages"][0]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text(min_size=1, max_size=30)
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
text_blocks = st.builds(lambda text: {"type": "text", "text": text}, texts)
calls = st.builds(
    lambda id, given: {"type": "tool_use", "id": id, "name": "f", "input": given},
    ids,
    st.dictionaries(st.text(), json_values, max_size=3),
)


@st.composite
def conversations(draw: Any) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [{"role": "user", "content": draw(texts)}]
    for _ in range(draw(st.integers(0, 3))):
        said = draw(st.lists(text_blocks, max_size=1))
        called = draw(st.lists(calls, min_size=0 if said else 1, max_size=3, unique_by=lambda call: call["id"]))
        results = [{"type": "tool_result", "tool_use_id": c["id"], "content": draw(texts)} for c in called]
        extra = draw(st.lists(text_blocks, min_size=0 if results else 1, max_size=1))
        turns += [{"role": "assistant", "content": said + called}, {"role": "user", "content": results + extra}]
    return turns


def said(messages: list[dict[str, Any]]) -> list[Any]:
    """The conversation with texts as blocks: what must survive the way there and back."""
    blocks = []
    for message in messages:
        content = message["content"]
        blocks.append((message["role"], [{"type": "text", "text": content}] if isinstance(content, str) else content))
    return blocks


@settings(deadline=None)
@given(conversations(), texts)
def test_there_and_back_keeps_every_word(turns: list[dict[str, Any]], system: str) -> None:
    body = {"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": system}], "messages": turns}
    chat, notes = to_chat(body)
    assert notes == ()
    back, notes = to_messages(chat)
    assert notes == ()
    assert said(back.pop("messages")) == said(turns)
    assert back == {name: value for name, value in body.items() if name != "messages"}
    assert to_chat({**back, "messages": turns})[0] == chat
    assert json.loads(json.dumps(chat)) == chat
