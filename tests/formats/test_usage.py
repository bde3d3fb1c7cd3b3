"""Golden cases: one reply of each shape, as dicts and as the SDKs' own objects."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message, RawMessageStartEvent
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from router import Api, Usage
from router.formats import usage

MESSAGE_USAGE = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 5000,
    "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    "output_tokens": 80,
}
CHAT_USAGE = {
    "prompt_tokens": 2000,
    "completion_tokens": 70,
    "total_tokens": 2070,
    "prompt_tokens_details": {"cached_tokens": 1536, "cache_write_tokens": 400},
}
RESPONSES_USAGE = {
    "input_tokens": 3000,
    "input_tokens_details": {
        "cached_tokens": 1024,
        "cache_write_tokens": 900,
        "cache_write_tokens_details": {"ttl_30m_tokens": 600, "ttl_12h_tokens": 300},
    },
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 10},
    "total_tokens": 3050,
}


@pytest.mark.parametrize(
    ("api", "raw", "cls", "expected"),
    [
        (Api.MESSAGES, MESSAGE_USAGE, Message, Usage(21, 5000, 100, 200, 80)),
        (Api.MESSAGES, {"input_tokens": 9, "output_tokens": 2}, Message, Usage(9, 0, 0, 0, 2)),
        (Api.CHAT, CHAT_USAGE, ChatCompletion, Usage(64, 1536, 400, 0, 70)),
        (
            Api.CHAT,
            {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
            ChatCompletion,
            Usage(9, output_tokens=2),
        ),
        (Api.RESPONSES, RESPONSES_USAGE, Response, Usage(1076, 1024, 600, 300, 50)),
    ],
    ids=["messages", "messages without cache", "chat", "chat without details", "responses"],
)
def test_complete_replies(api: Api, raw: dict[str, Any], cls: Any, expected: Usage) -> None:
    assert usage.read_usage({"usage": raw}, api) == expected
    assert usage.read_usage(cls.construct(usage=raw), api) == expected
    total = sum(raw.get(k) or 0 for k in ("input_tokens", "prompt_tokens"))
    if api is Api.MESSAGES:
        total += (raw.get("cache_creation_input_tokens") or 0) + (raw.get("cache_read_input_tokens") or 0)
    assert expected.input_tokens == total


@pytest.mark.parametrize("api", Api)
@pytest.mark.parametrize("reply", [{}, {"usage": None}, "text", None])
def test_no_usage_is_unreported_not_zero(api: Api, reply: Any) -> None:
    assert not usage.read_usage(reply, api).reported
    assert not usage.Meter(api).usage().reported


def test_anthropic_stream_takes_the_split_from_the_start_and_the_last_value_of_the_rest() -> None:
    meter = usage.Meter(Api.MESSAGES)
    start = {"type": "message_start", "message": {"usage": {**MESSAGE_USAGE, "output_tokens": 1}}}
    meter.add(RawMessageStartEvent.construct(**start))
    assert meter.usage() == Usage(21, 5000, 100, 200, 1)  # what a stream that breaks here has reported
    meter.add({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}})
    meter.add({"type": "message_delta", "usage": {"output_tokens": 40}})
    meter.add({"type": "message_delta", "usage": {"output_tokens": 80, "input_tokens": 25}})
    meter.add({"type": "message_stop"})
    assert meter.usage() == Usage(25, 5000, 100, 200, 80)


def test_chat_stream_reads_the_final_usage_chunk() -> None:
    meter = usage.Meter(Api.CHAT)
    meter.add({"choices": [{"delta": {"content": "x"}}], "usage": None})
    assert not meter.usage().reported
    meter.add({"choices": [], "usage": CHAT_USAGE})
    assert meter.usage() == Usage(64, 1536, 400, 0, 70)


def test_responses_stream_reads_the_completed_event() -> None:
    meter = usage.Meter(Api.RESPONSES)
    meter.add({"type": "response.created", "response": {"usage": None}})
    meter.add({"type": "response.output_text.delta", "delta": "x"})
    meter.add({"type": "response.completed", "response": {"usage": RESPONSES_USAGE}})
    assert meter.usage() == Usage(1076, 1024, 600, 300, 50)


CALL = {"name": "look", "arguments": '{"a": 1}'}


@pytest.mark.parametrize(
    ("api", "cls", "reply", "events"),
    [
        (
            Api.MESSAGES,
            Message,
            {
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "not text"},
                    {"type": "text", "text": "Hello"},
                    {"type": "tool_use", "id": "not text", "name": "look", "input": {"a": 1}},
                ]
            },
            [
                {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "Hm."}},
                {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "not text"}},
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
                {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}look'}},
                {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            ],
        ),
        (
            Api.CHAT,
            ChatCompletion,
            {"choices": [{"message": {"content": "Hm.Hello", "tool_calls": [{"id": "not text", "function": CALL}]}}]},
            [
                {"choices": [{"delta": {"role": "assistant", "content": "Hm.Hello"}}]},
                {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "not text", "function": CALL}]}}]},
                {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
            ],
        ),
        (
            Api.RESPONSES,
            Response,
            {
                "output": [
                    {"type": "reasoning", "id": "not text", "summary": [{"type": "summary_text", "text": "Hm."}]},
                    {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
                    {"type": "function_call", "call_id": "not text", **CALL},
                ]
            },
            [
                {"type": "response.reasoning_summary_text.delta", "delta": "Hm."},
                {"type": "response.output_text.delta", "delta": "Hello"},
                {"type": "response.output_text.done", "text": "Hello"},
                {"type": "response.function_call_arguments.delta", "delta": '{"a": 1}look'},
                {"type": "response.completed", "response": {"usage": None}},
            ],
        ),
    ],
    ids=["messages", "chat", "responses"],
)
def test_what_the_model_wrote_is_counted_once(api: Api, cls: Any, reply: dict[str, Any], events: list[Any]) -> None:
    assert usage.n_chars(reply) == usage.n_chars(cls.construct(**reply)) == len('Hm.Hellolook{"a": 1}')
    meter = usage.Meter(api)
    for event in events:
        meter.add(event)
    assert meter.n_chars == len('Hm.Hellolook{"a": 1}')
    assert not meter.usage().reported
    assert [usage.n_chars(odd) for odd in (None, "text", {"content": 5}, {"choices": [None, "a"]})] == [0, 0, 0, 1]


@pytest.mark.parametrize("odd", [-3, float("inf"), float("nan"), "many", [], 10**30])
@pytest.mark.parametrize("api", list(Api))
def test_counts_that_are_no_counts_are_unreported(api: Api, odd: Any) -> None:
    name = "completion_tokens" if api is Api.CHAT else "output_tokens"
    found = usage.read_usage({"usage": {"prompt_tokens": 5, "input_tokens": 5, name: odd}}, api)
    assert found == (usage.UNREPORTED if odd else Usage(5))
