"""Server-sent events in passing bytes: whole frames out, usage read on the way, nothing rewritten."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from router.types import Api
from router.usage import Meter

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_DATA = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_LAST = (b"message_stop", b"[DONE]", b"response.completed", b"response.incomplete", b"response.failed")
_LAST_TYPES = ("message_stop", "response.completed", "response.incomplete", "response.failed")

_decode = msgspec.json.Decoder().decode


class Frames:
    """One stream. `feed` takes bytes as they come and gives the frames that are complete, byte for byte.

    `is_last` is set once the provider has said that the answer is complete; `error` holds an error event's data. With
    `hides_usage` a Chat Completions chunk that carries usage only is left out (the caller had not asked for it).
    """

    def __init__(self, api: Api, *, hides_usage: bool = False) -> None:
        self.meter = Meter(api)
        self.is_last = False
        self.error: Any = None
        self._is_chat = api is Api.CHAT
        self._hides_usage = hides_usage
        self._rest = bytearray()
        self._scanned = 0

    def feed(self, chunk: bytes) -> bytes:
        """The complete frames so far, b"" when there is none yet."""
        rest = self._rest
        rest += chunk
        kept: list[bytes] = []
        start = 0
        for end in _END.finditer(rest, max(self._scanned - 3, 0)):
            frame = bytes(rest[start : end.end()])
            start = end.end()
            if self._keep(frame):
                kept.append(frame)
        del rest[:start]
        self._scanned = len(rest)
        return b"".join(kept)

    @property
    def reply_chars(self) -> int:
        """Characters that the model wrote; only counted in Chat Completions, whose usage can be missing."""
        return self.meter.n_chars if self._is_chat else 0

    def flush(self) -> bytes:
        """What is left of an unfinished frame when the stream has ended."""
        return bytes(self._rest)

    def _keep(self, frame: bytes) -> bool:
        """Take in a frame; False if the caller is not to see it."""
        carries_usage = _USAGE.search(frame) is not None
        ends = any(mark in frame for mark in _LAST)
        if not carries_usage and not ends and not self._is_chat and b'"error"' not in frame:
            return True
        data = b"\n".join(_DATA.findall(frame))
        if data == b"[DONE]":
            self.is_last = True
            return True
        event = _event(data)
        if event is None:
            return True
        if event.get("type") in _LAST_TYPES:
            self.is_last = True
        if event.get("error") and event.get("type") in (None, "error"):
            self.error = event
        self.meter.add(event)
        return not (self._hides_usage and event.get("usage") and event.get("choices") == [])


def _event(data: bytes) -> dict[str, Any] | None:
    try:
        event = _decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
