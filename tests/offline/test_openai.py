"""Chat Completions and Responses over sockets through the SDK: replies of each kind, streams, caches, usage."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

from router.offline import Reply, ToolCall, Upstream

USER: list[Any] = [{"role": "user", "content": "hi"}]
LONG = "A rule about shipping parcels by night train. " * 400
LUNA, TERRA = "gpt-6-luna", "gpt-6.1-terra"
WEATHER = Reply("Let me look.", (ToolCall("weather", {"city": "Oslo"}), ToolCall("time", {})), thinking="Oslo, so …")
MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def chat(client: Any, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": LUNA, "messages": USER} | options)


def respond(client: Any, **options: Any) -> Any:
    return client.responses.create(**{"model": TERRA, "input": "hi"} | options)


def frames(response: Any) -> list[tuple[str, Any]]:
    """(event name or "", data) of each frame of a stream."""
    found = re.findall(r"(?:event: (\S+)\n)?data: (.*)\n\n", response.read().decode())
    return [(name, data if data == "[DONE]" else json.loads(data)) for name, data in found]


class TestChat:
    def test_scripted_tools(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts.append(WEATHER)
        choice = chat(gpt).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
        assert [(t.function.name, json.loads(t.function.arguments)) for t in choice.message.tool_calls] == [
            ("weather", {"city": "Oslo"}), ("time", {})]  # fmt: skip
        assert upstream.bills[-1].output > 4

    def test_exact_chunks(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts.append(WEATHER)
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        with gpt.chat.completions.with_streaming_response.create(model=LUNA, messages=USER, **options) as response:
            chunks = [data for _, data in frames(response)]
        assert chunks[-1] == "[DONE]"
        assert (chunks[-2]["choices"], chunks[-2]["usage"]["completion_tokens"]) == ([], upstream.bills[-1].output)
        assert all(chunk["usage"] is None for chunk in chunks[:-2])
        choices = [chunk["choices"][0] for chunk in chunks[:-2]]
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "tool_calls")
        tools = [c["delta"]["tool_calls"][0] for c in choices if "tool_calls" in c["delta"]]
        assert [(t["index"], "id" in t, t["function"].get("name")) for t in tools] == [
            (0, True, "weather"), (0, False, None), (1, True, "time"), (1, False, None)]  # fmt: skip

    def test_the_sdk_puts_the_stream_together(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts.append(WEATHER)
        with gpt.chat.completions.stream(model=LUNA, messages=USER) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.content == "Let me look."
        assert [t.function.arguments for t in message.tool_calls or ()] == ['{"city": "Oslo"}', "{}"]

    def test_no_usage_chunk_unless_asked(self, gpt: openai.OpenAI) -> None:
        assert all(chunk.choices and chunk.usage is None for chunk in chat(gpt, stream=True))

    def test_a_limit_cuts(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts.append(Reply("one two three"))
        reply = chat(gpt, max_completion_tokens=2)
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two", "length")
        assert reply.usage.completion_tokens == 2

    def test_gemini_may_leave_usage_out(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts += [Reply("hello", has_usage=False), Reply("hello", has_usage=False)]
        gemini = {"model": "gemini-3.8-flash"}
        assert chat(gpt, **gemini).usage is None
        chunks = list(chat(gpt, **gemini, stream=True, stream_options={"include_usage": True}))
        assert all(chunk.usage is None for chunk in chunks)
        assert upstream.bills[-1].fresh > 0  # it costs all the same
        details = chat(gpt, **gemini).usage.prompt_tokens_details
        assert (details.cached_tokens, details.cache_write_tokens) == (0, None)

    def test_a_marked_system_prompt_is_read_by_the_next_conversation(
        self, gpt: openai.OpenAI, upstream: Upstream
    ) -> None:
        def usage(question: str, **mark: Any) -> Any:
            system = {"role": "system", "content": [{"type": "text", "text": LONG, **mark}]}
            return chat(gpt, messages=[system, {"role": "user", "content": question}]).usage.prompt_tokens_details

        assert usage("a").cache_write_tokens > 3000
        assert usage("b").cached_tokens == 0  # the breakpoint was at the end of the first question
        assert usage("c", **MARK).cached_tokens == 0
        assert usage("d", **MARK).cached_tokens > 3000
        assert upstream.bills[-1].fresh == 0 < upstream.bills[-1].write_short < 50  # the question alone is written

    def test_cache_keys_keep_apart(self, gpt: openai.OpenAI) -> None:
        messages = [{"role": "system", "content": LONG}, *USER]
        read = [chat(gpt, messages=messages, prompt_cache_key=key).usage.prompt_tokens_details.cached_tokens
                for key in ("a", "b", "a")]  # fmt: skip
        assert read[:2] == [0, 0]
        assert read[2] > 3000

    def test_rejections_name_their_parameter(self, gpt: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="Use 'max_completion_tokens' instead") as caught:
            chat(gpt, max_tokens=5)
        assert (caught.value.param, caught.value.code) == ("max_tokens", "unsupported_parameter")
        with pytest.raises(openai.BadRequestError, match="maximum context length is 128000 tokens"):
            chat(gpt, model="gpt-4o", messages=[{"role": "user", "content": "a " * 130_000}])
        with pytest.raises(openai.NotFoundError):
            chat(gpt, model="claude-opus-5-5")


class TestResponses:
    def test_scripted_items(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts += [WEATHER, Reply(tool_calls=(ToolCall("t"),), thinking="Hm.")]
        reply = respond(gpt)
        assert [item.type for item in reply.output] == ["reasoning", "message", "function_call", "function_call"]
        assert (reply.output_text, reply.output[2].arguments) == ("Let me look.", '{"city": "Oslo"}')
        assert reply.usage.output_tokens_details.reasoning_tokens > 0
        kept = respond(gpt, include=["reasoning.encrypted_content"]).output
        assert [item.type for item in kept] == ["reasoning", "function_call"]
        assert kept[0].encrypted_content
        history: list[Any] = [*USER, *(item.model_dump(exclude_none=True) for item in kept)]
        history.append({"type": "function_call_output", "call_id": kept[1].call_id, "output": "ok"})
        assert respond(gpt, input=history).output_text

    def test_exact_events(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts.append(WEATHER)
        with gpt.responses.with_streaming_response.create(model=TERRA, input="hi", stream=True) as response:
            found = frames(response)
        names = [name.removeprefix("response.") for name, _ in found]
        call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]
        assert names == [
            "created", "in_progress",
            "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
            "reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done",
            "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
            "output_item.done",
            *call, "output_item.done", *call, "output_item.done",
            "completed",
        ]  # fmt: skip
        assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
        assert all(data["type"] == name for name, data in found)

    def test_the_sdk_puts_the_stream_together(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts.append(WEATHER)
        with gpt.responses.stream(model=TERRA, input="hi") as stream:
            final = stream.get_final_response()
        assert final.output_text == "Let me look."
        assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]

    def test_a_limit_leaves_it_incomplete(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.scripts += [Reply("one two three " * 20), Reply("one two three " * 20)]
        reply = respond(gpt, max_output_tokens=16)
        assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        events = list(respond(gpt, max_output_tokens=16, stream=True))
        assert events[-1].type == "response.incomplete"

    def test_both_lifetimes_are_billed_and_reported(self, gpt: openai.OpenAI, upstream: Upstream, clock: Any) -> None:
        def usage(question: str) -> Any:
            mark = {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}
            system = {"role": "system", "content": [{"type": "input_text", "text": LONG, **mark}]}
            return respond(gpt, input=[system, {"role": "user", "content": question}]).usage.input_tokens_details

        first = usage("a")
        split = first.cache_write_tokens_details
        assert split.ttl_12h_tokens > 3000 > split.ttl_30m_tokens > 0
        assert first.cache_write_tokens == split.ttl_12h_tokens + split.ttl_30m_tokens
        bill = upstream.bills[-1]
        assert (bill.write_long, bill.write_short) == (split.ttl_12h_tokens, split.ttl_30m_tokens)
        terra = upstream.models.models[TERRA].prices[0]
        spent = bill.write_long * terra.cache_write_long + bill.write_short * terra.cache_write_short
        assert bill.usd == (spent + bill.output * terra.output) / 1_000_000
        clock.now += 12 * 3600 - 1
        assert usage("b").cached_tokens == split.ttl_12h_tokens

    def test_explicit_mode_without_breakpoints_caches_nothing(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        for _ in range(2):
            respond(gpt, input=LONG, extra_body={"prompt_cache_options": {"mode": "explicit"}})
            bill = upstream.bills[-1]
            assert (bill.read, bill.write_short, bill.write_long) == (0, 0, 0)
            assert bill.fresh > 3000

    def test_prewarming_writes_and_answers_nothing(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        respond(gpt, input=LONG, extra_body={"prompt_cache_options": {"prewarm": True}})
        assert (upstream.bills[-1].output, upstream.bills[-1].write_short > 3000) == (0, True)
        assert respond(gpt, input=LONG).usage.input_tokens_details.cached_tokens == upstream.bills[0].write_short


def test_models(gpt: openai.OpenAI) -> None:
    listed = [model.id for model in gpt.models.list()]
    assert {LUNA, "gemini-3.8-flash"} < set(listed)
    assert not any(name.startswith("claude") for name in listed)
