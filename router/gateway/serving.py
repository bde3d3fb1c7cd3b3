"""What requests are served with: settings, a router for each fleet, the providers' addresses and keys.

It is built whole and replaced whole, so a reload that fails leaves the old one in force.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import msgspec
from yarl import URL

from router.cache.placement import Signal
from router.catalog import DEFAULT_FLEET, PROVIDERS
from router.decide.mode import Mode, Trial
from router.decide.options import unasked
from router.engine import AUTO, Router
from router.errors import CatalogError, SettingsError, TierwiseError
from router.gateway import grants
from router.gateway.keys import Key
from router.gateway.wire import RawHeaders, Refusal
from router.settings import GatewaySettings, Settings, UpstreamSettings
from router.types import Api, Body, Plan, Tier

_WITH_ADDRESS = [name for name, provider in PROVIDERS.items() if provider.url is not None]
_TIERS = frozenset(tier.value for tier in Tier)
MODE_HEADER = "x-tierwise-mode"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Upstream(msgspec.Struct, frozen=True):
    """One provider: where it is, and its key with where that comes from. `url` is without the endpoint's path.

    An empty `key_source` is a server that asks for no key.
    """

    provider: str
    url: str
    key: str | None
    key_source: str

    def endpoint(self, path: str, query: str) -> URL:
        """The address of an endpoint, for example "/v1/messages"."""
        base = self.url.rstrip("/")
        return _url(f"{base}{path.removeprefix('/v1') if base.endswith('/v1') else path}{'?' if query else ''}{query}")

    def credentials(self) -> list[tuple[str, str]]:
        """The header that carries the key. Raises Refusal when there is none."""
        if self.key is None and not self.key_source:
            return []
        if self.key is None:
            message = f"the gateway has no key for {self.provider}: set {self.key_source} where it runs"
            raise Refusal(503, "api_error", message, final=True)
        if self.provider == "anthropic":
            return [("x-api-key", self.key)]
        return [("authorization", f"Bearer {self.key}")]


class Serving:
    """Immutable in use, but for the routers of fleets, which are made when first needed."""

    def __init__(self, settings: Settings, router: Router, environ: Mapping[str, str]) -> None:
        """Use `Serving.load`."""
        self.settings = settings
        self._environ = environ
        self.gateway: GatewaySettings = settings.gateway
        self.router = router
        self.upstreams = {name: _upstream(name, self.gateway, environ) for name in _WITH_ADDRESS}
        self._routers = {router.fleet.name: router}

    @classmethod
    def load(cls, settings: Settings, environ: Mapping[str, str] | None = None) -> Serving:
        """Everything checked. Raises the error that was found, SettingsError with all of them for several."""
        environ = os.environ if environ is None else environ
        problems = [
            problem for problem in (_unguarded(settings.gateway), *_unreachable(settings.gateway, environ)) if problem
        ]
        try:
            state = settings.state or settings.gateway.redis_url  # replicas that share limits share conversations
            # Whoever holds one key must not be able to say for all what serves them.
            may_promote = settings.promote_canary and settings.gateway.access != "keys"
            changed = {"ledger": None, "state": state, "promote_canary": may_promote, "mode": "on"}
            router = Router.load(config=msgspec.structs.replace(settings, **changed))
        except TierwiseError as exc:
            if not problems:
                raise
            raise SettingsError("\n".join([*problems, str(exc)])) from exc
        problems += _unusable(settings.gateway.models, router)
        if problems:
            raise SettingsError("\n".join(problems))
        return cls(settings, router, environ)

    def take_over(self, before: Serving) -> None:
        """Go on where another one stood: fleets that are still the same keep what they know of conversations.

        Not if that is now kept elsewhere.
        """
        if (self.settings.state, self.gateway.redis_url) != (before.settings.state, before.gateway.redis_url):
            return
        for name, router in before._routers.items():
            if name in self.router.catalog.fleets and self._fleet(name).fleet == router.fleet:
                self._fleet(name).take_over(router)

    def router_for(self, api: Api, key: Key | None) -> Router:
        """The router of the key's fleet, else of the chosen one, else of the default fleet for that API's provider."""
        if key is not None and key.fleet is not None:
            return self._fleet(key.fleet)
        if not self.router.fleet_is_default:
            return self.router
        return self._fleet(PROVIDERS[_provider_of(api)].fleet or DEFAULT_FLEET)

    def asked(self, body: dict[str, Any], key: Key | None) -> Body:
        """The body with the model name as the engine knows it; the same object when nothing is to be changed."""
        name = body.get("model")
        if not isinstance(name, str):
            return body
        asked = self._mapped(name)
        if asked in _TIERS:
            bounds = {"min_tier": asked, "max_tier": asked}
            options = body.get("router")
            return {**body, "model": AUTO, "router": {**(options if isinstance(options, dict) else {}), **bounds}}
        if asked == AUTO and key is not None and key.operating_point is not None:
            asked = f"{AUTO}:{key.operating_point}"
        return body if asked == name else {**body, "model": asked}

    def trial(self, key: Key | None, headers: Mapping[str, str]) -> Trial:
        """Whether decisions are acted on: as the key says, else the caller's header, else the settings.

        Raises Refusal (400) for a header that names no mode.
        """
        named = headers.get(MODE_HEADER, self.settings.mode)
        if named not in get_args(Mode):
            message = f"{MODE_HEADER} is {named[:100]!r}, expected one of {', '.join(get_args(Mode))}"
            raise Refusal(400, "invalid_request_error", message)
        mode = key.mode if key is not None and key.mode is not None else named
        return Trial(mode, self.settings.mode_share)  # type: ignore[arg-type]

    def as_named(self, body: Body, router: Router) -> Body:
        """A body as its caller asked it, where what was decided for it is not acted on: for the model that it names, or
        for the strongest where that is none of a provider's; the same object where nothing is to be changed."""
        name = body.get("model")
        is_ours = name in (AUTO, *_TIERS) or str(name).startswith(f"{AUTO}:")
        if not is_ours and "router" not in body:
            return body
        return {**unasked(body), "model": router.fleet.top.id if is_ours else name}

    def signals(self) -> list[Signal]:
        """How well each class of traffic is cached, over all fleets."""
        return [signal for router in list(self._routers.values()) for signal in router.signals()]

    def upstream_of(self, plan: Plan) -> Upstream:
        """Where a planned request goes: to its model's provider; for an unknown model to the API's usual one."""
        model = self.router.catalog.find(plan.decision.model)
        default = _provider_of(plan.asked)
        provider = default if model is None else model.provider
        if model is not None and model.base_url is not None:
            if model.api_key_env is None and provider in self.upstreams:  # a deployment of a known provider's model
                return msgspec.structs.replace(self.upstreams[provider], url=model.base_url)
            key = self._environ.get(model.api_key_env or "")
            return Upstream(provider, model.base_url, key or None, model.api_key_env or "")
        return self.upstreams[provider]

    def is_owners(self, plan: Plan, headers: RawHeaders) -> bool:
        """Whether the caller's own key is for where a plan goes, and is to be sent there; False where none is needed.

        Raises Refusal (400) where another key is: neither the caller's goes to a stranger, nor the gateway's is spent.
        """
        model, owner = self.router.catalog.find(plan.decision.model), grants.owner_of(headers, plan.asked)
        provider, address = (_provider_of(plan.asked), None) if model is None else model.address
        if owner is None or (address is None and provider == owner):
            return address is None
        if model is not None and grants.takes(model, owner):
            return False
        named = plan.decision.model[:100]
        message = f"{named!r} is {provider}'s, and the key that is passed through is {owner}'s"
        raise Refusal(400, "invalid_request_error", message)

    def model_names(self) -> Iterator[tuple[str, str]]:
        """What GET /v1/models lists: (id, owner)."""
        yield AUTO, "tierwise"
        for point in self.router.policy.champion.manifest.operating_points:
            yield f"{AUTO}:{point}", "tierwise"
        for tier in Tier:
            yield tier.value, "tierwise"
        for model in {m.id: m for m in self.router.catalog.models.values()}.values():
            yield model.id, model.provider

    def _mapped(self, name: str) -> str:
        models = self.gateway.models
        if name in models:
            return models[name]
        return next((target for pattern, target in models.items() if fnmatchcase(name, pattern)), name)

    def _fleet(self, name: str) -> Router:
        if name not in self._routers:
            try:
                self._routers[name] = self.router.with_fleet(name)
            except CatalogError as exc:
                raise Refusal(503, "api_error", f"this key's fleet: {exc}", final=True) from exc
        return self._routers[name]


def _unguarded(gateway: GatewaySettings) -> str | None:
    """What is wrong with who may come in."""
    if gateway.access != "open" or gateway.host in _LOOPBACK:
        return None
    return (
        f'gateway.host is {gateway.host!r} and gateway.access is "open": anybody who reaches it could '
        'spend your money; set access = "keys" (and make one: tierwise keys create NAME) or "pass-through", '
        'or host = "127.0.0.1"'
    )


def _unreachable(gateway: GatewaySettings, environ: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with each provider's address and key."""
    for name in _WITH_ADDRESS:
        try:
            _upstream(name, gateway, environ)
        except SettingsError as exc:
            yield str(exc)


def _unusable(models: Mapping[str, str], router: Router) -> Iterator[str]:
    """Mappings that no request could use."""
    points = router.policy.champion.manifest.operating_points
    for pattern, target in models.items():
        point = target.partition(":")[2] if target.startswith(f"{AUTO}:") else None
        if point is not None and point not in points:
            yield f"gateway.models.{pattern!r} is {target!r}; operating points: {', '.join(points)}"
        elif target not in _TIERS and point is None and target != AUTO and router.catalog.find(target) is None:
            yield f"gateway.models.{pattern!r} is {target!r}, expected {AUTO!r}, a tier or a model of the catalog"


def _upstream(name: str, gateway: GatewaySettings, environ: Mapping[str, str]) -> Upstream:
    given, default = gateway.upstreams.get(name, UpstreamSettings()), PROVIDERS[name]  # type: ignore[call-overload]
    variable = given.key_env or default.key_env or ""
    key, source = environ.get(variable), variable
    if given.key_file is not None:
        source = given.key_file
        try:
            key = Path(given.key_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"gateway.upstreams.{name}.key_file: {type(exc).__name__}: {given.key_file}") from exc
    url = given.url or default.url or ""
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"gateway.upstreams.{name}.url is {url!r}, expected http://... or https://...")
    return Upstream(name, url, (key or "").strip() or None, source)


def _provider_of(api: Api) -> str:
    """Whose format it is: where a model that the catalog does not know goes."""
    return "anthropic" if api is Api.MESSAGES else "openai"


@lru_cache(maxsize=256)
def _url(text: str) -> URL:
    return URL(text, encoded=True)
