"""Tests by betting: what observed losses prove, whenever one looks.

A player bets against a hypothesis, and on average gains nothing while it is true. So their capital reaches 1 / level
with at most that probability, however often it is looked at (Ville's inequality). Here the capital is the mean of
several players', who stake fixed shares: no estimate is needed, and the mean is as valid as each.
Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024),
https://arxiv.org/abs/2010.09686, read 2026-11-27.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from training.build.arrays import Array

_STAKES = {"below": np.array([0.3, 0.6, 0.98]), "above": np.array([0.05, 0.15, 0.4])}
"""Of what can be staked. A risk far below the target is shown soonest by the boldest; a risk above it by losses that
are rare all the same, before which a bold player has lost everything."""


class Capital:
    """What betting against "the risk is `target` or more" (`side` "below") or "... or less" ("above") has made.

    Several risks may be bet on at once, each with its own losses. `logs` [n, n_players] are the logarithms of each
    player's capital; they are all that must be kept.
    """

    def __init__(self, target: float, side: Literal["below", "above"], logs: Array | None = None, n: int = 1) -> None:
        """`target` is in (0, 1), `n` the number of risks. Raises ValueError otherwise."""
        if not 0 < target < 1:
            raise ValueError(f"the target is {target}, expected a share between 0 and 1")
        self._target, self._sign = target, 1.0 if side == "below" else -1.0
        # A stake of all would lose everything on the worst outcome: 1 for "below", 0 for "above".
        stakes = _STAKES[side]
        self._bets = stakes / ((1 - target) if side == "below" else target)
        self.logs = np.zeros((n, len(stakes))) if logs is None else np.array(logs, float).reshape(-1, len(stakes))

    def add(self, losses: Array, weight: float = 1.0, known: int | None = None) -> None:
        """One loss in [0, 1] of each risk [n], or of the first `known`.

        `weight` in (0, 1] is what the row stands for, over the most that any row of its draw could: the risk is then
        that of the traffic, for "sum(weight * loss) is target * sum(weight) or more" is what is bet against.
        """
        gains = self._bets * self._sign * weight * (self._target - losses[:known, None])
        self.logs[:known] += np.log1p(gains)

    @property
    def log(self) -> Array:
        """The logarithm of the capital on each risk [n]; what was put in is 0."""
        most = self.logs.max(axis=1)
        found: Array = most + np.log(np.exp(self.logs - most[:, None]).mean(axis=1))
        return found

    def begin_anew(self, which: npt.NDArray[np.bool_] | slice = slice(None)) -> None:
        """Put in what was put in at first, for some risks."""
        self.logs[which] = 0.0
