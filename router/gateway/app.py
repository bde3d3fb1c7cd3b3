"""The gateway as an ASGI application: endpoints, who may come in, reload and shutdown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from router.errors import TierwiseError
from router.gateway import wire
from router.gateway.feedback import Verdicts
from router.gateway.journal import Journal
from router.gateway.keys import Key, KeyFile
from router.gateway.limits import Budgets, RateLimits, RedisRateLimits, Slots
from router.gateway.metrics import Metrics
from router.gateway.relay import Endpoint
from router.gateway.serving import Serving
from router.gateway.store import JournalEntry, Store, open_store, state_dir
from router.gateway.wire import RawHeaders, Refusal
from router.types import Api

_logger = logging.getLogger("tierwise")

_CREATED = 1795305600  # 2026-11-22: a listed model needs some date


class Gateway:
    """What lives as long as the process: connections, journal, limits, metrics; and `serving`, which a reload replaces.

    Call `start` in the running event loop and `close` at the end. `load` gives a new Serving from the settings now in
    force.
    """

    def __init__(self, load: Callable[[], Serving]) -> None:
        """Raises what `load` raises, ImportError for a missing database driver, sqlite3.Error for a bad file."""
        self._load = load
        self.serving = load()
        self.metrics = Metrics()
        self.budgets = Budgets()
        self.draining = False
        self._warned: set[tuple[str, str]] = set()
        settings = self.serving.gateway
        folder = state_dir(settings)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.keys = KeyFile(folder / "keys.json")
        self.slots = Slots(settings.max_concurrent, settings.max_queue, settings.queue_timeout_s)
        self.verdicts = Verdicts(self, open_store(self.serving.settings))
        self.rates = RedisRateLimits(settings.redis_url) if settings.redis_url else RateLimits()
        self.journal = Journal(
            folder / "journal",
            open_store(self.serving.settings),
            on_applied=self.budgets.applied,
            on_refresh=self._refresh,
        )
        self.session: aiohttp.ClientSession

    async def start(self) -> None:
        """Open the connection pool."""
        settings = self.serving.gateway
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_timeout_s, sock_read=settings.first_byte_timeout_s
        )
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    async def close(self) -> None:
        """Bring the journal to the database and let go of everything."""
        await self.session.close()
        await self.rates.close()
        await self.verdicts.close()
        await asyncio.to_thread(self.journal.close)

    async def reload(self) -> None:
        """Take the settings and the artifact now on disk; when they are wrong, log it and keep the old ones."""
        try:
            serving = await asyncio.to_thread(self._load)
        except Exception as exc:  # whatever is wrong with what is on disk, what is in force stays
            why = exc if isinstance(exc, TierwiseError | OSError) else f"{type(exc).__name__}: {exc}"
            _logger.error("not reloaded, the settings before stay in force: %s", why)
            return
        serving.take_over(self.serving)
        self.serving, canary = serving, serving.router.canary
        beside = f", {canary.loaded.name} to {canary.pointer.share:.0%} of the conversations" if canary else ""
        _logger.warning("reloaded: artifact %s%s", serving.router.artifact_name, beside)

    def admit(self, headers: RawHeaders) -> Key | None:
        """Who is calling: a key of ours, or None where none is asked for. Raises Refusal (401)."""
        access = self.serving.gateway.access
        if access != "keys":
            return None
        token = ""
        for name, value in headers:
            if name == b"x-api-key" or (name == b"authorization" and value[:7].lower() == b"bearer "):
                token = value.decode("latin-1").strip() if name == b"x-api-key" else value[7:].decode("latin-1").strip()
                if token.startswith("tw-"):
                    break
        key = self.keys.find(token)
        if key is None:
            message = "this gateway needs a key of its own: x-api-key or Authorization: Bearer tw-..."
            raise Refusal(401, "authentication_error", message, final=True)
        return key

    async def check_limits(self, key: Key) -> None:
        """Raises Refusal (429) beyond the key's budget or rate."""
        self.budgets.check(key)
        if key.requests_a_minute is not None:
            wait_s = await self.rates.wait_s(key.id, key.requests_a_minute)
            if wait_s > 0:
                message = f"the key {key.name!r} may make {key.requests_a_minute} requests a minute"
                raise Refusal(429, "rate_limit_error", message, retry_after_s=wait_s)

    def keep(self, entry: JournalEntry) -> None:
        """Keep a record for good."""
        self.budgets.add(entry)
        self.journal.append(entry)

    def _refresh(self, store: Store) -> None:
        self.budgets.refresh(store)
        self.verdicts.refresh(store)
        for signal in self.serving.signals():
            which = signal.traffic_class, signal.model
            if signal.alert is not None and which not in self._warned:
                self._warned.add(which)  # the class is not named: callers choose its name
                _logger.warning("a class of traffic on %s: %s", signal.model, signal.alert)

    def health(self) -> dict[str, Any]:
        """What is not as it should be: "ok", "degraded" (it serves; records wait on disk) or "draining"."""
        state = self.serving.router.affinity.state
        trouble = {"database": self.journal.trouble, "state": state.trouble}
        if self.serving.gateway.redis_url:
            trouble["redis"] = self.rates.trouble
        status = "draining" if self.draining else "degraded" if any(trouble.values()) else "ok"
        said = {name: f"away: {why}" if why else "ok" for name, why in trouble.items()}
        return {"status": status, **said, "journal_backlog_bytes": self.journal.backlog_bytes}


class Application:
    """The endpoints that relay are called directly, everything else goes through Starlette.

    Starlette's middleware and routing would add 0.1 ms to each relayed request.
    """

    def __init__(self, gateway: Gateway) -> None:
        def post(path: str, api: Api, *, counts_only: bool = False) -> tuple[str, Endpoint]:
            sent = path if api is Api.MESSAGES else path.removeprefix("/v1")
            return path, Endpoint(gateway, api, sent, counts_only=counts_only)

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
        relay = self._relays.get(scope.get("path", ""))
        if relay is not None and scope["type"] == "http" and scope["method"] == "POST":
            await relay(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def _starlette(gateway: Gateway, only_post: list[str]) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.close()

    async def ready(_: Request) -> Response:
        found = gateway.health()
        return JSONResponse(found, 503 if gateway.draining else 200)

    async def metrics(_: Request) -> Response:
        gauges = gateway.metrics
        gauges.running.set(gateway.slots.n_running)
        gauges.waiting.set(gateway.slots.n_waiting)
        gauges.backlog.set(gateway.journal.backlog_bytes)
        gauges.lost.set(gateway.journal.n_lost)
        gauges.database_up.set(gateway.journal.trouble is None)
        return Response(gauges.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models(request: Request) -> Response:
        return _models(gateway, request)

    async def feedback(request: Request) -> Response:
        try:
            return JSONResponse(await gateway.verdicts.take(request))
        except Refusal as refusal:
            return _refused(request, refusal)

    routes = [
        *(Route(path, _only_posted) for path in only_post),
        Route("/v1/models", models),
        Route("/v1/models/{id:path}", models),
        Route("/v1/feedback", feedback, methods=["POST"]),
        Route("/api/hello", _hello, methods=["GET", "HEAD"]),
        Route("/healthz", _alive),
        Route("/readyz", ready),
        Route("/metrics", metrics),
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
