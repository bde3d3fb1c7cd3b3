"""Request bodies between Anthropic Messages and OpenAI Chat Completions; pure.

messages_chat_replies.py translates the answers.

What one format can say and the other cannot is dropped with a note when the answer stays the same kind of answer, and
raises RequestError when it would not. Cache fields go silently: caching is planned anew for the format that is sent.
Written from the types of anthropic 2.12 (types/message_create_params.py) and openai 3.54
(types/chat/completion_create_params.py), 2026-11-22.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from router.errors import RequestError
from router.formats.states import FIELD, is_sealed
from router.formats.values import media_type
from router.types import Body

DEFAULT_MAX_TOKENS = 8192
"""The longest answer for a Chat Completions body that sets none: Messages requires one."""

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
"""What Messages takes as an image (types/base64_image_source_param.py of anthropic 2.12)."""

_SAME = ("model", "stream", "temperature", "top_p")
_SILENT = frozenset({"cache_control", "diagnostics", "container", "router"})
_SILENT_CHAT = frozenset(
    {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "stream_options", "router", "n", "store"}
)
_BUDGET_EFFORT = ((4096, "low"), (16_384, "medium"))
_SYSTEM_ROLES = ("system", "developer")


def to_chat(body: Body) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A Messages body as a Chat Completions body, and notes on what was left out.

    The system prompt becomes the first message, tool results become messages of role "tool" (their images follow in a
    user message), thinking becomes `reasoning_effort`, and thinking blocks are left out. A stream asks for its usage.
    Raises RequestError for what has no counterpart: the provider's own tools, files and documents by reference.
    """
    notes: list[str] = []
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    system = _joined(body.get("system"))
    first = [{"role": "system", "content": system}] if system else []
    chat["messages"] = [*first, *(m for given in body.get("messages") or () for m in _chat_messages(given, notes))]
    if body.get("max_tokens") is not None:
        chat["max_completion_tokens"] = body["max_tokens"]
    if body.get("tools"):
        chat["tools"] = [_function(plain(tool)) for tool in body["tools"]]
    _chat_choice(body.get("tool_choice"), chat)
    if body.get("stop_sequences"):
        chat["stop"] = list(body["stop_sequences"])[:4]
        _note(notes, len(body["stop_sequences"]) > 4, "stop_sequences cut to 4: Chat Completions takes no more")
    if user := (body.get("metadata") or {}).get("user_id"):
        chat["user"] = user
    if body.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    if tier := {"auto": "auto", "standard_only": "default"}.get(str(body.get("service_tier"))):
        chat["service_tier"] = tier
    _chat_thinking(body, chat)
    known = {*_SAME, *_SILENT, "system", "messages", "max_tokens", "tools", "tool_choice", "stop_sequences"}
    dropped(body, {*known, "metadata", "service_tier", "thinking", "output_config"}, "Chat Completions", notes)
    return chat, tuple(notes)


def to_messages(body: Body, max_tokens: int = DEFAULT_MAX_TOKENS) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A Chat Completions body as a Messages body, and notes on what was left out.

    Leading system and developer messages become `system`; later ones keep their place with role "system" (which
    `accepts.adapt` moves where the model wants). Raises RequestError for what has no counterpart: several choices,
    audio, files by id, custom (free-form) tools.
    """
    notes: list[str] = []
    messages = [plain(message) for message in body.get("messages") or ()]
    n_system = next((i for i, m in enumerate(messages) if m.get("role") not in _SYSTEM_ROLES), len(messages))
    sent: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    if isinstance(sent.get("temperature"), int | float) and sent["temperature"] > 1:
        notes.append(f"temperature {sent['temperature']} sent as 1: Messages takes no more")
        sent["temperature"] = 1
    if system := [block for m in messages[:n_system] for block in _texts(m.get("content"))]:
        sent["system"] = system
    sent["messages"] = _merged(_message(m, notes) for m in messages[n_system:])
    sent["max_tokens"] = body.get("max_completion_tokens") or body.get("max_tokens") or max_tokens
    if body.get("tools"):
        sent["tools"] = [_tool(plain(tool)) for tool in body["tools"]]
    _message_choice(body, sent)
    if body.get("stop"):
        stops = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
        sent["stop_sequences"] = [stop for stop in stops if stop.strip()]
        _note(notes, len(sent["stop_sequences"]) < len(stops), "blank stop sequences dropped: Messages takes none")
    if user := body.get("safety_identifier") or body.get("user"):
        sent["metadata"] = {"user_id": user}
    if tier := {"auto": "auto", "default": "standard_only"}.get(str(body.get("service_tier"))):
        sent["service_tier"] = tier
    _message_thinking(body, sent, notes)
    if (body.get("n") or 1) != 1:
        refuse(f"n={body['n']}: Messages gives one answer")
    known = {*_SAME, *_SILENT_CHAT, "messages", "max_tokens", "max_completion_tokens", "tools", "tool_choice", "stop"}
    known |= {"parallel_tool_calls", "user", "safety_identifier", "service_tier", "reasoning_effort", "response_format"}
    dropped(body, known, "Messages", notes)
    return sent, tuple(notes)


# ---- Messages -> Chat Completions -----------------------------------------------------------------------------------


def _chat_messages(given: Any, notes: list[str]) -> list[dict[str, Any]]:
    message = plain(given)
    role, content = message.get("role"), message.get("content")
    if role == "system":
        return [{"role": "system", "content": _joined(content)}]
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    blocks = [plain(block) for block in content or ()]
    return [_assistant(blocks, notes)] if role == "assistant" else _user(blocks)


def _assistant(blocks: list[Mapping[str, Any]], notes: list[str]) -> dict[str, Any]:
    texts, calls, sealed = [], [], []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append(block["text"])
        elif kind == "thinking" and is_sealed(block.get("signature")):
            sealed.append((block["signature"], block.get("thinking") or ""))
        elif kind == "tool_use":
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False, separators=(",", ":"))
            function = {"name": block["name"], "arguments": arguments}
            calls.append({"id": block["id"], "type": "function", "function": function})
        else:
            _note(notes, True, f"{kind} blocks dropped: another model cannot read them")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    if calls:
        message["tool_calls"] = calls
    elif not texts:
        message["content"] = ""  # required without tool calls
    if sealed:
        message[FIELD] = sealed
    return message


def _user(blocks: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tool results first, each a message of its own; then one user message with everything else."""
    messages: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") != "tool_result":
            parts.append(_part(block))
            continue
        inner = block.get("content")
        given = [{"type": "text", "text": inner}] if isinstance(inner, str) else [plain(b) for b in inner or ()]
        text = "\n".join(b["text"] for b in given if b.get("type") == "text")
        text = f"Error: {text}" if block.get("is_error") else text
        messages.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": text})
        parts += [_part(b) for b in given if b.get("type") != "text"]
    if parts:
        only_text = len(parts) == 1 and parts[0]["type"] == "text"
        messages.append({"role": "user", "content": parts[0]["text"] if only_text else parts})
    return messages


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    kind, source = block.get("type"), block.get("source") or {}
    if kind == "text":
        return {"type": "text", "text": block["text"]}
    data = f"data:{source.get('media_type')};base64,{source.get('data')}"
    if kind == "image" and source.get("type") in ("base64", "url"):
        return {"type": "image_url", "image_url": {"url": data if source["type"] == "base64" else source["url"]}}
    if kind == "document" and source.get("type") == "base64":
        return {"type": "file", "file": {"filename": block.get("title") or "document.pdf", "file_data": data}}
    if kind == "document" and source.get("type") == "text":
        return {"type": "text", "text": source["data"]}
    where = f" from a {source.get('type')}" if source else ""
    return refuse(f"a block of type {kind!r}{where}: Chat Completions has none")


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") not in (None, "custom"):
        refuse(f"the tool {tool['type']!r}: it runs at Anthropic only")
    function = {"name": tool["name"], "parameters": tool.get("input_schema") or {"type": "object", "properties": {}}}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _chat_choice(choice: Any, chat: dict[str, Any]) -> None:
    if not choice:
        return
    kind = choice.get("type")
    named = {"type": "function", "function": {"name": choice.get("name")}}
    chat["tool_choice"] = {"any": "required", "tool": named}.get(kind, kind)
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False


def _chat_thinking(body: Body, chat: dict[str, Any]) -> None:
    """An effort as it is; a budget as the effort it amounts to; adaptive is the other side's default."""
    config, thinking = body.get("output_config") or {}, body.get("thinking") or {}
    if config.get("effort") is not None:
        chat["reasoning_effort"] = config["effort"]
    elif thinking.get("type") in ("disabled", "between_tools"):
        chat["reasoning_effort"] = "none"
    elif thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens") or 0
        chat["reasoning_effort"] = next((effort for most, effort in _BUDGET_EFFORT if budget <= most), "high")
    if schema := (config.get("format") or {}).get("schema"):
        chat["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


# ---- Chat Completions -> Messages -----------------------------------------------------------------------------------


def _message(message: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role in _SYSTEM_ROLES:
        return {"role": "system", "content": _texts(content)}
    if role == "tool":
        inner = content if isinstance(content, str) else _texts(content)
        return {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": inner}],
        }
    if role == "user":
        return {"role": "user", "content": content if isinstance(content, str) else _blocks(content)}
    blocks = [{"type": "thinking", "thinking": text, "signature": seal} for seal, text in message.get(FIELD) or ()]
    blocks += [] if role != "assistant" else _texts(content)
    if role != "assistant" or message.get("function_call"):
        refuse(f"a message of role {role!r}{' with function_call' if role == 'assistant' else ''}: use tools")
    for call in message.get("tool_calls") or ():
        blocks.append(_tool_use(plain(call), notes))
    return {"role": "assistant", "content": blocks}


def _tool_use(call: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    if call.get("type") == "custom":
        refuse("a custom tool's call: Messages has JSON arguments only")
    function = call["function"]
    return {"type": "tool_use", "id": call.get("id"), "name": function["name"], "input": arguments(function, notes)}


def arguments(function: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """A call's arguments as an object; what is not one (models do write broken JSON) is kept under "arguments"."""
    raw = function.get("arguments") or "{}"
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        value = None
    if isinstance(value, dict):
        return value
    _note(notes, True, f"the arguments of a call to {function.get('name')} are no JSON object: sent as a string")
    return {"arguments": raw}


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [block for part in content or () if (block := _block(plain(part))) is not None]


def _block(part: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": part["text"]} if part["text"] else None  # an empty one is refused
    if kind == "image_url":
        return {"type": "image", "source": _image(_source(part["image_url"]["url"]))}
    file = part.get("file") or {}
    if kind == "file" and file.get("file_data"):
        title = {"title": file["filename"]} if file.get("filename") else {}
        return {"type": "document", "source": _document(_source(file["file_data"])), **title}
    return refuse(f"a part of type {kind!r}{' by id' if kind == 'file' else ''}: Messages has none")


def _source(url: str) -> dict[str, Any]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.removeprefix("data:").partition(",")
    return {"type": "base64", "media_type": head.partition(";")[0], "data": data}


def _image(source: dict[str, Any]) -> dict[str, Any]:
    if source["type"] == "base64":
        source["media_type"] = media_type(source["media_type"], source["data"])
        if source["media_type"] not in IMAGE_TYPES:
            refuse(f"an image of type {source['media_type']!r}: Messages takes {', '.join(IMAGE_TYPES)}")
    return source


def _document(source: dict[str, Any]) -> dict[str, Any]:
    """Plain text goes as text: only a PDF may be base64."""
    if source["type"] == "base64" and source["media_type"].startswith("text/"):
        text = base64.b64decode(source["data"]).decode("utf-8", "replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    return source


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        refuse(f"a tool of type {tool.get('type')!r}: Messages has tools with a JSON schema only")
    function = tool["function"]
    kept = {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {"name": function["name"], "input_schema": schema, **kept}


def _message_choice(body: Body, sent: dict[str, Any]) -> None:
    choice = body.get("tool_choice")
    if isinstance(choice, str):
        sent["tool_choice"] = {"type": {"required": "any"}.get(choice, choice)}
    elif choice:
        if choice.get("type") != "function":
            refuse(f"tool_choice {choice.get('type')!r}: Messages forces one tool, any, or none")
        sent["tool_choice"] = {"type": "tool", "name": choice["function"]["name"]}
    if body.get("parallel_tool_calls") is False and body.get("tools"):
        sent["tool_choice"] = {"type": "auto", **sent.get("tool_choice", {})}
        if sent["tool_choice"]["type"] != "none":
            sent["tool_choice"]["disable_parallel_tool_use"] = True


def _message_thinking(body: Body, sent: dict[str, Any], notes: list[str]) -> None:
    effort, wanted = body.get("reasoning_effort"), body.get("response_format") or {}
    if effort == "none":
        sent["thinking"] = {"type": "disabled"}
    elif effort is not None:
        sent["output_config"] = {"effort": "low" if effort == "minimal" else effort}
    if wanted.get("type") == "json_schema":
        schema = {"type": "json_schema", "schema": wanted["json_schema"].get("schema") or {}}
        sent["output_config"] = {**sent.get("output_config", {}), "format": schema}
    _note(notes, wanted.get("type") == "json_object", "response_format json_object dropped: Messages needs a schema")


def _merged(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours of role user in one: the results of one turn's tool calls must be together."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if not message["content"]:
            continue
        if merged and message["role"] == "user" == merged[-1]["role"]:
            merged[-1] = {"role": "user", "content": [*_texts_or(merged[-1]), *_texts_or(message)]}
        else:
            merged.append(message)
    return merged


def _texts_or(message: Mapping[str, Any]) -> list[Any]:
    content = message["content"]
    return _texts(content) if isinstance(content, str) else list(content)


# ---- Both -----------------------------------------------------------------------------------------------------------


def _texts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    parts = (plain(part) for part in content or ())
    texts = (part.get("text", part.get("refusal")) for part in parts)
    return [{"type": "text", "text": text} for text in texts if text]


def _joined(content: Any) -> str:
    return "\n\n".join(block["text"] for block in _texts(content))


def plain(value: Any) -> Any:
    """The value as a mapping: callers may send an SDK's own reply objects back."""
    return value if isinstance(value, Mapping) else value.to_dict(mode="json")


def _note(notes: list[str], applies: bool, note: str) -> None:
    if applies and note not in notes:
        notes.append(note)


def dropped(body: Body, known: set[str], target: str, notes: list[str]) -> None:
    """Note every field of a body that `target` does not have."""
    notes += [f"{n} dropped: {target} has no such field" for n in body if n not in known and body[n] is not None]


def refuse(what: str) -> NoReturn:
    """Raise RequestError for what has no counterpart."""
    raise RequestError(f"cannot translate {what}; send this request to a model of the same format")
