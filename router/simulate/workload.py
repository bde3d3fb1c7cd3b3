"""A workload's bill before anything is sent: with and without routing and caching, and where caching pays; pure.

Calls arrive at random (Poisson) and share one prefix (tools and system prompt), so a model that gets the share s of
them finds its cache warm with probability 1 - exp(-ttl * s / gap): routing takes traffic, and with it warmth, from each
model. The same tokens are assumed on every model. tests/test_workload.py holds this against the embedded upstream's
bill, to within 5 %.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from math import ceil, exp, inf, log
from typing import Any, Literal

import msgspec

from router.catalog import Fleet, Model
from router.errors import CatalogError, RequestError
from router.types import Tier

Lifetime = Literal["5m", "1h", "none", "best"]
"""Lifetime of cached prefixes: the model's short one (5 minutes on Claude, 30 on GPT), its long one, not cached, or for
each model whichever of the three costs least."""

_OPENAI_STEP = 128  # OpenAI reports cached tokens in steps of 128
_TOLERANCE = 0.05


class Workload(msgspec.Struct, frozen=True):
    """What one call holds on average, in tokens, and how calls come: `gap_s` seconds from one to the next on average.

    `prefix_tokens` are the same in every call; `mix` is the share of calls by tier, cheap to strong, that sums to 1.
    """

    prefix_tokens: float
    user_tokens: float
    output_tokens: float
    gap_s: float
    mix: tuple[float, float, float]


class Line(msgspec.Struct, frozen=True):
    """One model's part: its share of calls, seconds between them, the lifetime taken, and USD a call (input, output).

    `hit_rate` is the share of its calls that read the prefix from the cache, 0 where it is not cached.
    """

    tier: Tier
    model: str
    share: float
    gap_s: float
    ttl: str
    hit_rate: float
    input_usd: float
    output_usd: float


class BreakEven(msgspec.Struct, frozen=True):
    """Where caching starts to pay on a model, for one lifetime.

    `reads` of a prefix pay for writing it once; below `hit_rate` caching costs more than it saves, which is so when
    calls are further apart than `gap_s` on average; prefixes below `min_prefix_tokens` are not cached at all.
    """

    model: str
    ttl: str
    reads: int
    hit_rate: float
    gap_s: float
    min_prefix_tokens: int


class Claim(msgspec.Struct, frozen=True):
    """What is often said, whether it holds for these numbers (within 5 %), and the numbers."""

    claim: str
    holds: bool
    because: str


def price(fleet: Fleet, workload: Workload, ttl: Lifetime, on: dt.date) -> list[Line]:
    """The fleet's lines at the workload's mix; a tier that the fleet lacks goes to the next stronger one."""
    shares: dict[Tier, float] = {}
    for k in range(len(Tier)):
        taken = next(t for t in list(Tier)[k:] if t in fleet.models)
        shares[taken] = shares.get(taken, 0.0) + workload.mix[k]
    return [_line(fleet.models[tier], tier, share, workload, ttl, on) for tier, share in shares.items() if share > 0]


def shares(percent: str) -> tuple[float, float, float]:
    """ "70,20,10" -> (.7, .2, .1). Raises RequestError unless there is one number a tier and they sum to 100."""
    try:
        parts = [float(part) / 100 for part in percent.split(",")]
    except ValueError:
        parts = []
    if len(parts) != len(Tier) or min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
        expected = f"{len(Tier)} percentages that sum to 100, cheap to strong, such as 70,20,10"
        raise RequestError(f"{percent!r} is no mix; expected {expected}")
    return parts[0], parts[1], parts[2]


def report(fleet: Fleet, workload: Workload, ttl: Lifetime, on: dt.date) -> dict[str, Any]:
    """Everything that `tierwise plan` says: lines and USD a call by lever, break-even points, claims."""
    lines = levers(fleet, workload, ttl, on)
    return {
        "workload": workload,
        "lines": lines,
        "usd_per_call": {name: usd(part) for name, part in lines.items()},
        "break_even": [
            found
            for model in fleet.models.values()
            for lifetime in ("5m", "1h")
            if (found := break_even(model, lifetime, on)) is not None
        ],
        "claims": list(claims(fleet, workload, ttl, on)),
    }


def usd(lines: list[Line]) -> float:
    """USD of an average call."""
    return sum(line.share * (line.input_usd + line.output_usd) for line in lines)


def levers(fleet: Fleet, workload: Workload, ttl: Lifetime, on: dt.date) -> dict[str, list[Line]]:
    """The same calls with neither lever (all on the top model, nothing cached), with each, and with both."""
    top = msgspec.structs.replace(workload, mix=(0.0, 0.0, 1.0))
    return {
        "neither": price(fleet, top, "none", on),
        "caching": price(fleet, top, ttl, on),
        "routing": price(fleet, workload, "none", on),
        "both": price(fleet, workload, ttl, on),
    }


def break_even(model: Model, ttl: Literal["5m", "1h"], on: dt.date) -> BreakEven | None:
    """None where the model has no such lifetime or sells no cached tokens."""
    write, lifetime_s = _write(model, ttl, on)
    cost = model.price(on, model.cache_min_tokens)
    if lifetime_s is None or cost.cache_read is None:
        return None
    usual, read = _known(cost.input, model), float(cost.cache_read)
    hit_rate = max((write - usual) / (write - read), 0.0)
    gap_s = -lifetime_s / log(1 - hit_rate) if hit_rate else inf
    reads = ceil((write - usual) / (usual - read) - 1e-9)
    return BreakEven(model.id, ttl, reads, hit_rate, gap_s, model.cache_min_tokens)


def claims(fleet: Fleet, workload: Workload, ttl: Lifetime, on: dt.date) -> Iterator[Claim]:
    """Common claims, held against this workload."""
    bills = levers(fleet, workload, ttl, on)
    total = {name: usd(lines) for name, lines in bills.items()}
    by_list = 1 - total["routing"] / total["neither"]
    by_cached = 1 - total["both"] / total["caching"]
    yield Claim(
        f"routing saves {by_list:.0%}",
        by_cached >= by_list - _TOLERANCE,
        f"{by_list:.0%} of a bill without caching, {by_cached:.0%} of one that caches already",
    )
    top = fleet.top
    cost = top.price(on, 1)
    discount = 1 - _known(cost.cache_read or cost.input, top) / _known(cost.input, top)
    uncached, cached = bills["neither"][0], bills["caching"][0]
    saved = 1 - cached.input_usd / uncached.input_usd
    yield Claim(
        f"caching saves {discount:.0%} of the input",
        saved >= discount - _TOLERANCE,
        f"{saved:.0%} on {top.id}: {cached.hit_rate:.0%} of calls find the prefix warm, and it is "
        f"{workload.prefix_tokens / (workload.prefix_tokens + workload.user_tokens):.0%} of the input",
    )
    product = total["routing"] * total["caching"] / total["neither"]
    yield Claim(
        "the two savings multiply",
        total["both"] <= product * (1 + _TOLERANCE),
        f"both together cost {total['both'] / product:.2f} times what multiplying says",
    )
    yield _always_cache(fleet, workload, on)
    yield _longer_is_better(fleet, workload, on)
    yield from _ratio(bills["both"], fleet, on)


def _always_cache(fleet: Fleet, workload: Workload, on: dt.date) -> Claim:
    losing = []
    for plain, kept in zip(price(fleet, workload, "none", on), price(fleet, workload, "5m", on), strict=True):
        least = fleet.models[kept.tier].cache_min_tokens
        if kept.ttl == "none":
            losing.append(f"{kept.model} caches nothing below {least:,} tokens")
        elif kept.input_usd > plain.input_usd:
            losing.append(f"{kept.model} is warm for only {kept.hit_rate:.0%} of its calls")
    return Claim("caching the prompt always pays", not losing, "; ".join(losing) or "it does on each model here")


def _longer_is_better(fleet: Fleet, workload: Workload, on: dt.date) -> Claim:
    short, long = (usd(price(fleet, workload, ttl, on)) for ttl in ("5m", "1h"))
    change = f"{long / short - 1:+.1%} against the short one"
    has = any(model.ttl_long_s for model in fleet.models.values())
    return Claim("the longer lifetime is worth its price", has and long <= short, change if has else "there is none")


def _ratio(both: list[Line], fleet: Fleet, on: dt.date) -> Iterator[Claim]:
    """The cheap tier's price beside the top one's: by the list, and with the cache as each will find it."""
    cheap, dear = both[0], both[-1]
    if cheap.tier == dear.tier:
        return
    listed = [_known(fleet.models[line.tier].price(on, 1).input, fleet.models[line.tier]) for line in (cheap, dear)]
    real = [line.input_usd + line.output_usd for line in (cheap, dear)]
    yield Claim(
        f"a call on {cheap.model} costs 1/{listed[1] / listed[0]:.0f} of one on {dear.model}",
        real[0] / real[1] <= listed[0] / listed[1] * (1 + _TOLERANCE),
        f"1/{real[1] / real[0]:.1f} with their caches ({cheap.hit_rate:.0%} and {dear.hit_rate:.0%} warm)",
    )


def _line(model: Model, tier: Tier, share: float, workload: Workload, ttl: Lifetime, on: dt.date) -> Line:
    choices: tuple[Lifetime, ...] = ("none", "5m", "1h") if ttl == "best" else (ttl,)
    gap_s = workload.gap_s / share
    taken, hit_rate, input_usd = min(
        (_input(model, workload, gap_s, choice, on) for choice in choices), key=lambda option: option[2]
    )
    total = workload.prefix_tokens + workload.user_tokens
    output_usd = workload.output_tokens * _known(model.price(on, ceil(total)).output, model) / 1e6
    return Line(tier, model.id, share, gap_s, taken, hit_rate, input_usd, output_usd)


def _input(model: Model, workload: Workload, gap_s: float, ttl: Lifetime, on: dt.date) -> tuple[str, float, float]:
    """(lifetime taken, hit rate, USD of a call's input)."""
    prefix, user = workload.prefix_tokens, workload.user_tokens
    cost = model.price(on, ceil(prefix + user))
    usual = _known(cost.input, model)
    plain = "none", 0.0, (prefix + user) * usual / 1e6
    write, lifetime_s = _write(model, ttl, on)
    implicit = model.provider != "anthropic"  # caches on its own: the minimum counts the whole prompt, writes too
    if ttl == "none" or cost.cache_read is None or prefix + implicit * user < model.cache_min_tokens:
        return plain
    if lifetime_s is None:
        return _input(model, workload, gap_s, "5m", on)
    read = prefix // _OPENAI_STEP * _OPENAI_STEP if implicit else prefix
    read = read if read >= model.cache_min_tokens else 0
    hit_rate = 1 - exp(-lifetime_s / gap_s) if read else 0.0
    other = write if implicit else usual
    warm = read * float(cost.cache_read) + (prefix - read) * write + user * other
    return ttl, hit_rate, (hit_rate * warm + (1 - hit_rate) * (prefix * write + user * other)) / 1e6


def _write(model: Model, ttl: Lifetime, on: dt.date) -> tuple[float, int | None]:
    """USD per million tokens written, as usual input where writes are free, and seconds that they live."""
    cost = model.price(on, model.cache_min_tokens)
    if ttl == "1h":
        has = model.ttl_long_s is not None and cost.cache_write_long is not None
        return _known(cost.cache_write_long or cost.input, model), model.ttl_long_s if has else None
    return _known(cost.cache_write_short or cost.input, model), model.ttl_short_s


def _known(usd_per_mtok: Decimal | None, model: Model) -> float:
    if usd_per_mtok is None:
        raise CatalogError(f"the price of {model.id!r} is unknown; give it one to rehearse with it")
    return float(usd_per_mtok)
