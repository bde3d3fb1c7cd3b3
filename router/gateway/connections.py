"""HTTP/1.1 connections: uvicorn's, bounded in number and in the time that the head of a request may take.

Without bounds a thousand half-open connections take every file descriptor, and nobody is served. At the limit the
connection that has been without a request for longest makes room, so that idle ones cannot shut anybody out.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_logger = logging.getLogger("tierwise")

_KEPT_DESCRIPTORS = 100
"""For the database, the journal, the log and the like; of the rest, each connection may need a second one upstream."""
_WARN_EVERY_S = 60.0
_UPGRADES = (b"upgrade", b"http2-settings")


def most_connections() -> int:
    """As many as the process's file descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (soft - _KEPT_DESCRIPTORS) // 2)


def raise_descriptor_limit() -> None:
    """Take as many file descriptors as this user may have, up to 65,536: the usual 1,024 are for other programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Connections:
    """What all connections of a server share."""

    def __init__(self, most: int, head_timeout_s: float) -> None:
        self.head_timeout_s = head_timeout_s
        self._most = most
        self._open = 0
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._warned_s = float("-inf")

    def opened(self, connection: Connection) -> bool:
        """Whether it may stay."""
        self._open += 1
        if self._open > self._most:
            self._warn()
            if not self._idle:
                return False
            oldest, _ = self._idle.popitem(last=False)
            oldest.transport.abort()
        self._idle[connection] = None
        return True

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        self._open -= 1
        self._idle.pop(connection, None)

    def has_request(self, connection: Connection) -> None:
        """The head of a request is there."""
        self._idle.pop(connection, None)

    def has_replied(self, connection: Connection) -> None:
        """It waits for its next request."""
        self._idle[connection] = None

    def _warn(self) -> None:
        if time.monotonic() - self._warned_s >= _WARN_EVERY_S:
            self._warned_s = time.monotonic()
            _logger.warning(
                "all %d connections are taken, idle ones are closed; raise gateway.max_connections or `ulimit -n`",
                self._most,
            )


class Connection(HttpToolsProtocol):
    """One connection. An upgrade to another protocol is not offered, so the wish for one is overheard."""

    def __init__(self, *args: Any, shared: Connections, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shared = shared
        self._in_message = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it; close it where nothing can make room."""
        super().connection_made(transport)
        if self._shared.opened(self):
            self._expect_head()
        else:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_timer()
        self._shared.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The caller's bytes."""
        if not self._in_message and b"pgrade" in data:
            data = _without_upgrade(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_message = True
        if self._head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """All of its head."""
        self._stop_timer()
        self._shared.has_request(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of its body."""
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Its reply has been sent."""
        super().on_response_complete()
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            self._shared.has_replied(self)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP. Behind a reply that has begun, such as a refusal of the body, another has no place."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._shared.head_timeout_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        self.transport.abort()


def _without_upgrade(data: bytes) -> bytes:
    """The head of a request without its wish for another protocol; as it is where the head is not whole in it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return data
    kept = []
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if colon and name in _UPGRADES:
            continue
        if colon and name == b"connection":
            options = [option for option in value.split(b",") if option.strip().lower() not in _UPGRADES]
            if not options:
                continue
            line = b"Connection:" + b",".join(options)
        kept.append(line)
    return b"\r\n".join(kept) + end + rest
