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
    """The providers' prefix caches for numbered parts: an entry where a request's head ends, and one where it ends."""

    def __init__(self, trace: Trace, n_models: int, lengths: Sequence[float]) -> None:
        self._trace, self._lengths = trace, lengths
        self._expires_s = np.zeros((n_models, trace.n_blocks))
        self._is_long = np.zeros((n_models, trace.n_blocks), bool)

    def use(self, i: int, index: int, model: Model, head: Ttl, tail: Ttl, at_s: float) -> Usage:
        """Request i on a model, its head written for `head`, the rest for `tail`. Nothing is read past the last of the
        two breakpoints, and nothing written at one below the model's minimum."""
        trace, blocks, ends = self._trace, self._trace.blocks[i], self._trace.ends[i]
        total, out = int(trace.input_tokens[i]), round(float(trace.output_tokens[i]) * self._lengths[index])
        marks = [(n, ttl) for n, ttl in ((trace.n_head(i), head), (len(blocks), tail)) if n and ttl is not Ttl.NONE]
        marks = [(n, ttl) for n, ttl in marks if ends[n - 1] >= model.cache_min_tokens]
        if not marks:
            return Usage(fresh_tokens=total, output_tokens=out)
        expires_s = self._expires_s[index]
        warm = np.flatnonzero(expires_s[blocks[: marks[-1][0]]] > at_s)
        n_read = int(warm[-1]) + 1 if len(warm) else 0
        written = {Ttl.SHORT: 0, Ttl.LONG: 0}
        done = int(ends[n_read - 1]) if n_read else 0
        read = done
        if n_read:
            self._keep(index, blocks[n_read - 1], None, at_s, model)
        for n, ttl in marks:
            if n > n_read:
                self._keep(index, blocks[n - 1], ttl, at_s, model)
                written[ttl], done = written[ttl] + int(ends[n - 1]) - done, int(ends[n - 1])
            elif expires_s[blocks[n - 1]] > at_s:
                self._keep(index, blocks[n - 1], None, at_s, model)
        if model.prices[0].cache_write_short is None:
            return Usage(fresh_tokens=total - read, cache_read_tokens=read, output_tokens=out)
        return Usage(
            fresh_tokens=total - done,
            cache_read_tokens=read,
            cache_write_short_tokens=written[Ttl.SHORT],
            cache_write_long_tokens=written[Ttl.LONG],
            output_tokens=out,
        )

    def _keep(self, index: int, block: np.int64, ttl: Ttl | None, at_s: float, model: Model) -> None:
        """Write an entry for `ttl`, or refresh the one that is there."""
        if ttl is not None:
            self._is_long[index, block] = ttl is Ttl.LONG
        long_s = model.ttl_long_s or model.ttl_short_s
        self._expires_s[index, block] = at_s + (long_s if self._is_long[index, block] else model.ttl_short_s)


class Tally:
    """Costs by conversation in USD, tokens, and where requests went: `went` counts them by tier."""

    def __init__(self, trace: Trace, n_tiers: int = 1) -> None:
        self.went = np.zeros(n_tiers, int)
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
        self.went[went] += 1
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
            if name == OURS:
                runs.append(ours(trace, router(), needed, difficulty, lengths, items))
                continue
            unit, ttl = _FIXED[name]
            tiers, cached = held(trace, needed, unit, len(models)), [(ttl, ttl)] * len(trace)
            runs.append(fixed(trace, models, tiers, cached, lengths, items, needed=needed))
    top = min(tallies[name][0].usd.sum() for name in ("top 5m", "top 1h"))
    return {name: _outcome(tallies[name], plain, top, len(trace)) for name in policies}


def _uncached(trace: Trace, model: Model) -> npt.NDArray[np.float64]:
    tally = Tally(trace)
    for i in range(len(trace)):
        usage = Usage(fresh_tokens=int(trace.input_tokens[i]), output_tokens=int(trace.output_tokens[i]))
        tally.add(int(trace.conversations[i]), usage, usd_of(usage, model, float(trace.at_s[i])), 0, 0)
    return tally.usd


def held(trace: Trace, needed: npt.NDArray[np.int64], unit: str, n_tiers: int) -> npt.NDArray[np.int64]:
    """The tier that each request goes to where it is chosen for each `request`, `turn` or conversation (`sticky`) by
    what its first request needs, or is always the `top` one."""
    if unit == "top":
        return np.full(len(trace), n_tiers - 1)
    if unit == "request":
        return needed
    went, tiers = dict[int, int](), needed.copy()
    for i, conversation in enumerate(trace.conversations.tolist()):
        opens = trace.new_turn is None or bool(trace.new_turn[i])
        if conversation not in went or (unit == "turn" and opens):
            went[conversation] = int(needed[i])
        tiers[i] = went[conversation]
    return tiers


def fixed(
    trace: Trace,
    models: Sequence[Model],
    tiers: npt.NDArray[np.int64],
    cached: Sequence[tuple[Ttl, Ttl]],
    lengths: Sequence[float],
    items: Iterable[int],
    *,
    needed: npt.NDArray[np.int64] | None = None,
) -> Tally:
    """Each request on the tier of `tiers`, its head and the rest cached for `cached`; larger where it does not fit."""
    tally, cache = Tally(trace, len(models)), _Cache(trace, len(models), lengths)
    for i in items:
        at_s = float(trace.at_s[i])
        went = next((m for m in range(int(tiers[i]), len(models)) if _fits(trace, i, models[m])), len(models) - 1)
        usage = cache.use(i, went, models[went], *cached[i], at_s)
        usd = usd_of(usage, models[went], at_s)
        tally.add(int(trace.conversations[i]), usage, usd, went, int((tiers if needed is None else needed)[i]))
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
    tally, cache = Tally(trace, len(models)), _Cache(trace, len(models), lengths)
    for i in items:
        conversation, at_s = int(trace.conversations[i]), _EPOCH_S + float(trace.at_s[i])
        prefix = _prefix(trace, i)
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
            name=str(conversation) if trace.named is None or trace.named[i] else "",
            label="trace",
            point=router.operating_point,
        )
        assert decision.tier is not None and route is not None
        went = tiers.index(decision.tier)
        cache_plan = CachePlan((), prefix.head_key, prefix.head_units, tail=route.tail)
        plan = Plan(decision, {}, Api.MESSAGES, Api.MESSAGES, cache_plan, at_s, route)
        usage = cache.use(i, went, models[went], route.head, route.tail, at_s)
        record = router.record(plan, usage)
        tally.add(conversation, usage, record.cost_usd, went, int(needed[i]))
    return tally


def _prefix(trace: Trace, i: int) -> Prefix:
    """A request's prompt as the engine sees one: head and the rest apart."""
    n, blocks, ends = trace.n_head(i), trace.blocks[i].tolist(), trace.ends[i].tolist()
    if not n:
        return Prefix(0, "", 0, blocks, ends, in_tokens=True)
    return Prefix(0, f"{blocks[n - 1]:x}", ends[n - 1], blocks[n:], ends[n:], in_tokens=True)


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
