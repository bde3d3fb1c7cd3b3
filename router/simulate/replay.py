"""Replay a trace through the engine's placing and accounting, with a clock that the trace drives.

The cache that answers is the documented one: an entry for each breakpoint, read by any prompt that goes on from it,
refreshed by reads, apart for each model. Tokens and replies count the same on every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec
import numpy as np
import numpy.typing as npt

from router.accounts.baseline import cost
from router.catalog import Model, day
from router.engine import Router
from router.errors import RequestError
from router.simulate.trace import Difficulty, Trace, draw
from router.types import Api, CachePlan, Decision, Plan, Prefix, Reason, Task, Ttl, TurnState, Usage

Progress = Callable[[str, Iterable[int]], Iterator[int]]

OURS = "ours"
_FIXED = {
    "top 5m": ("top", Ttl.SHORT),
    "top 1h": ("top", Ttl.LONG),
    "per request, uncached": ("request", Ttl.NONE),
    "per request": ("request", Ttl.SHORT),
    "per request 1h": ("request", Ttl.LONG),
    "per turn": ("turn", Ttl.SHORT),
    "per turn 1h": ("turn", Ttl.LONG),
    "sticky": ("sticky", Ttl.SHORT),
}
POLICIES = (*_FIXED, OURS)

_EPOCH_S = 1795305600.0  # 2026-11-22: the day of the prices


class Outcome(msgspec.Struct, frozen=True):
    """What a policy did over all seeds: shares of requests or tokens in [0, 1].

    `cost_ratio` is to the fleet's middle model without caching, `interval` its 95 % bootstrap interval over
    conversations; `saved` is the part saved of what the top tier costs, cached at its better TTL. `usd` is the cost of
    the trace, which compares fleets.
    """

    usd: float

    cost_ratio: float
    interval: tuple[float, float]
    hit_rate: float
    below_required: float
    switches: float
    saved: float


class _Cache:
    """The providers' prefix caches for numbered blocks: an entry where a request's whole blocks end."""

    def __init__(self, trace: Trace, n_models: int, lengths: Sequence[float]) -> None:
        self._trace, self._lengths = trace, lengths
        self._expires_s = np.zeros((n_models, trace.n_blocks))
        self._is_long = np.zeros((n_models, trace.n_blocks), bool)

    def use(self, i: int, index: int, model: Model, ttl: Ttl, at_s: float) -> Usage:
        """Request i on a model, written up to its last whole block for `ttl`; without one nothing is read either."""
        trace, blocks = self._trace, self._trace.blocks[i]
        total, out = int(trace.input_tokens[i]), round(float(trace.output_tokens[i]) * self._lengths[index])
        ends = trace.ends[i]
        size = int(ends[-1]) if len(ends) else 0
        if ttl is Ttl.NONE or size < model.cache_min_tokens:
            return Usage(fresh_tokens=total, output_tokens=out)
        expires_s, is_long = self._expires_s[index], self._is_long[index]
        warm = np.flatnonzero(expires_s[blocks] > at_s)
        n_read = int(warm[-1]) + 1 if len(warm) else 0
        long_s = model.ttl_long_s or model.ttl_short_s
        if n_read:
            hit = blocks[n_read - 1]
            expires_s[hit] = at_s + (long_s if is_long[hit] else model.ttl_short_s)
        if n_read < len(blocks):
            end = blocks[-1]
            expires_s[end] = at_s + (long_s if ttl is Ttl.LONG else model.ttl_short_s)
            is_long[end] = ttl is Ttl.LONG
        read = int(ends[n_read - 1]) if n_read else 0
        written = size - read
        free = model.prices[0].cache_write_short is None
        return Usage(
            fresh_tokens=total - size + (written if free else 0),
            cache_read_tokens=read,
            cache_write_short_tokens=written if ttl is Ttl.SHORT and not free else 0,
            cache_write_long_tokens=written if ttl is Ttl.LONG and not free else 0,
            output_tokens=out,
        )


class Tally:
    """Costs by conversation in USD, tokens, and where requests went."""

    def __init__(self, trace: Trace) -> None:
        self.usd = np.zeros(trace.conversations.max() + 1)
        self.tokens = self.read = self.below = self.switches = 0
        self._last: dict[int, int] = {}

    def add(self, conversation: int, usage: Usage, usd: Decimal | None, went: int, needed: int) -> None:
        if usd is None:
            raise RequestError("a price of the fleet is unknown; simulate with models that have prices")
        self.usd[conversation] += float(usd)
        self.tokens += usage.input_tokens
        self.read += usage.cache_read_tokens
        self.below += went < needed
        self.switches += self._last.setdefault(conversation, went) != went
        self._last[conversation] = went


def replay(
    trace: Trace,
    router: Callable[[], Router],
    *,
    mix: Sequence[float] = (70, 20, 10),
    difficulty: Difficulty = "turn",
    policies: Sequence[str] = POLICIES,
    seeds: int = 5,
    lengths: Sequence[float] | None = None,
    progress: Progress = lambda _, items: iter(items),
) -> dict[str, Outcome]:
    """What each policy costs. `router` makes a fresh one for each seed, so that nothing is learned from another.

    `lengths` are how long each tier's replies are, the trace's being 1: a lower effort writes less. All 1 unless given.

    Raises RequestError for a mix or lengths that do not fit the fleet.
    """
    models = list(router().fleet.models.values())
    lengths = lengths or (1.0,) * len(models)
    if len(lengths) != len(models) or min(lengths) <= 0:
        expected = f"{len(models)} numbers above 0, cheap to strong, such as 0.5,0.8,1"
        raise RequestError(f"the lengths of replies are {tuple(lengths)}, expected {expected}")
    if len(mix) != len(models) or min(mix) < 0 or sum(mix) <= 0:
        raise RequestError(f"the mix is {tuple(mix)}, expected {len(models)} shares, cheap to strong, such as 70,20,10")
    plain = _uncached(trace, models[len(models) // 2])
    tallies: dict[str, list[Tally]] = {name: [] for name in dict.fromkeys((*policies, "top 5m", "top 1h"))}
    for seed in range(seeds):
        needed = draw(trace, mix, difficulty, seed)
        for name, runs in tallies.items():
            if name.startswith("top") and runs:
                continue  # the same whatever is drawn
            items = progress(f"{name}, seed {seed + 1} of {seeds}", range(len(trace)))
            runs.append(ours(trace, router(), needed, difficulty, lengths, items) if name == OURS else
                        fixed(trace, models, needed, *_FIXED[name], lengths, items))  # fmt: skip
    top = min(tallies[name][0].usd.sum() for name in ("top 5m", "top 1h"))
    return {name: _outcome(tallies[name], plain, top, len(trace)) for name in policies}


def _uncached(trace: Trace, model: Model) -> npt.NDArray[np.float64]:
    tally = Tally(trace)
    for i in range(len(trace)):
        usage = Usage(fresh_tokens=int(trace.input_tokens[i]), output_tokens=int(trace.output_tokens[i]))
        tally.add(int(trace.conversations[i]), usage, usd_of(usage, model, float(trace.at_s[i])), 0, 0)
    return tally.usd


def fixed(
    trace: Trace,
    models: Sequence[Model],
    needed: npt.NDArray[np.int64],
    unit: str,
    ttl: Ttl,
    lengths: Sequence[float],
    items: Iterable[int],
) -> Tally:
    """A policy that knows the tier needed, at every request, turn or conversation, and always caches alike."""
    tally, cache, held = Tally(trace), _Cache(trace, len(models), lengths), dict[int, int]()
    for i in items:
        conversation, at_s = int(trace.conversations[i]), float(trace.at_s[i])
        opens = trace.new_turn is None or bool(trace.new_turn[i])
        if unit == "request" or conversation not in held or (unit == "turn" and opens):
            held[conversation] = int(needed[i])
        went = len(models) - 1 if unit == "top" else held[conversation]
        went = next((m for m in range(went, len(models)) if _fits(trace, i, models[m])), len(models) - 1)
        usage = cache.use(i, went, models[went], ttl, at_s)
        tally.add(conversation, usage, usd_of(usage, models[went], at_s), went, int(needed[i]))
    return tally


def ours(
    trace: Trace,
    router: Router,
    needed: npt.NDArray[np.int64],
    difficulty: Difficulty,
    lengths: Sequence[float],
    items: Iterable[int],
) -> Tally:
    """The engine: its placing, and its accounting of what the cache then reports."""
    tiers, models = list(router.fleet.models), list(router.fleet.models.values())
    tally, cache = Tally(trace), _Cache(trace, len(models), lengths)
    for i in items:
        conversation, at_s = int(trace.conversations[i]), _EPOCH_S + float(trace.at_s[i])
        prefix = Prefix(0, "", 0, trace.blocks[i].tolist(), trace.ends[i].tolist(), in_tokens=True)
        new_turn = difficulty != "turn" or trace.new_turn is None or bool(trace.new_turn[i])
        task = Task("", TurnState.USER_TURN if new_turn else TurnState.TOOL_LOOP, 0, has_images=False, has_tools=False)
        fitting = [tier for tier, model in zip(tiers, models, strict=True) if _fits(trace, i, model)] or tiers[-1:]
        required = next((tier for tier in fitting if tier.at_least(tiers[int(needed[i])])), fitting[-1])
        told = Decision(required, router.fleet.models[required].id, {}, Reason.SUFFICES, router.operating_point)
        decision, route = router.place(
            task,
            prefix,
            fitting,
            lambda told=told: told,  # type: ignore[misc]
            at_s,
            name=str(conversation),
            label="trace",
            point=router.operating_point,
        )
        assert decision.tier is not None and route is not None
        went = tiers.index(decision.tier)
        cache_plan = CachePlan((), "", 0, tail=route.tail)
        plan = Plan(decision, {}, Api.MESSAGES, Api.MESSAGES, cache_plan, at_s, route)
        usage = cache.use(i, went, models[went], route.tail, at_s)
        record = router.record(plan, usage)
        tally.add(conversation, usage, record.cost_usd, went, int(needed[i]))
    return tally


def _fits(trace: Trace, i: int, model: Model) -> bool:
    return bool(trace.input_tokens[i] <= model.context_tokens)


def usd_of(usage: Usage, model: Model, at_s: float) -> Decimal | None:
    return cost(usage, model, day(at_s if at_s >= _EPOCH_S else _EPOCH_S + at_s))


def _outcome(runs: Sequence[Tally], plain: npt.NDArray[np.float64], top: float, n_requests: int) -> Outcome:
    usd = np.mean([run.usd for run in runs], axis=0)
    chance = np.random.default_rng(0)
    picks = chance.integers(0, len(plain), (1000, len(plain)))
    ratios = usd[picks].sum(1) / plain[picks].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Outcome(
        float(usd.sum()),
        float(usd.sum() / plain.sum()),
        (float(low), float(high)),
        float(np.mean([run.read / run.tokens for run in runs])),
        float(np.mean([run.below / n_requests for run in runs])),
        float(np.mean([run.switches / n_requests for run in runs])),
        float(1 - usd.sum() / top),
    )
