"""What each lever would have made of a log's bill: its calls, replayed through the engine."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from router.accounts.bill import bill
from router.audit.calls import Call
from router.audit.prompts import Rebuilt, rebuilt
from router.catalog import Catalog, Fleet, Model
from router.engine import Router
from router.prices import in_force
from router.simulate import replay
from router.types import Tier, Ttl, Usage

Lever = Literal["uncached", "replayed", "caching", "routing", "effort", "together"]
"""Without any caching; as it was, for the replay's own error; then one lever each, and caching and routing together."""
LEVERS: tuple[Lever, ...] = get_args(Lever)
Progress = Callable[[str, Iterable[int]], Iterator[int]]


class Group(msgspec.Struct, frozen=True):
    """The calls of one model: what they share, and their conversations' bills.

    `usd` is the real bill of each conversation of the trace at today's prices; `costs` what levers make of it.
    """

    model: Model
    rebuilt: Rebuilt
    usd: npt.NDArray[np.float64]
    costs: dict[Lever, npt.NDArray[np.float64]]
    tiers: dict[str, int]
    """Calls by the model that they went to, all levers together."""


def named(catalog: Catalog, name: str) -> Model | None:
    """The catalog's entry for a model as a log names it: with a provider before it, a day or a version behind it."""
    bare = name.rpartition("/")[2].partition("@")[0]
    tries = [name, bare, *(bare.rpartition(prefix)[2] for prefix in ("anthropic.", "openai.", "models."))]
    for candidate in dict.fromkeys(tries):
        stem = candidate.partition("-v1")[0] if "anthropic." in bare else candidate
        for known in (stem, _undated(stem), _undated(stem).removesuffix("-latest")):
            if (model := catalog.find(known)) is not None:
                return model
    return None


def _undated(name: str) -> str:
    """A name without the day behind it: claude-haiku-4-5-20251001, gpt-5.5-2026-03-01."""
    parts = name.split("-")
    if len(parts[-1]) == 8 and parts[-1].isdigit():
        return "-".join(parts[:-1])
    if len(parts) > 3 and [len(p) for p in parts[-3:]] == [4, 2, 2] and all(p.isdigit() for p in parts[-3:]):
        return "-".join(parts[:-3])
    return name


def at_todays_prices(model: Model, today: dt.date) -> Model:
    """A model with the prices of one day at all times: what a log's calls cost if they were made today."""
    steps = {price.above_input_tokens for price in model.prices}
    rows = [in_force(model.prices, today, step + 1) for step in sorted(steps)]
    kept = {row.above_input_tokens: msgspec.structs.replace(row, from_=dt.date.min) for row in rows if row is not None}
    return msgspec.structs.replace(model, prices=tuple(kept.values()) or model.prices)


def fleet_for(model: Model, fleet: Fleet, today: dt.date) -> Fleet:
    """A fleet with `model` on top, and below it the tiers of `fleet` that are cheaper and are asked by the same SDK."""
    top = list(fleet.models)[-1]
    models: dict[Tier, Model] = {}
    for tier, lower in fleet.models.items():
        if tier is not top and lower.provider == model.provider and _is_cheaper(lower, model, today):
            models[tier] = at_todays_prices(lower, today)
    return Fleet("audit", {**models, top: model})


def _is_cheaper(one: Model, other: Model, today: dt.date) -> bool:
    a, b = one.price(today, 1), other.price(today, 1)
    if a.input is None or b.input is None or a.output is None or b.output is None:
        return False
    return a.input < b.input and a.output < b.output


def group(
    model: Model,
    calls: Sequence[Call],
    router: Router,
    tiers: Sequence[Tier],
    *,
    today: dt.date,
    effort_output: float,
    progress: Progress,
) -> Group:
    """Replay the calls of one model, which are in the order of time; `tiers` are those that they need."""
    model = at_todays_prices(model, today)
    fleet = fleet_for(model, router.fleet, today)
    names, models = list(fleet.models), list(fleet.models.values())
    needed = np.array([_index(names, tier) for tier in tiers])
    prompts = rebuilt(calls)
    trace, n, ones = prompts.trace, len(prompts.trace), (1.0,) * len(models)
    top = np.full(n, len(models) - 1)
    cached = as_cached(calls, prompts, model)
    usd = np.zeros(trace.conversations.max() + 1)
    low = usd.copy()
    can_effort = "low" in model.dialect.efforts
    for i, call in enumerate(calls):
        paid = float(bill(call.usage, model, today).usd or 0)
        shorter = round(call.usage.output_tokens * effort_output)
        eased = msgspec.structs.replace(call.usage, output_tokens=shorter) if can_effort else call.usage
        conversation = trace.conversations[i]
        usd[conversation] += paid
        low[conversation] += paid if needed[i] == len(models) - 1 else float(bill(eased, model, today).usd or 0)

    def fixed(tiers: npt.NDArray[np.int64], ttls: Sequence[tuple[Ttl, Ttl]]) -> replay.Tally:
        return replay.fixed(trace, models, tiers, ttls, ones, range(n))

    def ours(on: Fleet, needs: npt.NDArray[np.int64], label: str) -> replay.Tally:
        fresh = Router(router.policy.champion, router.catalog, on, operating_point=router.operating_point)
        difficulty: Literal["turn", "request"] = "turn" if trace.new_turn is not None else "request"
        return replay.ours(trace, fresh, needs, difficulty, (1.0,) * len(on.models), progress(label, range(n)))

    alone = Fleet("audit", {names[-1]: model})
    together = ours(fleet, needed, f"{model.id}: both")
    costs: dict[Lever, npt.NDArray[np.float64]] = {
        "uncached": fixed(top, [(Ttl.NONE, Ttl.NONE)] * n).usd,
        "replayed": fixed(top, cached).usd,
        "caching": ours(alone, np.zeros(n, np.int64), f"{model.id}: caching").usd if len(models) > 1 else together.usd,
        "routing": fixed(replay.held(trace, needed, "turn", len(models)), cached).usd,
        "effort": low,
        "together": together.usd,
    }
    went = {m.id: int(k) for m, k in zip(models, together.went, strict=True)}
    return Group(model, prompts, usd, costs, went)


def _index(names: Sequence[Tier], tier: Tier) -> int:
    return next((i for i, name in enumerate(names) if name.at_least(tier)), len(names) - 1)


def as_cached(calls: Sequence[Call], prompts: Rebuilt, model: Model) -> list[tuple[Ttl, Ttl]]:
    """How each call was cached, head and the rest, as its bill tells; a model that caches by itself always does."""
    if model.prices[0].cache_write_short is None:
        return [(Ttl.SHORT, Ttl.SHORT)] * len(calls)
    last: dict[str, Ttl] = {}
    found = []
    for i, call in enumerate(calls):
        usage = call.usage
        used = usage.cache_read_tokens + usage.cache_write_short_tokens + usage.cache_write_long_tokens
        ttl = _ttl(usage, last.get(call.conversation, Ttl.SHORT)) if used else Ttl.NONE
        last[call.conversation] = ttl or Ttl.SHORT
        head = int(prompts.head[i])
        found.append((ttl, Ttl.NONE if head and used <= head * 1.02 + 64 else ttl))
    return found


def _ttl(usage: Usage, before: Ttl) -> Ttl:
    short, long = usage.cache_write_short_tokens, usage.cache_write_long_tokens
    return before if not short and not long else Ttl.LONG if long > short else Ttl.SHORT
