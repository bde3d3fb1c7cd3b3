"""One class of traffic: conversations and the heads that they share, each with its statistics and the costs to come."""

from __future__ import annotations

from collections import deque

from router.cache.future_cost import FutureCost, Rows, UnitCosts
from router.cache.returns import Returns
from router.cache.sharing import Sharing

_MIX = {1: (1.0,), 2: (0.8, 0.2), 3: (0.7, 0.2, 0.1)}
_SWEEPS_A_STEP = 15

Rates = tuple[UnitCosts, ...]
"""What each tier's model costs a unit, cheap to strong: of prompts of one step of the models' prices."""


class TrafficClass:
    """Returns and costs of one class. Costs are apart for each step of the prices, for a model may charge five times as
    much for long prompts, and what is worth caching there is not told by what short ones cost.
    """

    def __init__(self, rates: Rates, sharing: Sharing, first_due: int) -> None:
        """`rates` are those of its first request; it is first solved after `first_due` requests."""
        mix = _MIX[len(rates)]
        self.tails, self.heads = Returns(mix), Returns(mix)
        self._sharing, self._due = sharing, first_due
        self._costs: dict[Rates, tuple[FutureCost, FutureCost]] = {}
        self._solved: dict[Rates, None] = {}
        self._stale: deque[tuple[Rates, FutureCost, Returns]] = deque()
        self._add(rates)

    @property
    def is_solved(self) -> bool:
        """Whether it may be asked."""
        return bool(self._solved)

    def values(self, rates: Rates, tail_stage: int, head_stage: int) -> tuple[Rows, Rows]:
        """What a conversation and a head will cost after a request of these stages, at these rates.

        Rates seen for the first time are solved over the next replies; until then those solved first answer.
        """
        if rates not in self._costs:
            self._add(rates)
            self._mark_stale(rates)
        tails, heads = self._costs[rates if rates in self._solved else next(iter(self._solved))]
        return tails.rows[tail_stage], heads.rows[head_stage]

    def refresh(self) -> bool:
        """A step of solving again, once there are 15 % more requests; whether there was one to take.

        A step is 2 ms, taken after a reply. In one piece it would be 5 ms, for one in twelve of the first 600 requests;
        in pieces of 0.5 ms two of three would take one.
        """
        if not self._stale and self.tails.n_requests >= self._due:
            self._due = int(1.15 * self.tails.n_requests) + 10
            for rates in self._costs:
                self._mark_stale(rates)
        if not self._stale:
            return False
        rates, cost, returns = self._stale[0]
        if not cost.is_begun:
            cost.begin(returns)
        if cost.sweep(_SWEEPS_A_STEP):
            self._stale.popleft()
            if returns is self.tails:
                self._solved[rates] = None
        return True

    def _add(self, rates: Rates) -> None:
        caches = self._sharing
        self._costs[rates] = FutureCost(rates, caches.tails), FutureCost(rates, caches.heads, grows=False)

    def _mark_stale(self, rates: Rates) -> None:
        tails, heads = self._costs[rates]
        self._stale.extend(((rates, heads, self.heads), (rates, tails, self.tails)))  # tails last: then both are solved
