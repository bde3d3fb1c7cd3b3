"""Provider replies and stream events -> Usage.

Anthropic's `input_tokens` EXCLUDES cache reads and writes; OpenAI's `prompt_tokens` / `input_tokens` INCLUDE them.
Sources: the types of anthropic 2.12 (types/usage.py, message_delta_usage.py) and openai 3.54
(types/completion_usage.py, responses/response_usage.py), 2026-11-22.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.types import Api, Usage

UNREPORTED = Usage(reported=False)


def read(reply: Any, api: Api) -> Usage:
    """Usage of a complete reply: an SDK object or a dict. `UNREPORTED` when the reply holds none."""
    return _normalised(_get(reply, "usage"), api)


class Meter:
    """Collects the usage of one stream, event by event; reading it early gives what has been reported so far."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._start: Any = None
        self._last: Any = None

    def add(self, event: Any) -> None:
        """Take in one event, an SDK object or a dict; events without usage change nothing."""
        if self._api is Api.MESSAGES and _get(event, "type") == "message_start":
            self._start = _get(_get(event, "message"), "usage")
        elif self._api is Api.RESPONSES:
            self._last = _get(_get(event, "response"), "usage") or self._last
        else:
            self._last = _get(event, "usage") or self._last

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
    if usage is None:
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


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _count(value: Any, name: str) -> int:
    count = int(_get(value, name) or 0)
    if not 0 <= count < 10**12:
        raise ValueError(f"{name} is {count}")
    return count
