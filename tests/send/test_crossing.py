"""Chat Completions with tools, for models that call tools with reasoning on Responses only: through the openai SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pydantic
import pytest

from router import RequestError, Router, Settings, TierwiseError, wrap
from router.offline import Failure, Reply, ToolCall, Upstream

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "What is the weather in Oslo?"}]
CALLS = Reply("I look.", tool_calls=(ToolCall("weather", {"city": "Oslo"}),))


@pytest.fixture
def gpt(upstream: Upstream, clock: Any) -> Any:
    """A client whose fleet's tiers all call tools on Responses only."""
    router = Router.load(config=Settings(), fleet="gpt", clock=clock)
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as client:
        yield wrap(client, router)


def check(client: Any, upstream: Upstream) -> None:
    """The request went to Responses, and its record is the bill."""
    record, bill = client.last_record, upstream.bills[-1]
    assert "input" in upstream.requests[-1]
    assert record.model == bill.model == upstream.requests[-1]["model"]
    assert record.cost_usd == bill.usd > 0
    assert any("asked on Responses" in note for note in record.notes)


@pytest.mark.parametrize("tier", ["simple", "moderate", "complex"])
def test_a_tool_loop(gpt: Any, upstream: Upstream, tier: str) -> None:
    bounds = {"router": {"min_tier": tier, "max_tier": tier}}
    upstream.scripts.append(CALLS)
    first = gpt.chat.completions.create(
        model="auto", messages=ASK, tools=[TOOL], max_completion_tokens=99, extra_body=bounds
    )
    check(gpt, upstream)
    choice = first.choices[0]
    assert isinstance(first, openai.types.chat.ChatCompletion)
    assert (choice.finish_reason, choice.message.content, first.model) == (
        "tool_calls",
        "I look.",
        gpt.last_record.model,
    )
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    assert first.usage.completion_tokens == upstream.bills[0].output
    sent = upstream.requests[0]
    assert (sent["max_output_tokens"], sent["store"]) == (99, False)
    assert sent["tools"][0] == {**TOOL["function"], "type": "function", "strict": False}
    turns = [*ASK, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
    second = gpt.chat.completions.create(model="auto", messages=turns, tools=[TOOL], extra_body=bounds)
    check(gpt, upstream)
    assert [item.get("type", item.get("role")) for item in upstream.requests[1]["input"]] == [
        "developer",
        "user",
        "assistant",
        "function_call",
        "function_call_output",
    ]
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content.startswith("[simulated reply")


@pytest.mark.parametrize("asks_for_usage", [True, False])
def test_streamed(gpt: Any, upstream: Upstream, asks_for_usage: bool) -> None:
    upstream.scripts.append(CALLS)
    options: Any = {"stream_options": {"include_usage": True}} if asks_for_usage else {}
    with gpt.chat.completions.create(model="auto", messages=ASK, tools=[TOOL], stream=True, **options) as stream:
        chunks = list(stream)
    check(gpt, upstream)
    assert all(isinstance(chunk, openai.types.chat.ChatCompletionChunk) for chunk in chunks)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "I look."
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert json.loads("".join(call.function.arguments or "" for call in calls)) == {"city": "Oslo"}
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["tool_calls"]
    assert any(chunk.usage for chunk in chunks) is asks_for_usage


def test_the_sdks_own_ways(gpt: Any, upstream: Upstream) -> None:
    """parse, the stream helper, raw responses."""

    class Weather(pydantic.BaseModel):
        city: str

    upstream.scripts += [Reply('{"city": "Oslo"}')] * 2
    tool = openai.pydantic_function_tool(Weather)
    parsed = gpt.chat.completions.parse(model="auto", messages=ASK, tools=[tool], response_format=Weather)
    check(gpt, upstream)
    assert parsed.choices[0].message.parsed == Weather(city="Oslo")
    assert upstream.requests[0]["text"]["format"]["name"] == "Weather"
    with gpt.chat.completions.stream(model="auto", messages=ASK, tools=[tool], response_format=Weather) as stream:
        last = stream.get_final_completion()
    check(gpt, upstream)
    assert last.choices[0].message.parsed == Weather(city="Oslo")
    raw = gpt.chat.completions.with_raw_response.create(model="auto", messages=ASK, tools=[TOOL])
    check(gpt, upstream)
    assert raw.parse().choices[0].message.content.startswith("[simulated reply")
    assert raw.status_code == 200
    body = {"model": "auto", "messages": ASK, "tools": [TOOL]}
    plain = gpt.post("/chat/completions", cast_to=object, body=body)
    check(gpt, upstream)
    assert plain["choices"][0]["message"]["content"].startswith("[simulated reply")


def test_async(upstream: Upstream, clock: Any) -> None:
    async def ask() -> tuple[Any, str, Any]:
        router = Router.load(config=Settings(), fleet="gpt", clock=clock)
        async with openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as plain:
            client = wrap(plain, router)
            whole = await client.chat.completions.create(model="auto", messages=ASK, tools=[TOOL])
            stream = await client.chat.completions.create(model="auto", messages=ASK, tools=[TOOL], stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return whole, text, client

    whole, text, client = asyncio.run(ask())
    check(client, upstream)
    assert whole.choices[0].message.content.startswith("[simulated reply")
    assert text.startswith("[simulated reply")


def test_without_reasoning_it_stays_where_it_was(gpt: Any, upstream: Upstream) -> None:
    options: Any = {"reasoning_effort": "none", "extra_body": {"router": {"max_tier": "simple"}}}
    gpt.chat.completions.create(model="auto", messages=ASK, tools=[TOOL], **options)
    assert "messages" in upstream.requests[0]
    assert gpt.last_record.cost_usd == upstream.bills[0].usd


def test_a_model_that_the_caller_names_is_asked_as_it_is(gpt: Any, upstream: Upstream) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/responses"):
        gpt.chat.completions.create(model="gpt-6.1-sol", messages=ASK, tools=[TOOL])
    assert not upstream.bills


def test_a_fault_moves_up_on_responses(gpt: Any, upstream: Upstream) -> None:
    upstream.failures.append(Failure(503))
    simple = {"router": {"min_tier": "simple", "max_tier": "complex"}}
    reply = gpt.chat.completions.create(model="auto", messages=ASK, tools=[TOOL], extra_body=simple)
    check(gpt, upstream)
    assert reply.choices[0].message.content
    assert gpt.last_record.reason == "provider_fault"


def test_what_no_model_of_the_fleet_can_be_asked_fails_clearly(gpt: Any, upstream: Upstream) -> None:
    with pytest.raises(RequestError, match="cannot translate n=2: Responses gives one answer"):
        gpt.chat.completions.create(model="auto", messages=ASK, tools=[TOOL], n=2)
    assert not upstream.requests


@pytest.mark.parametrize("failure", [Failure(error_after=4), Failure(cut_after=4)])
def test_a_stream_that_breaks_off(gpt: Any, upstream: Upstream, failure: Failure) -> None:
    upstream.failures.append(failure)
    with pytest.raises(openai.APIError):
        list(gpt.chat.completions.create(model="auto", messages=ASK, tools=[TOOL], stream=True))
    assert any("ended early" in note for note in gpt.last_record.notes)


def test_a_reply_that_says_it_failed_is_recorded_and_raised(gpt: Any) -> None:
    reply = {"id": "r", "object": "response", "model": "gpt-6-luna", "status": "failed", "output": []}
    reply["error"], reply["usage"] = {"code": "x", "message": "it broke"}, {"input_tokens": 9, "output_tokens": 1}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=reply))
    client = gpt.with_options(http_client=httpx2.Client(transport=transport))
    with pytest.raises(TierwiseError, match="it broke"):
        client.chat.completions.create(model="auto", messages=ASK, tools=[TOOL])
    assert client.last_record.usage.input_tokens == 9
