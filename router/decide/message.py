"""The messages of a request body in any of the three formats, and the text, images and size of each; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from router.errors import RequestError
from router.types import Body

_TEXT_TYPES = ("text", "input_text", "output_text")  # tuples: a caller's type may be one that has no hash
_IMAGE_TYPES = ("image", "image_url", "input_image")


def messages(body: Body) -> list[Mapping[str, Any]]:
    """The messages, or the input items. Raises RequestError when there are none, or they are of the wrong type."""
    found = body.get("messages", body.get("input"))
    if isinstance(found, str) and "messages" not in body:
        return [{"role": "user", "content": found}]
    if not isinstance(found, Iterable) or isinstance(found, Mapping | str | bytes):
        what = "neither" if found is None else f"a {type(found).__name__}"
        raise RequestError(f"expected `messages` or `input` with a list of messages, found {what}")
    items = list(found)
    if set(map(type, items)) <= {dict}:
        return items
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise RequestError(f"message {index} is a {type(item).__name__}, expected an object with role and content")
    return items


def parts(content: Any) -> Sequence[Any]:
    """The parts of a content that is a list, else none."""
    if type(content) is str or content is None:
        return ()  # asking what it is an instance of takes 0.5 us
    is_list = type(content) is list or (isinstance(content, Sequence) and not isinstance(content, str | bytes))
    return content if is_list else ()


def is_object(value: Any) -> bool:
    """Whether a value is an object of JSON."""
    return type(value) is dict or isinstance(value, Mapping)  # the second alone takes 0.3 us


def texts(content: Any) -> list[str]:
    """The texts that somebody wrote: tool results, images and documents are left out."""
    if isinstance(content, str):
        return [content]
    found = (part.get("text") for part in parts(content) if is_object(part) and part.get("type") in _TEXT_TYPES)
    return [text for text in found if isinstance(text, str)]


def text_of(content: Any) -> str:
    """The same as one text."""
    return content if isinstance(content, str) else "\n".join(texts(content))


def has_image(content: Any) -> bool:
    """Whether any part is an image."""
    found = parts(content)
    return bool(found) and any(is_object(part) and part.get("type") in _IMAGE_TYPES for part in found)


def n_chars(body: Any) -> int:
    """Characters of all strings in a body, without base64 payloads, which cost image tokens instead."""
    total, pending = 0, [body]
    while pending:  # a loop, so that no nesting is too deep
        value = pending.pop()
        if type(value) is str or isinstance(value, str):
            total += len(value)
        elif is_object(value):
            if value.get("type") not in _IMAGE_TYPES and value.get("type") != "base64":
                pending.extend(value.values())
        else:
            pending.extend(parts(value))
    return total


def system_text(body: Body, items: Sequence[Mapping[str, Any]], limit: int = 4000) -> str:
    """The start of the system prompt, from its own field or from the first message."""
    system = body.get("system", body.get("instructions"))
    found = text_of(system)[:limit]
    if not found and items and items[0].get("role") in ("system", "developer"):
        found = text_of(items[0].get("content"))[:limit]
    return found
