"""What the provider is sent, for each dispatcher, format, tier and step of a conversation, beside golden_bodies.json.

After a change that is meant: `TIERWISE_WRITE_GOLDEN=1 pytest tests/gateway/test_golden_bodies.py`, and read the diff.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from router import Ledger, Router, Tier, catalog, complete, wrap
from router.offline import Upstream
from tests.conftest import Clock
from tests.gateway.conftest import Serve

GOLDEN = Path(__file__).with_name("golden_bodies.json")
SYSTEM = "You answer questions about lighthouses, briefly and kindly, and never about anything else. " * 300
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "The weather in a city.", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}}
RESPONSES_TOOL = {"type": "function", "name": "weather", "description": "The weather.", "parameters": SCHEMA}
USER = {"role": "user", "content": "Which lighthouse is the tallest?"}


def _messages_loop(n: int) -> list[Any]:
    turns: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Look up the weather in each city."}]}]
    for i in range(n):
        call = {"type": "tool_use", "id": f"toolu_{i}", "name": "weather", "input": {"city": f"City {i}"}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{i}", "content": f"Rain in city {i}. " * 40}
        turns += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return turns


def _chat_loop(n: int) -> list[Any]:
    turns: list[Any] = [{"role": "system", "content": SYSTEM}, USER]
    for i in range(n):
        arguments = json.dumps({"city": f"City {i}"})
        call = {"id": f"call_{i}", "type": "function", "function": {"name": "weather", "arguments": arguments}}
        result = {"role": "tool", "tool_call_id": f"call_{i}", "content": f"Rain in city {i}. " * 40}
        turns += [{"role": "assistant", "content": None, "tool_calls": [call]}, result]
    return turns


def _responses_loop(n: int) -> list[Any]:
    items: list[Any] = [USER]
    for i in range(n):
        call_id, arguments = f"call_{i}", json.dumps({"city": f"City {i}"})
        items += [
            {"type": "function_call", "call_id": call_id, "name": "weather", "arguments": arguments},
            {"type": "function_call_output", "call_id": call_id, "output": f"Rain in city {i}. " * 40},
        ]
    return items


EPHEMERAL = {"type": "ephemeral"}
MESSAGES: dict[str, dict[str, Any]] = {
    "plain": {"messages": [USER]},
    "system": {"system": SYSTEM, "messages": [USER]},
    "loop": {"system": SYSTEM, "tools": [TOOL], "messages": _messages_loop(12)},
    "thinking": {"system": SYSTEM, "thinking": {"type": "adaptive"}, "max_tokens": 4096, "messages": [USER]},
    "owned": {"system": [{"type": "text", "text": SYSTEM, "cache_control": EPHEMERAL}], "messages": [USER]},
    "image": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    {"type": "text", "text": "What is this?"},
                ],
            }
        ]
    },
    "sampling": {"messages": [USER], "temperature": 0.5, "stop_sequences": ["END"], "metadata": {"user_id": "u"}},
    "stream": {"system": SYSTEM, "messages": [USER], "stream": True},
}
CHAT: dict[str, dict[str, Any]] = {
    "plain": {"messages": [USER]},
    "system": {"messages": [{"role": "system", "content": SYSTEM}, USER], "max_completion_tokens": 99},
    "loop": {"messages": _chat_loop(12), "tools": [FUNCTION]},
    "no effort": {"messages": _chat_loop(2), "tools": [FUNCTION], "reasoning_effort": "none"},
    "sampling": {"messages": [USER], "temperature": 0.5, "stop": "END", "reasoning_effort": "low"},
    "stream": {"messages": [{"role": "developer", "content": SYSTEM}, USER], "stream": True},
    "stream usage": {"messages": [USER], "stream": True, "stream_options": {"include_usage": True}},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "plain": {"input": "Which lighthouse is the tallest?"},
    "instructions": {"instructions": SYSTEM, "input": [USER], "max_output_tokens": 99},
    "loop": {"instructions": SYSTEM, "input": _responses_loop(12), "tools": [RESPONSES_TOOL]},
    "stream": {"input": [{"role": "developer", "content": SYSTEM}, USER], "stream": True},
}
PATHS = {"messages": "/v1/messages", "chat": "/v1/chat/completions", "responses": "/v1/responses"}
ASKED = {"messages": MESSAGES, "chat": CHAT, "responses": RESPONSES}
CASES = [(form, name) for form, bodies in ASKED.items() for name in bodies]
TIERS = [tier.value for tier in Tier]


def steps(form: str, name: str) -> list[dict[str, Any]]:
    """The body, and the next one of its conversation."""
    body, part = ASKED[form][name], "input" if form == "responses" else "messages"
    before = body[part] if isinstance(body[part], list) else [{"role": "user", "content": body[part]}]
    after = [*before, {"role": "assistant", "content": "The one of Jeddah."}, {"role": "user", "content": "And then?"}]
    first = {"max_tokens": 512, **body} if form == "messages" else body
    return [first, {**first, part: after}]


def short(value: Any) -> Any:
    """Long texts by their hash, and of a long conversation what carries no cache field and is at neither end."""
    if isinstance(value, str):
        return value if len(value) < 60 else f"{len(value)} characters, {_hash(value)}"
    if isinstance(value, dict):
        return {key: short(inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    ends = {0, 1, 2, len(value) - 3, len(value) - 2, len(value) - 1}
    return [
        short(item) if at in ends or "cache" in str(item) else _hash(json.dumps(item)) for at, item in enumerate(value)
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def check(key: str, sent: list[Any]) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8")) if GOLDEN.exists() else {}
    found = short(sent)
    if os.environ.get("TIERWISE_WRITE_GOLDEN"):
        lines = {name: json.dumps(kept, sort_keys=True) for name, kept in sorted({**golden, key: found}.items())}
        text = ",\n".join(f"{json.dumps(name)}: {line}" for name, line in lines.items())
        GOLDEN.write_text(f"{{\n{text}\n}}\n", "utf-8")
        return
    assert found == golden[key]


@pytest.fixture
def models() -> catalog.Catalog:
    llama = {"base_url": "http://localhost:9/v1", "context_tokens": 32_768, "tools": True, "price": {"input": "0.01"}}
    fleet = {Tier.SIMPLE: "my-llama", Tier.MODERATE: "gpt-6.1-terra", Tier.COMPLEX: "claude-opus-4-7"}
    return catalog.shipped().extended({"mine": fleet}, {"my-llama": llama})


@pytest.fixture
def upstream(clock: Clock, models: catalog.Catalog) -> Iterator[Upstream]:
    with Upstream(clock=clock, models=models) as running:
        yield running


def taken(upstream: Upstream, n_before: int) -> list[Any]:
    """What came since; an error's repetitions count."""
    return list(upstream.requests[n_before:])


@pytest.mark.parametrize("tier", [*TIERS, "auto"])
@pytest.mark.parametrize(("form", "name"), CASES)
def test_gateway(serve: Serve, upstream: Upstream, form: str, name: str, tier: str) -> None:
    llama = {"base_url": f"{upstream.url}/v1", "context_tokens": 32_768, "tools": True, "api_key_env": "OPENAI_API_KEY"}
    fleet = {Tier.SIMPLE: "my-llama", Tier.MODERATE: "gpt-6.1-terra", Tier.COMPLEX: "claude-opus-4-7"}
    general = {"fleets": {"mine": fleet}, "models": {"my-llama": llama}, "fleet": "mine"}
    gateway = serve(upstream.url, general=general, max_retries=0)
    told: list[Any] = []
    for body in steps(form, name):
        before = len(upstream.requests)
        reply = gateway.post(PATHS[form], {"model": tier, **body})
        told += [reply.status_code, reply.headers.get("x-tierwise-reason"), *taken(upstream, before)]
    check(f"gateway, {form}, {name}, {tier}", told)


@pytest.mark.parametrize("model", ["claude-opus-4-7", "gpt-6.1-terra", "gemini-3.8-flash", "gpt-4o"])
@pytest.mark.parametrize(("form", "name"), CASES)
def test_gateway_with_a_named_model(serve: Serve, upstream: Upstream, form: str, name: str, model: str) -> None:
    gateway = serve(upstream.url, max_retries=0)
    before = len(upstream.requests)
    reply = gateway.post(PATHS[form], {"model": model, **steps(form, name)[0]})
    check(f"gateway, {form}, {name}, {model}", [reply.status_code, *taken(upstream, before)])


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/responses/input_tokens"])
@pytest.mark.parametrize("model", [*TIERS, "auto"])
def test_gateway_counts(serve: Serve, upstream: Upstream, path: str, model: str) -> None:
    gateway = serve(upstream.url, max_retries=0)
    form = "messages" if "messages" in path else "responses"
    body = {key: value for key, value in steps(form, "loop")[0].items() if "max" not in key}
    before = len(upstream.requests)
    reply = gateway.post(path, {"model": model, **body})
    check(f"gateway, {path}, {model}", [reply.status_code, *taken(upstream, before)])


@pytest.mark.parametrize("tier", [*TIERS, "auto"])
@pytest.mark.parametrize(("form", "name"), CASES)
def test_wrapped_client(shipped: Router, clock: Clock, upstream: Upstream, form: str, name: str, tier: str) -> None:
    models = catalog.shipped()
    fleet = models.fleet("claude" if form == "messages" else "gpt")
    router = Router(shipped.policy.champion, models, fleet, clock=clock, store=Ledger())
    client: Any = (
        anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0)
        if form == "messages"
        else openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0)
    )
    bounds = {} if tier == "auto" else {"router": {"min_tier": tier, "max_tier": tier}}
    told: list[Any] = []
    with client:
        routed = wrap(client, router)
        resource = {"messages": routed.messages if form == "messages" else None}
        resource |= {} if form == "messages" else {"chat": routed.chat.completions, "responses": routed.responses}
        for body in steps(form, name):
            before = len(upstream.requests)
            try:
                typed = {key: value for key, value in body.items() if form != "messages" or key != "temperature"}
                untyped = {key: value for key, value in body.items() if key not in typed}  # the SDK lost this one
                reply = resource[form].create(model="auto", **typed, extra_body={**bounds, **untyped})
                if body.get("stream"):
                    list(reply)
                told += [routed.last_record.reason.value]
            except (anthropic.APIError, openai.APIError) as error:
                told += [type(error).__name__]
            told += taken(upstream, before)
    check(f"wrap, {form}, {name}, {tier}", told)


@pytest.mark.parametrize("tier", [*TIERS, "auto"])
@pytest.mark.parametrize("name", [name for name in MESSAGES if name != "stream"])
def test_complete(
    shipped: Router, clock: Clock, upstream: Upstream, models: catalog.Catalog, name: str, tier: str
) -> None:
    router = Router(shipped.policy.champion, models, models.fleet("mine"), clock=clock, store=Ledger())
    bounds = {} if tier == "auto" else {"min_tier": tier, "max_tier": tier}
    told: list[Any] = []
    with (
        anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0) as claude,
        openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as gpt,
    ):
        clients = {"anthropic": claude, "openai": gpt, "my-llama": gpt}
        for body in steps("messages", name):
            before = len(upstream.requests)
            asked = dict(body)
            try:
                answer = complete(router, asked.pop("messages"), clients=clients, max_retries=0, router=bounds, **asked)
                told += [answer.record.reason.value if answer.record else None]
            except (anthropic.APIError, openai.APIError, httpx2.HTTPError, ValueError) as error:
                told += [type(error).__name__]
            told += taken(upstream, before)
    check(f"complete, {name}, {tier}", told)
