"""A Chat Completions body over OpenAI's Responses API, and its reply as a message; pure.

For the models that call function tools with reasoning there only (`Dialect.chat_tools`). Written from the types of
openai 3.54 (types/chat/completion_create_params.py, types/responses/response_create_params.py, response.py),
2026-11-25. Nothing is stored at the provider unless the caller says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from router.errors import TierwiseError
from router.formats import states
from router.formats.chat_events import ITEM
from router.formats.messages_chat import arguments, dropped, plain, refuse
from router.formats.states import FIELD, State
from router.types import Body

_SAME = (
    *("model", "temperature", "top_p", "user", "safety_identifier", "metadata", "service_tier", "parallel_tool_calls"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "moderation", "stream"),
)
_READ = {
    *_SAME,
    *("messages", "max_tokens", "max_completion_tokens", "tools", "tool_choice", "reasoning_effort", "response_format"),
    *("verbosity", "store", "stream_options", "router", "n", "modalities"),
}
_MARK = "prompt_cache_breakpoint"


def to_responses(chat: Body) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A Chat Completions body as a Responses body, and notes on what was left out.

    Raises RequestError for what has no counterpart: several choices, audio, web search, the functions of old, custom
    (free-form) tools.
    """
    _check(chat)
    sent: dict[str, Any] = {name: chat[name] for name in _SAME if chat.get(name) is not None}
    # The system prompt stays among the messages: `instructions` can carry no cache breakpoint.
    sent["input"] = [item for message in chat.get("messages") or () for item in _items(plain(message))]
    sent["store"] = bool(chat.get("store"))
    sent["include"] = ["reasoning.encrypted_content"]  # what it thought comes back on the next request
    most = chat.get("max_completion_tokens") or chat.get("max_tokens")
    if most is not None:
        sent["max_output_tokens"] = most
    if chat.get("tools"):
        sent["tools"] = [_tool(plain(tool)) for tool in chat["tools"]]
    if choice := chat.get("tool_choice"):
        sent["tool_choice"] = choice if isinstance(choice, str) else _choice(choice)
    if chat.get("reasoning_effort") is not None:
        sent["reasoning"] = {"effort": chat["reasoning_effort"]}
    if text := _text(chat):
        sent["text"] = text
    notes: list[str] = []
    dropped(chat, _READ, "Responses", notes)
    return sent, tuple(notes)


def _check(chat: Body) -> None:
    if (chat.get("n") or 1) != 1:
        refuse(f"n={chat['n']}: Responses gives one answer")
    if "audio" in (chat.get("modalities") or ()) or chat.get("audio"):
        refuse("audio: Responses answers in text")
    for name in ("web_search_options", "functions", "function_call"):
        if chat.get(name):
            refuse(f"`{name}`: Responses has none")


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        refuse(f"a tool of type {tool.get('type')!r}")
    return {"strict": False, **tool["function"], "type": "function"}


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice["allowed_tools"]
        names = [{"type": "function", "name": tool["function"]["name"]} for tool in allowed["tools"]]
        return {"type": kind, "mode": allowed["mode"], "tools": names}
    if kind != "function":
        refuse(f"tool_choice of type {kind!r}")
    return {"type": "function", "name": choice["function"]["name"]}


def _text(chat: Body) -> dict[str, Any]:
    """`text` of a Responses body: the answer's format and length."""
    text: dict[str, Any] = {}
    wanted = chat.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        text["format"] = {"type": "json_schema", **wanted["json_schema"]}
    elif wanted.get("type") == "json_object":
        text["format"] = {"type": "json_object"}
    if chat.get("verbosity") is not None:
        text["verbosity"] = chat["verbosity"]
    return text


def to_message(response: Mapping[str, Any], model: str = "") -> dict[str, Any]:
    """A complete response as a message. Raises TierwiseError, in the provider's words, when it is a failed one.

    Its encrypted reasoning, which `model` (the id in our catalog) wants back, is sealed in thinking blocks.
    """
    if response.get("status") == "failed":
        raise TierwiseError(f"{response.get('model')} failed: {(response.get('error') or {}).get('message')}")
    content: list[dict[str, Any]] = []
    refused = False
    for item in response["output"]:
        if item["type"] == "reasoning" and item.get("encrypted_content"):
            text = "\n\n".join(part.get("text") or "" for part in item.get("summary") or ())
            sealed = states.seal(State(model, items=[_kept(item)]))
            content.append({"type": "thinking", "thinking": text, "signature": sealed})
        if item["type"] == "function_call":
            given = arguments(item, [])
            content.append({"type": "tool_use", "id": item["call_id"], "name": item["name"], "input": given})
        for part in item.get("content") or () if item["type"] == "message" else ():
            refused = refused or part["type"] == "refusal"
            content.append({"type": "text", "text": part.get("text") or part.get("refusal") or ""})
    cut = (response.get("incomplete_details") or {}).get("reason")
    calls = any(block["type"] == "tool_use" for block in content)
    stop = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}.get(cut or "")
    return {
        "id": response["id"],
        "type": "message",
        "role": "assistant",
        "model": response["model"],
        "content": [block for block in content if block.get("text") != ""],
        "stop_reason": "refusal" if refused else stop or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": _usage(response.get("usage")),
    }


def to_chunk(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """A stream's event as the chunk of a chat completion; None for those that have no counterpart."""
    kind = event.get("type")
    if kind == "error":
        return {"error": {"message": event.get("message"), "code": event.get("code")}}
    if kind == "response.created":
        return {"id": event["response"]["id"], "model": event["response"]["model"]}
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        return {"choices": [{"delta": {"content": event["delta"]}}]}
    if kind == "response.function_call_arguments.delta":
        return _call_chunk(event, {"function": {"arguments": event["delta"]}})
    if kind == "response.output_item.added" and event["item"]["type"] == "function_call":
        return _call_chunk(event, {"id": event["item"]["call_id"], "function": {"name": event["item"]["name"]}})
    if kind == "response.reasoning_summary_text.delta":
        return {"choices": [{"delta": {"reasoning_content": event["delta"]}}]}
    if kind == "response.output_item.done" and event["item"]["type"] == "reasoning":
        return (
            {"choices": [{"delta": {ITEM: _kept(event["item"])}}]} if event["item"].get("encrypted_content") else None
        )
    if kind == "response.failed":
        return {"error": event["response"].get("error") or {}}
    if kind in ("response.completed", "response.incomplete"):
        return _last_chunk(event["response"])
    return None


def _kept(item: Mapping[str, Any]) -> dict[str, Any]:
    """A reasoning item as it is sent back."""
    return {name: item.get(name) for name in ("type", "id", "summary", "encrypted_content")}


def _call_chunk(event: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
    return {"choices": [{"delta": {"tool_calls": [{"index": event["output_index"], **call}]}}]}


def _last_chunk(response: Mapping[str, Any]) -> dict[str, Any]:
    cut = (response.get("incomplete_details") or {}).get("reason")
    parts = (part for item in response["output"] for part in item.get("content") or () if item["type"] == "message")
    finish = "content_filter" if any(part["type"] == "refusal" for part in parts) else "stop"
    finish = {"max_output_tokens": "length", "content_filter": "content_filter"}.get(cut or "", finish)
    usage = response.get("usage") or {}
    return {
        "choices": [{"delta": {}, "finish_reason": finish}],
        "usage": usage
        and {
            "prompt_tokens": usage["input_tokens"],
            "prompt_tokens_details": usage.get("input_tokens_details"),
            "completion_tokens": usage["output_tokens"],
            "completion_tokens_details": usage.get("output_tokens_details"),
        },
    }


def _items(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role == "tool":
        yield {"type": "function_call_output", "call_id": message["tool_call_id"], "output": _joined(content)}
        return
    if role == "assistant":
        yield from ({"type": "reasoning", "encrypted_content": sealed} for sealed, _ in message.get(FIELD) or ())
        if said := _joined(content) or message.get("refusal"):
            yield {"role": role, "content": said}
    elif role in ("system", "developer", "user"):
        if content:
            parts = content if isinstance(content, str) else [_part(plain(part)) for part in content]
            yield {"role": role, "content": parts}
    else:
        refuse(f"a message of role {role!r}")
    for call in message.get("tool_calls") or ():
        if call.get("type", "function") != "function":
            refuse(f"a call of type {call.get('type')!r}")
        function = call["function"]
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": function["arguments"],
        }


def _joined(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text") or part.get("refusal") or "" for part in map(plain, content))


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kind, mark = part["type"], {_MARK: part[_MARK]} if part.get(_MARK) else {}
    if kind == "image_url":
        image = part["image_url"]
        return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail") or "auto", **mark}
    if kind == "file":
        return {"type": "input_file", **part["file"], **mark}
    if kind != "text":
        refuse(f"a part of type {kind!r}")
    return {"type": "input_text", "text": part["text"], **mark}


def _usage(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Messages usage: what was cached is taken out of the input; writes of 12 hours are the long ones."""
    if not usage:
        return None
    details = usage.get("input_tokens_details") or {}
    read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    long = min((details.get("cache_write_tokens_details") or {}).get("ttl_12h_tokens") or 0, written)
    return {
        "input_tokens": max(usage["input_tokens"] - read - written, 0),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written - long, "ephemeral_1h_input_tokens": long},
        "output_tokens": usage["output_tokens"],
    }
