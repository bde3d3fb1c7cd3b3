"""What is asked of a provider for one request, attempt after attempt: body, headers, address; and its first bytes."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import aiohttp

from router.formats.interpreter import Keep
from router.gateway import wire
from router.gateway.frames import Frames, TranslatedFrames
from router.gateway.serving import Serving
from router.gateway.wire import RawHeaders
from router.send import faults
from router.types import Api, Plan

if TYPE_CHECKING:
    from starlette.types import Scope

_SKIPPED = ("User-Agent", "Accept", "Content-Type")  # headers that aiohttp would add of its own
_ANTHROPIC_VERSION = "2023-06-01"  # the only one: https://platform.claude.com/docs/en/api/versioning (2026-11-22)
_LARGE_BYTES = 1 << 20  # above it aiohttp wants a file rather than bytes

_NO_ANSWER_S = 10.0
"""So long comments, pings and empty chunks are held back, for an error after them can still be tried again."""


class UpstreamError(Exception):
    """A provider's refusal, with the attributes of an SDK's exception that `faults.read_fault` looks at."""

    def __init__(self, status: int, headers: RawHeaders, body: bytes) -> None:
        super().__init__(f"status {status}")
        reply = wire.read_reply(body)
        reply = reply[0] if isinstance(reply, list) and reply else reply  # Gemini's come in a list
        error = reply.get("error") if isinstance(reply, dict) else None
        error = error if isinstance(error, dict) else {}
        details = error.get("details")
        self.status_code = status
        self.message = error.get("message")
        self.type = error.get("type")
        self.code = error.get("code")
        self.error_code = details.get("error_code") if isinstance(details, dict) else None
        self.raw_headers = headers
        self.body = body
        self.response = self
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


class APIConnectionError(Exception):
    """The provider was not reached, or broke off. Named as the SDKs name it: `read_fault` knows it by that."""


class APITimeoutError(APIConnectionError):
    """The provider did not answer in time."""


class UpstreamCall:
    """One request's calls. `unchanged` are the caller's bytes, where they may be sent as they came."""

    def __init__(
        self, session: aiohttp.ClientSession, serving: Serving, scope: Scope, path: str, unchanged: bytes | None
    ) -> None:
        self._session = session
        self._serving = serving
        self._scope = scope
        self._path = path
        self._unchanged = unchanged
        self._response: aiohttp.ClientResponse | None = None

    @property
    def has_answer(self) -> bool:
        """Whether the provider has begun to answer, and not with an error."""
        return self._response is not None and self._response.status < 400

    def close(self) -> None:
        """Let go of the connection; what is still coming is not wanted."""
        if self._response is not None:
            self._response.close()

    async def ask(self, plan: Plan, keep: Keep | None = None) -> tuple[aiohttp.ClientResponse, bytes, Frames | None]:
        """The provider's reply with its whole body, or with a stream's first frames. Raises what `Attempts` reads.

        What the model of a stream wants back on the next request goes to `keep`.
        """
        upstream = self._serving.upstream_of(plan)
        passes_through = self._serving.gateway.access == "pass-through"
        keeps = passes_through and self._serving.is_owners(plan, self._scope["headers"])
        data: Any = wire.encode(plan.body) if self._unchanged is None else self._unchanged
        crosses = plan.api is not plan.asked
        headers = wire.headers_on(self._scope["headers"], keep_credentials=keeps, crosses=crosses)
        if not passes_through:
            headers += upstream.credentials()
        if crosses and plan.api is Api.MESSAGES:
            headers.append(("anthropic-version", _ANTHROPIC_VERSION))
        headers.append(("accept-encoding", "identity"))
        if len(data) > _LARGE_BYTES:
            data = io.BytesIO(data)
        if crosses:
            url = upstream.endpoint(plan.api.value, "")
        else:
            url = upstream.endpoint(self._path, self._scope["query_string"].decode("latin-1"))
        self.close()  # a stream that began with an error has not been read to its end
        try:
            response = self._response = await self._session.post(
                url, data=data, headers=headers, skip_auto_headers=_SKIPPED, allow_redirects=False
            )
            if not 200 <= response.status <= 599:
                raise APIConnectionError(f"its status is {response.status}, which is no answer")
            if response.status == 200 and response.content_type == "text/event-stream":
                frames = _frames(plan, keep)
                return response, await self._first_frames(response, frames), frames
            body = await response.read()
        except aiohttp.ConnectionTimeoutError as exc:
            raise APIConnectionError("no connection in time") from exc
        except TimeoutError as exc:
            raise APITimeoutError("no answer in time") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise APIConnectionError(type(exc).__name__) from exc
        if response.status >= 400:
            raise UpstreamError(response.status, wire.headers_back(response.raw_headers), body)
        return response, body, None

    async def _first_frames(self, response: aiohttp.ClientResponse, frames: Frames) -> bytes:
        """The frames up to the first of the answer; raises UpstreamError when an error comes before that.

        What comes before the answer is held back for 10 s, so that the caller's connection does not seem dead.
        """
        passed = b""
        until_s = asyncio.get_running_loop().time() + _NO_ANSWER_S
        while not frames.has_begun:
            try:
                async with asyncio.timeout_at(until_s if passed else None) as limit:
                    chunk = await response.content.readany()
            except TimeoutError:
                if limit.expired():
                    return passed
                raise
            if not chunk:
                raise APIConnectionError("the stream ended before its first event")
            passed += frames.feed(chunk)
            if frames.error is not None and not frames.has_begun:
                headers = [(b"content-type", b"application/json")]
                raise UpstreamError(faults.status_of(frames.error["error"]), headers, wire.encode(frames.error))
        return passed


def _frames(plan: Plan, keep: Keep | None) -> Frames:
    if plan.api is plan.asked:
        return Frames(plan.api, hides_usage=plan.hides_usage, telling=plan.telling, keep=keep)
    return TranslatedFrames(plan.api, plan.asked, include_usage=not plan.hides_usage, telling=plan.telling, keep=keep)
