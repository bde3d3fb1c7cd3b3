"""Messages over sockets through the SDK: replies of each kind, their streams, thinking, token counts, models."""

from __future__ import annotations

import re
from typing import Any

import anthropic
import msgspec
import pytest

from router import catalog
from router.offline import Reply, ToolCall, Upstream
from router.offline.prompt import count_tokens

USER: list[Any] = [{"role": "user", "content": "hi"}]
SONNET, OPUS5, SONNET5 = "claude-sonnet-4-6", "claude-opus-5-5", "claude-sonnet-5-5"
WEATHER = Reply("Let me look.", (ToolCall("weather", {"city": "Oslo"}), ToolCall("time", {})), thinking="Oslo, so …")


def ask(client: Any, **options: Any) -> Any:
    return client.messages.create(**{"model": SONNET, "max_tokens": 500, "messages": USER} | options)


def settled(upstream: Upstream, usage: Any) -> None:
    bill = upstream.bills[-1]
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (
        bill.fresh, bill.read, bill.output)  # fmt: skip
    assert usage.cache_creation.ephemeral_5m_input_tokens == bill.write_short
    assert usage.cache_creation.ephemeral_1h_input_tokens == bill.write_long


class TestReplies:
    def test_scripted_tools_and_thinking(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.scripts.append(WEATHER)
        reply = ask(claude)
        assert [block.type for block in reply.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert (reply.content[0].thinking, reply.content[2].input) == ("Oslo, so …", {"city": "Oslo"})
        assert reply.content[2].id != reply.content[3].id
        assert reply.stop_reason == "tool_use"
        assert reply.usage.output_tokens_details.thinking_tokens == count_tokens("Oslo, so …")
        settled(upstream, reply.usage)
        assert ask(claude).content[0].text.startswith("[simulated reply of claude-sonnet-4-6]")  # once

    def test_a_script_may_wait_for_its_model(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.scripts.append(Reply("for opus", model=OPUS5))
        assert "simulated" in ask(claude).content[0].text
        assert ask(claude, model=OPUS5).content[0].text == "for opus"

    def test_a_function_may_answer(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.reply = lambda body, model_id: f"{model_id} read {body['messages'][-1]['content']!r}"
        assert ask(claude).content[0].text == "claude-sonnet-4-6 read 'hi'"
        upstream.reply = lambda *_: Reply(tool_calls=(ToolCall("t"),))
        assert [block.type for block in ask(claude).content] == ["tool_use"]

    def test_max_tokens_and_stop_sequences_end_it(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.scripts += [Reply("one two three four"), Reply("one two three four", (ToolCall("t"),))]
        cut = ask(claude, max_tokens=2)
        assert (cut.content[0].text, cut.stop_reason, cut.usage.output_tokens) == ("one two", "max_tokens", 2)
        stopped = ask(claude, stop_sequences=["four", "three"])
        assert (stopped.content[0].text, stopped.stop_reason) == ("one two ", "stop_sequence")
        assert stopped.stop_sequence == "three"

    def test_prewarming_writes_and_answers_nothing(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        system = [{"type": "text", "text": "word " * 2000, "cache_control": {"type": "ephemeral"}}]
        warm = ask(claude, system=system, max_tokens=0)
        assert (warm.content, warm.usage.output_tokens, warm.stop_reason) == ([], 0, "max_tokens")
        assert ask(claude, system=system).usage.cache_read_input_tokens == upstream.bills[0].write_short > 2000

    def test_the_window_ends_a_reply_and_refuses_a_prompt(
        self, claude: anthropic.Anthropic, upstream: Upstream
    ) -> None:
        sonnet = catalog.shipped().models[SONNET]
        upstream.models = catalog.Catalog([msgspec.structs.replace(sonnet, context_tokens=100)], {})
        upstream.scripts.append(Reply("word " * 300))
        words = ask(claude, messages=[{"role": "user", "content": "word " * 60}])
        assert words.stop_reason == "model_context_window_exceeded"
        assert words.usage.input_tokens + words.usage.output_tokens == 100
        with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 100 maximum"):
            ask(claude, messages=[{"role": "user", "content": "word " * 120}])


class TestStreams:
    def test_exact_events(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.scripts.append(WEATHER)
        raw = claude.messages.with_streaming_response.create(
            model=SONNET, max_tokens=500, messages=USER, stream=True
        )  # fmt: skip
        with raw as response:
            frames = re.findall(r"event: (\S+)\ndata: (.*)\n\n", response.read().decode())
        block = ["content_block_start", "content_block_delta", "content_block_stop"]
        seen = [name for i, (name, _) in enumerate(frames) if not i or name != frames[i - 1][0]]
        start, delta, stop = block
        first = ["message_start", start, "ping", delta, stop]
        assert seen == [*first, *block * 3, "message_delta", "message_stop"]
        assert '"signature_delta"' in [data for name, data in frames if name == delta][1]
        assert all(f'"type": "{name}"' in data for name, data in frames)

    def test_the_sdk_puts_the_same_message_together(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.scripts += [WEATHER, WEATHER]
        whole = ask(claude)
        with claude.messages.stream(model=SONNET, max_tokens=500, messages=USER) as stream:
            streamed = stream.get_final_message()
        assert [b.model_dump(exclude={"id", "parsed_output"}) for b in streamed.content] == [
            b.model_dump(exclude={"id", "parsed_output"}) for b in whole.content
        ]
        assert (streamed.stop_reason, streamed.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
        settled(upstream, streamed.usage)

    def test_usage_is_whole_at_the_start_and_cumulative_at_the_end(self, claude: anthropic.Anthropic) -> None:
        system = [{"type": "text", "text": "word " * 2000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
        events = list(ask(claude, system=system, stream=True))
        start, end = events[0].message.usage, events[-2].usage
        assert start.cache_creation.ephemeral_1h_input_tokens == end.cache_creation_input_tokens > 2000
        assert start.output_tokens == 1 < end.output_tokens
        assert not hasattr(end, "cache_creation")


class TestThinking:
    def think(self, client: Any, upstream: Upstream, model: str, **options: Any) -> list[Any]:
        """A conversation in which `model` has thought, called a tool and got its result."""
        upstream.scripts.append(Reply(tool_calls=(ToolCall("t"),), thinking="Hm.", model=model))
        reply = ask(client, model=model, **options)
        content = [block.model_dump(include={"type", "thinking", "signature", "id", "name", "input"})
                   for block in reply.content]  # fmt: skip
        result = {"type": "tool_result", "tool_use_id": reply.content[-1].id, "content": "ok"}
        return [*USER, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]

    def test_newer_models_show_a_signature_alone_unless_asked(
        self, claude: anthropic.Anthropic, upstream: Upstream
    ) -> None:
        shown = {"thinking": {"type": "adaptive", "display": "summarized"}}
        for model, options, text in ((SONNET, {}, "Hm."), (OPUS5, {}, ""), (OPUS5, shown, "Hm.")):
            block = self.think(claude, upstream, model, **options)[1]["content"][0]
            assert (block["thinking"], bool(block["signature"])) == (text, True)

    def test_sent_back_it_is_accepted(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        for model in (SONNET, OPUS5):
            history = self.think(claude, upstream, model)
            history += [{"role": "assistant", "content": "done"}, {"role": "user", "content": "thanks"}]
            assert ask(claude, model=model, messages=history).content

    def test_another_models_thinking_is_dropped_and_not_billed(
        self, claude: anthropic.Anthropic, upstream: Upstream
    ) -> None:
        history = self.think(claude, upstream, SONNET)
        bare = [*history[:1], {**history[1], "content": history[1]["content"][1:]}, *history[2:]]
        counted = [claude.messages.count_tokens(model=m, messages=h).input_tokens
                   for m in (OPUS5, SONNET) for h in (history, bare)]  # fmt: skip
        assert counted[0] == counted[1] == counted[3] < counted[2]

    def test_a_changed_signature_is_refused(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        for signature in ("nonsense", "c29tZXxvdGhlcnx0ZXh0", None):
            history = self.think(claude, upstream, SONNET)
            history[1]["content"][0]["signature"] = signature
            with pytest.raises(anthropic.BadRequestError, match=r"messages.1.content.0: Invalid `signature` in"):
                ask(claude, messages=history)

    def test_bound_to_its_conversation_on_newer_models(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        for model, binds in ((SONNET, False), (OPUS5, True), (SONNET5, True), ("claude-haiku-5-5", True)):
            edited = self.think(claude, upstream, model)
            edited[0] = {"role": "user", "content": "hello"}
            if not binds:
                assert ask(claude, model=model, messages=edited).content
                continue
            with pytest.raises(anthropic.BadRequestError, match="The block is bound to a different conversation"):
                ask(claude, model=model, messages=edited)
            dropped = claude.messages.create(
                model=model,
                max_tokens=50,
                messages=edited,
                extra_headers={"anthropic-beta": "thinking-binding-controls-2026-08-01"},
                extra_body={
                    "thinking": {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
                },
            )
            assert dropped.content


def test_tokens_are_counted_as_billed_and_cached_nowhere(claude: anthropic.Anthropic, upstream: Upstream) -> None:
    system: Any = [{"type": "text", "text": "word " * 2000, "cache_control": {"type": "ephemeral"}}]
    counted = claude.messages.count_tokens(model=SONNET, system=system, messages=USER).input_tokens
    assert upstream.bills == []
    usage = ask(claude, system=system).usage
    assert usage.cache_read_input_tokens == 0
    assert counted == usage.input_tokens + usage.cache_creation_input_tokens


def test_models_and_what_they_can(claude: anthropic.Anthropic) -> None:
    listed = {model.id: model for model in claude.models.list(limit=1000)}
    assert {SONNET, OPUS5} < set(listed)
    assert not any(name.startswith("gpt") for name in listed)
    can = listed[OPUS5].capabilities
    assert can is not None
    assert {k: v.supported for k, v in can.thinking.types} == {
        "adaptive": True, "enabled": False, "disabled": False, "between_tools": False}  # fmt: skip
    assert claude.models.retrieve("claude-haiku-4-5").max_input_tokens == 200_000
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("claude-none")


def test_it_serves_no_other_providers_model(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="gpt-4o"):
        ask(claude, model="gpt-4o")
