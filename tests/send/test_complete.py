"""complete() over sockets: one fleet, three providers, a model of one's own; each through its real SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from openai.types.responses import ResponseCreateParams
from pydantic import TypeAdapter

from router import ClientError, Ledger, Reason, RequestError, Router, Tier, TierwiseError, Usage, catalog
from router.formats import chat_on_responses
from router.offline import Failure, Upstream
from router.send import faults
from router.send.complete import Completion, complete, complete_async
from tests.formats.test_messages_chat import read_all

RESPONSES_TYPE: Any = TypeAdapter(ResponseCreateParams)
SYSTEM = "You answer questions about lighthouses, briefly and kindly, and never about anything else. " * 300
TOOL = {"name": "weather", "description": "The weather.", "input_schema": {"type": "object", "properties": {}}}
SIMPLE, MODERATE, COMPLEX = "my-llama", "gpt-6.1-terra", "claude-opus-4-7"
LLAMA = {
    "base_url": "http://localhost:9/v1",
    "context_tokens": 32_768,
    "tools": True,
    "price": {"input": "0.01", "output": "0.02"},
}
MODELS = catalog.shipped().extended(
    {"mine": {Tier.SIMPLE: SIMPLE, Tier.MODERATE: MODERATE, Tier.COMPLEX: COMPLEX}}, {SIMPLE: LLAMA}
)


@pytest.fixture
def upstream(clock: Any) -> Iterator[Upstream]:
    with Upstream(clock=clock, models=MODELS) as running:
        yield running


@pytest.fixture
def mixed(shipped: Router, clock: Any) -> Router:
    return Router(shipped.policy.champion, MODELS, MODELS.fleet("mine"), clock=clock, store=Ledger())


@pytest.fixture
def clients(upstream: Upstream) -> Iterator[dict[str, Any]]:
    with (
        anthropic.Anthropic(base_url=upstream.url, api_key="offline") as claude,
        openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as gpt,
    ):
        yield {"anthropic": claude, "openai": gpt, SIMPLE: gpt}


@pytest.mark.parametrize(("tier", "model"), [("simple", SIMPLE), ("moderate", MODERATE), ("complex", COMPLEX)])
def test_every_tier_answers_in_one_form(
    mixed: Router, upstream: Upstream, clients: dict[str, Any], tier: str, model: str
) -> None:
    asked = {"min_tier": tier, "max_tier": tier}
    answer = complete(mixed, "hi", system=SYSTEM, clients=clients, router=asked, stop_sequences=["END"])
    assert answer.text.startswith(f"[simulated reply of {model}]")
    assert answer.record is not None
    assert (answer.record.model, answer.record.tier) == (model, tier)
    bill = upstream.bills[-1]
    assert answer.cost_usd == answer.record.cost_usd == bill.usd > 0
    usage = answer.usage
    assert (usage.fresh_tokens, usage.cache_read_tokens, usage.output_tokens) == (bill.fresh, bill.read, bill.output)
    assert usage.cache_write_short_tokens == bill.write_short
    sent = upstream.requests[-1]
    assert "router" not in sent
    assert sent.get("stop", sent.get("stop_sequences")) == ["END"]
    assert type(answer.raw).__name__ == ("Message" if model == COMPLEX else "ChatCompletion")
    assert mixed.accounts.store is not None
    assert mixed.accounts.store.by_model()[0]["n_requests"] == 1


def test_a_conversation_goes_on_with_another_provider(
    mixed: Router, upstream: Upstream, clients: dict[str, Any]
) -> None:
    turns: list[Any] = [{"role": "user", "content": "hi"}]
    for tier in ("complex", "simple", "moderate"):
        answer = complete(mixed, turns, clients=clients, router={"min_tier": tier, "max_tier": tier})
        turns += [{"role": "assistant", "content": answer.message["content"]}, {"role": "user", "content": "and?"}]
    assert [m["role"] for m in upstream.requests[-1]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert upstream.requests[-1]["messages"][1]["content"].startswith(f"[simulated reply of {COMPLEX}]")


def test_gpt_caches_where_placement_chose_to(
    shipped: Router, clock: Any, upstream: Upstream, clients: dict[str, Any]
) -> None:
    router = shipped.with_fleet("gpt", clock=clock)
    asked = {"min_tier": "moderate", "max_tier": "moderate"}
    first, second = (complete(router, "hi", system=SYSTEM, clients=clients, router=asked) for _ in range(2))
    assert first.usage.cache_write_short_tokens > 4000 < second.usage.cache_read_tokens
    assert upstream.requests[0]["prompt_cache_key"] == upstream.requests[1]["prompt_cache_key"]


def test_what_a_model_rejects_is_adapted_and_noted(mixed: Router, upstream: Upstream, clients: dict[str, Any]) -> None:
    for tier, kept in (("simple", True), ("moderate", False), ("complex", False)):
        asked = {"min_tier": tier, "max_tier": tier}
        answer = complete(mixed, "hi", clients=clients, router=asked, temperature=0.2)
        assert ("temperature" in upstream.requests[-1]) == kept
        assert any("temperature dropped" in note for note in answer.record.notes if answer.record) != kept
    assert "max_tokens" in upstream.requests[0]
    assert "max_completion_tokens" in upstream.requests[1]


def test_a_lasting_fault_goes_up_to_another_provider(
    monkeypatch: pytest.MonkeyPatch, mixed: Router, upstream: Upstream, clients: dict[str, Any]
) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.001)
    upstream.failures += [Failure(503, "api_error", model=SIMPLE)] * 3 + [Failure(429, "x", model=MODERATE)] * 3
    answer = complete(mixed, "hi", clients=clients)
    assert [request["model"] for request in upstream.requests] == [SIMPLE] * 3 + [MODERATE] * 3 + [COMPLEX]
    assert answer.record is not None
    assert (answer.record.model, answer.record.reason) == (COMPLEX, Reason.PROVIDER_FAULT)
    assert any(note.startswith(f"{SIMPLE} failed 3 times: 503") for note in answer.record.notes)
    upstream.failures += [Failure(529)] * 20
    with pytest.raises(anthropic.APIStatusError):
        complete(mixed, "hi", clients=clients, max_retries=0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"], ids=["refused", "dns"])
def test_without_a_connection_another_address_is_asked(
    monkeypatch: pytest.MonkeyPatch, shipped: Router, clock: Any, clients: dict[str, Any], url: str
) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.001)
    fleet = {Tier.SIMPLE: "gpt-4o-mini", Tier.MODERATE: "gpt-4o", Tier.COMPLEX: COMPLEX}
    models = catalog.shipped().extended({"mine": fleet})
    router = Router(shipped.policy.champion, models, models.fleet("mine"), clock=clock)
    with openai.OpenAI(base_url=url, api_key="offline") as nowhere:
        reached = {"anthropic": clients["anthropic"], "openai": nowhere}
        answer = complete(router, "hi", clients=reached, max_retries=1)
        assert answer.record is not None
        assert (answer.record.model, answer.record.reason) == (COMPLEX, Reason.PROVIDER_FAULT)
        assert answer.record.notes == (
            "gpt-4o-mini failed 2 times: no connection",
            *["gpt-4o-mini: no connection"] * 2,
        )
        with pytest.raises(openai.APIConnectionError):
            complete(router, "hi", clients=reached, max_retries=0, router={"max_tier": "moderate"})


def test_errors_that_are_the_callers_are_not_tried_elsewhere(
    mixed: Router, upstream: Upstream, clients: dict[str, Any]
) -> None:
    upstream.failures.append(Failure(400, "invalid_request_error"))
    with pytest.raises(openai.BadRequestError):
        complete(mixed, "hi", clients=clients)
    assert len(upstream.requests) == 1


def test_what_a_format_cannot_say_goes_up_to_a_model_that_reads_it(
    mixed: Router, upstream: Upstream, clients: dict[str, Any]
) -> None:
    file = {"type": "document", "source": {"type": "file", "file_id": "f"}}
    turn: Any = [{"role": "user", "content": [{"type": "text", "text": "hi"}, file]}]
    answer = complete(mixed, turn, clients=clients)
    assert upstream.requests[-1]["model"] == COMPLEX
    assert answer.record is not None
    assert any("a block of type 'document' from a file" in note for note in answer.record.notes)
    with pytest.raises(RequestError, match="no tier from the lowest to simple can take"):
        complete(mixed, turn, clients=clients, router={"max_tier": "simple"})
    with pytest.raises(RequestError, match="a block of type 'document' from a file"):
        complete(mixed, turn, clients=clients, model="gpt-4o")


def test_an_explicit_model_is_only_accounted(mixed: Router, upstream: Upstream, clients: dict[str, Any]) -> None:
    answer = complete(mixed, "hi", model="gpt-4o", clients=clients)
    assert upstream.requests[-1]["model"] == "gpt-4o"
    assert answer.record is not None
    assert answer.record.reason is Reason.EXPLICIT_MODEL
    with pytest.raises(ClientError, match="who serves the model 'gpt-9'"):
        complete(mixed, "hi", model="gpt-9", clients=clients)


def test_async(mixed: Router, upstream: Upstream) -> None:
    async def main() -> list[Completion]:
        async with (
            anthropic.AsyncAnthropic(base_url=upstream.url, api_key="offline") as claude,
            openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as gpt,
        ):
            clients = {"anthropic": claude, "openai": gpt, catalog.COMPATIBLE: gpt}
            calls = [
                complete_async(mixed, "hi", clients=clients, router={"min_tier": tier, "max_tier": tier})
                for tier in ("simple", "moderate", "complex")
            ]
            return await asyncio.gather(*calls)

    answers = asyncio.run(main())
    assert [answer.record.model for answer in answers if answer.record] == [SIMPLE, MODERATE, COMPLEX]


def test_missing_keys_are_named_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, mixed: Router, clients: dict[str, Any], upstream: Upstream
) -> None:
    with pytest.raises(ClientError, match=f"set OPENAI_API_KEY, ANTHROPIC_API_KEY .* for {MODERATE}"):
        complete(mixed, "hi")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    with pytest.raises(ClientError, match="set OPENAI_API_KEY in") as caught:
        complete(mixed, "hi", clients={SIMPLE: clients[SIMPLE]})
    assert "sk-secret" not in str(caught.value)
    assert upstream.requests == []


@pytest.mark.parametrize("wrong", ["async", "wrapped"])
def test_wrong_clients_are_named(mixed: Router, upstream: Upstream, clients: dict[str, Any], wrong: str) -> None:
    from router import wrap

    if wrong == "async":
        client: Any = openai.AsyncOpenAI(base_url=upstream.url, api_key="k")
    else:
        client = wrap(clients["openai"])
    with pytest.raises(ClientError, match="expected a sync client" if wrong == "async" else "a wrapped client"):
        complete(mixed, "hi", clients={**clients, "openai": client})


def test_clients_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, shipped: Router, upstream: Upstream, clock: Any
) -> None:
    """And a key reaches its provider alone."""
    table = {**LLAMA, "base_url": f"{upstream.url}/v1", "api_key_env": "LLAMA_KEY"}
    models = catalog.shipped().extended({"mine": {Tier.SIMPLE: SIMPLE, Tier.COMPLEX: COMPLEX}}, {SIMPLE: table})
    router = Router(shipped.policy.champion, models, models.fleet("mine"), clock=clock)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-a")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.url)
    with pytest.raises(ClientError, match=f"LLAMA_KEY for {SIMPLE}"):
        complete(router, "hi")
    monkeypatch.setenv("LLAMA_KEY", "sk-llama")
    made = []
    for sdk in (anthropic.Anthropic, openai.OpenAI):
        original = sdk.__init__
        monkeypatch.setattr(
            sdk, "__init__", lambda self, _init=original, **kwargs: (made.append(self), _init(self, **kwargs))[1]
        )
    for tier in ("simple", "complex"):
        for _ in range(2):
            complete(router, "hi", router={"min_tier": tier, "max_tier": tier})
    assert [(type(client).__name__, client.api_key) for client in made] == [
        ("OpenAI", "sk-llama"),
        ("Anthropic", "sk-a"),
    ]
    for client in made:
        client.close()


COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1795348800,
    "model": MODERATE,
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Lima"}'},
                    }
                ],
            },
        }
    ],
    "usage": {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35},
}


RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1795348800,
    "model": MODERATE,
    "status": "completed",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {
            "id": "fc_1",
            "type": "function_call",
            "call_id": "call_1",
            "name": "weather",
            "arguments": '{"city":"Lima"}',
            "status": "completed",
        },
    ],
    "usage": {
        "input_tokens": 3000,
        "input_tokens_details": {
            "cached_tokens": 1000,
            "cache_write_tokens": 1900,
            "cache_write_tokens_details": {"ttl_30m_tokens": 1500, "ttl_12h_tokens": 400},
        },
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 3005,
    },
}


def answering(reply: dict[str, Any], seen: list[Any]) -> Any:
    """An openai client whose every call gets `reply`; what it sent is appended to `seen`."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append({"path": request.url.path, **json.loads(request.content)})
        return httpx2.Response(200, json=reply)

    return openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(handle)))


def test_tools_of_a_reasoning_model_go_over_responses(mixed: Router) -> None:
    seen: list[Any] = []
    with answering(RESPONSE, seen) as gpt:
        image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
        turns: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "What is the weather here?"}, image]}]
        options: dict[str, Any] = {
            "tools": [TOOL],
            "tool_choice": {"type": "tool", "name": "weather"},
            "output_config": {"effort": "high"},
            "stop_sequences": ["END"],
            "system": "Be brief.",
            "model": MODERATE,
            "clients": {"openai": gpt},
        }
        answer = complete(mixed, turns, **options)
        (call,) = answer.tool_calls
        assert (answer.text, call.id, call.name, call.arguments) == ("", "call_1", "weather", {"city": "Lima"})
        assert answer.message["stop_reason"] == "tool_use"
        assert answer.usage == Usage(100, 1000, 1500, 400, 5)
        assert answer.record is not None
        assert answer.record.notes == ("stop dropped: Responses has no such field",)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        turns += [{"role": "assistant", "content": answer.message["content"]}, {"role": "user", "content": [result]}]
        complete(mixed, turns, **options)
    assert seen[1]["path"] == "/v1/responses"
    read_all(RESPONSES_TYPE.validate_python({k: v for k, v in seen[1].items() if k != "path"}))
    assert seen[1]["input"][0] == {"role": "system", "content": "Be brief."}
    assert (seen[1]["reasoning"], seen[1]["store"]) == ({"effort": "high"}, False)
    assert seen[1]["tool_choice"] == {"type": "function", "name": "weather"}
    assert [part["type"] for part in seen[1]["input"][1]["content"]] == ["input_text", "input_image"]
    assert seen[1]["input"][2:] == [
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Lima"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    ]


@pytest.mark.parametrize(
    ("changes", "stop", "text"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "max_tokens", "So"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refusal", "So"),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "refusal", "No."),
        ({}, "end_turn", "So"),
    ],
)
def test_why_a_response_stopped(changes: dict[str, Any], stop: str, text: str) -> None:
    content = changes.pop("content", [{"type": "output_text", "text": "So", "annotations": []}])
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    message = chat_on_responses.to_message({**RESPONSE, "output": [item], "usage": None, **changes})
    assert (message["stop_reason"], message["content"]) == (stop, [{"type": "text", "text": text}])
    with pytest.raises(TierwiseError, match=f"{MODERATE} failed: the server had an error"):
        chat_on_responses.to_message({**RESPONSE, "status": "failed", "error": {"message": "the server had an error"}})


def test_tools(mixed: Router) -> None:
    seen: list[Any] = []
    with answering(COMPLETION, seen) as gpt:
        turns: list[Any] = [{"role": "user", "content": "What is the weather in Lima?"}]
        asked: dict[str, Any] = {"tools": [TOOL], "tool_choice": {"type": "any"}, "model": "gpt-4o"}
        answer = complete(mixed, turns, clients={"openai": gpt}, **asked)
        (call,) = answer.tool_calls
        assert (answer.text, call.id, call.name, call.arguments) == ("", "call_1", "weather", {"city": "Lima"})
        assert answer.message["stop_reason"] == "tool_use"
        assert seen[0]["tool_choice"] == "required"
        assert seen[0]["tools"][0]["function"]["parameters"] == TOOL["input_schema"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        turns += [{"role": "assistant", "content": answer.message["content"]}, {"role": "user", "content": [result]}]
        complete(mixed, turns, clients={"openai": gpt}, **asked)
    assert seen[1]["messages"][1]["tool_calls"] == COMPLETION["choices"][0]["message"]["tool_calls"]
    assert seen[1]["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
