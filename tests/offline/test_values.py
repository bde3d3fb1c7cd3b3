"""The upstream refuses the values that the providers refuse, in their error shapes, and streams what a model thinks."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from router import catalog
from router.offline import Upstream
from router.offline.replies import Reply, ToolCall

CALL = {"type": "tool_use", "id": "toolu_1", "name": "run", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
ASK = {"role": "user", "content": "go"}
OBJECT = {"type": "object", "properties": {}}
PIXELS = {"type": "base64", "media_type": "image/jpg", "data": "/9j/"}


def post(upstream: Upstream, path: str, body: dict[str, Any]) -> httpx2.Response:
    headers = {"authorization": "Bearer offline"}
    if path == "/v1/messages":
        headers["anthropic-version"] = "2023-06-01"
        body = {"model": "claude-haiku-4-5", "max_tokens": 5000, **body}
    return httpx2.post(upstream.url + path, json=body, headers=headers, timeout=20)


def loop(call: dict[str, Any] = CALL, result: dict[str, Any] = RESULT) -> list[Any]:
    return [ASK, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"messages": loop({**CALL, "id": "f.x:0"}, {**RESULT, "tool_use_id": "f.x:0"})},
         "String should match pattern '^[a-zA-Z0-9_-]+$'"),
        ({"messages": [*loop(), *loop()[1:]]}, "`tool_use` ids must be unique"),
        ({"messages": loop({**CALL, "extra_content": {}})}, "Extra inputs are not permitted"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\n\n"}]}]}, "non-whitespace text"),
        ({"messages": [{"role": "user", "content": " "}]}, "non-whitespace text"),
        ({"messages": loop(result={**RESULT, "content": [{"type": "text", "text": " "}]})}, "non-whitespace text"),
        ({"messages": [ASK], "system": [{"type": "text", "text": " "}]}, "system: text content blocks"),
        ({"messages": [ASK, {"role": "assistant", "content": "{ "}]}, "trailing whitespace"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": PIXELS}]}]},
         "Input should be 'image/jpeg', 'image/png', 'image/gif' or"),
        ({"messages": [ASK], "tools": [{"name": "a.b", "input_schema": OBJECT}]},
         "tools.0.custom.name: String should match pattern"),
        ({"messages": [ASK], "tools": [{"name": "a" * 129, "input_schema": OBJECT}]}, "at most 128 characters"),
        ({"messages": [ASK], "tools": [{"name": "a", "input_schema": OBJECT}] * 2}, "Tool names must be unique"),
        ({"messages": [ASK], "tools": [{"name": "a", "input_schema": {**OBJECT, "anyOf": []}}]},
         "does not support oneOf, allOf, or anyOf"),
        ({"messages": [ASK], "tools": [{"name": "a", "input_schema": {}}]}, "input_schema.type: Field required"),
        ({"messages": [ASK], "tools": [{"name": "a"}]}, "input_schema: Field required"),
        ({"messages": [ASK], "context_management": {"edits": [{"type": "clear_thinking_20251015"}]}},
         "requires `thinking`"),
        ({"messages": loop(), "thinking": {"type": "enabled", "budget_tokens": 2000}},
         "Expected `thinking` or `redacted_thinking`"),
    ],
)  # fmt: skip
def test_anthropic_refuses(upstream: Upstream, body: dict[str, Any], says: str) -> None:
    reply = post(upstream, "/v1/messages", body)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert says in reply.json()["error"]["message"]


def function(name: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def chat_loop(call_id: str, **more: Any) -> list[Any]:
    call = {"id": call_id, "type": "function", "function": {"name": "run", "arguments": "{}"}, **more}
    answer = {"role": "tool", "tool_call_id": call_id, "content": "ok"}
    return [ASK, {"role": "assistant", "content": None, "tool_calls": [call]}, answer]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/chat/completions", {"tools": [function("a.b", OBJECT)]}, "string does not match pattern"),
        ("/v1/chat/completions", {"tools": [function("a" * 65, OBJECT)]}, "maximum length 64"),
        ("/v1/chat/completions", {"tools": [function("a", {**OBJECT, "oneOf": []})]}, "at the top level"),
        ("/v1/chat/completions", {"tools": [function("a", {})]}, "got 'type: \"None\"'"),
        ("/v1/chat/completions", {"tools": [function("a", {"type": "object"})]}, "object schema missing properties"),
        ("/v1/chat/completions", {"tool_choice": "auto"}, "only allowed when 'tools'"),
        ("/v1/chat/completions", {"max_completion_tokens": 0}, "Expected a value >= 1"),
        ("/v1/chat/completions", {"user": "u" * 65}, "maximum length 64"),
        ("/v1/chat/completions", {"messages": chat_loop("c" * 65)}, "maximum length 64"),
        ("/v1/chat/completions", {"messages": chat_loop("c1", extra_content={})},
         "Unknown parameter: 'messages[1].tool_calls[0].extra_content'"),
        ("/v1/chat/completions", {"messages": [ASK, {"role": "assistant", "content": "a", "reasoning_content": "b"}]},
         "Unknown parameter: 'messages[1].reasoning_content'"),
        ("/v1/responses", {"max_output_tokens": 15}, "Expected a value >= 16"),
        ("/v1/responses", {"include": ["reasoning.encrypted_content"]}, "not supported with this model"),
        ("/v1/responses", {"input": [ASK, {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"}]},
         "could not be verified"),
    ],
)  # fmt: skip
def test_openai_refuses(upstream: Upstream, path: str, body: dict[str, Any], says: str) -> None:
    reply = post(upstream, path, {"model": "gpt-4o", "messages": [ASK], "input": "go", **body})
    assert reply.status_code == 400
    assert says in reply.json()["error"]["message"]


def test_gemini_refuses_unsigned_calls_of_the_turn_in_its_own_shape(upstream: Upstream) -> None:
    for signature, is_taken in ((None, False), ("forged", False), ("skip_thought_signature_validator", True)):
        extra = {"google": {"thought_signature": signature}}
        body = {"model": "gemini-4-argon", "messages": chat_loop("c1", extra_content=extra)}
        reply = post(upstream, "/v1/chat/completions", body)
        assert (reply.status_code == 200) == is_taken
        if not is_taken:
            assert reply.json()[0]["error"]["status"] == "INVALID_ARGUMENT"
    earlier = {"model": "gemini-4-argon", "messages": [*chat_loop("c1"), {"role": "assistant", "content": "ok"}, ASK]}
    assert post(upstream, "/v1/chat/completions", earlier).status_code == 200


def test_gemini_streams_signed_calls_whole_and_without_index(upstream: Upstream) -> None:
    upstream.scripts += [Reply(tool_calls=(ToolCall("a", {"x": 1}), ToolCall("b")))]
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as client:
        stream = client.chat.completions.create(model="gemini-4-argon", messages=[ASK], stream=True)  # type: ignore[list-item]
        chunks = [chunk.to_dict(mode="json") for chunk in stream]
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]  # type: ignore[attr-defined]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"x": 1}, {}]
    assert not any("index" in call for call in calls)
    assert ["extra_content" in call for call in calls] == [True, False]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"  # type: ignore[index]


def test_a_thinking_server_wants_its_reasoning_back(upstream: Upstream) -> None:
    own = {"thinker": {"base_url": "http://unused", "context_tokens": 100_000, "tools": True}}
    upstream.models = catalog.shipped().extended({}, own)
    upstream.wants_reasoning = {"thinker"}
    upstream.scripts += [Reply(thinking="I should run it.", tool_calls=(ToolCall("run"),))]
    message = post(upstream, "/v1/chat/completions", {"model": "thinker", "messages": [ASK]}).json()["choices"][0][
        "message"
    ]
    assert message["reasoning_content"] == "I should run it."
    answer = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "ok"}
    bare = {name: value for name, value in message.items() if name != "reasoning_content"}
    for turn, status in ((message, 200), (bare, 400)):
        body = {"model": "thinker", "messages": [ASK, turn, answer]}
        assert post(upstream, "/v1/chat/completions", body).status_code == status
