"""Answers between Anthropic Messages and OpenAI Chat Completions: replies, stream events, usage, errors; pure.

Anthropic's `input_tokens` excludes what was read from and written to the cache, OpenAI's `prompt_tokens` includes both.
Event orders are those of the SDKs' own stream readers (anthropic 2.12, openai 3.54) and of
https://platform.claude.com/docs/en/build-with-claude/streaming, 2026-11-22.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from router.formats import states
from router.formats.messages_chat import arguments
from router.formats.states import State

STOP = {
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


def to_message(completion: Mapping[str, Any], model: str = "") -> dict[str, Any]:
    """A chat completion's first choice as a message. `usage` is None where the completion reports none.

    What `model`, the id in our catalog, wants back of it is sealed in a thinking block, which comes first.
    """
    choice = completion["choices"][0]
    given = choice["message"]
    text = given.get("content") or given.get("refusal")
    content: list[dict[str, Any]] = _thought(given, model)
    content += [{"type": "text", "text": text}] if text else []
    for call in given.get("tool_calls") or ():
        function = call["function"]
        content.append(
            {"type": "tool_use", "id": call.get("id"), "name": function["name"], "input": arguments(function, [])}
        )
    stop = STOP.get(choice.get("finish_reason") or "stop", "end_turn")
    if given.get("tool_calls") and stop == "end_turn":
        stop = "tool_use"  # some compatible servers say "stop"
    return {
        **message_head(completion),
        "content": content,
        "stop_reason": "refusal" if given.get("refusal") else stop,
        "stop_sequence": None,
        "usage": to_messages_usage(completion.get("usage")),
    }


def _thought(given: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    name, text = reasoning(given)
    fields = {name: None} if name else {}
    if given.get("reasoning_details"):
        fields["reasoning_details"] = given["reasoning_details"]
    calls = {str(c.get("id")): c["extra_content"] for c in given.get("tool_calls") or () if c.get("extra_content")}
    if not fields and not calls:
        return []
    return [{"type": "thinking", "thinking": text, "signature": states.seal(State(model, fields=fields, calls=calls))}]


def reasoning(given: Mapping[str, Any]) -> tuple[str, str]:
    """(the field's name, the text) of a compatible server's thinking in a message or a delta; "" and "" without."""
    for name in states.REASONING:
        if isinstance(text := given.get(name), str) and text:
            return name, text
    return "", ""


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


def message_head(completion: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": completion.get("id"),
        "type": "message",
        "role": "assistant",
        "model": completion.get("model"),
    }


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
