"""Turn two on the same model, whatever format its caller asked in and whatever they brought back."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from router import Router, Settings, Tier, catalog, complete, wrap
from router.offline import Upstream
from router.offline.replies import Reply, ToolCall
from tests.gateway.conftest import Running, Serve

FLEET = {Tier.SIMPLE: "gpt-6-luna", Tier.MODERATE: "gemini-4-argon", Tier.COMPLEX: "claude-opus-5-5"}
GENERAL = {"fleets": {"mixed": FLEET}, "fleet": "mixed"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ASK = {"role": "user", "content": "Look up the weather in Bergen and in Graz."}
THINKS = Reply(
    thinking="Both, then.", tool_calls=(ToolCall("weather", {"city": "Bergen"}), ToolCall("weather", {"city": "Graz"}))
)
TOOLS = {
    "/v1/messages": [{"name": "weather", "input_schema": SCHEMA}],
    "/v1/chat/completions": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
    "/v1/responses": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
}


@pytest.fixture
def mixed(serve: Serve, upstream: Upstream) -> Running:
    own = {
        "thinker": {
            "base_url": f"{upstream.url}/v1",
            "api_key_env": "OPENAI_API_KEY",
            "context_tokens": 100_000,
            "tools": True,
        }
    }
    upstream.models = catalog.shipped().extended({}, own)
    upstream.wants_reasoning = {"thinker"}
    return serve(
        upstream.url,
        general={**GENERAL, "models": own, "fleets": {"mixed": {**FLEET, Tier.SIMPLE: "thinker"}, "gpt": FLEET}},
    )


def asked(path: str, model: str, turns: list[Any], *, stream: bool, thinks: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "tools": TOOLS[path], "stream": stream}
    if path == "/v1/responses":
        return {
            **body,
            "input": turns,
            "store": False,
            **({"include": ["reasoning.encrypted_content"]} if thinks else {}),
        }
    if path == "/v1/messages":
        return {**body, "messages": turns, "max_tokens": 4000, **({"thinking": {"type": "adaptive"}} if thinks else {})}
    return {**body, "messages": turns}


def answered(path: str, raw: bytes, *, stream: bool) -> list[Any]:
    """The turns that a caller adds: what came, and results of the calls in it."""
    if path == "/v1/messages":
        content = _message_of(raw) if stream else json.loads(raw)["content"]
        calls = [block["id"] for block in content if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": each, "content": "rain"} for each in calls]
        return [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
    if path == "/v1/responses":
        output = _events(raw)[-1]["response"]["output"] if stream else json.loads(raw)["output"]
        calls = [item["call_id"] for item in output if item["type"] == "function_call"]
        return [*output, *({"type": "function_call_output", "call_id": each, "output": "rain"} for each in calls)]
    calls = _chat_calls(raw) if stream else json.loads(raw)["choices"][0]["message"]["tool_calls"]
    bare = [{name: call[name] for name in ("id", "type", "function")} for call in calls]  # as most clients keep them
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "rain"} for call in bare]
    return [{"role": "assistant", "content": None, "tool_calls": bare}, *results]


def _events(raw: bytes) -> list[Any]:
    lines = [line[6:] for line in raw.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _message_of(raw: bytes) -> list[Any]:
    content: list[Any] = []
    for event in _events(raw):
        if event["type"] == "content_block_start":
            content.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            delta, block = event["delta"], content[event["index"]]
            for name in ("text", "thinking", "signature"):
                if name in delta:
                    block[name] = block.get(name, "") + delta[name]
            block["json"] += delta.get("partial_json", "")
    return [
        {**{k: v for k, v in b.items() if k != "json"}, **({"input": json.loads(b["json"])} if b["json"] else {})}
        for b in content
    ]


def _chat_calls(raw: bytes) -> list[Any]:
    calls: dict[str, Any] = {}
    for event in _events(raw):
        for call in (event["choices"][0]["delta"].get("tool_calls") or ()) if event["choices"] else ():
            known = calls.setdefault(
                call.get("id") or list(calls)[-1], {**call, "function": {**call["function"], "arguments": ""}}
            )
            known["function"]["arguments"] += call["function"].get("arguments") or ""
    return list(calls.values())


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize("path", list(TOOLS))
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thinks", [False, True])
def test_three_turns_work_on_every_model(
    mixed: Running, upstream: Upstream, tier: Tier, path: str, stream: bool, thinks: bool
) -> None:
    """The upstream refuses signatures, thinking and reasoning that are missing, forged or another's."""
    upstream.reply = lambda *_: THINKS
    turns: list[Any] = [ASK]
    for _ in range(3):
        reply = mixed.post(path, asked(path, tier, turns, stream=stream, thinks=thinks))
        assert reply.status_code == 200, reply.text
        turns += answered(path, reply.content, stream=stream)
    models = {body["model"] for body in upstream.requests}
    assert models == {{"simple": "thinker", "moderate": "gemini-4-argon", "complex": "claude-opus-5-5"}[tier]}
    last = upstream.requests[-1]
    carried = {"thinker": "Both, then.", "gemini-4-argon": "thought_signature", "claude-opus-5-5": "signature"}
    assert str(last).count(carried[last["model"]]) >= 2
    if last["model"] == "gemini-4-argon":
        assert "skip_thought_signature_validator" not in str(last)


@pytest.mark.parametrize("path", list(TOOLS))
def test_a_conversation_that_moves_takes_no_state_with_it(mixed: Running, upstream: Upstream, path: str) -> None:
    """Each model in turn goes on with what the others wrote."""
    upstream.reply = lambda *_: THINKS
    turns: list[Any] = [ASK]
    for tier in (Tier.COMPLEX, Tier.MODERATE, Tier.SIMPLE, Tier.COMPLEX, Tier.MODERATE):
        if tier is Tier.SIMPLE:
            upstream.wants_reasoning = set()  # what others called was never thought of by this one
        reply = mixed.post(path, asked(path, tier, turns, stream=False, thinks=True))
        assert reply.status_code == 200, reply.text
        turns += answered(path, reply.content, stream=False)


def test_a_named_claude_is_not_sent_what_others_left_in_its_callers_history(mixed: Running, upstream: Upstream) -> None:
    upstream.scripts += [THINKS]
    first = mixed.post("/v1/messages", asked("/v1/messages", "moderate", [ASK], stream=False, thinks=True))
    assert first.json()["content"][0]["type"] == "thinking"
    turns = [ASK, *answered("/v1/messages", first.content, stream=False)]
    reply = mixed.post("/v1/messages", asked("/v1/messages", "claude-haiku-4-5", turns, stream=False, thinks=False))
    assert reply.status_code == 200, reply.text
    assert "tierwise" not in str(upstream.requests[-1])


def test_who_did_not_ask_for_thinking_sees_none(mixed: Running, upstream: Upstream) -> None:
    upstream.scripts += [Reply("Rain.", thinking="Hm."), Reply("Rain.", thinking="Hm.")]
    plain = mixed.post("/v1/messages", asked("/v1/messages", "simple", [ASK], stream=False, thinks=False)).json()
    shown = mixed.post("/v1/messages", asked("/v1/messages", "simple", [ASK], stream=False, thinks=True)).json()
    assert [block["type"] for block in plain["content"]] == ["text"]
    assert [(b["type"], b.get("thinking")) for b in shown["content"]] == [("thinking", "Hm."), ("text", None)]


@pytest.mark.parametrize("model", list(FLEET.values()))
def test_complete_brings_it_back(upstream: Upstream, model: str) -> None:
    upstream.reply = lambda *_: THINKS
    router = Router.load(config=Settings(fleets={"mixed": FLEET}, fleet="mixed"))
    with (
        anthropic.Anthropic(base_url=upstream.url, api_key="offline") as claude,
        openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as gpt,
    ):
        clients = {"anthropic": claude, "openai": gpt, "gemini": gpt}
        turns: list[Any] = [ASK]
        for _ in range(3):
            done = complete(router, turns, tools=TOOLS["/v1/messages"], model=model, max_tokens=4000, clients=clients)
            results = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in done.tool_calls]
            turns += [{"role": "assistant", "content": done.message["content"]}, {"role": "user", "content": results}]
    assert len(done.tool_calls) == 2
    last = str(upstream.requests[-1])
    assert ("signature" in last) or ("encrypted_content" in last)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fleet", [FLEET[Tier.SIMPLE], FLEET[Tier.MODERATE]])
def test_wrap_brings_it_back_to_an_openai_client(upstream: Upstream, stream: bool, fleet: str) -> None:
    """Chat Completions over Responses (gpt-6-luna), and Gemini's signatures; callers keep only the usual fields."""
    upstream.reply = lambda *_: THINKS
    config = Settings(fleets={"one": {Tier.COMPLEX: fleet}}, fleet="one")
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline", http_client=httpx2.Client()) as plain:
        client = wrap(plain, Router.load(config=config))
        turns: list[Any] = [ASK]
        for _ in range(3):
            calls: list[Any] = []
            if stream:
                raw = b"".join(
                    b"data: " + c.to_json(indent=None).encode() + b"\n\n"
                    for c in client.chat.completions.create(
                        model="auto", messages=turns, tools=TOOLS["/v1/chat/completions"], stream=True
                    )
                )  # type: ignore[call-overload]
                turns += answered("/v1/chat/completions", raw, stream=True)
                continue
            reply = client.chat.completions.create(model="auto", messages=turns, tools=TOOLS["/v1/chat/completions"])  # type: ignore[arg-type]
            calls = [call.to_dict(mode="json") for call in reply.choices[0].message.tool_calls or ()]
            bare = [{name: call[name] for name in ("id", "type", "function")} for call in calls]
            turns += [{"role": "assistant", "content": None, "tool_calls": bare},
                      *({"role": "tool", "tool_call_id": call["id"], "content": "rain"} for call in bare)]  # fmt: skip
    last = str(upstream.requests[-1])
    assert last.count("encrypted_content': '" if fleet == "gpt-6-luna" else "thought_signature") == 2
