"""Answers between Anthropic Messages and OpenAI Chat Completions: replies, stream events, usage, errors; pure.

Anthropic's `input_tokens` excludes what was read from and written to the cache, OpenAI's `prompt_tokens` includes both.
Event orders are those of the SDKs' own stream readers (anthropic 2.12, openai 3.54) and of
https://platform.claude.com/docs/en/build-with-claude/streaming, 2026-11-22.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from router.formats.messages_chat import arguments

_STOP = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_KIND_OF_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def to_message(completion: Mapping[str, Any]) -> dict[str, Any]:
    """A chat completion's first choice as a message. `usage` is None where the completion reports none."""
    choice = completion["choices"][0]
    given = choice["message"]
    text = given.get("content") or given.get("refusal")
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for call in given.get("tool_calls") or ():
        function = call["function"]
        content.append(
            {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments(function, [])}
        )
    stop = _STOP.get(choice.get("finish_reason") or "stop", "end_turn")
    if given.get("tool_calls") and stop == "end_turn":
        stop = "tool_use"  # some compatible servers say "stop"
    return {
        **_message_head(completion),
        "content": content,
        "stop_reason": "refusal" if given.get("refusal") else stop,
        "stop_sequence": None,
        "usage": to_messages_usage(completion.get("usage")),
    }


def to_completion(message: Mapping[str, Any], created: int) -> dict[str, Any]:
    """A message as a chat completion; `created` is in seconds since the epoch. Thinking blocks are left out."""
    texts = [block["text"] for block in message["content"] if block["type"] == "text"]
    calls = [
        {"id": b["id"], "type": "function", "function": {"name": b["name"], "arguments": _dumps(b["input"])}}
        for b in message["content"]
        if b["type"] == "tool_use"
    ]
    given: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None, "refusal": None}
    if calls:
        given["tool_calls"] = calls
    finish = _FINISH.get(message.get("stop_reason") or "", "stop")
    return {
        "id": message["id"],
        "object": "chat.completion",
        "created": created,
        "model": message["model"],
        "choices": [{"index": 0, "message": given, "finish_reason": finish, "logprobs": None}],
        "usage": to_chat_usage(message.get("usage")),
    }


def to_messages_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Chat usage as Messages usage: what was cached is taken out of the input. OpenAI's writes are short (30 min)."""
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    thinking = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    return {
        "input_tokens": max((usage.get("prompt_tokens") or 0) - read - written, 0),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.get("completion_tokens") or 0,
        **({} if thinking is None else {"output_tokens_details": {"thinking_tokens": thinking}}),
    }


def to_chat_usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Messages usage as Chat usage: all input tokens in one sum, what was cached once more beside it."""
    if not usage:
        return None
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    prompt, output = (usage.get("input_tokens") or 0) + read + written, usage.get("output_tokens") or 0
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }


def to_messages_error(body: Mapping[str, Any], status: int) -> dict[str, Any]:
    """An OpenAI error body as Anthropic's, typed by the HTTP status; the message stays word for word."""
    message = (body.get("error") or {}).get("message") or f"the provider answered {status}"
    kind = _KIND_OF_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def to_chat_error(body: Mapping[str, Any]) -> dict[str, Any]:
    """An Anthropic error body as OpenAI's; type and message stay, an `error_code` becomes `code`."""
    error = body.get("error") or {}
    code = (error.get("details") or {}).get("error_code")
    kind, message = error.get("type") or "api_error", error.get("message") or "the provider gave no message"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


class MessageEvents:
    """A chat completion's chunks as the events of a Messages stream: `feed` each chunk, then `end` at [DONE].

    The usage is in the last `message_delta`, for that is when OpenAI tells it; `message_start` holds zeros.
    """

    def __init__(self) -> None:
        self._started = False
        self._n_blocks = 0
        self._open: tuple[int, str] | None = None
        self._calls: dict[int, int] = {}
        self._stop = "end_turn"
        self._usage: dict[str, Any] | None = None

    def feed(self, chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events that a chunk amounts to, often none."""
        if chunk.get("error"):
            return [to_messages_error(chunk, 500)]
        events = [] if self._started else [self._start(chunk)]
        self._usage = to_messages_usage(chunk.get("usage")) or self._usage
        for choice in (chunk.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            if text := delta.get("content") or delta.get("refusal"):
                events += self._block("text", {"type": "text", "text": ""})
                events.append(self._delta(self._n_blocks - 1, {"type": "text_delta", "text": text}))
            for call in delta.get("tool_calls") or ():
                events += self._call(call)
            if finish := choice.get("finish_reason"):
                self._stop = _STOP.get(finish, "end_turn")
                if self._calls and self._stop == "end_turn":
                    self._stop = "tool_use"
        return events

    def end(self) -> list[dict[str, Any]]:
        """The last events: the open block closed, why it stopped, and the usage (zeros when there was none)."""
        events = self._close()
        delta = {"stop_reason": self._stop, "stop_sequence": None}
        usage = self._usage or {"output_tokens": 0}
        return [*events, {"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]

    def _start(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        self._started = True
        usage = {"input_tokens": 0, "output_tokens": 0}
        head = {**_message_head(chunk), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return {"type": "message_start", "message": head}

    def _call(self, call: Mapping[str, Any]) -> list[dict[str, Any]]:
        function, number = call.get("function") or {}, call.get("index") or 0
        events = []
        if number not in self._calls:
            self._calls[number] = self._n_blocks
            block: dict[str, Any] = {
                "type": "tool_use",
                "id": call.get("id"),
                "name": function.get("name"),
                "input": {},
            }
            events = self._block(f"call {number}", block)
        if function.get("arguments"):
            delta = {"type": "input_json_delta", "partial_json": function["arguments"]}
            events.append(self._delta(self._calls[number], delta))
        return events

    def _block(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        """Open a block, unless one of its kind is open already."""
        if self._open and self._open[1] == kind:
            return []
        events = self._close()
        self._open = (self._n_blocks, kind)
        self._n_blocks += 1
        return [*events, {"type": "content_block_start", "index": self._open[0], "content_block": block}]

    def _close(self) -> list[dict[str, Any]]:
        events = [{"type": "content_block_stop", "index": self._open[0]}] if self._open else []
        self._open = None
        return events

    def _delta(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": delta}


class CompletionChunks:
    """A Messages stream's events as the chunks of a chat completion; `data: [DONE]` is the caller's to add.

    `include_usage` is what the request's `stream_options` asked for: one more chunk, without choices, at the end.
    """

    def __init__(self, created: int, *, include_usage: bool = False) -> None:
        self._head: dict[str, Any] = {"object": "chat.completion.chunk", "created": created}
        self._include_usage = include_usage
        self._calls: dict[int, int] = {}
        self._usage: dict[str, Any] = {}

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The chunks that an event amounts to, often none (ping, thinking, the ends of blocks)."""
        kind = event["type"]
        if kind == "error":
            return [to_chat_error(event)]
        if kind == "message_start":
            message = event["message"]
            self._head |= {"id": message["id"], "model": message["model"]}
            self._usage = dict(message.get("usage") or {})
            return [self._chunk({"role": "assistant", "content": ""})]
        if kind == "content_block_start":
            return self._begin(event["index"], event["content_block"])
        if kind == "content_block_delta":
            return self._more(event["index"], event["delta"])
        if kind == "message_delta":
            self._usage |= {name: n for name, n in (event.get("usage") or {}).items() if n is not None}
            return [self._chunk({}, _FINISH.get(event["delta"].get("stop_reason") or "", "stop"))]
        if kind == "message_stop" and self._include_usage:
            return [{**self._head, "choices": [], "usage": to_chat_usage(self._usage)}]
        return []

    def _begin(self, index: int, block: Mapping[str, Any]) -> list[dict[str, Any]]:
        if block["type"] == "text":
            return [self._chunk({"content": block["text"]})] if block.get("text") else []
        if block["type"] != "tool_use":
            return []
        self._calls[index] = len(self._calls)
        given = _dumps(block["input"]) if block.get("input") else ""
        function = {"name": block["name"], "arguments": given}
        call = {"index": self._calls[index], "id": block["id"], "type": "function", "function": function}
        return [self._chunk({"tool_calls": [call]})]

    def _more(self, index: int, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        if delta["type"] == "text_delta":
            return [self._chunk({"content": delta["text"]})]
        if delta["type"] == "input_json_delta" and index in self._calls and delta["partial_json"]:
            function = {"arguments": delta["partial_json"]}
            return [self._chunk({"tool_calls": [{"index": self._calls[index], "function": function}]})]
        return []

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        usage = {"usage": None} if self._include_usage else {}
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **usage}


def _message_head(completion: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": completion.get("id"),
        "type": "message",
        "role": "assistant",
        "model": completion.get("model"),
    }


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
