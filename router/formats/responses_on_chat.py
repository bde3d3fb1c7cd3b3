"""A request in OpenAI's Responses format for a model that speaks another: its body, and the answer back; pure.

The way is over Chat Completions and Messages: `to_chat`, then `router.translation`; back from a message `to_response`
and `ResponseEvents`. Written from the types of openai 3.54 (types/responses/response_create_params.py,
response_input_item_param.py, response.py, response_stream_event.py), 2026-11-25.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from router.errors import RequestError
from router.formats.messages_chat_replies import to_chat_usage
from router.formats.states import FIELD, is_sealed
from router.types import Body

_SAME = ("model", "temperature", "top_p", "stream", "parallel_tool_calls", "service_tier", "safety_identifier", "user")
_SILENT = frozenset({
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "include", "store", "truncation",
    "stream_options", "router", "background_options", "access_programs", "moderation",
})  # fmt: skip
_SHOWN = ("text", "tool_use", "thinking")
_STATEFUL = ("previous_response_id", "conversation", "prompt", "background")
_READ = frozenset({*_SAME, *_SILENT, *_STATEFUL, "instructions", "input", "max_output_tokens", "tools", "tool_choice"})


def to_chat(body: Body) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A Responses body as a Chat Completions body, and notes on what was left out.

    Another model's reasoning is left out. Raises RequestError for what only OpenAI has: state kept there, its own
    tools, files by id.
    """
    for name in _STATEFUL:
        if body.get(name):
            _refuse(f"`{name}`: it is kept at OpenAI")
    notes: list[str] = []
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    system = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    given = body.get("input") or ()
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    chat["messages"] = [*system, *_messages(items, notes)]
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if body.get("tools"):
        chat["tools"] = [_function(tool) for tool in body["tools"]]
    if (choice := body.get("tool_choice")) is not None:
        chat["tool_choice"] = choice if isinstance(choice, str) else _named(choice)
    if effort := (body.get("reasoning") or {}).get("effort"):
        chat["reasoning_effort"] = effort
    if (shape := (body.get("text") or {}).get("format")) and shape.get("type") == "json_schema":
        chat["response_format"] = {
            "type": "json_schema",
            "json_schema": {k: v for k, v in shape.items() if k != "type"},
        }
    elif shape and shape.get("type") == "json_object":
        chat["response_format"] = dict(shape)
    dropped = sorted(name for name in body if body[name] is not None and name not in _READ | {"reasoning", "text"})
    notes += [f"{name} dropped: only the Responses API has it" for name in dropped]
    return chat, tuple(dict.fromkeys(notes))


def to_response(message: Mapping[str, Any], created: int) -> dict[str, Any]:
    """A message as a complete response; `created` is in seconds since the epoch. Thinking becomes reasoning items."""
    output = [_item(message["id"], index, block) for index, block in enumerate(_shown(message["content"]))]
    return {**_head(message["id"], message["model"], created), **_end(message.get("stop_reason")), "output": output,
            "usage": _usage(message.get("usage"))}  # fmt: skip


class ResponseEvents:
    """The events of a Messages stream as those of a Responses stream, numbered as they go."""

    def __init__(self, created: int) -> None:
        self._created = created
        self._number = 0
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._stop: str | None = None
        self._output: list[dict[str, Any]] = []
        self._open: dict[int, dict[str, Any]] = {}

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events that one amounts to, often none (ping, thinking)."""
        events = list(self._events(event))
        for told in events:
            told["sequence_number"] = self._number
            self._number += 1
        return events

    def _events(self, event: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        kind = event["type"]
        if kind == "error":
            error = event.get("error") or {}
            return [{"type": "error", "code": error.get("type"), "message": error.get("message"), "param": None}]
        if kind == "message_start":
            return self._begin(event["message"])
        if kind == "content_block_start":
            return self._add(event["index"], event["content_block"])
        if kind == "content_block_delta" and event["index"] in self._open:
            return self._more(event["index"], event["delta"])
        if kind == "content_block_stop" and event["index"] in self._open:
            return self._close(event["index"])
        if kind == "message_delta":
            self._usage |= {name: n for name, n in (event.get("usage") or {}).items() if n is not None}
            self._stop = event["delta"].get("stop_reason") or self._stop
        if kind == "message_stop":
            end = _end(self._stop)
            response = {**self._head, **end, "output": self._output, "usage": _usage(self._usage)}
            return [{"type": f"response.{end['status']}", "response": response}]
        return []

    def _begin(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        self._head = _head(message["id"], message["model"], self._created)
        self._usage = dict(message.get("usage") or {})
        begun = {**self._head, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
        return [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]

    def _add(self, index: int, block: Mapping[str, Any]) -> list[dict[str, Any]]:
        if block["type"] not in _SHOWN:
            return []
        item = _item(self._head["id"], len(self._output) + len(self._open), {**block, "input": None})
        self._open[index] = item
        at = self._at(item)
        if block["type"] == "thinking":
            return [{"type": "response.output_item.added", "output_index": at["output_index"], "item": dict(item)}]
        if block["type"] == "tool_use":
            begun = {**item, "arguments": "", "status": "in_progress"}
            return [{"type": "response.output_item.added", "output_index": at["output_index"], "item": begun}]
        begun, part = {**item, "content": [], "status": "in_progress"}, {**item["content"][0], "text": ""}
        return [
            {"type": "response.output_item.added", "output_index": at["output_index"], "item": begun},
            {"type": "response.content_part.added", **at, "content_index": 0, "part": part},
        ]

    def _more(self, index: int, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        item = self._open[index]
        if delta["type"] == "text_delta":
            item["content"][0]["text"] += delta["text"]
            return [{"type": "response.output_text.delta", **self._at(item), "content_index": 0,
                     "delta": delta["text"], "logprobs": []}]  # fmt: skip
        if delta["type"] == "signature_delta":
            item["encrypted_content"] = delta["signature"]
        if delta["type"] == "thinking_delta" and delta["thinking"]:
            return self._summarised(item, delta["thinking"])
        if delta["type"] == "input_json_delta" and delta["partial_json"]:
            item["arguments"] += delta["partial_json"]
            piece = delta["partial_json"]
            return [{"type": "response.function_call_arguments.delta", **self._at(item), "delta": piece}]
        return []

    def _summarised(self, item: dict[str, Any], text: str) -> list[dict[str, Any]]:
        at, begun = {**self._at(item), "summary_index": 0}, list[dict[str, Any]]()
        if not item["summary"]:
            item["summary"] = [{"type": "summary_text", "text": ""}]
            begun = [{"type": "response.reasoning_summary_part.added", **at, "part": dict(item["summary"][0])}]
        item["summary"][0]["text"] += text
        return [*begun, {"type": "response.reasoning_summary_text.delta", **at, "delta": text}]

    def _close(self, index: int) -> list[dict[str, Any]]:
        item = self._open.pop(index)
        at = self._at(item)
        self._output.append(item)
        done = {"type": "response.output_item.done", "output_index": at["output_index"], "item": item}
        if item["type"] == "reasoning":
            part = {**at, "summary_index": 0}
            text = [
                {"type": "response.reasoning_summary_text.done", **part, "text": s["text"]} for s in item["summary"]
            ]
            ends = [{"type": "response.reasoning_summary_part.done", **part, "part": s} for s in item["summary"]]
            return [*text, *ends, done]
        if item["type"] == "function_call":
            item["arguments"] = item["arguments"] or "{}"
            name, given = item["name"], item["arguments"]
            return [{"type": "response.function_call_arguments.done", **at, "name": name, "arguments": given}, done]
        part = item["content"][0]
        return [
            {"type": "response.output_text.done", **at, "content_index": 0, "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", **at, "content_index": 0, "part": part},
            done,
        ]

    def _at(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": int(item["id"].rpartition("_")[2])}


# ---- Responses -> Chat Completions


def _messages(items: Iterable[Any], notes: list[str]) -> list[dict[str, Any]]:
    """Items in a row that are one assistant's turn become one message."""
    messages: list[dict[str, Any]] = []
    sealed: list[tuple[str, str]] = []
    for item in items:
        kind = item.get("type") or "message"
        if kind == "message":
            messages.append({"role": item["role"], "content": _content(item["content"])})
        elif kind == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(
                {"id": item.get("call_id"), "type": "function", "function": function}
            )
        elif kind == "function_call_output":
            text, parts = _output(item["output"])
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
            messages += [{"role": "user", "content": parts}] if parts else []
        elif kind == "reasoning" and is_sealed(item.get("encrypted_content")):
            shown = "\n\n".join(part.get("text") or "" for part in item.get("summary") or ())
            sealed.append((item["encrypted_content"], shown))
        elif kind in ("reasoning", "compaction"):
            notes.append(f"{kind} items dropped: another model cannot read them")
        else:
            _refuse(f"an item of type {kind!r}")
        if sealed and kind in ("message", "function_call") and messages[-1]["role"] == "assistant":
            messages[-1].setdefault(FIELD, []).extend(sealed)
            sealed = []
    return messages


def _content(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _output(output: Any) -> tuple[str, list[dict[str, Any]]]:
    """A tool's result: its text, and what of it a tool message cannot hold."""
    if isinstance(output, str):
        return output, []
    parts = [_part(part) for part in output]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts), [part for part in parts if part["type"] != "text"]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = part["type"]
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal":
        return {"type": "text", "text": part["refusal"]}
    if kind == "input_image" and part.get("image_url"):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    if kind == "input_file" and part.get("file_data"):
        return {"type": "file", "file": {k: part[k] for k in ("filename", "file_data") if part.get(k)}}
    return _refuse(f"a part of type {kind!r}{' by id' if part.get('file_id') else ''}")


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        _refuse(f"a tool of type {tool.get('type')!r}: it runs at OpenAI")
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _named(choice: Mapping[str, Any]) -> dict[str, Any]:
    if choice.get("type") != "function":
        _refuse(f"tool_choice of type {choice.get('type')!r}")
    return {"type": "function", "function": {"name": choice["name"]}}


def _refuse(what: str) -> NoReturn:
    raise RequestError(f"{what}, which cannot be said to another provider's model; name one of OpenAI's")


# ---- a message -> a response


def _shown(content: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [block for block in content if block["type"] in _SHOWN]


def _item(message_id: str, index: int, block: Mapping[str, Any]) -> dict[str, Any]:
    """A block as an output item; `index` is its place in the output."""
    if block["type"] == "tool_use":
        given = "" if block["input"] is None else json.dumps(block["input"], ensure_ascii=False, separators=(",", ":"))
        ids = {"id": f"fc_{message_id}_{index}", "call_id": block["id"]}
        return {"type": "function_call", **ids, "name": block["name"], "arguments": given, "status": "completed"}
    if block["type"] == "thinking":
        text = block.get("thinking")
        summary = [{"type": "summary_text", "text": text}] if text else []
        head = {"type": "reasoning", "id": f"rs_{message_id}_{index}", "summary": summary}
        return {**head, "encrypted_content": block.get("signature") or None}
    text = block.get("text") or ""
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    head = {"type": "message", "id": f"msg_{message_id}_{index}", "role": "assistant", "status": "completed"}
    return {**head, "content": [part]}


def _head(message_id: str, model: str, created: int) -> dict[str, Any]:
    return {
        "id": f"resp_{message_id}",
        "object": "response",
        "created_at": created,
        "model": model,
        "error": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": None,
        "top_p": None,
    }


def _end(stop: str | None) -> dict[str, Any]:
    cut = {"max_tokens": "max_output_tokens", "model_context_window_exceeded": "max_output_tokens"}.get(stop or "")
    cut = "content_filter" if stop == "refusal" else cut
    return {"status": "incomplete" if cut else "completed", "incomplete_details": {"reason": cut} if cut else None}


def _usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    chat = to_chat_usage(usage)
    return chat and {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": chat["prompt_tokens_details"],
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": chat["completion_tokens_details"],
        "total_tokens": chat["total_tokens"],
    }
