"""Each rule of the dialects over a socket: the upstream rejects the body as it is, and answers it as it is sent."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from router import Api, Router, Settings, Tier, wrap
from router.offline import Upstream
from tests.formats.test_accepts import FUNCTION, NEW, OLD, PREFILL, TOOL, USER

SYSTEM_MESSAGE = {"role": "system", "content": "Be kind."}
MARKED = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
ADAPTIVE, DISABLED = {"type": "adaptive"}, {"type": "disabled"}
OTHER = {Api.MESSAGES: "claude-haiku-4-5", Api.CHAT: "gpt-4o-mini", Api.RESPONSES: "gpt-4o-mini"}


def client_of(upstream: Upstream, api: Api, version: str = OLD) -> Any:
    """The SDK's own client."""
    if api is Api.MESSAGES:
        headers = {"anthropic-version": version}
        return anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0, default_headers=headers)
    return openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0)


def send(client: Any, api: Api, model: str, fields: dict[str, Any]) -> Any:
    """One request through the SDK's typed method; `fields` go into its body as they are."""
    if api is Api.MESSAGES:
        given: Any = {"max_tokens": 4096, "messages": [USER], **fields}
        typed = {name: given.pop(name) for name in ("max_tokens", "messages")}
        return client.messages.create(model=model, **typed, extra_body=given, timeout=30)
    if api is Api.CHAT:
        return client.chat.completions.create(model=model, extra_body=fields, messages=[USER])
    return client.responses.create(model=model, input=USER["content"], extra_body=fields)


def routed(cheap: str, strong: str, clock: Any) -> Router:
    fleet = {Tier.SIMPLE: cheap, Tier.COMPLEX: strong}
    return Router.load(config=Settings(fleets={"two": fleet}), fleet="two", clock=clock)


M, C, R = Api.MESSAGES, Api.CHAT, Api.RESPONSES
RULES: list[tuple[str, Api, str, dict[str, Any], str, str]] = [
    # model, format, version, fields; what the upstream says of them, what the record says was done
    ("claude-opus-4-7", M, OLD, {"temperature": 0.2}, "`temperature` is deprecated", "temperature dropped"),
    ("claude-opus-5", M, OLD, {"top_p": 0.9, "top_k": 5}, "`top_p` is deprecated", "top_k dropped"),
    ("claude-haiku-4-5", M, NEW, {"temperature": 1}, "temperature: Extra inputs", f"version {NEW}"),
    ("claude-haiku-4-5", M, OLD, {"temperature": 0.2, "top_p": 0.9}, "cannot both be", "top_p dropped"),
    (
        "claude-sonnet-4-6",
        M,
        OLD,
        {"temperature": 0.2, "thinking": ADAPTIVE},
        "only be set to 1",
        "temperature dropped",
    ),
    ("claude-sonnet-4-6", M, OLD, {"top_k": 5, "thinking": ADAPTIVE}, "`top_k` must be unset", "top_k dropped"),
    (
        "claude-opus-4-7",
        M,
        OLD,
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        "'enabled' is not supported",
        "sent as adaptive",
    ),
    ("claude-haiku-4-5", M, OLD, {"thinking": ADAPTIVE}, "'adaptive' is not supported", "as a budget of 2048 tokens"),
    ("claude-haiku-4-5", M, OLD, {"thinking": ADAPTIVE, "max_tokens": 1500}, "'adaptive'", "leaves no room"),
    (
        "claude-haiku-4-5",
        M,
        OLD,
        {"thinking": ADAPTIVE, "tools": [TOOL], "tool_choice": {"type": "any"}},
        "'adaptive'",
        "a tool is forced",
    ),
    ("claude-opus-5-5", M, OLD, {"thinking": DISABLED}, "'disabled' is not supported", "thinking disabled dropped"),
    ("claude-sonnet-5-5", M, OLD, {"thinking": DISABLED}, "'disabled' is not supported", "sent as between_tools"),
    ("claude-opus-4-7", M, OLD, {"thinking": {"type": "between_tools"}}, "'between_tools'", "sent as disabled"),
    (
        "claude-opus-5",
        M,
        OLD,
        {"thinking": DISABLED, "output_config": {"effort": "max"}},
        "not supported with effort 'max'",
        "up to effort high",
    ),
    ("claude-opus-4-7", M, OLD, {"max_tokens": 200_000}, "200000 > 128000", "max_tokens 200000 clipped to 128000"),
    (
        "claude-haiku-4-5",
        M,
        OLD,
        {"max_tokens": 100_000, "thinking": {"type": "enabled", "budget_tokens": 90_000}},
        "100000 > 64000",
        "budget 90000 clipped to 63999",
    ),
    ("claude-sonnet-4-6", M, OLD, {"output_config": {"effort": "xhigh"}}, "effort 'xhigh'", "effort xhigh sent as max"),
    ("claude-haiku-4-5", M, OLD, {"output_config": {"effort": "low"}}, "the effort parameter", "effort low dropped"),
    (
        "claude-opus-5-5",
        M,
        OLD,
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look_up"}},
        "'tool' is not supported",
        "tool_choice tool sent as auto",
    ),
    ("claude-opus-4-7", M, OLD, {"messages": [USER, SYSTEM_MESSAGE, USER]}, 'role "system"', "system messages moved"),
    ("gpt-6-luna", C, "", {"max_tokens": 9}, "'max_tokens' is not supported", "sent as max_completion_tokens"),
    ("gpt-4o", C, "", {"max_completion_tokens": 99_999}, "at most 16384", "clipped to 16384"),
    ("gpt-6.2-sol", R, "", {"max_output_tokens": 999_999}, "at most 128000", "clipped to 128000"),
    ("gpt-6-luna", C, "", {"temperature": 0, "top_p": 1}, "'temperature' is not supported", "top_p dropped"),
    ("gpt-6.2-sol", R, "", {"temperature": 0}, "'temperature' is not supported", "temperature dropped"),
    ("gpt-6.2-sol", C, "", {"reasoning_effort": "none"}, "does not support 'none'", "effort none sent as low"),
    ("gpt-6.2-sol", R, "", {"reasoning": {"effort": "minimal"}}, "does not support 'minimal'", "minimal sent as low"),
    ("gpt-5.6-sol", C, "", {"reasoning_effort": "max"}, "does not support 'max'", "effort max sent as xhigh"),
    ("gpt-4o", C, "", {"reasoning_effort": "high"}, "'reasoning_effort' is not supported", "effort high dropped"),
    ("gpt-4o", R, "", {"reasoning": {"effort": "high"}}, "'reasoning.effort' is not supported", "effort high dropped"),
    ("gpt-6-luna", C, "", {"tools": [FUNCTION]}, "Please use /v1/responses", "asked on Responses"),
    ("gpt-6-luna", C, "", {"tools": [FUNCTION], "reasoning_effort": "high"}, "use /v1/responses", "asked on Responses"),
    ("gpt-6.2-sol", C, "", {"tools": [FUNCTION]}, "Please use /v1/responses", "asked on Responses"),
    (
        "gpt-4o",
        C,
        "",
        {"prompt_cache_options": {"ttl": "30m"}},
        "'prompt_cache_options'",
        "prompt_cache_options dropped",
    ),
    ("gpt-5.5", C, "", {"prompt_cache_retention": "in_memory"}, "'in_memory'", "prompt_cache_retention dropped"),
    (
        "gpt-4o",
        C,
        "",
        {"messages": [{"role": "user", "content": [MARKED]}]},
        "'prompt_cache_breakpoint'",
        "prompt_cache_breakpoint dropped",
    ),
]


@pytest.mark.parametrize(
    ("model", "api", "version", "fields", "said", "note"), RULES, ids=[f"{r[0]}-{'-'.join(r[3])}" for r in RULES]
)
def test_what_a_model_rejects_is_adapted(
    upstream: Upstream, clock: Any, model: str, api: Api, version: str, fields: dict[str, Any], said: str, note: str
) -> None:
    with client_of(upstream, api, version) as client:
        with pytest.raises((anthropic.BadRequestError, openai.BadRequestError)) as rejected:
            send(client, api, model, fields)
        assert said in rejected.value.message
        wrapped = wrap(client, routed(OTHER[api], model, clock))
        reply = send(wrapped, api, "auto", {**fields, "router": {"min_tier": "complex", "max_tier": "complex"}})
        assert reply.model == wrapped.last_record.model == model
        assert any(note in found for found in wrapped.last_record.notes)
        assert wrapped.last_record.cost_usd == upstream.bills[-1].usd > 0
        assert len(upstream.bills) == 1


OBSTACLES: list[tuple[str, str, Api, dict[str, Any], str, str]] = [
    # model, one that can, format, fields; what the upstream says of them, what the record says
    ("claude-sonnet-4-6", "claude-opus-4-5", M, {"messages": [USER, PREFILL]}, "message prefill", "a prefilled answer"),
    ("claude-haiku-4-5", "claude-opus-4-8", M, {"system": "x " * 420_000}, "prompt is too long", "holds 200000"),
    (
        "claude-sonnet-5-5",
        "claude-opus-4-8",
        M,
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        "'any' is not supported",
        "a forced tool",
    ),
    ("gpt-6-luna", "gpt-5.5", C, {"tools": [FUNCTION], "n": 2}, "use /v1/responses", "cannot translate n=2"),
    ("gpt-6.2-sol", "gpt-5.5", C, {"tools": [FUNCTION], "n": 2}, "use /v1/responses", "cannot translate n=2"),
]


@pytest.mark.parametrize(
    ("model", "strong", "api", "fields", "said", "note"), OBSTACLES, ids=[f"{r[0]}-{'-'.join(r[3])}" for r in OBSTACLES]
)
def test_what_cannot_be_adapted_goes_to_another_tier(
    upstream: Upstream, clock: Any, model: str, strong: str, api: Api, fields: dict[str, Any], said: str, note: str
) -> None:
    with client_of(upstream, api) as client:
        with pytest.raises((anthropic.BadRequestError, openai.BadRequestError), match=said):
            send(client, api, model, fields)
        wrapped = wrap(client, routed(model, strong, clock))
        reply = send(wrapped, api, "auto", fields)
        record = wrapped.last_record
        assert reply.model == record.model == strong
        assert any(found.startswith("simple cannot take it") and note in found for found in record.notes)
