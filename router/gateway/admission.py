"""What happens to a request before anybody is asked: who calls, what they may take, their body, its plan."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial

import msgspec

from router import plans
from router.decide.rules import Context
from router.engine import Router
from router.gateway import charges, grants, wire
from router.gateway.caller import Caller
from router.gateway.gateway import Gateway
from router.gateway.keys import Key
from router.gateway.limits import held_back
from router.gateway.serving import Serving
from router.send.attempts import Attempts
from router.types import Api, Reach, Reason


class Endpoint(msgspec.Struct, frozen=True):
    """A path of the gateway's: its format, the path that it has at the provider, whether tokens are only counted."""

    api: Api
    path: str
    counts_only: bool


class Admitted(msgspec.Struct, frozen=True):
    """A request that may be sent. `unchanged` are the bytes that came, None where something in them was changed."""

    key: Key | None
    serving: Serving
    router: Router
    attempts: Attempts
    unchanged: bytes | None
    is_large: bool = False
    """Whether planning it would keep others waiting."""
    reserved_usd: Decimal | None = None
    """What is held back of the key's budget, None without one."""
    hold: str = ""
    """By which the replicas know it."""


async def admit(gateway: Gateway, serving: Serving, endpoint: Endpoint, caller: Caller) -> Admitted:
    """Raises Refusal for whom is not let in and for a body that cannot be taken, RequestError for one that no plan
    can be made of.
    """
    key = gateway.admit(caller.headers)
    if key is not None:
        await gateway.check_limits(key)
    raw = await caller.read_body(serving.gateway, gateway.uploads)
    body = wire.decode(raw)
    router = serving.router_for(endpoint.api, key)
    asked = grants.within(serving.asked(body, key), router, key)
    if serving.gateway.access == "pass-through":
        asked = grants.reachable(asked, router, caller.headers, endpoint.api)
    context = Context(wire.readable(caller.headers), "" if key is None else key.name)
    planned = partial(router.plan, asked, endpoint.api, context, counts_only=endpoint.counts_only)
    is_large = len(raw) > wire.LARGE_BYTES
    plan = await asyncio.to_thread(planned) if is_large else planned()
    trial = serving.trial(key, context.headers)
    if trial.mode != "on" and not endpoint.counts_only and plan.decision.reason is not Reason.EXPLICIT_MODEL:
        if trial.routes(plan.decision.conversation):
            plan = plans.tried(plan, trial, plan.ask)
        else:
            asked = grants.within(serving.as_named(body, router), router, key)
            as_named = partial(router.plan, asked, endpoint.api, context)
            shown = await asyncio.to_thread(as_named) if is_large else as_named()
            plan = plans.tried(shown, trial, plan.ask, shadow=plan)
    attempts = Attempts(router, asked, plan, serving.gateway.max_retries, context, Reach.ANY)
    is_unchanged = plan.is_untouched and asked is body and "router" not in body
    reserved: Decimal | None = None
    hold: str | None = ""
    if key is not None and key.has_budget and not endpoint.counts_only:
        reserved = charges.expected(plan, router.catalog)
        gateway.budgets.reserve(key, reserved)
        try:
            hold = await gateway.holds.hold(key.id, reserved, gateway.budgets.left(key))
            if hold is None:
                raise held_back(f"the rest of the budget of the key {key.name!r}")
        except BaseException:
            gateway.budgets.release(key, reserved)
            raise
    return Admitted(key, serving, router, attempts, raw if is_unchanged else None, is_large, reserved, hold or "")
