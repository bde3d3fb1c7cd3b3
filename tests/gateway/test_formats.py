"""One SDK, models of another provider: what it asks is translated, and what comes back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pydantic
import pytest

from router import Tier
from router.offline import Failure, Reply, ToolCall, Upstream
from router.send import faults
from tests.gateway.conftest import Exact, Running, Serve, whole

SIMPLE, MODERATE, COMPLEX = "gpt-6-luna", "gemini-4-argon", "claude-opus-4-7"
GENERAL = {"fleets": {"mine": {Tier.SIMPLE: SIMPLE, Tier.MODERATE: MODERATE, Tier.COMPLEX: COMPLEX}}, "fleet": "mine"}
SYSTEM = "You answer questions about lighthouses, briefly and kindly, and never about anything else. " * 300
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLAUDE_TOOL: Any = {"name": "weather", "description": "The weather in a city.", "input_schema": SCHEMA}
GPT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
ASK: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
CALLS = Reply("I look it up.", tool_calls=(ToolCall("weather", {"city": "Oslo"}),))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def gateway(serve: Serve, upstream: Upstream) -> Running:
    """Before three providers, one a tier."""
    return serve(upstream.url, general=GENERAL)


@pytest.mark.parametrize(("tier", "model"), [("simple", SIMPLE), ("moderate", MODERATE), ("complex", COMPLEX)])
@pytest.mark.parametrize("streamed", [False, True])
def test_messages(
    claude: anthropic.Anthropic, gateway: Running, upstream: Upstream, tier: str, model: str, streamed: bool
) -> None:
    body: Any = {"model": tier, "max_tokens": 50, "messages": ASK, "system": SYSTEM, "stop_sequences": ["END"]}
    if streamed:
        with claude.messages.stream(**body) as stream:
            assert "".join(stream.text_stream).startswith(f"[simulated reply of {model}]")
            message = stream.get_final_message()
    else:
        message = claude.messages.create(**body)
    assert (message.type, message.role, message.model) == ("message", "assistant", model)
    assert message.content[0].type == "text"
    assert message.content[0].text.startswith(f"[simulated reply of {model}]")
    assert message.stop_reason in ("end_turn", "max_tokens")
    (row,) = gateway.records(1)
    (bill,) = upstream.bills
    assert (row["model"], Decimal(row["cost_picousd"]) / 10**12) == (model, bill.usd)
    assert message.usage.output_tokens == bill.output
    assert message.usage.input_tokens == bill.fresh
    assert (message.usage.cache_creation_input_tokens or 0) == bill.write_short


@pytest.mark.parametrize("streamed", [False, True])
def test_messages_tools(claude: anthropic.Anthropic, upstream: Upstream, streamed: bool) -> None:
    """A reasoning model of OpenAI's calls tools through Responses."""
    upstream.scripts.append(CALLS)
    body: Any = {"model": "simple", "max_tokens": 500, "messages": ASK, "tools": [CLAUDE_TOOL]}
    if streamed:
        with claude.messages.stream(**body) as stream:
            message = stream.get_final_message()
    else:
        message = claude.messages.create(**body)
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content] == ["text", "tool_use"]
    call = message.content[1]
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("weather", {"city": "Oslo"})
    assert "input" in upstream.requests[0]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}
    answer: Any = {"role": "assistant", "content": [block.model_dump(mode="json") for block in message.content]}
    turns = [*ASK, answer, {"role": "user", "content": [result]}]
    last = claude.messages.create(**{**body, "messages": turns})
    assert last.stop_reason == "end_turn"
    items = upstream.requests[1]["input"]
    assert [item.get("type") for item in items] == [None, None, "function_call", "function_call_output"]
    assert items[2]["call_id"] == items[3]["call_id"] == call.id


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("asks_for_usage", [False, True])
def test_chat(gpt: openai.OpenAI, gateway: Running, upstream: Upstream, streamed: bool, asks_for_usage: bool) -> None:
    """Chat Completions to Claude: images and tools too."""
    upstream.scripts.append(CALLS)
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    messages: Any = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [{"type": "text", "text": "Where is it?"}, image]},
    ]
    body: Any = {"model": "complex", "messages": messages, "tools": [GPT_TOOL]}
    if streamed:
        options: Any = {"stream_options": {"include_usage": True}} if asks_for_usage else {}
        chunks = list(gpt.chat.completions.create(**body, stream=True, **options))
        assert any(chunk.usage for chunk in chunks) is asks_for_usage
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "I look it up."
        deltas = [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or ()]
        assert deltas[0].function is not None
        name, arguments = deltas[0].function.name, "".join((d.function and d.function.arguments) or "" for d in deltas)
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"
        assert {chunk.model for chunk in chunks} == {COMPLEX}
    else:
        reply = gpt.chat.completions.create(**body)
        (call,) = reply.choices[0].message.tool_calls or ()
        assert call.type == "function"
        name, arguments = call.function.name, call.function.arguments
        assert (reply.model, reply.choices[0].finish_reason) == (COMPLEX, "tool_calls")
        assert reply.usage is not None
        assert reply.usage.prompt_tokens == upstream.bills[0].fresh + upstream.bills[0].write_short
    assert (name, json.loads(arguments)) == ("weather", {"city": "Oslo"})
    sent = upstream.requests[0]
    assert sent["messages"][-1]["content"][-1]["source"]["media_type"] == "image/png"
    assert sent["system"][-1]["cache_control"] == {"type": "ephemeral"}
    (row,) = gateway.records(1)
    assert Decimal(row["cost_picousd"]) / 10**12 == upstream.bills[0].usd


def test_a_conversation_moves_between_providers(
    claude: anthropic.Anthropic, gateway: Running, upstream: Upstream
) -> None:
    turns: list[Any] = list(ASK)
    for tier in ("complex", "simple", "moderate"):
        message = claude.messages.create(model=tier, max_tokens=50, messages=turns, system=SYSTEM)
        turns += [{"role": "assistant", "content": message.content}, {"role": "user", "content": "And tomorrow?"}]
    assert [len(request["messages"]) for request in upstream.requests] == [1, 4, 6]
    assert [Decimal(row["cost_picousd"]) / 10**12 for row in gateway.records(3)] == [b.usd for b in upstream.bills]


def test_a_fault_goes_up_to_the_other_provider(
    monkeypatch: pytest.MonkeyPatch, gpt: openai.OpenAI, gateway: Running, upstream: Upstream
) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.001)
    upstream.failures += [Failure(503, model=SIMPLE)] * 3 + [Failure(500, model=MODERATE)] * 3
    reply = gpt.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hi"}])
    assert reply.model == COMPLEX
    (row,) = gateway.records(1)
    assert (row["model"], row["reason"]) == (COMPLEX, "provider_fault")


def test_errors_are_in_the_callers_format(claude: anthropic.Anthropic, gpt: openai.OpenAI, upstream: Upstream) -> None:
    upstream.failures.append(Failure(400, "invalid_request_error"))
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(model="simple", max_tokens=50, messages=ASK)
    assert refused.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    upstream.failures.append(Failure(401, "authentication_error"))
    with pytest.raises(openai.AuthenticationError) as unknown:
        gpt.chat.completions.create(model="complex", messages=ASK)
    assert unknown.value.type == "authentication_error"


@pytest.mark.parametrize("failure", [Failure(cut_after=4), Failure(error_after=4)])
def test_a_broken_stream_breaks_in_the_callers_format(
    monkeypatch: pytest.MonkeyPatch,
    claude: anthropic.Anthropic,
    gpt: openai.OpenAI,
    gateway: Running,
    upstream: Upstream,
    failure: Failure,
) -> None:
    """An error that comes with the first bytes may be tried again: nothing has been delivered."""
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.001)
    for ask in (
        lambda: list(claude.messages.create(model="simple", max_tokens=50, messages=ASK, stream=True)),
        lambda: list(gpt.chat.completions.create(model="complex", messages=ASK, stream=True)),
    ):
        upstream.failures += [failure] * 9
        with pytest.raises((anthropic.APIError, openai.APIError)):
            ask()
        upstream.failures.clear()
    if failure.cut_after:
        assert all("the stream ended early" in row["notes"] for row in gateway.records(2))


def test_tokens_are_estimated_where_the_provider_does_not_count_them(gateway: Running, upstream: Upstream) -> None:
    body = {"model": "simple", "max_tokens": 50, "messages": ASK, "system": SYSTEM}
    counted = gateway.post("/v1/messages/count_tokens", body)
    assert (counted.status_code, counted.headers["x-tierwise-estimated"]) == (200, "true")
    gateway.post("/v1/messages", body)
    (bill,) = upstream.bills
    assert counted.json()["input_tokens"] == pytest.approx(bill.fresh + bill.write_short, rel=0.4)
    exact = gateway.post("/v1/messages/count_tokens", {**body, "model": "complex"})
    assert "x-tierwise-estimated" not in exact.headers
    assert len(gateway.records(1)) == 1


RESPONSES_TOOL: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("tier", "model"), [("moderate", MODERATE), ("complex", COMPLEX)])
def test_responses(
    gpt: openai.OpenAI, gateway: Running, upstream: Upstream, tier: str, model: str, streamed: bool
) -> None:
    """As Codex asks, with an image, reasoning of a model before, and a tool that was called."""
    upstream.scripts.append(CALLS)
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"}
    said: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Where is it, and how is the weather?"}, image]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "In Oslo."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bergen"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain"},
        {"role": "user", "content": "And in Oslo?"},
    ]
    body: Any = {"model": tier, "instructions": SYSTEM, "input": said, "tools": [RESPONSES_TOOL], "store": False}
    if streamed:
        with gpt.responses.stream(**body) as stream:
            kinds = [event.type for event in stream]
            response = stream.get_final_response()
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert "response.function_call_arguments.delta" in kinds
    else:
        response = gpt.responses.create(**body)
    assert (response.model, response.status, response.output_text) == (model, "completed", "I look it up.")
    call = response.output[-1]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
    (bill,) = upstream.bills
    assert response.usage is not None
    assert response.usage.input_tokens == bill.fresh + bill.write_short + bill.read
    assert response.usage.output_tokens == bill.output
    (row,) = gateway.records(1)
    assert Decimal(row["cost_picousd"]) / 10**12 == bill.usd
    assert "reasoning items dropped" in row["notes"]
    again = [*said, *(item.model_dump(exclude_none=True) for item in response.output)]
    again.append(
        {"type": "function_call_output", "call_id": call.call_id, "output": [{"type": "input_text", "text": "Sun"}]}
    )
    last = gpt.responses.create(**{**body, "input": again, "max_output_tokens": 5})
    assert (last.status, last.incomplete_details and last.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


def test_what_only_the_responses_api_has_stays_there(gateway: Running, upstream: Upstream) -> None:
    for extra in ({"previous_response_id": "r"}, {"tools": [{"type": "web_search"}]}):
        refused = gateway.post("/v1/responses", {"model": "complex", "input": "hi", **extra})
        assert refused.status_code == 400
        assert "cannot be said to another provider's model" in refused.json()["error"]["message"]
    assert not upstream.requests
    hard = "Prove that every bipartite regular graph has a perfect matching, and that the bound is tight for trees."
    for extra in ({}, {"tools": [{"type": "web_search"}], "router": {"max_tier": "simple"}}):
        reply = gateway.post("/v1/responses", {"model": "auto", "input": hard, **extra})
        assert (reply.status_code, reply.headers["x-tierwise-model"]) == (200, SIMPLE if extra else COMPLEX)


def test_a_schema_and_a_broken_stream_in_responses(
    gpt: openai.OpenAI, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Weather(pydantic.BaseModel):
        city: str

    upstream.scripts.append(Reply('{"city": "Oslo"}'))
    parsed = gpt.responses.parse(model="moderate", input="Where?", text_format=Weather)
    assert parsed.output_parsed == Weather(city="Oslo")
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.001)
    upstream.failures += [Failure(cut_after=4)] * 9
    events = list(gpt.responses.create(model="complex", input="hi", stream=True))
    assert events[-1].type == "error"


def test_headers_and_keys_of_one_provider_do_not_reach_the_other(serve: Serve) -> None:
    with Exact() as exact:
        exact.pieces = [whole(b'{"error": {"message": "no", "type": "invalid_request_error"}}', "400 Bad Request")]
        running = serve(exact.url, general=GENERAL)
        headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "x", "x-api-key": "sk-ant-canary", "x-own": "1"}
        body = {"model": "simple", "max_tokens": 5, "messages": ASK}
        reply = running.post("/v1/messages?beta=true", body, headers)
        assert (reply.status_code, reply.json()["error"]["message"]) == (400, "no")
        assert exact.requests[0].startswith(b"POST /v1/chat/completions HTTP")
        assert not [name for name in exact.headers if name.startswith("anthropic") or name == "x-api-key"]
        assert (exact.headers["authorization"], exact.headers["x-own"]) == ("Bearer sk-canary-openai", "1")
        running.post("/v1/chat/completions", {"model": "complex", "messages": ASK})
        assert exact.headers["anthropic-version"] == "2023-06-01"
        assert exact.headers["x-api-key"] == "sk-canary-anthropic"


def test_what_is_no_reply_is_a_502(serve: Serve) -> None:
    with Exact() as exact:
        running = serve(exact.url, general=GENERAL)
        for body in (b"[]", b"<html>", b'{"choices": []}', b'{"choices": [{"message": 3}]}'):
            exact.pieces = [whole(body)]
            reply = running.post("/v1/messages", {"model": "simple", "max_tokens": 5, "messages": ASK})
            assert (reply.status_code, reply.json()["type"]) == (502, "error")


def test_passed_through_keys_stay_with_their_provider(serve: Serve, upstream: Upstream) -> None:
    running = serve(upstream.url, general=GENERAL, access="pass-through")
    reply = running.post("/v1/messages", {"model": "simple", "max_tokens": 5, "messages": ASK}, {"x-api-key": "mine"})
    assert reply.status_code == 403
    assert "the key that is passed through is anthropic's" in reply.json()["error"]["message"]
    assert not upstream.requests
