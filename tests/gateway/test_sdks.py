"""The official SDKs against the gateway, unchanged but for the address; and a session such as Claude Code holds."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from decimal import Decimal
from typing import Any

import anthropic
import httpx2
import openai
import pydantic
import pytest

from router.gateway import journal
from router.offline import Reply, ToolCall, Upstream
from tests.gateway.conftest import HELLO, Running, Serve, wait_for

TOOL = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLAUDE_TOOL: Any = {"name": "weather", "description": "The weather in a city.", "input_schema": TOOL}
GPT_TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather in a city.", "parameters": TOOL},
}
ASK: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
CALLS = Reply(tool_calls=(ToolCall("weather", {"city": "Oslo"}),))


def test_messages(claude: anthropic.Anthropic, gateway: Running, upstream: Upstream) -> None:
    raw = claude.messages.with_raw_response.create(model="auto", max_tokens=50, messages=ASK)
    message = raw.parse()
    assert message.model == upstream.requests[0]["model"] == raw.headers["x-tierwise-model"]
    assert upstream.requests[0]["model"].startswith("claude-")
    (row,) = gateway.records(1)
    (bill,) = upstream.bills
    assert (row["model"], row["output_tokens"]) == (bill.model, bill.output)
    assert row["tier"] == raw.headers["x-tierwise-tier"]
    assert Decimal(row["cost_picousd"]) / 10**12 == bill.usd == Decimal(raw.headers["x-tierwise-cost-usd"])
    assert raw.headers["x-tierwise-request-id"] in row["notes"]


def test_messages_streamed_with_a_tool(claude: anthropic.Anthropic, gateway: Running, upstream: Upstream) -> None:
    upstream.scripts.append(CALLS)
    with claude.messages.stream(model="auto", max_tokens=50, messages=ASK, tools=[CLAUDE_TOOL]) as stream:
        message = stream.get_final_message()
    block = message.content[-1]
    assert (message.stop_reason, block.type) == ("tool_use", "tool_use")
    assert block.input == {"city": "Oslo"}
    assert "router" not in upstream.requests[0]
    (row,) = gateway.records(1)
    assert (row["output_tokens"], row["usage_reported"]) == (upstream.bills[0].output, 1)


def test_messages_async(gateway: Running, upstream: Upstream) -> None:
    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=gateway.url, auth_token="any", max_retries=0) as client:
            whole = await client.messages.create(model="complex", max_tokens=50, messages=ASK)
            async with client.messages.stream(model="simple", max_tokens=50, messages=ASK) as stream:
                return [whole.model, (await stream.get_final_message()).model]

    strong, cheap = asyncio.run(ask())
    assert [body["model"] for body in upstream.requests] == [strong, cheap]
    assert [row["tier"] for row in gateway.records(2)] == ["complex", "simple"]


def test_chat(gpt: openai.OpenAI, gateway: Running, upstream: Upstream) -> None:
    raw = gpt.chat.completions.with_raw_response.create(model="auto:economy", messages=ASK)
    assert raw.parse().choices[0].message.content.startswith("[simulated reply")
    assert upstream.requests[0]["model"] == raw.headers["x-tierwise-model"]
    (row,) = gateway.records(1)
    assert row["cost_picousd"] == int(upstream.bills[0].usd * 10**12)


@pytest.mark.parametrize("asks_for_usage", [True, False])
def test_chat_streamed(gpt: openai.OpenAI, gateway: Running, upstream: Upstream, asks_for_usage: bool) -> None:
    """Usage is always asked for, and shown to callers who asked for it."""
    options: Any = {"stream_options": {"include_usage": True}} if asks_for_usage else {}
    chunks = list(gpt.chat.completions.create(model="auto", messages=ASK, stream=True, **options))
    assert any(chunk.usage for chunk in chunks) is asks_for_usage
    assert all(chunk.choices for chunk in chunks) is not asks_for_usage
    (row,) = gateway.records(1)
    assert (row["output_tokens"], row["usage_reported"]) == (upstream.bills[0].output, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_chat_tools(gpt: openai.OpenAI, gateway: Running, upstream: Upstream, stream: bool) -> None:
    """The models call them on Responses; the caller sees Chat Completions, and pays what is billed."""
    upstream.scripts.append(CALLS)
    options: Any = {"model": "auto", "messages": ASK, "tools": [GPT_TOOL]}
    if stream:
        with gpt.chat.completions.stream(**options) as events:
            reply = events.get_final_completion()
    else:
        reply = gpt.chat.completions.create(**options)
    (call,) = reply.choices[0].message.tool_calls or ()
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert reply.choices[0].finish_reason == "tool_calls"
    assert "input" in upstream.requests[0]
    (row,) = gateway.records(1)
    assert row["cost_picousd"] == int(upstream.bills[0].usd * 10**12)
    assert "asked on Responses" in row["notes"]


def test_chat_parse(gpt: openai.OpenAI, upstream: Upstream) -> None:
    class Weather(pydantic.BaseModel):
        city: str

    upstream.scripts.append(Reply('{"city": "Oslo"}'))
    parsed = gpt.chat.completions.parse(model="auto", messages=ASK, response_format=Weather)
    assert parsed.choices[0].message.parsed == Weather(city="Oslo")
    assert upstream.requests[0]["response_format"]["json_schema"]["name"] == "Weather"


def test_responses(gpt: openai.OpenAI, gateway: Running, upstream: Upstream) -> None:
    whole = gpt.responses.create(model="auto", input="What is the weather in Oslo?")
    with gpt.responses.stream(model="auto", input="What is the weather in Oslo?") as stream:
        last = stream.get_final_response()
    assert whole.output_text == last.output_text
    assert [row["output_tokens"] for row in gateway.records(2)] == [bill.output for bill in upstream.bills]


def test_openai_async(gateway: Running, upstream: Upstream) -> None:
    async def ask() -> tuple[Any, int]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
            whole = await client.chat.completions.create(model="moderate", messages=ASK)
            stream = await client.chat.completions.create(model="auto", messages=ASK, stream=True)
            return whole.model, len([chunk async for chunk in stream])

    model, n_chunks = asyncio.run(ask())
    assert upstream.requests[0]["model"] == model
    assert n_chunks > 3


def test_a_named_model_is_accounted_and_left_alone(
    claude: anthropic.Anthropic, gateway: Running, upstream: Upstream
) -> None:
    raw = claude.messages.with_raw_response.create(model="claude-sonnet-4-6", max_tokens=50, messages=ASK)
    assert raw.headers["x-tierwise-reason"] == "explicit_model"
    assert gateway.records(1)[0]["model"] == upstream.requests[0]["model"] == "claude-sonnet-4-6"


def test_the_sdk_sees_the_providers_error(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: claude-none") as caught:
        claude.messages.create(model="claude-none", max_tokens=50, messages=ASK)
    assert caught.value.request_id


def test_models_are_listed_for_both_sdks(claude: anthropic.Anthropic, gpt: openai.OpenAI) -> None:
    of_claude = [model.id for model in claude.models.list(limit=1000)]
    assert of_claude == [model.id for model in gpt.models.list()]
    assert {"auto", "auto:economy", "simple", "claude-sonnet-4-6", "gpt-6-luna"} <= set(of_claude)
    assert gpt.models.retrieve("auto").owned_by == "tierwise"
    with pytest.raises(openai.NotFoundError):
        gpt.models.retrieve("none")


SYSTEM = [
    {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cc_entrypoint=cli;"},
    {"type": "text", "text": "You are a coding agent. " * 900, "cache_control": {"type": "ephemeral"}},
]


def test_a_session_as_claude_code_holds_it(serve: Serve, upstream: Upstream) -> None:
    """HEAD, discovery, a count, then turns with tools, streamed, on ?beta=true; claude-* is mapped to auto."""
    gateway = serve(upstream.url, models={"claude-*": "auto"})
    headers = {
        "authorization": "Bearer any",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
        "x-claude-code-session-id": "7f0c",
        "user-agent": "claude-cli/2.1 (external, cli)",
        "x-app": "cli",
    }
    body: dict[str, Any] = {
        "model": "claude-opus-4-8",
        "max_tokens": 500,
        "metadata": {"user_id": "user_1_account__session_7f0c"},
        "system": SYSTEM,
        "tools": [{"name": "Bash", "description": "Run a command.", "input_schema": TOOL}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Why does the parser test fail?"}]}],
    }
    with httpx2.Client(base_url=gateway.url, headers=headers, timeout=10) as client:
        assert client.head("/api/hello").status_code == 200
        assert client.get("/v1/models?limit=1000").json()["data"]
        to_count = {name: value for name, value in body.items() if name != "max_tokens"}
        counted = client.post("/v1/messages/count_tokens?beta=true", json=to_count)
        assert counted.json()["input_tokens"] > 1000
        upstream.scripts.append(Reply("I look.", tool_calls=(ToolCall("Bash", {"city": "ls"}),)))
        for turn in range(3):
            with client.stream("POST", "/v1/messages?beta=true", json={**body, "stream": True}) as reply:
                frames = reply.read().decode()
            assert reply.status_code == 200, frames
            assert frames.count("event: message_stop\n") == 1
            if turn == 0:
                use = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"city": "ls"}}
                result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "parser_test.py"}
                body["messages"] += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
            else:
                said = {"role": "assistant", "content": [{"type": "text", "text": "It fails on tabs."}]}
                body["messages"] += [said, {"role": "user", "content": [{"type": "text", "text": "Mend it."}]}]
    sent = [exchange for exchange in upstream.log if exchange.path == "/v1/messages?beta=true"]
    assert len(sent) == 3
    for exchange in sent:
        for name, value in headers.items():
            assert name == "authorization" or exchange.headers[name] == value
        assert exchange.body["system"][0] == SYSTEM[0]
        assert exchange.body["metadata"] == body["metadata"]
    rows = gateway.records(3)
    assert len(rows) == 3  # a count is no reply
    assert sum(row["cost_picousd"] for row in rows) == sum(int(bill.usd * 10**12) for bill in upstream.bills)
    assert rows[1]["cache_read_tokens"] + rows[2]["cache_read_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_completion_without_usage_is_estimated(
    gpt: openai.OpenAI, gateway: Running, upstream: Upstream, stream: bool
) -> None:
    upstream.scripts.append(Reply("It rains in Oslo. " * 50, has_usage=False))
    reply: Any = gpt.chat.completions.create(model="auto", messages=ASK, stream=stream)
    if stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in reply).startswith("It rains")
    (row,) = gateway.records(1)
    (bill,) = upstream.bills
    assert "usage estimated: the reply reported none" in json.loads(row["notes"])
    assert not row["usage_reported"]
    assert row["output_tokens"] == pytest.approx(bill.output, rel=0.3)
    assert row["cost_picousd"] / 1e12 == pytest.approx(float(bill.usd), rel=0.3)


def test_what_is_hardly_cached_is_said_once(
    serve: Serve, upstream: Upstream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_REFRESH_EVERY_S", 0.0)
    gateway = serve(upstream.url)
    for _ in range(25):
        gateway.post("/v1/messages", {**HELLO, "model": "simple", "router": {"traffic_class": "canary-class"}})
    wait_for(lambda: "most misses" in caplog.text)
    wait_for(lambda: gateway.records(25))
    assert caplog.text.count("on claude-haiku-4-5: 0% of input tokens read from cache; most misses: below the min") == 1
    assert "canary-class" not in caplog.text


def test_claude_codes_session_is_known_by_its_header(gateway: Running) -> None:
    """Also when the history was rewritten, as a compaction does."""
    hard = "Prove that every bipartite regular graph has a perfect matching, and that the bound is tight for trees."
    use = {"type": "tool_use", "id": "t1", "name": "run", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}
    rewritten = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    tools = [{"name": "run", "input_schema": {"type": "object"}}]
    for headers, reason in (({"x-claude-code-session-id": "s1"}, "held"), ({}, "suffices")):
        first = {**HELLO, "tools": tools, "messages": [{"role": "user", "content": hard}]}
        assert gateway.post("/v1/messages", first, headers).headers["x-tierwise-tier"] == "complex"
        reply = gateway.post("/v1/messages", {**first, "messages": rewritten}, headers)
        assert reply.headers["x-tierwise-reason"] == reason


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("streams", [False, True])
def test_curl(gateway: Running, upstream: Upstream, streams: bool) -> None:
    body = json.dumps({"model": "auto", "messages": ASK, "stream": streams})
    command = ["curl", "-sSN", "--fail", f"{gateway.url}/v1/chat/completions", "-H", "content-type: application/json"]
    said = subprocess.run([*command, "-d", body], capture_output=True, check=True, text=True).stdout
    if streams:
        *chunks, done = said.strip().split("\n\n")
        assert done == "data: [DONE]"
        deltas = [json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"] for chunk in chunks]
        text = "".join(delta.get("content") or "" for delta in deltas)
    else:
        text = json.loads(said)["choices"][0]["message"]["content"]
    assert text.startswith(f"[simulated reply of {upstream.requests[0]['model']}]")
