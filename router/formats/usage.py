"""Provider replies and stream events -> Usage.

Anthropic's `input_tokens` EXCLUDES cache reads and writes; OpenAI's `prompt_tokens` / `input_tokens` INCLUDE them.
Sources: the types of anthropic 2.12 (types/usage.py, message_delta_usage.py) and openai 3.54
(types/completion_usage.py, responses/response_usage.py), 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.types import Api, Usage

UNREPORTED = Usage(reported=False)

_SAID = (
    *("choices", "message", "content", "output", "summary", "tool_calls", "function"),
    *("text", "thinking", "refusal", "reasoning_content", "name", "input", "arguments"),
)
"""The fields of a reply, in all three formats, that hold what the model wrote, or hold those."""

_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def read_usage(reply: Any, api: Api, *, is_batch: bool = False) -> Usage:
    """Usage of a complete reply: an SDK object or a dict. `UNREPORTED` when the reply holds none.

    Anthropic's usage says itself that it is a batch's (`service_tier`), OpenAI's does not.
    """
    usage = _get(reply, "usage")
    found = _normalised(usage, api)
    is_batch = is_batch or _get(usage, "service_tier") == "batch"
    return msgspec.structs.replace(found, is_batch=True) if is_batch else found


def read_batch_usage(row: Any) -> Usage:
    """Usage of one result of a batch: Anthropic's (an SDK object or a dict), or a line of OpenAI's output, parsed.

    A row that failed, expired or was cancelled is not billed, so its usage is 0. Rows come in any order: `custom_id`
    says whose each is. Sources: types/messages/message_batch_result.py of anthropic 2.12 and
    https://developers.openai.com/api/docs/guides/batch, 2026-11-25.
    """
    if (result := _get(row, "result")) is not None:
        reply, api = _get(result, "message"), Api.MESSAGES
    else:
        response = _get(row, "response")
        reply = _get(response, "body") if _get(response, "status_code") == 200 else None
        api = Api.RESPONSES if _get(reply, "object") == "response" else Api.CHAT
    return Usage(is_batch=True) if reply is None else read_usage(reply, api, is_batch=True)


def n_chars(reply: Any) -> int:
    """Characters that the model wrote in a complete reply, tool calls included: where no usage says how long it is."""
    return sum(_said(_get(reply, name)) for name in ("content", "choices", "output"))


class Meter:
    """Collects the usage of one stream, event by event; reading it early gives what has been reported so far.

    `n_chars` counts the characters that the model wrote, as long as no usage was reported.
    """

    def __init__(self, api: Api) -> None:
        self.n_chars = 0
        self._api = api
        self._start: Any = None
        self._last: Any = None

    def add(self, event: Any) -> None:
        """Take in one event, an SDK object or a dict; events without usage change nothing."""
        if self._api is Api.RESPONSES:
            self._last = _get(_get(event, "response"), "usage") or self._last
        elif self._api is Api.CHAT:
            self._last = _get(event, "usage") or self._last
        elif (kind := _get(event, "type")) == "message_start":
            self._start = _get(_get(event, "message"), "usage")
        elif kind == "message_delta":  # other events lack it, and asking an SDK's object for what it lacks takes 4 us
            self._last = _get(event, "usage") or self._last
        if self._start is None:
            self.n_chars += _streamed(event, self._api)

    def usage(self) -> Usage:
        """The stream's usage. Anthropic's deltas are cumulative and lack the 5m / 1h split, which the start has."""
        if self._start is None:
            return _normalised(self._last, self._api)
        merged = {
            name: _get(self._last, name) if _get(self._last, name) is not None else _get(self._start, name)
            for name in (
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
            )
        }
        return _normalised({**merged, "cache_creation": _get(self._start, "cache_creation")}, self._api)


def _normalised(usage: Any, api: Api) -> Usage:
    if usage is None or isinstance(usage, str | int | float | list):
        return UNREPORTED
    try:
        return _anthropic(usage) if api is Api.MESSAGES else _openai(usage, api)
    except (ArithmeticError, TypeError, ValueError):  # what it says are no counts
        return UNREPORTED


def _openai(usage: Any, api: Api) -> Usage:
    prefix = "prompt" if api is Api.CHAT else "input"
    details = _get(usage, f"{prefix}_tokens_details")
    cached = _count(details, "cached_tokens")
    written = _count(details, "cache_write_tokens")
    long = min(_count(_get(details, "cache_write_tokens_details"), "ttl_12h_tokens"), written)
    return Usage(
        fresh_tokens=max(_count(usage, f"{prefix}_tokens") - cached - written, 0),
        cache_read_tokens=cached,
        cache_write_short_tokens=written - long,
        cache_write_long_tokens=long,
        output_tokens=_count(usage, "completion_tokens" if api is Api.CHAT else "output_tokens"),
    )


def _anthropic(usage: Any) -> Usage:
    written = _count(usage, "cache_creation_input_tokens")
    long = min(_count(_get(usage, "cache_creation"), "ephemeral_1h_input_tokens"), written)
    return Usage(
        fresh_tokens=_count(usage, "input_tokens"),
        cache_read_tokens=_count(usage, "cache_read_input_tokens"),
        cache_write_short_tokens=written - long,
        cache_write_long_tokens=long,
        output_tokens=_count(usage, "output_tokens"),
    )


def _streamed(event: Any, api: Api) -> int:
    """Characters that the model wrote in one event. Only fields that are there are asked for: others take 1 us each."""
    if api is not Api.CHAT:
        delta = _get(event, "delta")
        return _length(delta if api is Api.RESPONSES else _get(delta, _DELTAS.get(_get(delta, "type"), "")))
    n_chars, choices = 0, _get(event, "choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = _get(choice, "delta")
        said, calls = _get(delta, "content") or _get(delta, "reasoning_content"), _get(delta, "tool_calls")
        n_chars += _length(said) + (_said(calls) if calls else 0)
    return n_chars


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


def _said(value: Any) -> int:
    n_chars, pending = 0, [value]
    while pending:  # a loop, so that no nesting is too deep
        value = pending.pop()
        if isinstance(value, str):
            n_chars += len(value)
        elif isinstance(value, list):
            pending += value
        elif value is not None and not isinstance(value, int | float):
            for name in _SAID:
                inner = _get(value, name)
                pending.append(str(inner) if name == "input" and inner is not None else inner)
    return n_chars


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _count(value: Any, name: str) -> int:
    count = int(_get(value, name) or 0)
    if not 0 <= count < 10**12:
        raise ValueError(f"{name} is {count}")
    return count
