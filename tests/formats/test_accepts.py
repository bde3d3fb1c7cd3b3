"""Each rejection that the providers document, on bodies written for another model."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from anthropic.types import MessageCreateParams
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import CompletionCreateParams
from openai.types.responses import ResponseCreateParams
from pydantic import TypeAdapter

from router import Api, catalog
from router.catalog import Model
from router.decide.task import read_task
from router.formats import accepts
from router.formats.translations import Translations

MODELS = catalog.shipped().models
USER = {"role": "user", "content": "Which lighthouse is the tallest?"}
TOOL = {"name": "look_up", "description": "d", "input_schema": {"type": "object"}}
FUNCTION = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
OLD, NEW = "2023-06-01", "2026-10-21"


def adapted(
    model: str, api: Api = Api.MESSAGES, version: str | None = OLD, **fields: Any
) -> tuple[dict[str, Any], str]:
    """What was changed in a body with these fields, and the notes as one text."""
    base: dict[str, Any] = {"model": "auto", "messages": [USER]}
    body = {**base, **({"max_tokens": 4096} if api is Api.MESSAGES else {}), **fields}
    before = copy.deepcopy(body)
    sent, notes = accepts.adapt(body, api, MODELS[model], version)
    assert body == before
    assert accepts.adapt(sent, api, MODELS[model], version) == (sent, ())
    changed = {name: sent.get(name) for name in {*body, *sent} if sent.get(name) != body.get(name)}
    return changed, "; ".join(notes)


@pytest.mark.parametrize(
    ("model", "version", "fields", "changed", "note"),
    [
        ("claude-opus-4-7", OLD, {"temperature": 0.2}, {"temperature": None}, "temperature dropped: claude-opus-4-7"),
        ("claude-haiku-4-5", NEW, {"temperature": 1, "top_k": 5}, {"temperature": None, "top_k": None}, NEW),
        ("claude-haiku-4-5", OLD, {"temperature": 0.2}, {}, ""),
        ("claude-haiku-4-5", OLD, {"temperature": 0.2, "top_p": 0.9}, {"top_p": None}, "together with temperature"),
        (
            "claude-sonnet-4-6",
            OLD,
            {"temperature": 0.2, "thinking": {"type": "adaptive"}},
            {"temperature": None},
            "temperature dropped",
        ),
        (
            "claude-opus-4-7",
            OLD,
            {"thinking": {"type": "enabled", "budget_tokens": 2048, "display": "summarized"}},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            "thinking enabled sent as adaptive",
        ),
        (
            "claude-haiku-4-5",
            OLD,
            {"thinking": {"type": "adaptive"}},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            "budget of 2048",
        ),
        (
            "claude-haiku-4-5",
            OLD,
            {"thinking": {"type": "adaptive"}, "max_tokens": 1500},
            {"thinking": None},
            "no room for a budget",
        ),
        (
            "claude-haiku-4-5",
            OLD,
            {"thinking": {"type": "adaptive"}, "tool_choice": {"type": "any"}},
            {"thinking": None},
            "a tool is forced",
        ),
        (
            "claude-haiku-4-5",
            OLD,
            {"max_tokens": 100_000, "thinking": {"type": "enabled", "budget_tokens": 90_000}},
            {"max_tokens": 64_000, "thinking": {"type": "enabled", "budget_tokens": 63_999}},
            "max_tokens 100000 clipped to 64000",
        ),
        ("claude-opus-5-5", OLD, {"thinking": {"type": "disabled"}}, {"thinking": None}, "thinking disabled dropped"),
        (
            "claude-sonnet-5-5",
            OLD,
            {"thinking": {"type": "disabled"}},
            {"thinking": {"type": "between_tools"}},
            "between_tools",
        ),
        (
            "claude-opus-4-7",
            OLD,
            {"thinking": {"type": "between_tools"}},
            {"thinking": {"type": "disabled"}},
            "disabled",
        ),
        ("claude-opus-5", OLD, {"thinking": {"type": "disabled"}}, {}, ""),
        (
            "claude-opus-5",
            OLD,
            {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}},
            {"thinking": None},
            "up to effort high",
        ),
        (
            "claude-sonnet-4-6",
            OLD,
            {"output_config": {"effort": "xhigh"}},
            {"output_config": {"effort": "max"}},
            "effort xhigh sent as max",
        ),
        (
            "claude-haiku-4-5",
            OLD,
            {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}}},
            {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
            "effort low dropped",
        ),
        ("claude-haiku-4-5", OLD, {"output_config": {"effort": "low"}}, {"output_config": None}, "effort low dropped"),
        (
            "claude-opus-5-5",
            OLD,
            {"tool_choice": {"type": "tool", "name": "look_up", "disable_parallel_tool_use": True}},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            "tool_choice tool sent as auto",
        ),
        ("claude-opus-5", OLD, {"tool_choice": {"type": "any"}}, {}, ""),
        (
            "claude-opus-4-7",
            OLD,
            {"system": "Be brief.", "messages": [USER, {"role": "system", "content": "Be kind."}]},
            {
                "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
                "messages": [USER],
            },
            "system messages moved",
        ),
        ("claude-opus-4-8", OLD, {"messages": [USER, {"role": "system", "content": "Be kind."}]}, {}, ""),
    ],
)
def test_messages(model: str, version: str, fields: dict[str, Any], changed: dict[str, Any], note: str) -> None:
    found, notes = adapted(model, version=version, **fields)
    assert found == changed
    assert note in notes
    assert bool(notes) == bool(changed)


@pytest.mark.parametrize(
    ("model", "api", "fields", "changed", "note"),
    [
        ("gpt-6-luna", Api.CHAT, {"max_tokens": 9}, {"max_tokens": None, "max_completion_tokens": 9}, "max_completion"),
        ("gpt-4o", Api.CHAT, {"max_tokens": 9}, {}, ""),
        ("gpt-4o", Api.CHAT, {"max_completion_tokens": 99_999}, {"max_completion_tokens": 16_384}, "clipped to 16384"),
        ("gpt-6.2-sol", Api.RESPONSES, {"max_output_tokens": 999_999}, {"max_output_tokens": 128_000}, "clipped"),
        ("gpt-6-luna", Api.CHAT, {"temperature": 0, "top_p": 1}, {"temperature": None, "top_p": None}, "rejects it"),
        ("gpt-6-luna", Api.CHAT, {"temperature": 0, "reasoning_effort": "none"}, {}, ""),
        ("gpt-5.4", Api.CHAT, {"temperature": 0}, {}, ""),
        (
            "gpt-6.2-sol",
            Api.CHAT,
            {"temperature": 0, "reasoning_effort": "none"},
            {"temperature": None, "reasoning_effort": "low"},
            "effort none sent as low",
        ),
        (
            "gpt-6.2-sol",
            Api.RESPONSES,
            {"reasoning": {"effort": "minimal", "summary": "auto"}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
            "effort minimal sent as low",
        ),
        ("gpt-5.6-sol", Api.CHAT, {"reasoning_effort": "max"}, {"reasoning_effort": "xhigh"}, "max sent as xhigh"),
        ("gpt-4o", Api.CHAT, {"reasoning_effort": "high"}, {"reasoning_effort": None}, "effort high dropped"),
        ("gpt-4o", Api.RESPONSES, {"reasoning": {"effort": "high", "summary": "auto"}}, {"reasoning": None}, "dropped"),
        ("gpt-6-luna", Api.CHAT, {"tools": [FUNCTION], "reasoning_effort": "none"}, {}, ""),
        ("gpt-6-luna", Api.RESPONSES, {"tools": [{"type": "function"}]}, {}, ""),
        ("gpt-4o", Api.CHAT, {"prompt_cache_options": {"ttl": "30m"}}, {"prompt_cache_options": None}, "does not take"),
        ("gpt-6-luna", Api.CHAT, {"prompt_cache_options": {"ttl": "30m"}}, {}, ""),
        ("gpt-5.5", Api.CHAT, {"prompt_cache_retention": "in_memory"}, {"prompt_cache_retention": None}, "retention"),
        ("gemini-4-argon", Api.CHAT, {"prompt_cache_key": "k"}, {"prompt_cache_key": None}, "prompt_cache_key"),
        ("gemini-4-argon", Api.CHAT, {"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}, "sent as low"),
        (
            "gpt-4o",
            Api.CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "prompt_cache_breakpoint": {}}]}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            "prompt_cache_breakpoint dropped",
        ),
    ],
)
def test_openai(model: str, api: Api, fields: dict[str, Any], changed: dict[str, Any], note: str) -> None:
    found, notes = adapted(model, api, **fields)
    assert found == changed
    assert note in notes
    assert bool(notes) == bool(changed)


THOUGHT = {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "s"}]}
PREFILL = {"role": "assistant", "content": "The tallest is"}
PAUSED = {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]}
IMAGE = {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]}


@pytest.mark.parametrize(
    ("model", "api", "fields", "why"),
    [
        ("claude-sonnet-4-6", Api.MESSAGES, {"messages": [USER, PREFILL]}, "a prefilled answer"),
        ("claude-haiku-4-5", Api.MESSAGES, {"messages": [USER, PREFILL]}, None),
        ("claude-sonnet-4-6", Api.MESSAGES, {"messages": [USER, PAUSED]}, None),
        ("claude-opus-5-5", Api.MESSAGES, {"tool_choice": {"type": "any"}}, "a forced tool"),
        ("claude-opus-5", Api.MESSAGES, {"tool_choice": {"type": "any"}}, None),
        (
            "claude-haiku-5-5",
            Api.MESSAGES,
            {"messages": [USER, THOUGHT, {"role": "system", "content": "s"}, USER]},
            "edited history",
        ),
        ("claude-haiku-4-5", Api.MESSAGES, {"system": "x " * 500_000}, "holds 200000"),
        ("gpt-6.2-sol", Api.CHAT, {"tools": [FUNCTION]}, None),
        ("gpt-6.2-sol", Api.CHAT, {"tools": [FUNCTION], "n": 2}, "cannot translate n=2"),
        ("gpt-6.2-sol", Api.RESPONSES, {"tools": [{"type": "function"}]}, None),
        ("gpt-6-luna", Api.CHAT, {"tools": [FUNCTION], "n": 2}, "cannot translate n=2"),
        ("gpt-6-luna", Api.CHAT, {"tools": [FUNCTION], "n": 2, "reasoning_effort": "none"}, None),
        ("gpt-6-luna", Api.MESSAGES, {"tool_choice": {"type": "any"}}, None),
    ],
)
def test_obstacles(model: str, api: Api, fields: dict[str, Any], why: str | None) -> None:
    found = _obstacle({"messages": [USER], **fields}, MODELS[model], api)
    assert found is None if why is None else why in str(found)


def _obstacle(body: dict[str, Any], model: Model, api: Api = Api.CHAT) -> str | None:
    return accepts.obstacle(model, read_task(body), Translations(body, api))


def test_obstacles_of_a_model_of_your_own() -> None:
    table = {"base_url": "http://localhost:1/v1", "context_tokens": 8192}
    llama = catalog.shipped().extended({}, {"llama": table}).models["llama"]
    assert "reads none" in str(_obstacle({"messages": [IMAGE]}, llama))
    assert "calls none" in str(_obstacle({"messages": [USER], "tools": [FUNCTION]}, llama))
    assert _obstacle({"messages": [USER]}, llama) is None
    sent, notes = accepts.adapt({"messages": [USER], "max_completion_tokens": 5, "temperature": 0}, Api.CHAT, llama)
    assert (sent["max_tokens"], sent["temperature"], len(notes)) == (5, 0, 1)


def test_encrypted_items_stay_on_their_model() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert not accepts.stays_on_model({"input": "hi"})
    assert not accepts.stays_on_model({"input": [USER, reasoning]})
    assert accepts.stays_on_model({"input": [USER, {**reasoning, "encrypted_content": "gAAA"}]})


def test_a_body_for_an_unknown_model_is_left_alone() -> None:
    body = {"messages": [USER], "temperature": 0.3, "thinking": {"type": "disabled"}, "max_tokens": 10**9}
    assert accepts.adapt(body, Api.MESSAGES, None) == (body, ())


@pytest.mark.parametrize("odd", [{"messages": 5}, {"thinking": "on"}, {"tool_choice": []}, {"output_config": 3}])
def test_malformed_settings_are_the_providers_to_judge(odd: dict[str, Any]) -> None:
    assert accepts.adapt(odd, Api.MESSAGES, MODELS["claude-opus-5-5"], NEW) == (odd, ())


def rejections(body: dict[str, Any], model: str) -> list[str]:
    """What the API answers 400 to, written out from the documentation and not from the catalog."""
    found = []
    line = model.removeprefix("claude-")
    older, thinking, effort = line in ("haiku-4-5", "sonnet-4-5", "opus-4-5"), body.get("thinking"), None
    kind = (thinking or {}).get("type")
    effort = (body.get("output_config") or {}).get("effort")
    if older or line in ("sonnet-4-6", "opus-4-6"):
        if body.get("temperature") is not None and body.get("top_p") is not None:
            found.append("temperature and top_p")
    else:
        found += [name for name in ("temperature", "top_p", "top_k") if body.get(name) is not None]
        found += ["budget"] if kind == "enabled" else []
    found += ["adaptive"] if kind == "adaptive" and older else []
    if kind == "disabled" and ("fable" in line or line in ("opus-5-5", "sonnet-5-5")):
        found.append("disabled")
    if kind == "disabled" and line == "opus-5" and effort in ("xhigh", "max"):
        found.append("disabled at this effort")
    found += ["between_tools"] if kind == "between_tools" and line != "sonnet-5-5" else []
    if kind == "enabled" and not 1024 <= (thinking or {})["budget_tokens"] < body["max_tokens"]:
        found.append("budget size")
    forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    found += ["forced tool"] if forced and line in ("opus-5-5", "sonnet-5-5", "fable-5-1") else []
    system = any(message["role"] == "system" for message in body["messages"])
    found += ["system role"] if system and (older or line in ("sonnet-5", "haiku-5-5", "opus-4-7")) else []
    return found


BODIES = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 500_000),
        "messages": st.sampled_from([[USER], [USER, {**USER, "role": "system"}, USER]]),
    },
    optional={
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 50),
        "thinking": st.sampled_from(
            [{"type": kind} for kind in ("adaptive", "disabled", "between_tools")]
            + [{"type": "enabled", "budget_tokens": 1024}]
        ),
        "output_config": st.fixed_dictionaries({"effort": st.sampled_from(catalog.EFFORTS[2:])}),
        "tool_choice": st.sampled_from([{"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "look_up"}]),
        "tools": st.just([TOOL]),
    },
)
CLAUDES = sorted({m.id for m in MODELS.values() if m.provider == "anthropic"})


@settings(deadline=None)
@given(BODIES, st.sampled_from(CLAUDES))
def test_no_adapted_body_is_rejected(body: dict[str, Any], model: str) -> None:
    if (body.get("thinking") or {}).get("type") == "enabled":
        body = {**body, "max_tokens": max(body["max_tokens"], 2048)}  # else no model takes it
    sent, notes = accepts.adapt(body, Api.MESSAGES, MODELS[model], OLD)
    assert rejections(sent, model) == []
    assert bool(notes) == (sent != body)
    assert sent["max_tokens"] <= (MODELS[model].max_output_tokens or 0)
    typed = {name: value for name, value in sent.items() if name not in ("temperature", "top_p", "top_k")}
    TypeAdapter(MessageCreateParams).validate_python({**typed, "model": model})


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"messages": st.just([USER])},
        optional={
            "max_tokens": st.integers(1, 500_000),
            "max_completion_tokens": st.integers(1, 500_000),
            "temperature": st.floats(0, 2),
            "reasoning_effort": st.sampled_from(catalog.EFFORTS),
            "tools": st.just([FUNCTION]),
        },
    ),
    st.sampled_from(sorted({m.id for m in MODELS.values() if m.provider != "anthropic"})),
)
def test_no_adapted_chat_body_is_rejected(body: dict[str, Any], model: str) -> None:
    if (api := accepts.spoken(body, Api.CHAT, MODELS[model])) is Api.RESPONSES:
        assert body["tools"]
        sent, _ = accepts.adapt(Translations(body, Api.CHAT).to(api)[0], api, MODELS[model])
        TypeAdapter(ResponseCreateParams).validate_python({**sent, "model": model})
        return
    sent, notes = accepts.adapt(body, Api.CHAT, MODELS[model])
    effort = sent.get("reasoning_effort")
    if model.startswith(("gpt-5", "gpt-6")):
        assert "max_tokens" not in sent
        assert model.startswith("gpt-5.4") or effort == "none" or "temperature" not in sent
    if model in ("gpt-6.1-sol", "gpt-6.2-sol", "gpt-6.2-astra"):
        assert effort != "none"
        assert "temperature" not in sent
    assert not (model.startswith("gpt-4o") and effort)
    assert bool(notes) == (sent != body)
    TypeAdapter(CompletionCreateParams).validate_python({**sent, "model": model})


def test_nothing_to_do_is_quick() -> None:
    """100 messages, none of which needs anything: microseconds, for it is on the way of every call."""
    turns = [USER, {"role": "assistant", "content": [{"type": "text", "text": "The one of Jeddah."}]}] * 50
    best = {}
    for api, model in ((Api.MESSAGES, "claude-haiku-4-5"), (Api.CHAT, "gpt-4o"), (Api.CHAT, "gpt-6.1-terra")):
        body = {"model": "auto", "messages": turns, "max_completion_tokens": 512}
        times = []
        for _ in range(200):
            start = time.perf_counter()
            accepts.adapt(body, api, MODELS[model], NEW)
            times.append((time.perf_counter() - start) * 1e6)
        best[model] = min(times)
    assert max(best.values()) < 60, best  # 5 to 17 us on an idle core; the rest is for a loaded one
