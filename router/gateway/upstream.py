"""What is asked of a provider for one request, attempt after attempt: body, headers, address; and its first bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import aiohttp

from router.gateway import wire
from router.gateway.frames import Frames, TranslatedFrames
from router.gateway.serving import Serving
from router.gateway.wire import RawHeaders
from router.types import Api, Plan

if TYPE_CHECKING:
    from starlette.types import Scope

_SKIPPED = ("User-Agent", "Accept", "Content-Type")  # headers that aiohttp would add of its own
_ANTHROPIC_VERSION = "2023-06-01"  # the only one: https://platform.claude.com/docs/en/api/versioning (2026-11-22)
_LARGE_BYTES = 1 << 20  # above it aiohttp wants a file rather than bytes

# The status that each error event stands for: https://platform.claude.com/docs/en/api/errors (2026-11-22)
_STATUS_OF = {"overloaded_error": 529, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504}


class UpstreamError(Exception):
    """A provider's refusal, with the attributes of an SDK's exception that `faults.read_fault` looks at."""

    def __init__(self, status: int, headers: RawHeaders, body: bytes) -> None:
        super().__init__(f"status {status}")
        reply = wire.read_reply(body)
        error = reply.get("error") if isinstance(reply, dict) else None
        error = error if isinstance(error, dict) else {}
        details = error.get("details")
        self.status_code = status
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
        """Whether the provider has begun to answer."""
        return self._response is not None

    def close(self) -> None:
        """Let go of the connection; what is still coming is not wanted."""
        if self._response is not None:
            self._response.close()

    async def ask(self, plan: Plan) -> tuple[aiohttp.ClientResponse, bytes, Frames | None]:
        """The provider's reply with its whole body, or with a stream's first frames. Raises what `Attempts` reads."""
        upstream = self._serving.upstream_of(plan)
        data: Any = wire.encode(plan.body) if self._unchanged is None else self._unchanged
        crosses = plan.api is not plan.asked
        passes_through = self._serving.gateway.access == "pass-through"
        headers = wire.headers_on(self._scope["headers"], keep_credentials=passes_through, crosses=crosses)
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
            if response.status == 200 and response.content_type == "text/event-stream":
                frames = _frames(plan)
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
        """The first whole frames; raises UpstreamError when the stream begins with an error."""
        passed = b""
        while not passed:
            chunk = await response.content.readany()
            if not chunk:
                raise APIConnectionError("the stream ended before its first event")
            passed = frames.feed(chunk)
        if frames.error is not None:
            body = wire.encode(frames.error)
            error = frames.error["error"]
            status = _STATUS_OF.get(str(error.get("type")) if isinstance(error, dict) else "", 502)
            raise UpstreamError(status, [(b"content-type", b"application/json")], body)
        return passed


def _frames(plan: Plan) -> Frames:
    if plan.api is plan.asked:
        return Frames(plan.api, hides_usage=plan.hides_usage)
    return TranslatedFrames(plan.api, plan.asked, include_usage=not plan.hides_usage)
