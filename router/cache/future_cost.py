"""What a prefix will cost from here on, by which models hold it warm: the price of switching, and of each TTL.

Every token of a prefix is in one of 3^K states: cold, warm for short or warm for long on each of the fleet's K models.
A request reads or writes it on the model that it goes to; until the next request some of it expires. With the
statistics of `returns` that is a Markov decision process, small enough to be solved outright by value iteration, so
that staying, moving and the TTL are weighed over all the turns still to be expected and not over the next one.

A breakpoint is an entry of its own: writing the newest tokens for an hour keeps the whole prefix for an hour, whatever
the entry was that it continued (https://platform.claude.com/docs/en/build-with-claude/prompt-caching, the billing of
mixed TTLs, 2026-11-22).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec
import numpy as np

from router.cache.returns import STAGES, Floats, Returns
from router.types import Ttl

Rows = list[list[list[float]]]
"""By model, state and tier."""

_TOLERANCE = 2e-3
_SWEEPS = 40


class UnitCosts(msgspec.Struct, frozen=True):
    """What one model charges, in USD per million units of prompt (or of reply, for `output`).

    `write` is by Ttl: not cached, short, long; infinite where the model does not offer it. A unit is a character of a
    body or a token of a trace; the model's tokens per unit are multiplied in.
    """

    read: float
    write: tuple[float, float, float]
    output: float
    ttl_short_s: float
    ttl_long_s: float


class FutureCost:
    """Expected future cost of a prefix per unit, for one class of traffic and one fleet.

    `value[stage]` has the shape (models, states, tiers): after a request of that stage went to that model, leaving the
    prefix in that state, when the request needed that tier. USD per million units. `rows` is `value` as lists, which
    are quicker to look single numbers up in.
    """

    def __init__(self, rates: Sequence[UnitCosts], caches: Sequence[str], *, grows: bool = True) -> None:
        """`caches` names each model's cache: those of one name read one another's. `grows`: each request adds to the
        prefix, so that what it adds can be written for longer.
        """
        self.rates, self.caches, self.grows = tuple(rates), tuple(caches), grows
        self._space = _space(self.caches, grows)
        n_models, n_states = len(rates), 3 ** len(rates)
        self.value = np.zeros((len(STAGES) + 1, n_models, n_states, n_models))
        self.rows: list[Rows] = self.value.tolist()
        self._read = np.array([rate.read for rate in rates])
        self._write = np.array([rate.write for rate in rates])
        self._output = np.array([rate.output for rate in rates])
        self._problem: tuple[Floats, Floats, Floats, Floats] | None = None
        self._sweeps_left = 0

    @property
    def is_begun(self) -> bool:
        """Whether a solution is under way; until it is there, `rows` are those of the last one."""
        return self._problem is not None

    def begin(self, returns: Returns) -> None:
        """Put the problem anew, with what has been learned since; `sweep` solves it."""
        space = self._space
        models, n_models = space.models, len(self.rates)
        warm = self._read[models][:, None] * space.is_warm
        written = self._write[models, space.ttls]
        now = warm + np.where(space.is_warm, 0.0, written[:, None])
        if self.grows:
            now = now + returns.growth * written[:, None]
        now = now + returns.output_share * self._output[models][:, None]
        # a tier's request may go to its own model or a stronger one
        now = now[:, :, None] + np.where(models[:, None] >= np.arange(n_models), 0.0, np.inf)[:, None, :]
        short_s = max(min(r.ttl_short_s for r in self.rates), 1.0)
        long_s = max(short_s, *(r.ttl_long_s for r in self.rates))
        survives = self._survival(returns.mean_gap_s(), short_s, long_s)
        self._problem = now, returns.p_next(short_s, long_s), returns.p_tier(), survives
        self._sweeps_left = _SWEEPS

    def sweep(self, n: int) -> bool:
        """At most n sweeps of value iteration, 0.1 ms each, from the last solution; whether that was all."""
        if self._problem is None:
            return True
        now, p_next, p_tier, survives = self._problem
        models, n_stages = self._space.models, len(STAGES) + 1
        advance = np.array([1 / width for width in STAGES] + [0.0])
        onwards = np.minimum(np.arange(n_stages) + 1, n_stages - 1)
        for _ in range(min(n, self._sweeps_left)):
            ahead = (now[None] + self.value[:, models[:, None], self._space.after, :]).min(1)  # stages, states, tiers
            ahead = advance[:, None, None] * ahead[onwards] + (1 - advance)[:, None, None] * ahead
            solved = np.zeros_like(self.value)
            for a in range(2):
                then = ahead @ p_tier[a].T
                for late in range(2):
                    reached = survives[a, late] @ then[:, None]  # stages, models, states, tiers
                    solved += p_next[:, a, late][:, None, None, None] * reached
            change = float(np.abs(solved - self.value).max())
            self.value = solved.reshape(self.value.shape)
            self._sweeps_left -= 1
            if change < _TOLERANCE * max(self._read.max(), 1e-12):
                self._sweeps_left = 0
        if self._sweeps_left:
            return False
        self.rows, self._problem = self.value.tolist(), None
        return True

    def _survival(self, gaps_s: Floats, short_s: float, long_s: float) -> Floats:
        """(2, 2, models, states, states): what is still warm after a gap, by kind and length of the gap and model used.

        The model just used has its whole TTL left; on the others, idle, a uniform part of it.
        """
        n_models = len(self.rates)
        out = np.zeros((2, 2, n_models, 3**n_models, 3**n_models))
        for a in range(2):
            for late in range(2):
                used = _expiry(1.0 - late, 1.0)
                gap_s = gaps_s[a, late]
                idle = _expiry(max(0.0, 1 - gap_s / short_s) * (1 - late), max(0.0, 1 - gap_s / max(long_s, short_s)))
                for m in range(n_models):
                    full: Floats = np.ones((1, 1))
                    for other in reversed(range(n_models)):
                        full = _product(full, used if self.caches[other] == self.caches[m] else idle)
                    out[a, late, m] = full
        return out


def _product(left: Floats, right: Floats) -> Floats:
    """np.kron of two square matrices, which takes ten times as long for small ones."""
    n = len(left) * len(right)
    return (left[:, None, :, None] * right[None, :, None, :]).reshape(n, n)


def _expiry(p_short: float, p_long: float) -> Floats:
    """(3, 3): transitions cold, short, long of one model when an entry outlives the gap with these probabilities."""
    return np.array([[1.0, 0.0, 0.0], [1 - p_short, p_short, 0.0], [1 - p_long, 0.0, p_long]])


class Segment(msgspec.Struct, frozen=True):
    """A part of a prompt that is cached by one breakpoint: its units by state, and what each will cost later.

    `value` is a `FutureCost.rows[stage]`, `caches` and `grows` as there. `ttls` may be written, for each model.
    """

    units: Mapping[int, float]
    value: Rows
    ttls: tuple[tuple[Ttl, ...], ...]
    caches: tuple[str, ...]
    grows: bool = True


class Placed(msgspec.Struct, frozen=True):
    """Where a request goes (an index into the fleet's models) and the TTL of each segment's breakpoint."""

    model: int
    ttls: tuple[Ttl, ...]


def cheapest(
    segments: Sequence[Segment], rates: Sequence[UnitCosts], tier: int, models: Sequence[int], output_units: float
) -> Placed:
    """The cheapest of `models` for a request that needs `tier`, now and later; and what to cache for how long.

    `rates` are those of this request's length; the reply is expected to be `output_units` long. A long TTL must not
    come after a short one, so every segment before one that is written for long is written for long, too.
    """
    best: tuple[float, Placed] | None = None
    for model in models:
        rate, chosen, total = rates[model], list[Ttl](), 0.0
        for segment in segments:
            cost, ttl = min((_cost(segment, rate, model, ttl, tier), ttl) for ttl in segment.ttls[model])
            chosen.append(ttl)
            total += cost
        if Ttl.LONG in chosen:
            last = len(chosen) - 1 - chosen[::-1].index(Ttl.LONG)
            chosen[:last] = [Ttl.LONG if Ttl.LONG in s.ttls[model] else t for s, t in zip(segments, chosen[:last])]  # noqa: B905
        total += rate.output * output_units
        if best is None or total < best[0]:
            best = total, Placed(model, tuple(chosen))
    if best is None:
        raise ValueError("no model to choose from")
    return best[1]


def _cost(segment: Segment, rate: UnitCosts, model: int, ttl: Ttl, tier: int) -> float:
    # A handful of states, so plain Python: numpy would take four times as long. What is not held is left out, for a
    # price that is not offered is infinite and must not be multiplied by nothing.
    space, total = _space(segment.caches, segment.grows), 0.0
    value, action = segment.value[model], 3 * model + ttl
    for state, units in segment.units.items():
        now = rate.read if state // 3**model % 3 else rate.write[ttl]
        total += units * (now + value[space.after_rows[action][state]][tier])
    return total


class _Space(msgspec.Struct, frozen=True):
    """The states and actions of K models: action 3 m + ttl; state sum of 3^m kind."""

    models: np.ndarray
    ttls: np.ndarray
    is_warm: np.ndarray
    after: np.ndarray
    after_rows: list[list[int]]


@lru_cache(maxsize=32)
def _space(caches: tuple[str, ...], grows: bool) -> _Space:
    n_models = len(caches)
    states = np.arange(3**n_models)
    models, ttls = np.repeat(np.arange(n_models), 3), np.tile(np.arange(3), n_models)
    kinds = states[None] // 3 ** models[:, None] % 3
    after = np.repeat(states[None], len(models), axis=0)
    for each in range(n_models):
        own = states[None] // 3**each % 3
        reached = np.maximum(own, ttls[:, None]) if grows else np.where(own > 0, own, ttls[:, None])
        shares = np.array([caches[m] == caches[each] for m in models])
        after += np.where(shares[:, None], (reached - own) * 3**each, 0)
    return _Space(models, ttls, kinds > 0, after, after.tolist())
