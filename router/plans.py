"""A decision about a request -> the Plan: the body as its model is sent it, translated at most once; pure.

The body goes into the model's format, then what the model does not accept is adapted, then cache breakpoints are placed
in what came of that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import msgspec

from router.cache import breakpoints
from router.catalog import Model
from router.decide.mode import Trial
from router.formats import accepts, states, values
from router.formats.dependents import drop_dependents
from router.formats.states import Recall
from router.formats.translations import Translations
from router.types import Api, Body, CachePlan, Decision, Plan, Prefix, Reach, Route, Telling, Ttl

_UNCACHED = CachePlan((), "", 0)


class Asked(msgspec.Struct, frozen=True):
    """A request as its caller asked it: its body, when (seconds of the router's clock), and how far they can send.

    `version` is its anthropic-version header, `whose` the name of the caller's key. `recall` gives what is remembered
    of a tool call.
    """

    said: Translations
    at_s: float
    reach: Reach
    version: str | None
    whose: str = ""
    recall: Recall = lambda _: None


def named(decision: Decision, model: Model | None, asked: Asked, *, counts_only: bool) -> Plan:
    """A model that the caller named: the body as it came, where that model is asked in the caller's format.

    Only what we put into its history for another model is taken out of it.

    Raises RequestError for what another format cannot say.
    """
    said, reach = asked.said, asked.reach
    speaks = model is None or reach is Reach.SDK or accepts.speaks(said.asked, model)
    carries = model is not None and speaks and states.is_foreign(said.body, said.asked)
    if counts_only or model is None or (speaks and reach is not Reach.NEUTRAL and not carries):
        return Plan(decision, said.body, said.asked, said.asked, _UNCACHED, asked.at_s, is_untouched=True)
    tail = Ttl.SHORT if said.body.get("cache_control") else Ttl.NONE
    return sent(decision, model, asked, tail=tail)


def tried(plan: Plan, trial: Trial, ask: str, shadow: Plan | None = None) -> Plan:
    """A plan that says what was judged, and how it came to be acted on or not.

    `shadow` is what the decision would have sent.
    """
    if trial.mode == "on" and shadow is None:
        return msgspec.structs.replace(plan, ask=ask)
    mode, propensity = trial.mode if trial.mode != "on" else "shadow", trial.propensity(routed=shadow is None)
    return msgspec.structs.replace(plan, ask=ask, shadow=shadow, mode=mode, propensity=propensity)


def counted(decision: Decision, model: Model | None, asked: Asked) -> Plan:
    """A body whose tokens are counted: in the caller's format, and nothing is cached by counting."""
    said = asked.said
    body, changes = accepts.adapt(said.body, said.asked, model, asked.version)
    body, fitted, _ = _fitted(body, said.asked, model, asked)
    changes += fitted
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
    if decision.effort:
        body, said_so = accepts.with_effort(body, api, decision.effort)
        notes += said_so
    body, changes = accepts.adapt(body, api, model, asked.version)
    body, fitted, telling = _fitted(body, api, model, asked)
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
    decision = _noted(decision, notes + changes + fitted)
    return Plan(decision, body, api, said.asked, cache, asked.at_s, route, hides_usage=hides_usage, telling=telling)


def _fitted(
    body: dict[str, Any], api: Api, model: Model | None, asked: Asked
) -> tuple[dict[str, Any], tuple[str, ...], Telling]:
    """The body with values that the provider takes, and with what the model wants back of its own earlier replies."""
    if model is None:
        return body, (), Telling()
    fitted = values.fit(body, api, model)
    within = ""
    if fitted.body.get("tools") and states.wants_back(api, asked.said.asked, model):
        within = states.scope(fitted.body, api, model, asked.whose)
    body, notes = states.restored(fitted.body, api, model, asked.recall, within)
    if notes:
        changed = list(notes)
        drop_dependents(body, api, model, changed)
        notes = tuple(changed)
    shows = _asks_for_thinking(asked.said.body, asked.said.asked)
    n_calling = states.n_calling(body, api) if within else 0
    return body, fitted.notes + notes, Telling(model.id, fitted.names, shows, within, n_calling)


def _asks_for_thinking(body: Body, asked: Api) -> bool:
    """Whether a caller is to see what the model thinks, and so can bring it back."""
    if asked is Api.RESPONSES:
        included = body.get("include")
        return isinstance(included, list | tuple) and "reasoning.encrypted_content" in included
    thinking = body.get("thinking") if asked is Api.MESSAGES else None
    return isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")


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
