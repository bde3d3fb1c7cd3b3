"""Server-sent events in passing bytes: whole frames out, usage read on the way, nothing rewritten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from router.formats.interpreter import Events
from router.formats.usage import Meter
from router.gateway import wire
from router.types import Api

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_DATA = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_LAST = (b"message_stop", b"[DONE]", b"response.completed", b"response.incomplete", b"response.failed")
_LAST_TYPES = ("message_stop", "response.completed", "response.incomplete", "response.failed")


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
            kept.append(self._passed(frame))
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

    def _passed(self, frame: bytes) -> bytes:
        """What the caller sees of a frame."""
        return frame if self._keep(frame) else b""

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


class TranslatedFrames(Frames):
    """A stream in the format that the model speaks, passed on in the one that was asked for."""

    def __init__(self, spoken: Api, asked: Api, *, include_usage: bool) -> None:
        super().__init__(spoken)
        self._asked = asked
        self._events = Events(spoken, asked, include_usage=include_usage)

    def flush(self) -> bytes:
        """Nothing: an unfinished frame cannot be translated."""
        return b""

    def _passed(self, frame: bytes) -> bytes:
        was_last = self.is_last
        self._keep(frame)
        event = _event(b"\n".join(_DATA.findall(frame)))
        try:
            events = [] if event is None else self._events.feed(event)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError):
            events = []  # an event of a shape that nobody announced says nothing that the caller's format knows
        if not self.is_last or was_last:
            return b"".join(map(self._frame, events))
        done = b"data: [DONE]\n\n" if self._asked is Api.CHAT else b""
        return b"".join(map(self._frame, events + self._events.end())) + done

    def _frame(self, event: Mapping[str, Any]) -> bytes:
        data = wire.encode(event)
        return b"data: %b\n\n" % data if self._asked is Api.CHAT else wire.frame(event["type"], data)


def _event(data: bytes) -> dict[str, Any] | None:
    event = wire.read_reply(data)
    return event if isinstance(event, dict) else None
