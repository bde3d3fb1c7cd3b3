"""The dashboard: what was spent and saved, as a page. No script; nothing is loaded from elsewhere."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from router.errors import SettingsError
from router.gateway.gateway import Gateway
from router.gateway.overview import DAYS, Overview, Overviews
from router.gateway.wire import Refusal
from router.types import Tier

_COOKIE = "tierwise_admin"
_MAX_FORM = 4096


class Dashboard:
    """GET /dashboard, and POST /dashboard/login where the gateway asks for keys."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._overviews = Overviews(gateway)

    async def show(self, request: Request) -> Response:
        """The page; for whoever is no administrator a form that asks for the key."""
        try:
            self._gateway.admit_admin(_headers(request))
        except Refusal as refusal:
            asked = _COOKIE in request.cookies or refusal.status == 403
            return _page("login.html", 401, why=refusal.message if asked else "")
        try:
            found = await self._overviews.get()
        except SettingsError as exc:
            return _page("waiting.html", 503, why=str(exc))
        if found is None:
            return _page("waiting.html", 200, why="")
        return _page("dashboard.html", 200, **_shown(found, self._gateway))

    async def login(self, request: Request) -> Response:
        """Takes the key of the form into a cookie that no script and no other site can read."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MAX_FORM:
                return _page("login.html", 413, why="that is no key")
        token = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0].strip()
        try:
            self._gateway.admit_admin([(b"x-api-key", token.encode("latin-1", "replace"))])
        except Refusal as refusal:
            return _page("login.html", refusal.status, why=refusal.message)
        reply = RedirectResponse("/dashboard", 303)
        is_https = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        reply.set_cookie(_COOKIE, token, path="/dashboard", httponly=True, samesite="strict", secure=is_https)
        return reply


def _headers(request: Request) -> list[tuple[bytes, bytes]]:
    """The request's headers, and the cookie's key as one."""
    given: list[tuple[bytes, bytes]] = list(request.scope["headers"])
    token = request.cookies.get(_COOKIE)
    return [*given, (b"x-api-key", token.encode("latin-1", "replace"))] if token else given


@cache
def _templates() -> Environment:
    folder = FileSystemLoader(Path(__file__).with_name("templates"))
    found = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"usd": _usd, "count": _count, "share": _share}
    return found


def _page(name: str, status: int, **values: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    loads = f"default-src 'none'; img-src data:; style-src 'nonce-{nonce}'"
    policy = f"{loads}; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    headers = {
        "content-security-policy": policy,
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return HTMLResponse(_templates().get_template(name).render(nonce=nonce, **values), status, headers)


def _shown(found: Overview, gateway: Gateway) -> dict[str, Any]:
    """What the template is told."""
    policy, names = gateway.serving.router.policy, {key.id: key.name for key in gateway.keys.all()}
    most = max((max(row.cost_usd, row.unrouted_usd) for _, row in found.days), default=0) or 1
    tiers = {row.name: row.n_requests for row in found.lines["tier"]}
    n_routed = sum(tiers.get(tier.value, 0) for tier in Tier) or 1
    point = policy.champion.manifest.operating_points[gateway.serving.router.operating_point]
    return {
        "at": f"{found.at:%Y-%m-%d %H:%M} UTC",
        "n_days": DAYS,
        "today": found.today,
        "total": found.total,
        "most": most,
        "days": [
            {"name": name, "row": row, "cost": float(row.cost_usd / most), "unrouted": float(row.unrouted_usd / most)}
            for name, row in found.days
        ],
        "tiers": [(tier.value, tiers.get(tier.value, 0), tiers.get(tier.value, 0) / n_routed) for tier in Tier],
        "models": found.lines["model"],
        "keys": [(names.get(row.name, row.name), row) for row in found.lines["key"]],
        "classes": sorted(found.lines["class"], key=lambda row: -row.input_tokens)[:10],
        "alerts": [(s.traffic_class, s.model, s.alert) for s in gateway.serving.signals() if s.alert is not None],
        "latency": found.latency,
        "recent": found.recent,
        "mode": gateway.serving.settings.mode,
        "point": gateway.serving.router.operating_point,
        "thresholds": {str(tier): value for tier, value in point.thresholds.items()},
        "artifact": policy.champion.name,
        "stores_prompts": gateway.serving.settings.store_prompts,
        "canary": None if policy.canary is None else (policy.canary.loaded.name, policy.canary.pointer.share),
    }


def _usd(value: Any) -> str:
    if value is None:
        return "-"
    digits = 2 if abs(value) >= 1 or value == 0 else 4
    return f"{'−' if value < 0 else ''}${abs(value):,.{digits}f}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.1f} M" if value < 1e9 else f"{value / 1e9:,.2f} G"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
