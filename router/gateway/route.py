"""POST /v1/route: where a request would go and why. It is decided as a request's first turn, and nothing is sent."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from router import explain
from router.decide.rules import Context
from router.engine import AUTO
from router.gateway import grants, wire
from router.gateway.browsers import check_content_type
from router.gateway.gateway import Gateway
from router.gateway.wire import Refusal
from router.types import Api


async def decided(gateway: Gateway, request: Request) -> dict[str, Any]:
    """The decision for a body of any of the three formats, as `tierwise decide --explain --json` gives it.

    Raises Refusal, and RequestError for a body that cannot be read.
    """
    headers = request.scope["headers"]
    key = gateway.admit(headers)
    check_content_type(headers)
    if key is not None:
        await gateway.check_limits(key)
    serving = gateway.serving
    body = wire.decode(await _body(request, serving.gateway.max_body_bytes, serving.gateway.body_timeout_s))
    api = Api.RESPONSES if "input" in body else Api.MESSAGES if "anthropic-version" in request.headers else Api.CHAT
    router = serving.router_for(api, key)
    asked = grants.within(serving.asked({"model": AUTO, **body}, key), router, key)
    name = asked["model"]
    if name != AUTO and not name.startswith(f"{AUTO}:"):
        message = f"the model {name[:100]!r} is named, so nothing is decided; leave it out or ask for {AUTO!r}"
        raise Refusal(400, "invalid_request_error", message)
    context = Context(wire.readable(headers), "" if key is None else key.name)
    point = name.partition(":")[2] or None
    found = await asyncio.to_thread(explain.explain, router, asked, point, context)
    return explain.as_row(found)


async def _body(request: Request, most: int, timeout_s: float) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > most:
                    raise Refusal(413, "request_too_large", f"the body exceeds {most} bytes")
    except (TimeoutError, ClientDisconnect):
        raise Refusal(408, "timeout_error", "the body did not come") from None
    return b"".join(parts)
