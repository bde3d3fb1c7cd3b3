"""Server-sent events in passing bytes: whole frames out, usage read on the way, nothing rewritten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from router.formats.interpreter import AS_IT_IS, Events, Keep, Listener, rename
from router.formats.usage import Meter
from router.gateway import wire
from router.types import Api, Telling

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_DATA = re.compile(rb"^data:[ ]?(.*?)\r?$", re.MULTILINE)
_SAID = re.compile(rb'"(?:text|thinking|partial_json|delta)"\s*:\s*"((?:[^"\\]|\\.)*+)')
_LAST = (b"message_stop", b"[DONE]", b"response.completed", b"response.incomplete", b"response.failed")
_LAST_TYPES = ("message_stop", "response.completed", "response.incomplete", "response.failed")
_OPENINGS = ("ping", "response.created", "response.in_progress", "response.queued")
"""Events that come before there is an answer; Anthropic's message_start is one, for it is billed from there."""


class Frames:
    """One stream. `feed` takes bytes as they come and gives the frames that are complete, byte for byte.

    `is_last` is set once the provider has said that the answer is complete, `has_begun` with the first of the answer
    itself: a comment, a ping or an empty chunk is none. `error` holds an error's data, under "error". With
    `hides_usage` a Chat Completions chunk that carries usage only is left out (the caller had not asked for it). What
    the model wants back on the next request goes to `keep`, where `telling` says that it is wanted.
    """

    def __init__(
        self, api: Api, *, hides_usage: bool = False, telling: Telling = AS_IT_IS, keep: Keep | None = None
    ) -> None:
        self.meter = Meter(api)
        self.is_last = False
        self.has_begun = False
        self.error: Any = None
        self._is_chat = api is Api.CHAT
        self._hides_usage = hides_usage
        self._names = {sent.encode(): name for sent, name in telling.names.items()}
        self._telling = telling
        listens = self._is_chat and telling.within and keep is not None
        self._beside = Listener(telling, keep) if listens and keep is not None else None
        self._n_said = 0
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
            self.has_begun = self.has_begun or (self.error is None and _is_content(frame))
            kept.append(self._passed(frame))
        del rest[:start]
        self._scanned = len(rest)
        return b"".join(kept)

    @property
    def reply_chars(self) -> int:
        """Characters that the model wrote, for streams whose usage is missing or did not come to its end."""
        return self.meter.n_chars if self._is_chat else self._n_said

    def flush(self) -> bytes:
        """What is left of an unfinished frame when the stream has ended."""
        if not self.is_last and self._beside is not None:
            self._beside.end()
        return bytes(self._rest)

    def _passed(self, frame: bytes) -> bytes:
        """What the caller sees of a frame."""
        if not self._keep(frame):
            return b""
        return self._renamed(frame) if any(name in frame for name in self._names) else frame

    def _renamed(self, frame: bytes) -> bytes:
        event = _event(b"\n".join(_DATA.findall(frame)))
        if event is None:
            return frame
        try:
            rename(event, self._telling.names)
            data = wire.encode(event)
        except RecursionError:  # nested beyond what anything can be built of
            return frame
        return b"data: %b\n\n" % data if self._is_chat else wire.frame(str(event.get("type")), data)

    def _keep(self, frame: bytes) -> bool:
        """Take in a frame; False if the caller is not to see it."""
        carries_usage = _USAGE.search(frame) is not None
        ends = any(mark in frame for mark in _LAST)
        if not carries_usage and not ends and not self._is_chat and b'"error"' not in frame:
            if (said := _SAID.search(frame)) is not None:
                self._n_said += len(said[1])
            return True
        data = b"\n".join(_DATA.findall(frame))
        if data == b"[DONE]":
            if not self.is_last and self._beside is not None:
                self._beside.end()
            self.is_last = True
            return True
        event = _event(data)
        if event is None:
            return True
        if event.get("type") in _LAST_TYPES:
            self.is_last = True
        if (error := _error(event)) is not None:
            self.error = error
        elif self._beside is not None:
            self._beside.feed(event)
        self.meter.add(event)
        return not (self._hides_usage and event.get("usage") and event.get("choices") == [])


class TranslatedFrames(Frames):
    """A stream in the format that the model speaks, passed on in the one that was asked for."""

    def __init__(
        self, spoken: Api, asked: Api, *, include_usage: bool, telling: Telling = AS_IT_IS, keep: Keep | None = None
    ) -> None:
        super().__init__(spoken)
        self._asked = asked
        self._events = Events(spoken, asked, include_usage=include_usage, telling=telling, keep=keep)

    def flush(self) -> bytes:
        """The end, where the provider gave its reason and then left without a word; no unfinished frame."""
        if self.is_last or not self._events.has_finished:
            return b""
        self.is_last = True
        return b"".join(map(self._frame, self._events.end())) + self._done

    @property
    def _done(self) -> bytes:
        return b"data: [DONE]\n\n" if self._asked is Api.CHAT else b""

    def _passed(self, frame: bytes) -> bytes:
        if frame.startswith(b":") and not _DATA.search(frame):
            return frame  # a comment keeps any stream alive
        was_last = self.is_last
        self._keep(frame)
        event = _event(b"\n".join(_DATA.findall(frame)))
        try:
            told = [] if event is None else list(map(self._frame, self._events.feed(event)))
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError):
            told = []  # an event of a shape that nobody announced says nothing that the caller's format knows
        if not self.is_last or was_last:
            return b"".join(told)
        return b"".join([*told, *map(self._frame, self._events.end())]) + self._done

    def _frame(self, event: Mapping[str, Any]) -> bytes:
        data = wire.encode(event)
        return b"data: %b\n\n" % data if self._asked is Api.CHAT else wire.frame(event["type"], data)


def _is_content(frame: bytes) -> bool:
    """Whether a frame is the answer's, or its end; asked until one is."""
    data = b"\n".join(_DATA.findall(frame))
    event = _event(data) if data else {"type": "ping"}
    if event is None or event.get("usage"):
        return True
    choices = event.get("choices")
    if isinstance(choices, list):
        return any(not isinstance(choice, Mapping) or _says(choice) for choice in choices)
    return event.get("type") not in _OPENINGS and _error(event) is None


def _says(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    said = delta.items() if isinstance(delta, Mapping) else ()
    return bool(choice.get("finish_reason")) or any(value for name, value in said if name != "role")


def _error(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """An error's data, in whichever of the formats' shapes it came, under "error"; None for any other event."""
    kind = event.get("type")
    if event.get("error") and kind in (None, "error"):
        return dict(event)
    if kind == "error":
        return {"error": {"type": event.get("code"), **{k: event.get(k) for k in ("message", "code", "param")}}}
    response = event.get("response")
    if kind == "response.failed" and isinstance(response, Mapping):
        return {"error": response.get("error") or {}}
    return None


def _event(data: bytes) -> dict[str, Any] | None:
    event = wire.read_reply(data)
    return event if isinstance(event, dict) else None
