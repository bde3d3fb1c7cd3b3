"""The caller's side of one request: their body, the reply to them, and whether they have left; ASGI beneath."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from router.gateway.browsers import check_content_type
from router.gateway.limits import Uploads
from router.gateway.wire import RawHeaders, Refusal
from router.settings import GatewaySettings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_WATCH_AFTER_S = 0.05  # most replies take longer; looking for a caller who leaves costs a task of its own
_LINGER_S = 2.0


class Caller:
    """`has_begun` says that a reply has, `has_left` that the caller is gone."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers: RawHeaders = scope["headers"]
        self.has_begun = False
        self.has_left = False
        self._receive = receive
        self._send = send
        self._body_read = False
        self._has_ended = False
        self._watching: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Future[None] | None = None
        self._held = 0
        self._uploads: Uploads | None = None

    def watch(self, serving: asyncio.Task[Any] | None) -> None:
        """Cancel the task that serves, and with it the upstream call, when the caller goes away."""
        self._watching = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._start_watching, serving)

    def stop_watching(self) -> None:
        """The request is over."""
        if self._uploads is not None:
            self._uploads.give_back(self._held)
        for watching in (self._watching, self._watcher):
            if watching is not None:
                watching.cancel()

    async def read_body(self, limits: GatewaySettings, uploads: Uploads) -> bytes:
        """Raises Refusal for a body that is too large, too slow, encoded or no JSON, or for which there is no room;
        CancelledError when the caller leaves. What it takes of `uploads` is given back by `stop_watching`.
        """
        _check_headers(self.headers, limits)
        parts: list[bytes] = []
        size, more = 0, True
        try:
            last_s = asyncio.get_running_loop().time() + limits.body_timeout_s
            async with asyncio.timeout(min(limits.idle_timeout_s, limits.body_timeout_s)) as deadline:
                while more and size <= limits.max_body_bytes:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self.has_left = True
                        raise asyncio.CancelledError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    uploads.take(len(parts[-1]))
                    self._held, self._uploads = size, uploads
                    if more := message.get("more_body", False):
                        soon_s = asyncio.get_running_loop().time() + limits.idle_timeout_s
                        deadline.reschedule(min(soon_s, last_s))
        except TimeoutError:
            waited = f"{limits.idle_timeout_s:g} s without more of it, or {limits.body_timeout_s:g} s for all"
            raise Refusal(408, "timeout_error", f"the body did not come: {waited}") from None
        if size > limits.max_body_bytes:
            raise Refusal(413, "request_too_large", f"the body exceeds {limits.max_body_bytes} bytes")
        self._body_read = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def reply(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """A whole reply; `headers` get its length."""
        headers.append((b"content-length", str(len(body)).encode()))
        await self.begin(status, headers)
        lingers = not self._body_read and status != 408
        await self.send(body, more=lingers)
        if lingers:  # a connection that is closed with bytes unread is reset, and with it the reply
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while (await self._receive()).get("more_body", False):
                        pass
            await self.send(b"", more=False)

    async def begin(self, status: int, headers: RawHeaders) -> None:
        """Begin a reply whose body is sent in parts."""
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool) -> None:
        """A part of the reply's body."""
        self._has_ended = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def end(self, frame: bytes) -> None:
        """The last frame of a stream that went wrong; nothing where it has ended, or where the caller does not read."""
        if not self._has_ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    await self.send(frame, more=False)

    def _start_watching(self, serving: asyncio.Task[Any] | None) -> None:
        if self._body_read:
            self._watcher = asyncio.ensure_future(self._watch(serving))
        else:  # until then `read_body` sees a caller go
            self.watch(serving)

    async def _watch(self, serving: asyncio.Task[Any] | None) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        if serving is not None:
            serving.cancel()


def _check_headers(headers: RawHeaders, limits: GatewaySettings) -> None:
    if sum(len(name) + len(value) for name, value in headers) > limits.max_header_bytes:
        raise Refusal(431, "invalid_request_error", f"the headers exceed {limits.max_header_bytes} bytes")
    for name, value in headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise Refusal(415, "invalid_request_error", "send the body without content-encoding")
        if name == b"content-length" and int(value) > limits.max_body_bytes:
            raise Refusal(413, "request_too_large", f"the body exceeds {limits.max_body_bytes} bytes")
    check_content_type(headers)
