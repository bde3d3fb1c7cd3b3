"""One request through the gateway: admitted, sent to the provider, its reply relayed, settled.

Bytes are passed on as they came; only for "auto" is the body written anew, once for each model that is tried. Another
attempt, or a stronger model, is possible until the first byte has gone to the caller.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp

from router.cache.breakpoints import read_prefix
from router.errors import RequestError, TierwiseError
from router.formats import accepts, interpreter
from router.formats import usage as usages
from router.formats.interpreter import Keep
from router.gateway import wire
from router.gateway.admission import Admitted, Endpoint, admit
from router.gateway.caller import Caller
from router.gateway.fault_log import is_noted
from router.gateway.frames import Frames
from router.gateway.gateway import Gateway
from router.gateway.settle import Settlement
from router.gateway.upstream import APIConnectionError, APITimeoutError, UpstreamCall, UpstreamError
from router.gateway.wire import Refusal
from router.types import Api

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_logger = logging.getLogger("tierwise")

_PROCESS, _NUMBERS = secrets.token_hex(8), count()  # request ids: unique without asking the kernel each time


class Exchange:
    """One request and its reply, whatever happens to it."""

    def __init__(self, gateway: Gateway, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self._gateway = gateway
        self._serving = gateway.serving
        self._endpoint = endpoint
        self._caller = Caller(scope, receive, send)
        self._request_id = f"req_{_PROCESS}{next(_NUMBERS):08x}"
        self._settlement = Settlement(gateway, endpoint, self._request_id, scope["path"])
        self._relay: _Relay | None = None

    async def run(self) -> None:
        """Everything that can happen ends in a reply or, when the caller has left, in silence."""
        caller, cut_off = self._caller, ""
        caller.watch(asyncio.current_task())
        try:
            await self._serve()
        except asyncio.CancelledError:
            cut_off = "the caller left" if caller.has_left else "the gateway was stopped"
            await self._stopped()
        except Exception as exc:
            refusal = self._refusal(exc)
            cut_off = refusal.message if refusal is exc else "the gateway failed"
            await self._refuse(refusal, is_counted=refusal.status < 500 or refusal is exc)
        finally:
            caller.stop_watching()
            if self._relay is not None:
                self._relay.close(cut_off)
            admitted = self._settlement.admitted
            if admitted is not None and admitted.key is not None and admitted.reserved_usd is not None:
                self._gateway.budgets.release(admitted.key, admitted.reserved_usd)
                self._gateway.holds.settle(admitted.key.id, admitted.hold, self._settlement.spent_usd)

    async def _serve(self) -> None:
        admitted = await admit(self._gateway, self._serving, self._endpoint, self._caller)
        self._settlement.admitted = admitted
        self._relay = relay = _Relay(self._gateway, self._endpoint, self._caller, admitted, self._settlement)
        if self._endpoint.counts_only and not relay.speaks():
            await relay.estimate()
            return
        slots, key = self._gateway.slots, None if admitted.key is None else admitted.key.id
        await slots.acquire(key, admitted.serving.gateway.max_concurrent_a_key)
        try:
            async with asyncio.timeout(admitted.serving.gateway.reply_timeout_s):
                await relay.run()
        except TimeoutError:
            limit_s = admitted.serving.gateway.reply_timeout_s
            raise Refusal(504, "timeout_error", f"the reply had not ended after {limit_s:g} s") from None
        finally:
            slots.release(key)

    def _refusal(self, exc: Exception) -> Refusal:
        """What the caller is told. Once the provider has answered, nothing is a fault of the caller's body any more."""
        if isinstance(exc, Refusal):
            return exc
        if self._relay is None or not self._relay.has_answer:
            if isinstance(exc, RequestError):
                return Refusal(400, "invalid_request_error", str(exc))
            if isinstance(exc, RecursionError):
                return Refusal(400, "invalid_request_error", "the body is nested too deeply")
        _logger.error("a bug of the gateway's, request %s", self._request_id, exc_info=exc)
        return Refusal(500, "api_error", "a bug of the gateway's; its log says more")

    async def _stopped(self) -> None:
        """The caller has left, or the gateway stops."""
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        if self._caller.has_left:
            self._gateway.metrics.refused("caller_left")
            return
        self._gateway.metrics.refused("stopped")
        await self._refuse(Refusal(503, "api_error", "the gateway is stopping", retry_after_s=1), is_counted=False)

    async def _refuse(self, refusal: Refusal, *, is_counted: bool = True) -> None:
        if is_counted:
            self._gateway.metrics.refused(refusal.kind)
        api = self._endpoint.api
        if self._caller.has_begun:
            if self._relay is not None and self._relay.is_streaming:
                await self._caller.end(wire.error_frame(api, refusal, self._request_id))
            return
        headers = wire.refusal_headers(api, refusal, self._request_id) + self._settlement.headers()[:-1]
        await self._caller.reply(refusal.status, headers, wire.error_body(api, refusal, self._request_id))
        self._settlement.count(refusal.status)


class _Relay:
    """From an admitted request to the provider and back."""

    def __init__(
        self, gateway: Gateway, endpoint: Endpoint, caller: Caller, admitted: Admitted, settlement: Settlement
    ) -> None:
        self._gateway = gateway
        self._endpoint = endpoint
        self._caller = caller
        self._router = admitted.router
        self._attempts = admitted.attempts
        self._idle_s = admitted.serving.gateway.idle_timeout_s
        self._settlement = settlement
        self._call = UpstreamCall(gateway.session, admitted.serving, caller.scope, endpoint.path, admitted.unchanged)
        self._frames: Frames | None = None
        self._is_large = admitted.is_large

    @property
    def has_answer(self) -> bool:
        """Whether the provider has begun to answer, and not with an error: it will bill."""
        return self._call.has_answer

    @property
    def is_streaming(self) -> bool:
        """Whether what was begun is a stream."""
        return self._frames is not None

    async def run(self) -> None:
        """Ask until there is an answer, then pass it on."""
        attempts, settlement = self._attempts, self._settlement
        while True:
            try:
                response, first, frames = await self._call.ask(attempts.plan, self._keep)
                break
            except (UpstreamError, APIConnectionError) as error:
                self._failed(error)
                again = partial(attempts.again, error)  # it may plan the body anew, for another model
                wait_s = await asyncio.to_thread(again) if self._is_large else again()
                if wait_s is None:
                    await self._give_up(error)
                    return
                await asyncio.sleep(wait_s)
        attempts.answered()
        settlement.first_byte()
        if frames is None:
            await self._pass_on(response, first)
        else:
            await self._stream(response, frames, first)

    def _failed(self, error: UpstreamError | APIConnectionError) -> None:
        """Count an attempt that failed, and name it in the log where the caller's body is not what was wrong."""
        self._gateway.metrics.fault(self._label)
        if not isinstance(error, UpstreamError):
            self._note(f"no answer from the provider ({error})")
        elif is_noted(error.status_code):
            self._note(f"the provider answered {error.status_code}")

    def _note(self, what: str) -> None:
        self._gateway.fault_log.note(self._label, what, self._settlement.request_id)

    @property
    def _label(self) -> str:
        return self._settlement.label(self._attempts.plan.decision.model)

    def close(self, cut_off: str) -> None:
        """Let go of the provider. `cut_off` says why a reply did not come to its end, "" if it did: it is billed."""
        self._call.close()
        if cut_off and not self._settlement.is_recorded and self._call.has_answer:
            frames = self._frames
            usage = usages.UNREPORTED if frames is None else frames.meter.usage()
            n_chars = 0 if frames is None else frames.reply_chars
            self._settlement.record(usage, (f"{cut_off} before the end",), n_chars, is_cut=True)

    def speaks(self) -> bool:
        """Whether the model's provider counts tokens in the caller's format."""
        model = self._router.catalog.find(self._attempts.plan.decision.model)
        return model is None or accepts.speaks(self._endpoint.api, model)

    async def estimate(self) -> None:
        """How many tokens the body has, for a model whose provider counts none in the caller's format."""
        plan, api = self._attempts.plan, self._endpoint.api
        model = self._router.catalog.models[plan.decision.model]
        kind = {} if api is Api.MESSAGES else {"object": "response.input_tokens"}
        n_tokens = model.estimate_tokens(read_prefix(plan.body, api).size)
        body = wire.encode({**kind, "input_tokens": n_tokens})
        headers = [(b"content-type", b"application/json"), (b"x-tierwise-estimated", b"true")]
        await self._reply(200, headers + self._settlement.headers(), body)

    async def _pass_on(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        """A whole reply. Its record is in the journal before the first byte leaves."""
        headers = wire.headers_back(response.raw_headers) + self._settlement.headers()
        if response.status == 200 and not self._endpoint.counts_only:
            plan, reply = self._attempts.plan, wire.read_reply(body)
            usage = usages.read_usage(reply, plan.api) if isinstance(reply, dict) else usages.UNREPORTED
            reply_chars = 0 if usage.reported else usages.n_chars(reply)
            cost = self._settlement.record(usage, reply_chars=reply_chars)
            if cost is not None:
                headers.append((b"x-tierwise-cost-usd", cost.encode()))
            if plan.api is not plan.asked or plan.telling.names:
                body = self._interpreted(reply)
            elif plan.telling.within and isinstance(reply, dict):
                interpreter.remember(reply, plan.api, plan.telling, self._keep)
        await self._reply(response.status, headers, body)

    def _interpreted(self, reply: Any) -> bytes:
        """A whole reply in the caller's format. What is none is the provider's fault, and is billed all the same."""
        plan = self._attempts.plan
        try:
            return wire.encode(interpreter.reply(reply, plan.api, plan.asked, plan.telling, self._keep))
        except (TierwiseError, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as exc:
            why = str(exc) if isinstance(exc, TierwiseError) else f"its reply cannot be read ({type(exc).__name__})"
            raise Refusal(502, "api_error", f"no answer from the provider: {why}") from exc

    @property
    def _keep(self) -> Keep:
        return partial(self._router.keep_state, self._attempts.plan)

    async def _stream(self, response: aiohttp.ClientResponse, frames: Frames, passed: bytes) -> None:
        """A stream, frame by frame. Its record is in the journal before the last frame leaves."""
        self._frames = frames
        await self._caller.begin(200, wire.headers_back(response.raw_headers) + self._settlement.headers())
        loop, idle_s = asyncio.get_running_loop(), self._idle_s
        broken: str | None = None
        try:
            async with asyncio.timeout(idle_s) as deadline:
                while True:
                    if frames.is_last and not self._settlement.is_recorded:
                        self._settlement.record(frames.meter.usage(), reply_chars=frames.reply_chars)
                    if passed:
                        await self._caller.send(passed, more=True)
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
            self._note(f"a stream ended early ({broken})")
            refusal = Refusal(502, "api_error", f"the stream ended early: {broken}")
            last = wire.error_frame(self._endpoint.api, refusal, self._settlement.request_id)
        if not self._settlement.is_recorded:
            # Servers of Chat Completions are known to leave without their last word, the others are cut off then.
            whole = broken is None and frames.error is None and self._attempts.plan.api is Api.CHAT
            complete = frames.is_last or whole
            notes = () if complete else ("the stream ended early",)
            self._settlement.record(frames.meter.usage(), notes, frames.reply_chars, is_cut=not complete)
        await self._caller.send(last, more=False)
        self._settlement.count(200)

    async def _give_up(self, error: UpstreamError | APIConnectionError) -> None:
        """The provider's own error, byte for byte; one of ours only where it sent none."""
        if not isinstance(error, UpstreamError):
            late = isinstance(error, APITimeoutError)
            status, kind = (504, "timeout_error") if late else (502, "api_error")
            raise Refusal(status, kind, f"no answer from the provider: {error}")
        body, plan = error.body, self._attempts.plan
        if plan.api is not plan.asked:
            said = interpreter.error(wire.read_reply(body), error.status_code, plan.asked, self._settlement.request_id)
            body = wire.encode(said)
        await self._reply(error.status_code, error.raw_headers + self._settlement.headers(), body)

    async def _reply(self, status: int, headers: wire.RawHeaders, body: bytes) -> None:
        await self._caller.reply(status, headers, body)
        self._settlement.count(status)
