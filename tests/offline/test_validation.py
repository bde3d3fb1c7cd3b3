"""What the Messages API rejects, in its words: each rule met and kept."""

from __future__ import annotations

import re
from typing import Any

import pytest

from router.offline import validation
from router.offline.account import Call
from router.offline.failures import Rejected
from router.offline.models import claude

OLD, NEW = "2023-06-01", "2026-10-21"
USER = {"role": "user", "content": "hi"}
BREAK: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
HOUR: dict[str, Any] = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
TEXT = {"type": "text", "text": "x"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "t", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}


def rejection(model: str, version: str = NEW, is_batch: bool = False, **changes: Any) -> str | None:
    """The message with which a body is rejected; None if it is not."""
    body = {"model": model, "max_tokens": 4000, "messages": [USER]} | changes
    try:
        validation.check(body, claude(model), Call("req", {"anthropic-version": version}, is_batch))
    except Rejected as rejected:
        assert (rejected.status, rejected.kind) == (400, "invalid_request_error")
        return rejected.message
    return None


def assert_only(rejecting: set[str], message: str, models: set[str], **changes: Any) -> None:
    for model in models:
        said = rejection(model, **changes)
        assert (said is not None and message in said) == (model in rejecting), (model, said)


HAIKU4, HAIKU5 = "claude-haiku-4-5", "claude-haiku-5-5"
SONNET45, SONNET46, SONNET5, SONNET55 = (f"claude-sonnet-{v}" for v in ("4-5", "4-6", "5", "5-5"))
OPUS45, OPUS46, OPUS47, OPUS48, OPUS5, OPUS55 = (f"claude-opus-{v}" for v in ("4-5", "4-6", "4-7", "4-8", "5", "5-5"))
FABLE5, FABLE51, FABLE52, MYTHOS52 = "claude-fable-5", "claude-fable-5-1", "claude-fable-5-2", "claude-mythos-5-2"
ALL = {HAIKU4, HAIKU5, SONNET45, SONNET46, SONNET5, SONNET55, OPUS45, OPUS46, OPUS47, OPUS48, OPUS5, OPUS55}
ALL |= {FABLE5, FABLE51, FABLE52, MYTHOS52}
ALL45 = {HAIKU4, SONNET45, OPUS45}
UP_TO_46 = ALL45 | {SONNET46, OPUS46}


class TestPerModel:
    @pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
    def test_sampling_under_the_new_version_at_any_value(self, name: str) -> None:
        assert_only(ALL, f"{name}: Extra inputs are not permitted", ALL, **{name: 1})

    def test_sampling_under_the_old_version(self) -> None:
        assert_only(ALL - UP_TO_46, "`temperature` is deprecated", ALL, version=OLD, temperature=0.5)
        assert_only(set(), "", ALL, version=OLD, temperature=1)
        assert_only({HAIKU4}, "cannot both be specified", UP_TO_46, version=OLD, temperature=0.5, top_p=0.5)

    def test_thinking_types(self) -> None:
        budget = {"type": "enabled", "budget_tokens": 2000}
        assert_only(ALL - UP_TO_46, "thinking.type: 'enabled'", ALL, thinking=budget)
        assert_only(ALL45, "thinking.type: 'adaptive'", ALL, thinking={"type": "adaptive"})
        always = {FABLE5, FABLE51, FABLE52, MYTHOS52, OPUS55, SONNET55}
        assert_only(always, "thinking.type: 'disabled'", ALL, thinking={"type": "disabled"})
        assert_only(ALL - {SONNET55}, "'between_tools'", ALL, thinking={"type": "between_tools"})

    def test_opus_5_disables_thinking_up_to_high_effort(self) -> None:
        off = {"type": "disabled"}
        efforts = {e: rejection(OPUS5, thinking=off, output_config={"effort": e}) for e in ("high", "xhigh", "max")}
        assert [bool(said) for said in efforts.values()] == [False, True, True]

    def test_efforts(self) -> None:
        assert_only(ALL45 - {OPUS45}, "the effort parameter", ALL, output_config={"effort": "high"})
        assert_only(UP_TO_46 - {HAIKU4, SONNET45}, "effort 'xhigh'", ALL, output_config={"effort": "xhigh"})
        assert_only({OPUS45}, "effort 'max'", ALL, output_config={"effort": "max"})

    def test_thinking_goes_with_no_other_temperature(self) -> None:
        for kind, model in (({"type": "enabled", "budget_tokens": 1024}, HAIKU4), ({"type": "adaptive"}, SONNET46)):
            said = rejection(model, OLD, thinking=kind, temperature=0.5)
            assert said == "`temperature` may only be set to 1 when thinking is enabled."
            assert "`top_k`" in str(rejection(model, OLD, thinking=kind, top_k=5))
            assert rejection(model, OLD, thinking=kind, temperature=1) is None
        assert rejection(SONNET46, OLD, thinking={"type": "disabled"}, temperature=0.5) is None

    def test_the_longest_output(self) -> None:
        assert_only(ALL45, "> 64000, which is the maximum allowed number of output tokens for", ALL, max_tokens=64_001)
        assert_only(ALL, "> 128000", ALL - ALL45, max_tokens=128_001)
        assert rejection(HAIKU4, max_tokens=64_000) is None

    def test_thinking_budgets(self) -> None:
        assert rejection(SONNET46, thinking={"type": "enabled", "budget_tokens": 1024}) is None
        small, large = ({"type": "enabled", "budget_tokens": n} for n in (1023, 4000))
        assert "greater than or equal to 1024" in str(rejection(SONNET46, thinking=small))
        assert "must be greater than `thinking.budget_tokens`" in str(rejection(SONNET46, thinking=large))

    def test_prefill(self) -> None:
        prefilled = [USER, {"role": "assistant", "content": "The"}]
        assert_only(ALL - ALL45, "does not support assistant message prefill", ALL, messages=prefilled)

    @pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "t"}])
    def test_forced_tools(self, choice: dict[str, str]) -> None:
        assert_only({OPUS55, SONNET55, FABLE51}, "tool_choice.type", ALL, tool_choice=choice)
        assert_only(set(), "", ALL, tool_choice={"type": "auto"})

    def test_system_messages(self) -> None:
        messages = [USER, {"role": "system", "content": "Be kind."}]
        take = {OPUS48, OPUS5, OPUS55, FABLE5, FABLE51, FABLE52, SONNET55}
        assert_only(ALL - take, 'Unexpected role "system"', ALL, messages=messages)

    def test_minimums(self) -> None:
        minimums = {model: claude(model).cache_min_tokens for model in ALL}
        of = {512: {HAIKU5, SONNET55, OPUS5, OPUS55, FABLE5, FABLE51, FABLE52, MYTHOS52}, 2048: {OPUS47}}
        of |= {1024: {SONNET45, SONNET46, SONNET5, OPUS48}, 4096: {HAIKU4, OPUS45, OPUS46}}
        assert {n: {m for m in minimums if minimums[m] == n} for n in of} == of
        assert claude("claude-mythos-preview").cache_min_tokens == 2048
        assert claude("claude-haiku-4-5-20251001").cache_min_tokens == 4096
        with pytest.raises(ValueError, match="gpt-4o"):
            claude("gpt-4o")


FIVE = [TEXT | BREAK] * 5
SPLIT = [USER, {"role": "assistant", "content": [USE]}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: all messages must have non-empty content"),
        ({"messages": [{"role": "user", "content": []}, USER]}, "messages.0: all messages must have non-empty"),
        ({"messages": [{"role": "user", "content": [TEXT | {"text": ""}]}]}, "text content blocks must be non-empty"),
        ({"system": FIVE}, "A maximum of 4 blocks with cache_control may be provided. Found 5."),
        ({"system": FIVE[:4], **BREAK}, "A maximum of 4 blocks with cache_control may be provided. Found 5."),
        ({"system": [TEXT | {"cache_control": {"type": "ephemeral", "ttl": 3600}}]},
         "system.0.cache_control.ephemeral.ttl: Input should be '5m' or '1h'"),
        ({"system": [TEXT | {"cache_control": {"type": "lasting"}}]}, "expected tags: 'ephemeral'"),
        ({"cache_control": {"type": "ephemeral", "ttl": "2h"}}, "cache_control.ephemeral.ttl: Input should be"),
        ({"system": [TEXT | BREAK], "messages": [{"role": "user", "content": [TEXT, TEXT | HOUR]}]},
         "messages.0.content.1.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' "
         "cache_control block. Note that blocks are processed in the following order: tools, system, messages."),
        ({"system": [TEXT | BREAK], **HOUR}, "cache_control.ttl: a ttl='1h' cache_control block must not come after"),
        ({"messages": [{"role": "user", "content": [TEXT | BREAK]}], **HOUR}, "already has a cache_control with a"),
        ({"messages": [{"role": "user", "content": [TEXT, TEXT | {"text": ""} | BREAK]}]},
         "messages.0.content.1.text: cache_control cannot be set for empty text blocks"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"} | BREAK]}, USER]},
         "messages.1.content.0.thinking.cache_control: Extra inputs are not permitted"),
        ({"messages": [*SPLIT, USER]}, "messages.1: `tool_use` ids were found without `tool_result` blocks immediately "
                                       "after: toolu_1."),
        ({"messages": [*SPLIT, {"role": "user", "content": [TEXT, RESULT]}]}, "ids were found without `tool_result`"),
        ({"messages": SPLIT, "model": SONNET45}, "ids were found without `tool_result`"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}, {"role": "user", "content": [RESULT]}]},
         "messages.2: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1."),
        ({"messages": [{"role": "user", "content": [RESULT]}]}, "messages.0: unexpected `tool_use_id`"),
        ({"max_tokens": 0, "stream": True}, "max_tokens: 0"),
        ({"max_tokens": 0, "thinking": {"type": "adaptive"}}, "max_tokens: 0"),
        ({"max_tokens": 0, "tool_choice": {"type": "any"}}, "max_tokens: 0"),
        ({"max_tokens": 0, "output_config": {"format": {"type": "json_schema"}}}, "max_tokens: 0"),
        ({"max_tokens": 0, "is_batch": True}, "max_tokens: 0"),
        ({"stream": True, "is_batch": True}, "stream"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_rejected(changes: dict[str, Any], message: str) -> None:
    said = rejection(**{"model": SONNET46} | changes)
    assert said is not None
    assert re.search(re.escape(message), said), said


@pytest.mark.parametrize(
    "changes",
    [
        {"system": FIVE[:4]},
        {"system": FIVE[:3], **BREAK},
        {"messages": [{"role": "user", "content": [TEXT | BREAK]}], **BREAK},
        {"system": [TEXT | HOUR], "messages": [{"role": "user", "content": [TEXT | HOUR, TEXT | BREAK]}]},
        {"system": [TEXT | HOUR], **BREAK},
        {"messages": [*SPLIT, {"role": "user", "content": [RESULT, TEXT]}]},
        {"messages": [*SPLIT, {"role": "user", "content": [RESULT]}, {"role": "user", "content": "and?"}]},
        {"messages": [USER, USER]},
        {"messages": [{"role": "assistant", "content": "hello"}, USER]},
        {"max_tokens": 0},
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    assert rejection(SONNET46, **changes) is None


def test_the_window() -> None:
    validation.check_length(200_000, 200_000)
    with pytest.raises(Rejected, match="prompt is too long: 200001 tokens > 200000 maximum"):
        validation.check_length(200_001, 200_000)
