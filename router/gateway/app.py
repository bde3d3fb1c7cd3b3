"""The gateway as an ASGI application: its endpoints."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from router.errors import RequestError
from router.gateway import browsers, wire
from router.gateway.admission import Endpoint
from router.gateway.dashboard import Dashboard
from router.gateway.feedback import Verdicts
from router.gateway.gateway import Gateway
from router.gateway.relay import Exchange
from router.gateway.route import decided
from router.gateway.stores import open_store
from router.gateway.wire import Refusal
from router.types import Api

_logger = logging.getLogger("tierwise")

_CREATED = 1795305600  # 2026-11-22: a listed model needs some date


class Application:
    """The endpoints that relay are served directly, everything else goes through Starlette.

    Starlette's middleware and routing would add 0.1 ms to each relayed request.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

        def post(path: str, api: Api, *, counts_only: bool = False) -> tuple[str, Endpoint]:
            sent = path if api is Api.MESSAGES else path.removeprefix("/v1")
            return path, Endpoint(api, sent, counts_only)

        self._relays = dict(
            (
                post("/v1/messages", Api.MESSAGES),
                post("/v1/chat/completions", Api.CHAT),
                post("/v1/responses", Api.RESPONSES),
                post("/v1/messages/count_tokens", Api.MESSAGES, counts_only=True),
                post("/v1/responses/input_tokens", Api.RESPONSES, counts_only=True),
            )
        )
        self._rest = _starlette(gateway, list(self._relays))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] == "http":
            try:
                browsers.check(scope["headers"], self._gateway.serving.gateway)
            except Refusal as refusal:
                await _refused(Request(scope), refusal)(scope, receive, send)
                return
        endpoint = self._relays.get(scope.get("path", ""))
        if endpoint is not None and scope["type"] == "http" and scope["method"] == "POST":
            await Exchange(self._gateway, endpoint, scope, receive, send).run()
        else:
            await self._rest(scope, receive, send)


def _starlette(gateway: Gateway, only_post: list[str]) -> Starlette:
    verdicts = Verdicts(gateway, open_store(gateway.serving.settings))
    gateway.on_refresh.append(verdicts.refresh)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await verdicts.close()
        await gateway.close()

    async def ready(_: Request) -> Response:
        found = gateway.health()
        return JSONResponse(found, 503 if gateway.draining else 200)

    async def metrics(request: Request) -> Response:
        return _metrics(gateway, request)

    async def models(request: Request) -> Response:
        return _models(gateway, request)

    async def feedback(request: Request) -> Response:
        try:
            return JSONResponse(await verdicts.take(request))
        except Refusal as refusal:
            return _refused(request, refusal)

    async def route(request: Request) -> Response:
        try:
            return JSONResponse(await decided(gateway, request))
        except Refusal as refusal:
            return _refused(request, refusal)
        except RequestError as exc:
            return _refused(request, Refusal(400, "invalid_request_error", str(exc)))

    dashboard = Dashboard(gateway)
    routes = [
        *(Route(path, _only_posted) for path in only_post),
        Route("/v1/models", models),
        Route("/v1/models/{id:path}", models),
        Route("/v1/feedback", feedback, methods=["POST"]),
        Route("/v1/route", route, methods=["POST"]),
        Route("/api/hello", _hello, methods=["GET", "HEAD"]),
        Route("/healthz", _alive),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/dashboard", dashboard.show, methods=["GET"]),
        Route("/dashboard/login", dashboard.login, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {404: _not_found, 405: _wrong_method, Exception: _crashed}
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)


async def _not_found(request: Request, _: Exception) -> Response:
    refusal = Refusal(404, "not_found_error", f"no endpoint {request.method} {request.url.path[:200]!r}")
    return _refused(request, refusal)


async def _wrong_method(request: Request, _: Exception) -> Response:
    return _refused(request, Refusal(405, "invalid_request_error", f"{request.method} is not allowed here"))


async def _crashed(request: Request, exc: Exception) -> Response:
    _logger.error("a bug of the gateway's: %s", type(exc).__name__, exc_info=exc)
    return _refused(request, Refusal(500, "api_error", "a bug of the gateway's; its log says more"))


async def _only_posted(request: Request) -> Response:
    return await _wrong_method(request, Exception())


async def _hello(_: Request) -> Response:
    return Response(status_code=200)


async def _alive(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _metrics(gateway: Gateway, request: Request) -> Response:
    try:
        gateway.admit_admin(request.scope["headers"])
    except Refusal as refusal:
        return _refused(request, refusal)
    gauges = gateway.metrics
    gauges.running.set(gateway.slots.n_running)
    gauges.waiting.set(gateway.slots.n_waiting)
    gauges.backlog.set(gateway.journal.backlog_bytes)
    gauges.lost.set(gateway.journal.n_lost)
    policy = gateway.serving.router.policy
    for model in policy.fleet.models.values():
        gauges.resting.labels(model.id).set(policy.breaker.rests(model.id))
    gauges.database_up.set(gateway.journal.trouble is None)
    return Response(gauges.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _models(gateway: Gateway, request: Request) -> Response:
    """One list that both SDKs read: OpenAI's and Anthropic's fields together."""
    try:
        gateway.admit(request.scope["headers"])
    except Refusal as refusal:
        return _refused(request, refusal)
    rows = [
        {
            "id": name,
            "object": "model",
            "type": "model",
            "created": _CREATED,
            "created_at": "2026-11-22T00:00:00Z",
            "owned_by": owner,
            "display_name": name,
        }
        for name, owner in gateway.serving.model_names()
    ]
    wanted = request.path_params.get("id")
    if wanted is None:
        ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]}
        return JSONResponse({"object": "list", "data": rows, "has_more": False, **ends})
    found = next((row for row in rows if row["id"] == wanted), None)
    if found is None:
        return _refused(request, Refusal(404, "not_found_error", "no such model here; GET /v1/models lists them"))
    return JSONResponse(found)


def _refused(request: Request, refusal: Refusal) -> Response:
    anthropic = request.url.path.startswith("/v1/messages") or "anthropic-version" in request.headers
    api = Api.MESSAGES if anthropic else None
    headers = {n.decode(): v.decode() for n, v in wire.refusal_headers(api, refusal, "req_none")}
    return Response(wire.error_body(api, refusal, "req_none"), refusal.status, headers)
