"""What a caller may be sent to: by the models and the highest tier of their key, or whose key they bring themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from router.catalog import COMPATIBLE, Fleet, Model
from router.engine import AUTO, Router
from router.gateway.keys import Key
from router.gateway.wire import RawHeaders, Refusal
from router.types import Api, Body, Tier

_OWNERS = (("sk-ant-", "anthropic"), ("AIza", "gemini"), ("sk-", "openai"))
"""How providers' keys begin."""


def within(body: Body, router: Router, key: Key | None) -> Body:
    """The body, bounded by what its key may use; the same object where nothing binds. Raises Refusal (403)."""
    name = body.get("model")
    if key is None or not isinstance(name, str) or not (key.models or key.max_tier):
        return body
    fleet = router.fleet
    if name == AUTO or name.startswith(f"{AUTO}:"):
        tiers = [tier for tier, model in fleet.models.items() if _may_auto(key, tier, model, router)]
        return _bounded(body, fleet, tiers, f"the key {key.name!r}")
    model = router.catalog.find(name)
    tier = fleet.tier_of(name)
    is_named = _may(key, name, model, tier, router)
    is_low = key.max_tier is None or (key.max_tier.at_least(tier) if tier else bool(key.models) and is_named)
    if not (is_named and is_low):
        limits = [*key.models, *([f"up to {key.max_tier}"] if key.max_tier else [])]
        message = f"the key {key.name!r} may not use {name[:100]!r}; it may use: {', '.join(limits)}"
        raise Refusal(403, "permission_error", message, final=True)
    return body


def reachable(body: Body, router: Router, headers: RawHeaders, api: Api) -> Body:
    """The body, bounded to the models that the caller's own provider key is for, where it is passed through."""
    name, owner = body.get("model"), owner_of(headers, api)
    if owner is None or not isinstance(name, str) or not (name == AUTO or name.startswith(f"{AUTO}:")):
        return body
    tiers = [tier for tier, model in router.fleet.models.items() if takes(model, owner)]
    return _bounded(body, router.fleet, tiers, f"the key that is passed through is {owner}'s, which")


def takes(model: Model, owner: str) -> bool:
    """Whether a model can be asked with a key of this provider's, or with none at all."""
    if model.base_url is not None and model.api_key_env is None and model.provider == COMPATIBLE:
        return True
    return model.base_url is None and model.provider == owner


def owner_of(headers: RawHeaders, api: Api) -> str | None:
    """Which provider a caller's key is for: by how it begins, else by its header and the format; None without one."""
    for name, value in headers:
        token = value.decode("latin-1").strip()
        if name == b"x-goog-api-key":
            return "gemini"
        if name == b"authorization" and token[:7].lower() == "bearer ":
            token = token[7:].strip()
        elif name != b"x-api-key":
            continue
        usual = "anthropic" if name == b"x-api-key" or api is Api.MESSAGES else "openai"
        return next((owner for start, owner in _OWNERS if token.startswith(start)), usual)
    return None


def _may_auto(key: Key, tier: Tier, model: Model, router: Router) -> bool:
    if key.max_tier is not None and not key.max_tier.at_least(tier):
        return False
    return AUTO in key.models or _may(key, model.id, model, tier, router)


def _may(key: Key, name: str, model: Model | None, tier: Tier | None, router: Router) -> bool:
    if not key.models:
        return True
    names = [name] if model is None else [model.id, *model.aliases]
    for pattern in key.models:
        if pattern == tier or any(fnmatchcase(each, pattern) for each in names):
            return True
        fleet = router.catalog.fleets.get(pattern)
        if fleet is not None and model is not None and model.id in {each.id for each in fleet.models.values()}:
            return True
    return False


def _bounded(body: Body, fleet: Fleet, tiers: Sequence[Tier], whose: str) -> Body:
    """The body with bounds on "auto" such that only these tiers are chosen. Raises Refusal (403) where none can."""
    every = list(fleet.models)
    if len(tiers) == len(every):
        return body
    if not tiers or every.index(tiers[-1]) - every.index(tiers[0]) >= len(tiers):
        can = f"can use {', '.join(tiers)} of it only, which is no range of tiers" if tiers else "can use none of it"
        raise Refusal(
            403, "permission_error", f'"auto" is the fleet {fleet.name!r} here, and {whose} {can}', final=True
        )
    options: Any = body.get("router") or {}
    if not isinstance(options, dict):
        return body  # refused for what it is where it is read
    low, high = options.get("min_tier"), options.get("max_tier")
    ranks: dict[Any, int] = {tier.value: tier.rank for tier in Tier}
    bounds = {
        "min_tier": low if ranks.get(low, -1) > tiers[0].rank else tiers[0].value,
        "max_tier": high if ranks.get(high, len(ranks)) < tiers[-1].rank else tiers[-1].value,
    }
    if ranks.get(bounds["min_tier"], 0) > ranks.get(bounds["max_tier"], 0):
        asked = " to ".join(dict.fromkeys(filter(None, (low or "simple", high or every[-1].value))))
        message = f"{asked} is asked for, and {whose} can use {', '.join(tiers)} of the fleet {fleet.name!r}"
        raise Refusal(403, "permission_error", message, final=True)
    return {**body, "router": {**options, **bounds}}
