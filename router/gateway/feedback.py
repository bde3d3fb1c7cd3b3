"""POST /v1/feedback: what users say of replies, kept where the records are; when it condemns a canary, it is gone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from router.classifier.pointer import Verdict, conversation_key, scoped
from router.gateway import wire
from router.gateway.browsers import check_content_type
from router.gateway.gateway import Gateway
from router.gateway.store import Served, Store, StoreAway
from router.gateway.wire import Refusal

ResultT = TypeVar("ResultT")

_MAX_BYTES = 16_384
_A_MINUTE = 30
"""So many of each key: a person's thumbs, not a program's."""

_RECORDED_WITHIN_S = 1.0
"""A record is applied to the database five times a second; who answers sooner than that is waited for."""


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request: `good`, and a reply's x-tierwise-request-id or the `conversation_id` that was sent."""

    good: bool
    request_id: str = ""
    conversation_id: str = ""


class Verdicts:
    """Feedback in a store of its own connection, and what it means for the canary."""

    def __init__(self, gateway: Gateway, store: Store) -> None:
        self._gateway = gateway
        self._store = store
        self._lock = asyncio.Lock()

    async def take(self, request: Request) -> dict[str, Any]:
        """Serve one request. Raises Refusal."""
        key = self._gateway.admit(request.scope["headers"])
        check_content_type(request.scope["headers"])
        wait_s = 0.0 if key is None else await self._gateway.rates.wait_s(f"feedback:{key.id}", _A_MINUTE)
        if wait_s > 0:
            message = f"feedback is taken {_A_MINUTE} times a minute"
            raise Refusal(429, "rate_limit_error", message, retry_after_s=wait_s)
        given = _decoded(await self._body(request))
        try:
            served = await self._find(given, None if key is None else key.id, "" if key is None else key.name)
            verdict = await self._use(lambda: self._keep(served, given.good)) if served.artifact else Verdict.HOLD
        except StoreAway as exc:
            message = f"feedback cannot be kept now: {exc}"
            raise Refusal(503, "api_error", message, retry_after_s=5) from exc
        return {"artifact": served.artifact or None, "counted": bool(served.artifact), "verdict": verdict}

    def refresh(self, store: Store) -> None:
        """Judge the canary by what all replicas have heard."""
        canary = self._gateway.serving.router.policy.canary
        if canary is not None and canary.pointer.canary is not None:
            canary.review(store.feedback(canary.pointer.since))

    async def close(self) -> None:
        """Give the connection back."""
        await asyncio.to_thread(self._store.close)

    def _keep(self, served: Served, good: bool) -> Verdict:
        self._store.keep_feedback(served.artifact, served.conversation, good=good)
        canary = self._gateway.serving.router.policy.canary
        return Verdict.HOLD if canary is None else canary.review(self._store.feedback(canary.pointer.since))

    async def _use(self, work: Callable[[], ResultT]) -> ResultT:
        """In a thread, one at a time: a database may be slow, its connection is one."""
        async with self._lock:
            return await asyncio.to_thread(work)

    async def _find(self, given: Said, key_id: str | None, key_name: str) -> Served:
        """Raises Refusal (404) for an id that no request of this key had."""
        wanted = {"request_id": given.request_id}
        if given.conversation_id:
            wanted = {"conversation": conversation_key(scoped(given.conversation_id, key_name))}
        until_s = asyncio.get_running_loop().time() + _RECORDED_WITHIN_S
        while True:
            waits = self._gateway.journal.backlog_bytes > 0  # asked before, as it may arrive in between
            found = await self._use(lambda: self._store.served(key_id, **wanted))
            if found is not None:
                return found
            if not waits or asyncio.get_running_loop().time() > until_s:
                raise Refusal(404, "not_found_error", "no such request or conversation here", final=True)
            await asyncio.sleep(0.05)

    async def _body(self, request: Request) -> bytes:
        body = b""
        try:
            async with asyncio.timeout(self._gateway.serving.gateway.idle_timeout_s):
                async for part in request.stream():
                    body += part
                    if len(body) > _MAX_BYTES:
                        raise Refusal(413, "request_too_large", f"the body exceeds {_MAX_BYTES} bytes")
        except (TimeoutError, ClientDisconnect):
            raise Refusal(408, "timeout_error", "the body did not come") from None
        return body


def _decoded(raw: bytes) -> Said:
    wanted = 'expected {"request_id" or "conversation_id": ..., "good": true or false}'
    try:
        given = msgspec.convert(wire.decode(raw), Said)
    except (msgspec.ValidationError, UnicodeEncodeError) as exc:
        raise Refusal(400, "invalid_request_error", f"{exc}; {wanted}") from exc
    if bool(given.request_id) == bool(given.conversation_id):
        raise Refusal(400, "invalid_request_error", f"one of request_id and conversation_id is needed; {wanted}")
    if given.request_id and not re.fullmatch(r"[\w-]{1,100}", given.request_id, re.ASCII):
        raise Refusal(404, "not_found_error", "no such request here", final=True)
    return given
