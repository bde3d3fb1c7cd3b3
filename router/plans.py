"""A decision about a request -> the Plan: the body as its model is sent it, translated at most once; pure.

The body goes into the model's format, then what the model does not accept is adapted, then cache breakpoints are placed
in what came of that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import msgspec

from router.cache import breakpoints
from router.catalog import Model
from router.formats import accepts
from router.formats.translations import Translations
from router.types import Api, Body, CachePlan, Decision, Plan, Prefix, Reach, Route, Ttl

_UNCACHED = CachePlan((), "", 0)


class Asked(msgspec.Struct, frozen=True):
    """A request as its caller asked it: its body, when (seconds of the router's clock), and how far they can send.

    `version` is its anthropic-version header.
    """

    said: Translations
    at_s: float
    reach: Reach
    version: str | None


def named(decision: Decision, model: Model | None, asked: Asked, *, counts_only: bool) -> Plan:
    """A model that the caller named: the body as it came, where that model is asked in the caller's format.

    Raises RequestError for what another format cannot say.
    """
    said, reach = asked.said, asked.reach
    speaks = model is None or reach is Reach.SDK or accepts.speaks(said.asked, model)
    if counts_only or model is None or (speaks and reach is not Reach.NEUTRAL):
        return Plan(decision, said.body, said.asked, said.asked, _UNCACHED, asked.at_s, is_untouched=True)
    tail = Ttl.SHORT if said.body.get("cache_control") else Ttl.NONE
    return sent(decision, model, asked, tail=tail)


def counted(decision: Decision, model: Model | None, asked: Asked) -> Plan:
    """A body whose tokens are counted: in the caller's format, and nothing is cached by counting."""
    said = asked.said
    body, changes = accepts.adapt(said.body, said.asked, model, asked.version)
    body["model"] = decision.model
    return Plan(_noted(decision, changes), body, said.asked, said.asked, _UNCACHED, asked.at_s)


def routed(
    decision: Decision, model: Model | None, asked: Asked, prefix: Prefix, route: Route | None, tokens_per_unit: float
) -> Plan:
    """A request that was decided, cached as `route` says. `prefix` is that of the caller's body."""
    if route is None:
        return sent(decision, model, asked, prefix=prefix)
    return sent(
        decision,
        model,
        asked,
        prefix=prefix,
        head=route.head,
        tail=route.tail,
        route=route,
        tokens_per_unit=tokens_per_unit,
    )


def sent(
    decision: Decision,
    model: Model | None,
    asked: Asked,
    *,
    prefix: Prefix | None = None,
    head: Ttl = Ttl.SHORT,
    tail: Ttl = Ttl.NONE,
    route: Route | None = None,
    tokens_per_unit: float | None = None,
) -> Plan:
    """The body in the model's format, with breakpoints for `head` and `tail`; further as `routed`."""
    said = asked.said
    api = said.asked if model is None else accepts.sent_as(said.body, said.asked, model, asked.reach)
    body, notes = said.to(api)
    if (said.asked, api) == (Api.CHAT, Api.RESPONSES):
        notes = (f"asked on Responses: {decision.model} calls tools with reasoning only there", *notes)
    body, changes = accepts.adapt(body, api, model, asked.version)
    hides_usage = said.asked is Api.CHAT and bool(said.body.get("stream")) and not _asks_for_usage(said.body)
    if api is Api.CHAT and body.get("stream") and not _asks_for_usage(body):  # only then it says what it cost
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    measured = prefix if prefix is not None and api is said.asked else breakpoints.read_prefix(body, api)
    cache = breakpoints.plan(
        body,
        api,
        model,
        head=head,
        tail=tail,
        prefix=measured,
        tokens_per_unit=tokens_per_unit,
        n_known=0 if route is None or prefix is None else _n_known(route.n_known, prefix, measured),
    )
    body = {**breakpoints.apply(body, cache, api), "model": decision.model}
    decision = _noted(decision, notes + changes)
    return Plan(decision, body, api, said.asked, cache, asked.at_s, route, hides_usage=hides_usage)


def _n_known(n_known: int, prefix: Prefix, measured: Prefix) -> int:
    """How many messages of what is sent were in the conversation's last request; `n_known` in the caller's format were.

    A translation merges messages and moves the system prompt, so the share of the text counts, and one message less: a
    breakpoint too early costs nothing, one too late is out of reach.
    """
    if measured is prefix or not n_known:
        return n_known
    share = (prefix.units[n_known - 1] - prefix.head_units) / max(prefix.size - prefix.head_units, 1)
    known = measured.head_units + share * (measured.size - measured.head_units)
    return max(bisect_right(measured.units, known) - 1, 0)


def _noted(decision: Decision, notes: tuple[str, ...]) -> Decision:
    return msgspec.structs.replace(decision, notes=decision.notes + notes) if notes else decision


def _asks_for_usage(body: Body) -> bool:
    """Whether a Chat Completions body wants its stream to say what it cost."""
    options = body.get("stream_options")
    return isinstance(options, Mapping) and bool(options.get("include_usage"))
