"""Requests of each class that wait for a label: which of them need one, in which order, and whose turn it is.

A request that goes to the top tier at every level in question cannot go too low there, whatever it needs. So only those
that would go down are judged, and the others are evidence that costs nothing. All requests of a class are gone through
in one order, by a hash of their text, which tells nothing of what they need: no weights are needed, and a run that was
cut short goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from router.engine import Router
from router.types import Tier
from training.thresholds.learned import File, key_of, p_suffices, widening_of
from training.thresholds.widening import Widening, sent_at, thresholds_at

BLOCK = 20
"""Requests that are judged before the levels move and another class may have its turn."""

_TOP = len(Tier) - 1


@dataclass(frozen=True)
class Asked:
    """A request without a label, and what its row holds."""

    text: str
    row: dict[str, Any]
    p_suffices: Sequence[float]


@dataclass
class Pool:
    """What waits of one class; `n` requests were read in all."""

    name: str
    widening: Widening
    waiting: list[Asked]
    n: int

    def value(self, router: Router) -> float:
        """What a label may change: requests that would move down, over the labels that there are."""
        horizon, served = self.widening.horizon, self.widening.level
        if not self.waiting or horizon <= served:
            return 0.0
        moves = self._goes_up(served, router) & ~self._goes_up(horizon, router)
        return float(self.n * moves.mean() / (1 + self.widening.n))

    def block(self, router: Router) -> list[tuple[Asked, bool]]:
        """The next requests, each with whether it needs a label: at most BLOCK of them do."""
        needs = ~self._goes_up(self.widening.horizon, router)
        # It ends with the last that needs one: to end before the next would leave out what that one might tell.
        end = int(np.searchsorted(np.cumsum(needs), BLOCK)) + 1
        return list(zip(self.waiting[:end], needs[:end].tolist(), strict=True))

    def drop(self, block: Sequence[tuple[Asked, bool]]) -> None:
        """What was gone through waits no more."""
        del self.waiting[: len(block)]

    def _goes_up(self, level: int, router: Router) -> npt.NDArray[np.bool_]:
        """Whether each that waits goes to the top tier at a level."""
        base = router.policy.champion.manifest.operating_points[router.operating_point].thresholds
        at = thresholds_at(level, base)
        return np.array([sent_at(at, each.p_suffices) == _TOP for each in self.waiting], bool)


def pools_of(
    requests: Iterable[tuple[int, str, dict[str, Any]]],
    file: File,
    router: Router,
    *,
    start: int,
    target: float,
    error: float,
) -> tuple[dict[str, Pool], int]:
    """Each class's requests, each text once and without those seen before; and how many rows name no class."""
    texts: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
    counts: dict[str, int] = {}
    n_classless = 0
    for _, text, row in requests:
        name = str(row.get("class") or "")
        if not name:
            n_classless += 1
            continue
        counts[name] = counts.get(name, 0) + 1
        texts.setdefault(name, {}).setdefault(key_of(text), (text, row))
    pools = {}
    for name, by_key in texts.items():
        seen = set(file.seen.get(name, ()))
        waiting = [
            Asked(text, row, p_suffices(text, name, router))
            for key, (text, row) in sorted(by_key.items())
            if key not in seen
        ]
        pools[name] = Pool(name, widening_of(file, name, start, target, error), waiting, counts[name])
    return pools, n_classless
