"""A request body -> the task being routed: the user's ask that opened the turn, not merely the last message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from router.errors import RequestError
from router.types import Body, Task, TurnState

_FOLLOW_UP_CHARS = 40
"""A user message up to this long ("yes", "try again, please") is read together with the user message before it."""

_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
_IMAGE_TYPES = frozenset({"image", "image_url", "input_image"})


def read(body: Body) -> Task:
    """The task in an Anthropic Messages, OpenAI Chat Completions or OpenAI Responses body.

    Raises RequestError when the body has neither `messages` nor `input`, or one of the wrong type.
    """
    messages = _messages(body)
    asks = [text for m in messages if m.get("role") == "user" and (text := _text(m.get("content")).strip())]
    ask = asks[-1] if asks else ""
    if len(asks) > 1 and len(ask) <= _FOLLOW_UP_CHARS:
        ask = f"{asks[-2]}\n\n{ask}"
    return Task(
        text=ask,
        turn=TurnState.TOOL_LOOP if messages and _is_tool_result(messages[-1]) else TurnState.USER_TURN,
        n_chars=_n_chars(body),
        has_images=any(_has_image(m.get("content")) for m in messages),
        has_tools=bool(body.get("tools")),
    )


def _messages(body: Body) -> list[Mapping[str, Any]]:
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, str) and "messages" not in body:
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, Iterable) or isinstance(messages, Mapping | str | bytes):
        found = "neither" if messages is None else f"a {type(messages).__name__}"
        raise RequestError(f"expected `messages` or `input` with a list of messages, found {found}")
    items = list(messages)
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise RequestError(f"message {index} is a {type(item).__name__}, expected an object with role and content")
    return items


def _parts(content: Any) -> Sequence[Any]:
    return content if isinstance(content, Sequence) and not isinstance(content, str | bytes) else ()


def _text(content: Any) -> str:
    """The text that somebody wrote: tool results, images and documents are left out."""
    if isinstance(content, str):
        return content
    texts = (
        part.get("text") for part in _parts(content) if isinstance(part, Mapping) and part.get("type") in _TEXT_TYPES
    )
    return "\n".join(text for text in texts if isinstance(text, str))


def _is_tool_result(message: Mapping[str, Any]) -> bool:
    if message.get("role") == "tool" or message.get("type") == "function_call_output":
        return True
    parts = _parts(message.get("content"))
    return bool(parts) and all(isinstance(p, Mapping) and p.get("type") == "tool_result" for p in parts)


def _has_image(content: Any) -> bool:
    return any(isinstance(part, Mapping) and part.get("type") in _IMAGE_TYPES for part in _parts(content))


def _n_chars(body: Any) -> int:
    """Characters of all strings in a body, without base64 payloads, which cost image tokens instead."""
    n_chars, pending = 0, [body]
    while pending:  # a loop, so that no nesting is too deep
        value = pending.pop()
        if isinstance(value, str):
            n_chars += len(value)
        elif isinstance(value, Mapping):
            if value.get("type") not in _IMAGE_TYPES and value.get("type") != "base64":
                pending.extend(value.values())
        else:
            pending.extend(_parts(value))
    return n_chars
