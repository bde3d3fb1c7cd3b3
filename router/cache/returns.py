"""How soon a prefix is asked for again, learned online for one class of traffic.

A prefix is a conversation, or the tools and system prompt that many conversations share. What is counted: the gap to
the next request by length, how often a new turn opens, which tier follows which, how fast prompts grow. Prefixes that
are still waiting for their next request count for as long as they have waited (the actuarial estimate), so that the
first minutes of a class are not read as "nobody comes back".
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from math import inf

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EDGES_S = (30.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0)
"""Upper ends of the gap lengths that are told apart, in seconds; longer gaps are as good as never."""

STAGES = (1, 1, 2)
"""How many requests each stage of a prefix's life takes: the first, the second, two more; then the last for good.

77 % of chats end after one request and 40 % of those left after another, so the stage says most of what is known."""

_N_EDGES, _N_STAGES = len(EDGES_S), len(STAGES) + 1

# Before anything is known, assume that about six of ten prefixes are asked for again within five minutes: not caching
# what is reused costs 0.9 of it, caching what is not costs 0.25.
_PRIOR_HAZARDS = np.array([0.30, 0.35, 0.30, 0.15, 0.08, 0.05, 0.03])
_PRIOR_SPLIT = np.array([[0.7], [0.3]])  # in a tool loop / at a new turn
_PRIOR_WEIGHT = 10.0
_PRIOR_GAP_S = np.array([[20.0, 900.0], [60.0, 1200.0]])
_PRIOR_STAY, _PRIOR_MIX_WEIGHT = 4.0, 2.0


class _Waiting:
    """A prefix between two requests; `edge` counts the edges that its wait has passed."""

    __slots__ = ("at_s", "edge", "n_requests", "stage", "tier", "units")

    def __init__(self, at_s: float, n_requests: int, tier: int, units: float) -> None:
        self.at_s, self.n_requests, self.tier, self.units = at_s, n_requests, tier, units
        self.stage, self.edge = stage(n_requests), 0


def _first(queue: OrderedDict[str, _Waiting]) -> _Waiting:
    return next(iter(queue.values()))


def stage(n_requests: int) -> int:
    """The stage of a prefix after so many requests (from 1)."""
    for number, width in enumerate(STAGES):
        n_requests -= width
        if n_requests <= 0:
            return number
    return len(STAGES)


class Returns:
    """The statistics of one class. `mix` is the expected share of each tier, cheap to strong. Not thread-safe.

    Waiting prefixes are forgotten after an hour, and beyond `max_waiting` the longest waiting first.
    """

    def __init__(self, mix: npt.ArrayLike, *, max_waiting: int = 100_000) -> None:
        self.n_requests = 0
        self._mix = np.asarray(mix, float)
        n_tiers = len(self._mix)
        # Lists, for each request counts in them one by one; they are read when the class is solved again.
        self._events = np.zeros((_N_STAGES, 2, _N_EDGES)).tolist()
        self._entered = np.zeros((_N_STAGES, _N_EDGES)).tolist()
        self._left = np.zeros((_N_STAGES, _N_EDGES)).tolist()
        self._gaps_s, self._n_gaps = _PRIOR_GAP_S.tolist(), np.ones((2, 2)).tolist()
        self._follows = np.zeros((2, n_tiers, n_tiers)).tolist()
        self._grown, self._seen, self._output = 2.0, 100.0, 0.4  # units: 2 % longer each time, 0.4 % of it answered
        self._max_waiting = max_waiting
        self._waiting: dict[str, _Waiting] = {}
        self._due_s = inf
        # Those waiting once more, by edge and in order of time. A request leaves no trace of the one before: with a
        # queue it did for 30 s, 28 MB at 1,000 requests a second.
        self._queues: tuple[OrderedDict[str, _Waiting], ...] = tuple(OrderedDict() for _ in EDGES_S)

    def arrive(self, key: str, at_s: float, tier: int, *, new_turn: bool, units: float) -> int:
        """Take in a request for the prefix `key` that needs `tier` and is `units` long; returns the prefix's stage."""
        self._pass_time(at_s)
        before = self._waiting.get(key)
        self.n_requests += 1
        if before is not None:
            del self._queues[before.edge][key]
            self._follow(before, at_s, tier, new_turn, units)
        now = _Waiting(at_s, 1 if before is None else before.n_requests + 1, tier, units)
        self._waiting[key] = self._queues[0][key] = now
        self._entered[now.stage][0] += 1
        self._due_s = min(self._due_s, at_s + EDGES_S[0])
        if len(self._waiting) > self._max_waiting:
            longest = next(queue for queue in reversed(self._queues) if queue)
            del self._waiting[longest.popitem(last=False)[0]]
        return now.stage

    def answered(self, output_units: float) -> None:
        """Take in the length of a reply."""
        self._output += output_units

    def _follow(self, before: _Waiting, at_s: float, tier: int, new_turn: bool, units: float) -> None:
        gap_s, a = at_s - before.at_s, int(new_turn)
        edge = bisect_left(EDGES_S, gap_s)
        if edge < _N_EDGES:
            self._events[before.stage][a][edge] += 1
            self._left[before.stage][edge] += 1
            long = int(gap_s >= 300)
            self._gaps_s[a][long] += gap_s
            self._n_gaps[a][long] += 1
        self._follows[a][before.tier][tier] += 1
        self._grown += max(units - before.units, 0.0)
        self._seen += units

    def _pass_time(self, now_s: float) -> None:
        """Prefixes that have waited past an edge did not come back before it."""
        if now_s <= self._due_s:
            return
        for number, (edge_s, queue) in enumerate(zip(EDGES_S, self._queues, strict=True)):
            while queue and _first(queue).at_s < now_s - edge_s:
                key, waiting = queue.popitem(last=False)
                self._left[waiting.stage][number] += 1
                if number + 1 < _N_EDGES:
                    self._entered[waiting.stage][number + 1] += 1
                    waiting.edge += 1
                    self._queues[number + 1][key] = waiting
                else:
                    del self._waiting[key]
        self._due_s = min(
            (_first(q).at_s + edge_s for edge_s, q in zip(EDGES_S, self._queues, strict=True) if q), default=inf
        )

    def p_next(self, ttl_short_s: float, ttl_long_s: float) -> Floats:
        """(stages, 2, 2): P(the next request comes in a loop / as a new turn, within the short TTL / by the long)."""
        events = np.asarray(self._events)
        # those still waiting in an interval count half
        at_risk = (np.asarray(self._entered) + np.asarray(self._left)) / 2
        pooled = (events.sum(0) + _PRIOR_WEIGHT * _PRIOR_HAZARDS * _PRIOR_SPLIT) / (at_risk.sum(0) + _PRIOR_WEIGHT)
        hazards = (events + _PRIOR_WEIGHT * pooled) / (at_risk + _PRIOR_WEIGHT)[:, None, :]
        survives = np.cumprod(1 - np.minimum(hazards.sum(1), 0.999), axis=1)
        survives = np.concatenate([np.ones((_N_STAGES, 1)), survives[:, :-1]], axis=1)
        p = hazards * survives[:, None, :]
        edges = np.asarray(EDGES_S)
        short, long = edges <= ttl_short_s, (edges > ttl_short_s) & (edges <= ttl_long_s)
        return np.stack([p[:, :, short].sum(2), p[:, :, long].sum(2)], axis=2)

    def mean_gap_s(self) -> Floats:
        """(2, 2): the mean gap, in a loop / to a new turn, of those up to five minutes / longer."""
        return np.asarray(np.asarray(self._gaps_s) / np.asarray(self._n_gaps))

    def p_tier(self) -> Floats:
        """(2, tiers, tiers): P(tier of the next request | tier of this one), in a loop / at a new turn."""
        n_tiers = len(self._mix)
        stay = np.stack([np.eye(n_tiers) * _PRIOR_STAY, np.zeros((n_tiers, n_tiers))])
        counts = np.asarray(self._follows) + _PRIOR_MIX_WEIGHT * self._mix / self._mix.sum() + stay
        return np.asarray(counts / counts.sum(2, keepdims=True))

    @property
    def growth(self) -> float:
        """What a request adds to the prompt, as a share of it."""
        return self._grown / self._seen

    @property
    def output_share(self) -> float:
        """A reply's length as a share of its prompt's."""
        return self._output / self._seen
