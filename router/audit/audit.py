"""The audit of a log: its bill, what weighs in it, what each lever would have made of it, and what to change first."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from router.accounts.bill import bill
from router.audit import levers as replays
from router.audit.calls import Call, Log
from router.audit.levers import LEVERS, Group, Progress
from router.audit.needs import needs
from router.audit.prompts import rebuilt
from router.audit.weights import Weights, weigh
from router.catalog import Model
from router.engine import Router
from router.errors import RequestError
from router.types import Tier, Usage

MAX_REPLAYED = 30_000
"""Of more calls than this, conversations are drawn at random: replaying takes .3 ms a call."""
_REPLICATES = 400
_TOKENS_A_REQUEST = 10_000
"""The size that is assumed of a request where an export does not count them; it tells only which price step holds."""


class Outcome(msgspec.Struct, frozen=True):
    """What a lever would have made of the bill. `saved` is a share of it in (-inf, 1]; `interval` its 95 % bootstrap
    interval over conversations."""

    usd: float
    saved: float
    interval: tuple[float, float]


class ModelLine(msgspec.Struct):
    """One model's part of the bill; `usd` is None where the catalog does not know it."""

    model: str
    n_calls: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0


class Audit(msgspec.Struct, frozen=True):
    """What was found. Money is USD at today's prices; `logged_usd` is what the logs themselves say, where they do.

    `mix` is the share of calls by the tier they need, of which `n_read` were read from text and the others drawn.
    `effort_output` is how long replies at low effort are assumed to be, the log's being 1.
    `replay_error` is by how much replaying the log as it was misses its real bill. `n_replayed` calls were replayed,
    `n_summed` stood in sums over several requests and were only priced.
    """

    logs: list[dict[str, Any]]
    start: dt.datetime
    end: dt.datetime
    n_calls: int
    n_conversations: int
    usd: float
    logged_usd: float | None
    models: list[ModelLine]
    mix: dict[str, float]
    n_read: int
    weights: Weights
    levers: dict[str, Outcome]
    replay_error: float
    effort_output: float
    n_replayed: int
    n_summed: int
    went: dict[str, int]
    """Calls that were replayed, by the model that they went to with both levers."""


def audit(
    logs: Sequence[Log],
    router: Router,
    *,
    today: dt.date,
    mix: Sequence[float] = (70, 20, 10),
    effort_output: float = 0.4,
    seed: int = 0,
    limit: int = MAX_REPLAYED,
    progress: Progress = lambda _, items: iter(items),
) -> Audit:
    """Audit the calls of all logs together. Raises RequestError where no call can be priced."""
    calls = sorted((call for log in logs for call in log.calls), key=lambda call: call.at_s)
    lines, priced = _priced(calls, router, today)
    if not priced:
        known = ", ".join(line.model for line in lines) or "none"
        raise RequestError(f"none of {len(calls):,} calls can be priced: models {known}; `tierwise catalog list`")
    tiers, n_read = needs(priced, router, mix, seed, progress("tiers", range(len(priced))))
    tier_of = {id(call): tier for call, tier in zip(priced, tiers, strict=True)}
    single = [call for call in priced if call.n_requests == 1]
    summed = [call for call in priced if call.n_requests != 1]
    chosen = _sample(single, limit, seed)
    groups = [
        replays.group(
            model,
            of_model,
            router,
            [tier_of[id(call)] for call in of_model],
            today=today,
            effort_output=effort_output,
            progress=progress,
        )
        for model, of_model in _by_model(chosen, router)
    ]
    whole = ((group.model, group.rebuilt) for group in groups)
    if len(chosen) < len(single):
        whole = ((model, rebuilt(of_model)) for model, of_model in _by_model(single, router))
    costs = _costs(groups, lines, summed, router, mix, today)
    usd, shares = sum(line.usd or 0.0 for line in lines), Counter(tiers)
    logged = [call.cost_usd for call in calls if call.cost_usd is not None]
    return Audit(
        logs=[_told(log) for log in logs],
        start=dt.datetime.fromtimestamp(priced[0].at_s, dt.UTC),
        end=dt.datetime.fromtimestamp(priced[-1].at_s, dt.UTC),
        n_calls=len(calls),
        n_conversations=len({call.conversation for call in calls if call.conversation}),
        usd=usd,
        logged_usd=float(sum(logged)) if logged else None,
        models=lines,
        mix={tier.value: shares[tier] / len(tiers) for tier in Tier},
        n_read=n_read,
        weights=weigh(whole, today),
        levers={name: _outcome(costs["billed"], costs[name], usd) for name in LEVERS if name != "replayed"},
        replay_error=float(costs["replayed"].sum() / max(costs["billed"].sum(), 1e-12) - 1),
        effort_output=effort_output,
        n_replayed=sum(len(group.rebuilt.calls) for group in groups),
        n_summed=len(summed),
        went=dict(sum((Counter(group.tiers) for group in groups), Counter())),
    )


def _told(log: Log) -> dict[str, Any]:
    return {"kind": log.kind, "files": len(log.paths), "calls": len(log.calls), "skipped": log.skipped}


def _priced(calls: Sequence[Call], router: Router, today: dt.date) -> tuple[list[ModelLine], list[Call]]:
    """The bill by model, dearest first, and the calls whose model has a price."""
    lines: dict[str, ModelLine] = {}
    models: dict[str, Model | None] = {}
    priced = []
    for call in calls:
        if call.model not in models:
            found = replays.named(router.catalog, call.model)
            models[call.model] = found and replays.at_todays_prices(found, today)
        model = models[call.model]
        line = lines.setdefault(model.id if model else call.model, ModelLine(model.id if model else call.model))
        line.n_calls += 1 if call.n_requests is None else call.n_requests
        line.input_tokens += call.usage.input_tokens
        line.cache_read_tokens += call.usage.cache_read_tokens
        line.output_tokens += call.usage.output_tokens
        usd = None if model is None else _usd(call, model, today)
        if usd is None:
            line.usd = None if model is None else line.usd
            continue
        line.usd = (line.usd or 0.0) + usd
        priced.append(call)
    return sorted(lines.values(), key=lambda line: -(line.usd or 0.0)), priced


def _usd(call: Call, model: Model, today: dt.date) -> float | None:
    """The bill of a call, or of a sum of calls at the price of one of their mean size."""
    if call.n_requests != 1:
        n = max(call.n_requests or round(call.usage.input_tokens / _TOKENS_A_REQUEST), 1)
        step = msgspec.structs.replace(model.price(today, call.usage.input_tokens // n), above_input_tokens=0)
        model = msgspec.structs.replace(model, prices=(step,))
    usd = bill(call.usage, model, today).usd
    return None if usd is None else float(usd)


def _by_model(calls: Iterable[Call], router: Router) -> list[tuple[Model, list[Call]]]:
    found: dict[str, tuple[Model, list[Call]]] = {}
    known: dict[str, Model | None] = {}
    for call in calls:
        if call.model not in known:
            known[call.model] = replays.named(router.catalog, call.model)
        if (model := known[call.model]) is not None:
            found.setdefault(model.id, (model, []))[1].append(call)
    return list(found.values())


def _sample(calls: Sequence[Call], limit: int, seed: int) -> Sequence[Call]:
    """All calls, or those of conversations drawn at random until there are `limit`."""
    if len(calls) <= limit:
        return calls
    sizes = Counter(call.conversation or str(id(call)) for call in calls)
    names = list(sizes)
    kept, n = set[str](), 0
    for at in np.random.default_rng(seed).permutation(len(names)):
        if n >= limit:
            break
        kept.add(names[at])
        n += sizes[names[at]]
    return [call for call in calls if (call.conversation or str(id(call))) in kept]


def _costs(
    groups: Sequence[Group],
    lines: Sequence[ModelLine],
    summed: Sequence[Call],
    router: Router,
    mix: Sequence[float],
    today: dt.date,
) -> dict[str, npt.NDArray[np.float64]]:
    """USD by conversation: the bill as "billed", and each lever's. A sample stands for all calls of its model."""
    found: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
    bills = {line.model: line.usd or 0.0 for line in lines}
    sums = defaultdict[str, list[Call]](list)
    for call in summed:
        sums[(replays.named(router.catalog, call.model) or router.fleet.top).id].append(call)
    for group in groups:
        whole = bills.pop(group.model.id) - sum(_usd(c, group.model, today) or 0 for c in sums[group.model.id])
        scale = whole / group.usd.sum() if group.usd.sum() else 1.0
        found["billed"].append(group.usd * scale)
        for lever, usd in group.costs.items():
            found[lever].append(usd * scale)
    for model_id, of_model in sums.items():
        rows = [_summed(call, model_id, router, mix, today) for call in of_model]
        for name in ("billed", *LEVERS):
            found[name].append(np.array([row[name] for row in rows]))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _summed(call: Call, model_id: str, router: Router, mix: Sequence[float], today: dt.date) -> dict[str, float]:
    """What levers make of a sum of requests, of which nothing but the sum is known: only routing, by the mix."""
    model = router.catalog.models[model_id]
    fleet = replays.fleet_for(replays.at_todays_prices(model, today), router.fleet, today)
    names = list(fleet.models)
    usd = _usd(call, model, today) or 0.0
    routed = 0.0
    for tier, share in zip(Tier, np.asarray(mix, float) / sum(mix), strict=True):
        lower = next((name for name in names if name.at_least(tier)), names[-1])
        routed += float(share) * (_usd(call, fleet.models[lower], today) or 0.0)
    plain = Usage(fresh_tokens=call.usage.input_tokens, output_tokens=call.usage.output_tokens)
    uncached = _usd(msgspec.structs.replace(call, usage=plain), model, today) or 0.0
    same = dict.fromkeys(("billed", "replayed", "caching", "effort"), usd)
    return {**same, "routing": routed, "together": routed, "uncached": uncached}


def _outcome(billed: npt.NDArray[np.float64], cost: npt.NDArray[np.float64], usd: float) -> Outcome:
    chance = np.random.default_rng(0)
    ratios = []
    for _ in range(_REPLICATES):
        times = chance.poisson(1.0, len(billed))
        ratios.append(times @ cost / max(float(times @ billed), 1e-12))
    low, high = np.quantile(ratios, [0.025, 0.975])
    ratio = float(cost.sum() / billed.sum()) if billed.sum() else 1.0
    return Outcome(usd * ratio, 1 - ratio, (float(1 - high), float(1 - low)))
