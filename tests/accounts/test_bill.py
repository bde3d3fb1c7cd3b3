"""What a bill holds beside the token counts: bodies of usage in three formats, whole, as SDK objects and streamed."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from anthropic.types.beta import BetaMessage
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from router import Api, Router, Usage, catalog
from router.accounts.baseline import Baseline
from router.accounts.bill import Bill, bill, cost
from router.accounts.ledger import modifiers
from router.formats import usage as usages

SHIPPED = catalog.shipped()
MODELS = SHIPPED.models
TODAY = dt.date(2026, 11, 26)
NOW = 1795694400.0
TYPES: dict[Api, Any] = {Api.MESSAGES: BetaMessage, Api.CHAT: ChatCompletion, Api.RESPONSES: Response}

MESSAGE: dict[str, Any] = {"input_tokens": 1000, "output_tokens": 100}
CHAT: dict[str, Any] = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
RESPONSE: dict[str, Any] = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
SEARCH = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
COMPACTED = [
    {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
    {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
]
ADVISED = [
    {"type": "message", "input_tokens": 412, "output_tokens": 89},
    {"type": "advisor_message", "model": "claude-opus-4-7", "input_tokens": 823, "output_tokens": 1612},
    {"type": "message", "input_tokens": 1348, "cache_read_input_tokens": 412, "output_tokens": 442},
]


def message(model: str, usd: str | None, note: str = "", reply: Any = None, **more: Any) -> Any:
    return pytest.param(
        Api.MESSAGES, model, {"usage": {**MESSAGE, **more}, **(reply or {})}, usd, note, id=note or model
    )


def chat(model: str, usd: str | None, note: str = "", reply: Any = None, **more: Any) -> Any:
    return pytest.param(Api.CHAT, model, {"usage": {**CHAT, **more}, **(reply or {})}, usd, note)


def response(model: str, usd: str | None, note: str = "", reply: Any = None, **more: Any) -> Any:
    return pytest.param(Api.RESPONSES, model, {"usage": {**RESPONSE, **more}, **(reply or {})}, usd, note)


# USD by hand, from the prices of the pages that catalog.toml names.
BODIES = [
    message("claude-opus-4-7", "0.0075"),
    message("claude-opus-4-7", "0.0075", service_tier="standard", speed="standard", inference_geo="not_available"),
    message("claude-opus-4-7", "0.0575", "5 calls of web_search: $0.05", server_tool_use={"web_search_requests": 5}),
    message("claude-opus-4-7", "0.0075", server_tool_use={"web_search_requests": 0, "web_fetch_requests": 3}),
    message("claude-opus-4-7", None, "2 calls of code_execution", server_tool_use={"code_execution_requests": 2}),
    message("claude-opus-4-8", "0.015", "speed fast: x2", speed="fast"),
    message("claude-opus-5-5", "0.0132", "geo us: x1.1", speed="fast", inference_geo="us"),
    message("claude-sonnet-5-5", None, "no price for speed fast on claude-sonnet-5-5", speed="fast"),
    message("claude-opus-4-7", "0.00825", "geo us: x1.1", inference_geo="us"),
    message("claude-opus-4-7", None, "geo eu", inference_geo="eu"),
    message("claude-haiku-4-5", None, "geo us", inference_geo="us"),
    message("claude-opus-4-7", None, "service_tier priority", service_tier="priority"),
    message(
        "claude-opus-4-7",
        "0.01375",
        "batch: half the price",
        service_tier="batch",
        server_tool_use={"web_search_requests": 1},
    ),
    message(
        "claude-sonnet-4-6",
        "0.6765",
        "compaction on claude-sonnet-4-6, $0.5925",
        input_tokens=23_000,
        output_tokens=1000,
        iterations=COMPACTED,
    ),
    message("claude-opus-4-7", "0.0075", iterations=[{"type": "message", **MESSAGE}]),
    message(
        "claude-haiku-4-5",
        "0.0488712",
        "advisor_message on claude-opus-4-7, $0.044415",
        input_tokens=412,
        output_tokens=531,
        iterations=ADVISED,
    ),
    message(
        "claude-haiku-4-5",
        None,
        "advisor_message of claude-9",
        iterations=[{"type": "advisor_message", "model": "claude-9", **MESSAGE}],
    ),
    message(
        "claude-opus-5-5",
        None,
        "fallback_message",
        iterations=[{"type": "fallback_message", "model": "claude-opus-4-8", **MESSAGE}],
    ),
    message("claude-opus-4-8", None, "fallback credit", fallback_credit={"status": {"type": "redeemed"}}),
    message("claude-opus-4-8", "0.0075", fallback_credit={"status": {"type": "not_applied", "reason": "expired"}}),
    message("claude-opus-4-7", "0.0075", "unknown usage field quantum_tokens", quantum_tokens=7),
    message("claude-opus-4-7", "0.0075", quantum_tokens=0, new_switch=True, new_name="fast"),
    message(
        "claude-opus-4-7",
        "0.0075",
        "unknown usage field cache_creation.ephemeral_24h_input_tokens",
        cache_creation={"ephemeral_24h_input_tokens": 9},
    ),
    message(
        "claude-opus-4-7",
        "0.02375",
        cache_creation={"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 1000},
    ),
    message("claude-opus-4-7", "0.0075", "code execution", {"container": {"id": "c_1", "expires_at": "2026"}}),
    chat("gpt-5.4", "0.004", reply={"service_tier": "default"}),
    chat("gpt-5.4", "0.004", reply={"service_tier": "auto"}),
    chat("gpt-5.4", "0.002", "service_tier flex: x0.5", {"service_tier": "flex"}),
    chat("gpt-5.4", "0.001552", "flex", {"service_tier": "flex"}, prompt_tokens_details={"cached_tokens": 400}),
    chat("gpt-5.4", "0.008", "service_tier priority: x2", {"service_tier": "priority"}),
    chat("gpt-5.4", "0.008", "service_tier fast: x2", {"service_tier": "fast"}),
    chat("gpt-5.5", "0.02", "service_tier priority: x2.5", {"service_tier": "priority"}),
    chat("gpt-5.5", None, "priority", {"service_tier": "priority"}, prompt_tokens=272_001, total_tokens=272_101),
    chat("gpt-4o-mini", "0.00035", "a price of its own", {"service_tier": "priority"}),
    chat("gpt-4o", None, "service_tier flex on gpt-4o", {"service_tier": "flex"}),
    chat("gpt-5.4", None, "service_tier scale", {"service_tier": "scale"}),
    chat("gemini-4-argon", "0.0054", "service_tier priority: x1.8", {"service_tier": "priority"}),
    chat("gpt-5.4", "0.0031", prompt_cache_hit_tokens=400, prompt_cache_miss_tokens=600),
    chat("gpt-5.4", "0.0031", cached_tokens=400),
    chat(
        "gpt-5.4",
        "0.0013",
        "leaves out what was cached",
        prompt_tokens=300,
        completion_tokens=20,
        total_tokens=1320,
        prompt_tokens_details={"cached_tokens": 1000},
    ),
    chat(
        "gpt-5.4",
        "0.0019",
        "leaves out what was cached",
        prompt_tokens=600,
        completion_tokens=20,
        total_tokens=1020,
        prompt_tokens_details={"cached_tokens": 400},
    ),
    chat(
        "gemini-3.8-flash",
        "0.004953",
        "283 tokens are in the total alone",
        prompt_tokens=1469,
        completion_tokens=744,
        total_tokens=2496,
    ),
    chat("gpt-5.4", None, "audio input", prompt_tokens_details={"audio_tokens": 30}),
    chat("gpt-5.4", "0.004", "unknown usage field num_sources_used", num_sources_used=3),
    chat("gpt-5.4", "0.004", queue_time=0.02, completion_tokens_details={"reasoning_tokens": 90}),
    chat(
        "gpt-4o",
        None,
        "web searches",
        {"choices": [{"message": {"content": "x", "annotations": [{"type": "url_citation"}]}}]},
    ),
    response("gpt-6.1-sol", "0.003", reply={"service_tier": "default", "output": [{"type": "message", "content": []}]}),
    response("gpt-6.1-sol", "0.018", "service_tier ultrafast: x6", {"service_tier": "ultrafast"}),
    response("gpt-6.2-sol", None, "service_tier ultrafast", {"service_tier": "ultrafast"}),
    response(
        "gpt-6.1-sol",
        "0.0215",
        "2 calls of web_search",
        {
            "service_tier": "flex",
            "output": [
                SEARCH,
                SEARCH,
                {**SEARCH, "action": {"type": "open_page"}},
                {**SEARCH, "status": "failed"},
            ],
        },
    ),
    response("gpt-4o", "0.0285", "web_search_preview", {"output": [SEARCH], "tools": [{"type": "web_search_preview"}]}),
    response("gpt-6.1-sol", "0.013", "4 calls of file_search", {"output": [{"type": "file_search_call"}] * 4}),
    response("gpt-6.1-sol", None, "code_interpreter", {"output": [{"type": "code_interpreter_call"}]}),
    response("gpt-6.1-sol", "0.003", "unknown usage field x", x={"y": 1.5}),
]


def streamed(api: Api, reply: dict[str, Any]) -> list[dict[str, Any]]:
    """The reply as a stream tells it: counts in the first event, zeros or nothing for them in the last."""
    usage = reply["usage"]
    if api is Api.RESPONSES:
        created = {"type": "response.created", "response": {"usage": None}}
        return [created, {"type": "response.completed", "response": reply}]
    if api is Api.CHAT:
        said = {name: value for name, value in reply.items() if name not in ("usage", "choices")}
        notes = [
            {"choices": [{"delta": choice["message"]}], "usage": None, **said} for choice in reply.get("choices", [])
        ]
        zeros = {**dict.fromkeys(usage, 0), "completion_tokens": 0}
        return [{"choices": [], "usage": None, **said}, *notes, {"choices": [], "usage": usage}, {"usage": zeros}]
    late = {name: usage[name] for name in ("iterations", "server_tool_use", "output_tokens") if name in usage}
    start = {**{name: value for name, value in usage.items() if name not in late}, "output_tokens": 1}
    delta = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": None, **late}
    told = {"stop_reason": "end_turn", "container": reply.get("container")}
    return [
        {"type": "message_start", "message": {"usage": start}},
        {"type": "message_delta", "delta": told, "usage": delta},
    ]


@pytest.mark.parametrize(("api", "model", "reply", "usd", "note"), BODIES)
def test_a_reply_is_billed_whole(api: Api, model: str, reply: dict[str, Any], usd: str | None, note: str) -> None:
    meter = usages.Meter(api)
    for event in streamed(api, reply):
        meter.add(event)
    read = usages.read_usage(reply, api)
    for usage in (read, usages.read_usage(TYPES[api].construct(**reply), api), meter.usage()):
        billed = bill(usage, MODELS[model], TODAY, SHIPPED.find)
        assert billed.usd == (None if usd is None else Decimal(usd)), billed
        assert note in "; ".join(billed.notes)
        assert bool(billed.notes) == bool(note)
        assert msgspec.json.decode(msgspec.json.encode(usage), type=Usage) == usage


@pytest.mark.parametrize(("api", "model", "reply", "usd", "note"), BODIES)
def test_on_the_same_model_the_baseline_is_the_bill(
    api: Api, model: str, reply: dict[str, Any], usd: str | None, note: str
) -> None:
    """With nothing cached, a call on the top model saves nothing, whatever was not plain about it."""
    usage = usages.read_usage(reply, api)
    if usd is None or usage.fresh_tokens != usage.input_tokens:
        return
    baseline = Baseline(MODELS[model]).cost(usage, "", 0, NOW, answered=MODELS[model], find=SHIPPED.find)
    assert baseline == Decimal(usd), note


FLEX = Usage(1000, output_tokens=100, service_tier="flex")


@pytest.mark.parametrize(
    ("answered", "top", "usage", "plain", "usd"),
    [
        ("gpt-6-luna", "gpt-6.1-sol", FLEX, "0.003", "0.0015"),
        ("gpt-6-luna", "claude-opus-4-7", FLEX, "0.0075", "0.00375"),
        ("gpt-4o-mini", "claude-opus-4-7", Usage(1000, output_tokens=100, service_tier="priority"), "0.0075", "0.0125"),
        ("claude-opus-5-5", "claude-opus-4-7", Usage(1000, output_tokens=100, speed="fast"), "0.0075", "0.015"),
        (
            "claude-haiku-5-5",
            "gpt-6.1-sol",
            Usage(1000, output_tokens=100, calls=(("web_fetch", 2),)),
            "0.003",
            "0.003",
        ),
        (
            "gpt-6-luna",
            "claude-opus-4-7",
            Usage(1000, output_tokens=100, calls=(("file_search", 2),)),
            "0.0075",
            "0.0125",
        ),
    ],
)
def test_the_baseline_has_the_same_tier_tools_and_place(
    answered: str, top: str, usage: Usage, plain: str, usd: str
) -> None:
    assert cost(Usage(1000, output_tokens=100), MODELS[top], TODAY) == Decimal(plain)
    found = Baseline(MODELS[top]).cost(usage, "", 0, NOW, answered=MODELS[answered], find=SHIPPED.find)
    assert found is not None
    assert found.quantize(Decimal("1e-9")) == Decimal(usd)


def test_a_compaction_is_the_top_models_on_the_baseline_and_an_advisor_its_own() -> None:
    usage = usages.read_usage({"usage": {**MESSAGE, "iterations": [*COMPACTED[:1], ADVISED[1]]}}, Api.MESSAGES)
    found = Baseline(MODELS["claude-opus-4-7"]).cost(
        usage, "", 0, NOW, answered=MODELS["claude-haiku-4-5"], find=MODELS.get
    )
    assert found == Decimal("0.0075") + Decimal("0.9875") + Decimal("0.044415")


COUNTS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
counts = st.fixed_dictionaries({name: st.integers(0, 10_000) for name in COUNTS})


@settings(deadline=None)
@given(counts, st.sets(st.sampled_from(COUNTS)), st.sampled_from([0, None, "absent"]))
def test_no_event_takes_back_what_another_said(said: dict[str, int], late: set[str], nothing: Any) -> None:
    """Each count is in one of two events, and the other says 0, null or nothing of it."""
    events: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, count in said.items():
        events[name in late][name] = count
        if nothing != "absent":
            events[name not in late][name] = nothing
    meter = usages.Meter(Api.MESSAGES)
    meter.add({"type": "message_start", "message": {"usage": events[0]}})
    meter.add({"type": "message_delta", "usage": events[1]})
    meter.add({"type": "message_delta", "usage": {"output_tokens": 0}})
    assert meter.usage() == usages.read_usage({"usage": said}, Api.MESSAGES)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [{"delta": {}, "finish_reason": "stop", "usage": CHAT}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "usage": CHAT}},
    ],
)
def test_usage_in_another_place_of_a_chunk(chunk: dict[str, Any]) -> None:
    meter = usages.Meter(Api.CHAT)
    meter.add({"choices": [{"delta": {"content": "x"}, "finish_reason": None}]})
    meter.add(chunk)
    assert meter.usage() == Usage(1000, output_tokens=100)


ASKED = {"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}], "service_tier": "flex"}


def test_what_was_asked_for_is_taken_where_the_reply_does_not_say(router: Router) -> None:
    plan = router.plan(ASKED, Api.CHAT)
    silent = router.record(plan, Usage(1000, output_tokens=100))
    assert silent.cost_usd == Decimal("0.002")
    assert "service_tier flex as asked: the reply does not say" in silent.notes
    told = router.record(plan, Usage(1000, output_tokens=100, service_tier="default"))
    assert (told.cost_usd, told.notes) == (Decimal("0.004"), ())


def test_a_region_is_in_the_address() -> None:
    plain = Usage(1000, output_tokens=100)
    abroad = usages.located(plain, "https://eu.api.openai.com/v1/")
    assert cost(abroad, MODELS["gpt-6.1-sol"], TODAY) == Decimal("0.0033")
    assert cost(abroad, MODELS["gpt-4o"], TODAY) == cost(plain, MODELS["gpt-4o"], TODAY)
    for url in ("https://api.openai.com/v1", "https://api.anthropic.com", "http://127.0.0.1:80/eu.api.openai.com", ""):
        assert usages.located(plain, url) == plain


def test_what_the_store_keeps_of_it() -> None:
    usage = usages.read_usage(
        {"usage": {**MESSAGE, "speed": "fast", "service_tier": "standard", "iterations": COMPACTED[:1], "odd": 1}},
        Api.MESSAGES,
    )
    assert json.loads(modifiers(usage)) == {
        "speed": "fast",
        "parts": [{"kind": "compaction", "model": "", "fresh_tokens": 180_000, "output_tokens": 3500}],
        "unknown_fields": ["odd"],
    }
    assert modifiers(Usage(5, service_tier="default")) == "{}"


def test_a_model_without_any_price_needs_no_note() -> None:
    own = SHIPPED.extended({}, {"llama": {"base_url": "http://x/v1", "context_tokens": 9}}).models["llama"]
    assert bill(Usage(5), own, TODAY) == Bill(None)


@pytest.mark.parametrize("kind", [["web_search_call"], {"a": 1}, None, 7])
def test_an_item_of_no_known_kind_is_no_call_of_a_tool(kind: object) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    reply = {"object": "response", "model": "gpt-6.1-sol", "output": [{"type": kind}], "usage": usage}
    assert usages.read_usage(reply, Api.RESPONSES).output_tokens == 5
