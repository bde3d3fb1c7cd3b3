"""Answers both ways: recorded shapes, checked against the SDKs' own types and by their own accumulators."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from router import Api, Usage
from router.formats import messages_chat_replies, usage
from router.formats.chat_events import MessageEvents

EVENT: Any = TypeAdapter(RawMessageStreamEvent)

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1795348800,
    "model": "gpt-6-luna",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": None,
            "message": {
                "role": "assistant",
                "content": "Let me see.",
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Łódź"}'},
                    }
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 3000,
        "completion_tokens": 50,
        "total_tokens": 3050,
        "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 1900},
        "completion_tokens_details": {"reasoning_tokens": 20},
    },
}
MESSAGE = {
    "id": "chatcmpl-1",
    "type": "message",
    "role": "assistant",
    "model": "gpt-6-luna",
    "content": [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Łódź"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 76,
        "cache_read_input_tokens": 1024,
        "cache_creation_input_tokens": 1900,
        "cache_creation": {"ephemeral_5m_input_tokens": 1900, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
    },
}


def test_a_reply_both_ways() -> None:
    message = messages_chat_replies.to_message(COMPLETION)
    assert message == MESSAGE
    Message.model_validate(message)
    completion = messages_chat_replies.to_completion(MESSAGE, 1795348800)
    assert completion == COMPLETION
    ChatCompletion.model_validate(completion)


@pytest.mark.parametrize(
    ("finish", "stop", "back"),
    [
        ("stop", "end_turn", "stop"),
        ("length", "max_tokens", "length"),
        ("content_filter", "refusal", "content_filter"),
        (None, "end_turn", "stop"),
    ],
)
def test_why_it_stopped(finish: str | None, stop: str, back: str) -> None:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": "x"}}
    message = messages_chat_replies.to_message({**COMPLETION, "choices": [choice]})
    assert message["stop_reason"] == stop
    assert messages_chat_replies.to_completion(message, 0)["choices"][0]["finish_reason"] == back


def test_thinking_refusals_and_tool_calls_that_say_stop() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    completion = messages_chat_replies.to_completion({**MESSAGE, "content": [thought, *MESSAGE["content"]]}, 1795348800)
    assert completion == COMPLETION
    refused = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "refusal": "No."}}
    message = messages_chat_replies.to_message({**COMPLETION, "choices": [refused]})
    assert (message["stop_reason"], message["content"]) == ("refusal", [{"type": "text", "text": "No."}])
    wrong = {**COMPLETION["choices"][0], "finish_reason": "stop"}
    assert messages_chat_replies.to_message({**COMPLETION, "choices": [wrong]})["stop_reason"] == "tool_use"


def test_a_reply_without_usage_stays_without() -> None:
    message = messages_chat_replies.to_message({**COMPLETION, "usage": None})
    assert usage.read_usage(message, Api.MESSAGES) == usage.UNREPORTED
    assert messages_chat_replies.to_completion(message, 0)["usage"] is None


counts = st.integers(0, 10**6)


@given(counts, counts, counts, counts)
def test_usage_means_the_same_in_both_formats(fresh: int, read: int, written: int, output: int) -> None:
    chat = {
        "prompt_tokens": fresh + read + written,
        "completion_tokens": output,
        "total_tokens": fresh + read + written + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    expected = Usage(fresh, read, written, 0, output)
    messages = messages_chat_replies.to_messages_usage(chat)
    assert (
        usage.read_usage({"usage": chat}, Api.CHAT) == usage.read_usage({"usage": messages}, Api.MESSAGES) == expected
    )
    assert messages_chat_replies.to_chat_usage(messages) == chat


def chunk(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-6-luna"}
    return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}


def call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": first.pop("name")} if first else {})}
    return {"tool_calls": [{"index": index, "function": function, **first}]}


CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Let me "}),
    chunk({"content": "see."}),
    chunk(call(0, "", id="call_1", type="function", name="weather")),
    chunk(call(0, '{"city":')),
    chunk(call(0, '"Łódź"}')),
    chunk(call(1, "{}", id="call_2", type="function", name="time")),
    chunk({}, "tool_calls"),
    {**chunk({}), "choices": [], "usage": COMPLETION["usage"]},
]


def as_events(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stream = MessageEvents()
    return [*(event for c in chunks for event in stream.feed(c)), *stream.end()]


def accumulated(events: list[dict[str, Any]]) -> Any:
    """What the anthropic SDK makes of a stream, having checked each event's type."""
    snapshot: Any = None
    buffers: dict[Any, Any] = {}
    for event in events:
        typed = EVENT.validate_python(event)
        snapshot = accumulate_event(event=typed, current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


def test_a_chat_stream_as_events() -> None:
    events = as_events(CHUNKS)
    assert [event["type"].removeprefix("content_block_") for event in events] == [
        "message_start", "start", "delta", "delta", "stop", "start", "delta", "delta", "stop", "start", "delta", "stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    message = accumulated(events)
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert (message.content[0].text, message.content[1].input) == ("Let me see.", {"city": "Łódź"})
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 50)
    meter = usage.Meter(Api.MESSAGES)
    for event in events:
        meter.add(event)
    assert meter.usage() == Usage(76, 1024, 1900, 0, 50)


EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "id": "msg_1", "content": [], "stop_reason": None,
     "usage": {"input_tokens": 76, "cache_read_input_tokens": 1024, "cache_creation_input_tokens": 1900,
               "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Let me see."}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block":
     {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"Łódź"}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None},
     "usage": {"output_tokens": 50}},
    {"type": "message_stop"},
]  # fmt: skip


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_messages_stream_as_chunks(include_usage: bool) -> None:
    stream = messages_chat_replies.CompletionChunks(7, include_usage=include_usage)
    chunks = [ChatCompletionChunk.model_validate(c) for event in EVENTS for c in stream.feed(event)]
    state: Any = ChatCompletionStreamState()
    for c in chunks:
        state.handle_chunk(c)
    choice = state.get_final_completion().choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
    assert choice.message.tool_calls[0].id == "toolu_1"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Łódź"}
    assert (chunks[-1].usage is not None) == include_usage
    if include_usage:
        assert usage.read_usage(chunks[-1], Api.CHAT) == Usage(76, 1024, 1900, 0, 50)


@settings(deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=10), max_size=5), st.lists(st.dictionaries(st.text(), st.text()), max_size=3)
)
def test_streams_there_and_back_keep_every_word(words: list[str], given_calls: list[dict[str, str]]) -> None:
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in words)]
    for number, arguments in enumerate(given_calls):
        text = json.dumps(arguments)
        chunks.append(chunk(call(number, text[:1], id=f"c{number}", type="function", name="f")))
        chunks.append(chunk(call(number, text[1:])))
    chunks.append(chunk({}, "tool_calls" if given_calls else "stop"))
    message = accumulated(as_events(chunks))
    assert "".join(block.text for block in message.content if block.type == "text") == "".join(words)
    assert [block.input for block in message.content if block.type == "tool_use"] == given_calls
    stream = messages_chat_replies.CompletionChunks(7)
    state: Any = ChatCompletionStreamState()
    for event in as_events(chunks):
        for c in stream.feed(event):
            state.handle_chunk(ChatCompletionChunk.model_validate(c))
    final = state.get_final_completion().choices[0].message
    assert (final.content or "") == "".join(words)
    assert [json.loads(c.function.arguments) for c in final.tool_calls or ()] == given_calls


def test_errors_keep_their_words() -> None:
    theirs = {"error": {"message": "Too many.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    ours = messages_chat_replies.to_messages_error(theirs, 429)
    assert ours["error"] == {"type": "rate_limit_error", "message": "Too many."}
    assert messages_chat_replies.to_messages_error({}, 502)["error"]["type"] == "api_error"
    limit = {"type": "rate_limit_error", "message": "Spent.", "details": {"error_code": "enforced_spend_limit_reached"}}
    assert messages_chat_replies.to_chat_error({"type": "error", "error": limit}) == {
        "error": {
            "message": "Spent.",
            "type": "rate_limit_error",
            "param": None,
            "code": "enforced_spend_limit_reached",
        }
    }
    assert MessageEvents().feed(theirs)[0]["type"] == "error"
    assert (
        messages_chat_replies.CompletionChunks(1).feed({"type": "error", "error": limit})[0]["error"]["message"]
        == "Spent."
    )
