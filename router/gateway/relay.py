"""One request through the gateway: read, plan, ask the provider, relay its bytes, account for them.

Bytes are passed on as they came; only for "auto" is the body written anew, once for each model that is tried. Another
attempt, or a stronger model, is possible until the first byte has gone to the caller.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp

from router.decide.rules import Context
from router.decide.task import read_task
from router.engine import Router
from router.errors import RequestError, TierwiseError
from router.formats import accepts, interpreter
from router.formats import usage as usages
from router.gateway import wire
from router.gateway.call import APIConnectionError, APITimeoutError, UpstreamCall, UpstreamError
from router.gateway.frames import Frames
from router.gateway.keys import Key
from router.gateway.serving import Serving
from router.gateway.store import JournalEntry
from router.gateway.wire import RawHeaders, Refusal
from router.send.attempts import Attempts
from router.types import Api, Usage

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from router.gateway.app import Gateway

_logger = logging.getLogger("tierwise")

_PROCESS, _NUMBERS = secrets.token_hex(8), count()  # request ids: unique without asking the kernel each time
_WATCH_AFTER_S = 0.05  # most replies take longer; looking for a caller who leaves costs a task of its own
_LINGER_S = 2.0


class Endpoint:
    """The ASGI application of one path."""

    def __init__(self, gateway: Gateway, api: Api, path: str, *, counts_only: bool = False) -> None:
        self.gateway = gateway
        self.api = api
        self.path = path
        self.counts_only = counts_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await Exchange(self, scope, receive, send).run()


class Exchange:
    """One request and its reply."""

    def __init__(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self._endpoint = endpoint
        self._gateway = endpoint.gateway
        self._serving: Serving = endpoint.gateway.serving
        self._limits = self._serving.gateway
        self._api = endpoint.api
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request_id = f"req_{_PROCESS}{next(_NUMBERS):08x}"
        self._started_s = time.perf_counter()
        self._key: Key | None = None
        self._raw = b""
        self._router: Router
        self._attempts: Attempts | None = None
        self._call: UpstreamCall
        self._begun = False
        self._recorded = False
        self._body_read = False
        self._caller_left = False
        self._cut_off = ""
        self._watching: asyncio.TimerHandle
        self._watcher: asyncio.Future[None] | None = None
        self._meter: usages.Meter | None = None

    async def run(self) -> None:
        """Everything that can happen ends in a reply or, when the caller has left, in silence."""
        metrics = self._gateway.metrics
        self._watching = asyncio.get_running_loop().call_later(
            _WATCH_AFTER_S, self._start_watching, asyncio.current_task()
        )
        try:
            self._key = self._gateway.admit(self._scope["headers"])
            if self._key is not None:
                await self._gateway.check_limits(self._key)
            self._raw = await self._read_body()
            self._body_read = True
            self._plan()
            if self._endpoint.counts_only and not self._speaks():
                await self._estimate()
                return
            await self._gateway.slots.acquire()
            try:
                await self._relay()
            finally:
                self._gateway.slots.release()
        except Refusal as refusal:
            metrics.refused(refusal.kind)
            await self._refuse(refusal)
        except RequestError as exc:
            metrics.refused("invalid_request_error")
            await self._refuse(Refusal(400, "invalid_request_error", str(exc)))
        except RecursionError:
            metrics.refused("invalid_request_error")
            await self._refuse(Refusal(400, "invalid_request_error", "the body is nested too deeply"))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            self._cut_off = "the caller left" if self._caller_left else "the gateway was stopped"
            metrics.refused("caller_left" if self._caller_left else "stopped")
            if not self._caller_left:
                await self._refuse(Refusal(503, "api_error", "the gateway is stopping", retry_after_s=1))
        except Exception as exc:
            _logger.error("a bug of the gateway's, request %s", self._request_id, exc_info=exc)
            self._cut_off = "the gateway failed"
            await self._refuse(Refusal(500, "api_error", "a bug of the gateway's; its log says more"))
        finally:
            self._watching.cancel()
            if self._watcher is not None:
                self._watcher.cancel()
            if self._attempts is not None:
                self._call.close()
            if self._cut_off and not self._recorded and self._attempts is not None and self._call.answered:
                usage = usages.UNREPORTED if self._meter is None else self._meter.usage()
                self._record(usage, (f"{self._cut_off} before the end: usage is what had been reported",))

    def _start_watching(self, serving: asyncio.Task[Any] | None) -> None:
        if self._body_read:
            self._watcher = asyncio.ensure_future(self._watch(serving))
        else:  # until then `_read_body` sees a caller go
            loop = asyncio.get_running_loop()
            self._watching = loop.call_later(_WATCH_AFTER_S, self._start_watching, serving)

    async def _watch(self, serving: asyncio.Task[Any] | None) -> None:
        """Cancel the request, and with it the upstream call, when the caller goes away."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._caller_left = True
        if serving is not None:
            serving.cancel()

    async def _read_body(self) -> bytes:
        """Raises Refusal for a body that is too large, too slow or encoded."""
        limits, headers = self._limits, self._scope["headers"]
        if sum(len(name) + len(value) for name, value in headers) > limits.max_header_bytes:
            raise Refusal(431, "invalid_request_error", f"the headers exceed {limits.max_header_bytes} bytes")
        for name, value in headers:
            if name == b"content-encoding" and value.lower() != b"identity":
                raise Refusal(415, "invalid_request_error", "send the body without content-encoding")
            if name == b"content-length" and int(value) > limits.max_body_bytes:
                raise Refusal(413, "request_too_large", f"the body exceeds {limits.max_body_bytes} bytes")
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(limits.idle_timeout_s) as deadline:
                while more and size <= limits.max_body_bytes:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self._caller_left = True
                        raise asyncio.CancelledError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if more := message.get("more_body", False):
                        deadline.reschedule(asyncio.get_running_loop().time() + limits.idle_timeout_s)
        except TimeoutError:
            raise Refusal(408, "timeout_error", f"no more of the body came for {limits.idle_timeout_s:g} s") from None
        if size > limits.max_body_bytes:
            raise Refusal(413, "request_too_large", f"the body exceeds {limits.max_body_bytes} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _plan(self) -> None:
        body = wire.decode(self._raw)
        asked = self._serving.asked(body, self._key)
        self._router = self._serving.router_for(self._api, self._key)
        context = self._context()
        plan = self._router.plan(asked, self._api, context, counts_only=self._endpoint.counts_only)
        unchanged = self._raw if asked is body and "router" not in body else None
        endpoint = self._endpoint
        self._call = UpstreamCall(
            self._gateway.session,
            self._serving,
            self._router,
            self._scope,
            endpoint.path,
            body,
            unchanged,
            counts_only=endpoint.counts_only,
        )
        self._attempts = Attempts(self._router, plan, asked, self._limits.max_retries, context)

    def _context(self) -> Context:
        """What is known beside the body: headers, but none that holds a secret, and the name of the key."""
        return Context(wire.readable(self._scope["headers"]), "" if self._key is None else self._key.name)

    async def _relay(self) -> None:
        """Ask until there is an answer, then pass it on."""
        attempts = self._attempts
        assert attempts is not None
        while True:
            try:
                response, first, frames = await self._call.ask(attempts.plan)
                break
            except (UpstreamError, APIConnectionError) as error:
                self._gateway.metrics.fault(self._label(attempts.plan.decision.model))
                wait_s = attempts.again(error)
                if wait_s is None:
                    await self._give_up(error)
                    return
                await asyncio.sleep(wait_s)
        attempts.answered()
        self._gateway.metrics.first_byte(self._api, time.perf_counter() - self._started_s)
        if frames is None:
            await self._pass_on(response, first)
        else:
            await self._stream(response, frames, first)

    def _speaks(self) -> bool:
        assert self._attempts is not None
        model = self._router.catalog.find(self._attempts.plan.decision.model)
        return model is None or accepts.speaks(self._api, model)

    async def _estimate(self) -> None:
        """How many tokens the body has, for a model whose provider counts none in the caller's format."""
        assert self._attempts is not None
        plan = self._attempts.plan
        model = self._router.catalog.find(plan.decision.model)
        assert model is not None
        kind = {} if self._api is Api.MESSAGES else {"object": "response.input_tokens"}
        body = wire.encode({**kind, "input_tokens": model.estimate_tokens(read_task(plan.body).n_chars)})
        headers = [(b"content-type", b"application/json"), (b"x-tierwise-estimated", b"true"), *self._own_headers()]
        await self._reply(200, headers, body)

    async def _pass_on(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        """A whole reply. Its record is in the journal before the first byte leaves."""
        headers = wire.headers_back(response.raw_headers) + self._own_headers()
        if response.status == 200 and not self._endpoint.counts_only:
            reply = wire.read_reply(body)
            usage = self._usage(reply)
            cost = self._record(usage, reply_chars=0 if usage.reported else usages.n_chars(reply))
            if cost is not None:
                headers.append((b"x-tierwise-cost-usd", cost.encode()))
            if self._call.spoken is not self._api:
                await self._interpreted(reply, headers)
                return
        await self._reply(response.status, headers, body)

    async def _interpreted(self, reply: Any, headers: RawHeaders) -> None:
        """A whole reply in the caller's format. What is none is the provider's fault, and is billed all the same."""
        try:
            body = wire.encode(interpreter.reply(reply, self._call.spoken, self._api))
        except (TierwiseError, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as exc:
            why = str(exc) if isinstance(exc, TierwiseError) else f"its reply cannot be read ({type(exc).__name__})"
            raise Refusal(502, "api_error", f"no answer from the provider: {why}") from exc
        await self._reply(200, headers, body)

    async def _stream(self, response: aiohttp.ClientResponse, frames: Frames, passed: bytes) -> None:
        """A stream, frame by frame. Its record is in the journal before the last frame leaves."""
        self._meter = frames.meter
        headers = wire.headers_back(response.raw_headers) + self._own_headers()
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._begun = True
        loop, idle_s = asyncio.get_running_loop(), self._limits.idle_timeout_s
        broken: str | None = None
        try:
            async with asyncio.timeout(idle_s) as deadline:
                while True:
                    if frames.is_last and not self._recorded:
                        self._record(self._usage_of(frames), reply_chars=frames.reply_chars)
                    if passed:
                        await self._send({"type": "http.response.body", "body": passed, "more_body": True})
                    chunk = await response.content.readany()
                    if not chunk:
                        break
                    passed = frames.feed(chunk)
                    deadline.reschedule(loop.time() + idle_s)
        except TimeoutError:
            broken = f"nothing came or could be sent for {idle_s:g} s"
        except (aiohttp.ClientError, OSError) as exc:
            broken = f"the provider broke off ({type(exc).__name__})"
        await self._end_stream(frames, broken)

    async def _end_stream(self, frames: Frames, broken: str | None) -> None:
        last = frames.flush() if broken is None else b""
        if broken is not None and not frames.is_last:
            last = wire.error_frame(
                self._api, Refusal(502, "api_error", f"the stream ended early: {broken}"), self._request_id
            )
        if not self._recorded:
            complete = frames.is_last or (broken is None and frames.error is None)
            notes = () if complete else ("the stream ended early: usage is what had been reported",)
            self._record(self._usage_of(frames), notes, frames.reply_chars)
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        self._count(200)

    async def _give_up(self, error: UpstreamError | APIConnectionError) -> None:
        """The provider's own error, byte for byte; one of ours only where it sent none."""
        if isinstance(error, UpstreamError):
            body = error.body
            if self._call.spoken is not self._api:
                said = wire.read_reply(body)
                body = wire.encode(interpreter.error(said, error.status_code, self._api, self._request_id))
            await self._reply(error.status_code, error.raw_headers + self._own_headers(), body)
            return
        late = isinstance(error, APITimeoutError)
        status, kind = (504, "timeout_error") if late else (502, "api_error")
        await self._refuse(Refusal(status, kind, f"no answer from the provider: {error}"))

    async def _refuse(self, refusal: Refusal) -> None:
        if self._begun:
            return
        headers = wire.refusal_headers(self._api, refusal, self._request_id)
        if self._attempts is not None:
            headers += self._own_headers()[:-1]
        await self._reply(refusal.status, headers, wire.error_body(self._api, refusal, self._request_id))

    async def _reply(self, status: int, headers: RawHeaders, body: bytes) -> None:
        headers.append((b"content-length", str(len(body)).encode()))
        self._begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        lingers = not self._body_read and status != 408
        await self._send({"type": "http.response.body", "body": body, "more_body": lingers})
        if lingers:  # a connection that is closed with bytes unread is reset, and with it the reply
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER_S):
                    while (await self._receive()).get("more_body", False):
                        pass
            await self._send({"type": "http.response.body", "body": b""})
        self._count(status)

    def _own_headers(self) -> RawHeaders:
        """Tier, model, reason and request id; a name that no header may hold is left out."""
        assert self._attempts is not None
        decision = self._attempts.plan.decision
        values = {
            b"x-tierwise-tier": decision.tier or "",
            b"x-tierwise-model": decision.model,
            b"x-tierwise-reason": decision.reason,
            b"x-tierwise-request-id": self._request_id,
        }
        return [(n, v.encode()) for n, v in values.items() if v and v.isascii() and v.isprintable()]

    def _usage(self, reply: Any) -> Usage:
        if not isinstance(reply, dict) or not isinstance(reply.get("usage"), dict):
            return usages.UNREPORTED
        try:
            return usages.read_usage(reply, self._call.spoken)
        except (TypeError, ValueError):  # counts that are no numbers
            return usages.UNREPORTED

    def _usage_of(self, frames: Frames) -> Usage:
        try:
            return frames.meter.usage()
        except (TypeError, ValueError):
            return usages.UNREPORTED

    def _record(self, usage: Usage, notes: tuple[str, ...] = (), reply_chars: int = 0) -> str | None:
        """Account for the reply and keep the record; the cost in USD as text, None where it is unknown."""
        self._recorded = True
        if self._endpoint.counts_only or self._attempts is None:
            return None
        key = self._key
        whose = () if key is None else (f"key {key.name}",)
        try:
            record = self._router.record(
                self._attempts.plan,
                usage,
                (*self._attempts.notes, *self._call.changes, *notes, f"request {self._request_id}", *whose),
                reply_chars=reply_chars,
            )
            self._gateway.keep(JournalEntry(self._request_id, record, None if key is None else key.id))
        except Exception as exc:  # the provider has answered and will bill: the reply must reach the caller
            _logger.error("no record of request %s: %s", self._request_id, type(exc).__name__)
            return None
        self._gateway.metrics.recorded(record, self._label(record.model))
        return None if record.cost_usd is None else f"{record.cost_usd:f}"

    def _count(self, status: int) -> None:
        decision = None if self._attempts is None else self._attempts.plan.decision
        model = "" if decision is None else self._label(decision.model)
        tier, reason = ("", "") if decision is None else (decision.tier or "", decision.reason)
        elapsed_s = time.perf_counter() - self._started_s
        self._gateway.metrics.answered(self._api, tier, model, reason, status, elapsed_s)
        if self._limits.log_requests:
            _logger.info(
                "%s %s %d %s %s %s %.1f ms",
                self._request_id,
                self._scope["path"],
                status,
                tier or "-",
                model or "-",
                reason or "-",
                elapsed_s * 1e3,
            )

    def _label(self, model: str) -> str:
        """A model as a metric's label and in logs: callers can name anything, labels must stay few."""
        return model if self._router.catalog.find(model) is not None else "other"
