"""What OpenAI's API rejects, in its words: each rule met and kept."""

from __future__ import annotations

from typing import Any

import pytest

from router.offline import parameters
from router.offline.failures import Rejected
from router.offline.models import gpt

USER = {"role": "user", "content": "hi"}
CALLS = {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {}}, {"id": "c2"}]}
FIVE5, SIX_SOL, SIX1_SOL, SIX1_TERRA, SIX2_SOL = "gpt-5.5", "gpt-6-sol", "gpt-6.1-sol", "gpt-6.1-terra", "gpt-6.2-sol"


def tool(name: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": name, "content": "ok"}


def rejection(model: str, field: str = "messages", **changes: Any) -> Rejected | None:
    try:
        parameters.check({field: [USER]} | changes, field, model, gpt(model))
    except Rejected as rejected:
        assert rejected.status == 400
        return rejected
    return None


@pytest.mark.parametrize("model", ["o3", "o4-mini", "gpt-5", "gpt-5.4-mini", SIX_SOL])
def test_max_tokens_gives_way(model: str) -> None:
    rejected = rejection(model, max_tokens=5)
    assert rejected is not None
    assert (rejected.param, rejected.code) == ("max_tokens", "unsupported_parameter")
    assert rejected.message == (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    assert rejection(model, max_completion_tokens=5) is None


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1", "gpt-4o-mini", "gemini-3.8-flash"])
def test_older_models_take_max_tokens_and_sampling(model: str) -> None:
    assert rejection(model, max_tokens=5, temperature=0.3, top_p=0.5) is None


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_logprobs"])
def test_sampling_on_gpt_6_needs_effort_none(name: str) -> None:
    for model in (SIX_SOL, SIX1_TERRA):
        assert rejection(model, **{name: 1, "reasoning_effort": "none"}) is None
        assert rejection(model, "input", **{name: 1, "reasoning": {"effort": "none"}}) is None
        for effort in ({}, {"reasoning_effort": "low"}):
            rejected = rejection(model, **{name: 1}, **effort)
            assert rejected is not None
            assert rejected.param == name
    assert rejection(FIVE5, **{name: 1}) is None


@pytest.mark.parametrize("model", ["gpt-6-astra", "gpt-6.2-astra", SIX1_SOL, SIX2_SOL])
def test_effort_none_refused(model: str) -> None:
    for field, effort in (("messages", {"reasoning_effort": "none"}), ("input", {"reasoning": {"effort": "none"}})):
        rejected = rejection(model, field, **effort)
        assert rejected is not None
        assert rejected.code == "unsupported_value"


def test_effort_none_accepted() -> None:
    for model in (SIX_SOL, SIX1_TERRA, "gpt-6-luna", FIVE5):
        assert rejection(model, reasoning_effort="none") is None


@pytest.mark.parametrize(
    ("effort", "taken", "refused"),
    [
        ("high", (FIVE5, SIX_SOL, SIX2_SOL, "o3", "gemini-4-argon"), ("gpt-4o", "gpt-4.1")),
        ("minimal", ("gpt-5",), (FIVE5, SIX_SOL, SIX2_SOL, "o3")),
        ("xhigh", (FIVE5, SIX_SOL), ("gpt-4o", "o3")),
        ("max", (SIX_SOL, SIX2_SOL), (FIVE5, "gpt-5.6-sol")),
    ],
)
def test_efforts(effort: str, taken: tuple[str, ...], refused: tuple[str, ...]) -> None:
    for field, given in (("messages", {"reasoning_effort": effort}), ("input", {"reasoning": {"effort": effort}})):
        assert [model for model in taken if rejection(model, field, **given)] == []
        assert [model for model in refused if rejection(model, field, **given) is None] == []


def test_tools_with_reasoning_are_for_responses() -> None:
    for model in ("gpt-5.6-sol", SIX_SOL, SIX2_SOL):
        for effort in ({}, {"reasoning_effort": "low"}):
            rejected = rejection(model, tools=[{"type": "function"}], **effort)
            assert rejected is not None
            assert "Please use /v1/responses or set reasoning_effort to 'none'" in rejected.message
        assert rejection(model, "input", tools=[{"type": "function"}]) is None
    assert rejection(SIX_SOL, tools=[{"type": "function"}], reasoning_effort="none") is None
    assert rejection(FIVE5, tools=[{"type": "function"}]) is None


def test_the_longest_output() -> None:
    for model, most in (("gpt-4o", 16_384), ("gpt-4o-mini", 16_384), (SIX_SOL, 128_000)):
        assert rejection(model, max_completion_tokens=most) is None
        rejected = rejection(model, max_completion_tokens=most + 1)
        assert rejected is not None
        assert f"This model supports at most {most} completion tokens" in rejected.message
        assert rejection(model, "input", max_output_tokens=most + 1) is not None


def test_retention() -> None:
    for model, takes in ((FIVE5, False), (SIX_SOL, False), ("gpt-5.4", True), ("gpt-4o", True)):
        assert (rejection(model, prompt_cache_retention="in_memory") is None) == takes
        assert rejection(model, prompt_cache_retention="24h") is None


def marked(mark: dict[str, str], role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": [{"type": "text", "text": "x", "prompt_cache_breakpoint": mark}]}]


@pytest.mark.parametrize(
    ("model", "field", "changes", "param"),
    [
        (FIVE5, "messages", {"prompt_cache_options": {"mode": "implicit"}}, "prompt_cache_options"),
        ("gpt-4o", "messages", {"messages": marked({"mode": "explicit"})}, "prompt_cache_breakpoint"),
        (SIX_SOL, "messages", {"prompt_cache_options": {"mode": "off"}}, "prompt_cache_options.mode"),
        (SIX_SOL, "messages", {"prompt_cache_options": {"ttl": "12h"}}, "prompt_cache_options.ttl"),
        (SIX_SOL, "input", {"prompt_cache_options": {"ttl": "1h"}}, "prompt_cache_options.ttl"),
        (SIX_SOL, "messages", {"messages": marked({"mode": "implicit"})}, "prompt_cache_breakpoint.mode"),
        (SIX_SOL, "input", {"input": marked({"mode": "explicit", "ttl": "1h"})}, "prompt_cache_breakpoint.ttl"),
        (SIX_SOL, "messages", {"messages": marked({"mode": "explicit"}, "assistant")}, "prompt_cache_breakpoint"),
        (SIX_SOL, "messages", {"messages": [USER, CALLS, USER]}, "messages"),
        (SIX_SOL, "messages", {"messages": [USER, CALLS, tool("c1"), USER]}, "messages"),
        (SIX_SOL, "messages", {"messages": [USER, CALLS, tool("c1")]}, "messages"),
        (SIX_SOL, "messages", {"messages": [USER, tool("c1")]}, "messages"),
        (SIX_SOL, "input", {"input": [{"type": "function_call", "call_id": "c1"}, USER]}, "input"),
        (SIX_SOL, "input", {"input": [{"type": "function_call_output", "call_id": "c1", "output": "x"}]}, "input"),
        (SIX_SOL, "input", {"input": []}, "input"),
        (SIX_SOL, "messages", {"messages": [USER, "hi"]}, "messages[1]"),
        (SIX_SOL, "input", {"previous_response_id": "resp_0"}, "previous_response_id"),
    ],
)
def test_rejected(model: str, field: str, changes: dict[str, Any], param: str) -> None:
    rejected = rejection(model, field, **changes)
    assert rejected is not None
    assert rejected.param == param


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("messages", {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}}),
        ("input", {"prompt_cache_options": {"mode": "implicit", "ttl": "12h"}}),
        ("input", {"input": marked({"mode": "explicit", "ttl": "12h"})}),
        ("messages", {"messages": [USER, CALLS, tool("c2"), tool("c1"), USER]}),
        ("input", {"input": [{"type": "function_call", "call_id": "c"}, {"type": "function_call_output",
                                                                         "call_id": "c", "output": "x"}]}),
        ("input", {"input": "hi"}),
    ],
)  # fmt: skip
def test_accepted(field: str, changes: dict[str, Any]) -> None:
    assert rejection(SIX_SOL, field, **changes) is None


@pytest.mark.parametrize(("field", "words"), [("messages", "128001 tokens"), ("input", "exceeds the context window")])
def test_the_window(field: str, words: str) -> None:
    parameters.check_length(128_000, 128_000, field)
    with pytest.raises(Rejected, match=words) as caught:
        parameters.check_length(128_001, 128_000, field)
    assert caught.value.code == "context_length_exceeded"
