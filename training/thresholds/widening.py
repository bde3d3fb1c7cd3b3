"""Thresholds of one class of traffic that widen as evidence allows, and go back when it does not.

Levels are thresholds in a fixed order, each sending down whatever the one before it does, and more. A level is taken
once the capital against "it sends too large a share too low" has reached 1 / error, and all before it were taken. The
risk grows with the level, so a wrong level can only be served if the first wrong one is taken. That has at most that
probability: no price for the number of levels, and none for looking after each label.

The levels are watched meanwhile: when betting on "its risk is above the target" has made as much on the one that is
served, the highest is served on which such a bet has made little. What lies above must be proved anew, at a smaller
error: the first proof has nine tenths of it, each later one a tenth of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log

import msgspec
import numpy as np

from router.types import Tier
from training.build.arrays import Array
from training.thresholds.betting import Capital

SHIFTS = (None, *(float(shift) for shift in np.arange(3.0, -2.01, -0.25)))
"""How far each level's thresholds are from the operating point's, in logits; None sends everything to the top tier."""

ZERO_SHOT = SHIFTS.index(0.0)
"""The level that is the operating point as it is."""

_AHEAD = 4
"""Levels above the one that is served, beyond the operating point as it is, that labels are bought for at once."""


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A class as it is kept between runs. `taken` and `watched` are the logarithms of the capitals."""

    start: int
    level: int
    target: float
    error: float
    n: int
    n_back: int
    taken: list[list[float]]
    watched: list[list[float]]
    n_free: int = 0


class Widening:
    """One class. `level` is served, of those in SHIFTS; levels up to `start` are taken on trust.

    `target` is the share of requests that may be sent too low, `error` the probability of ever serving a level that
    sends more, of those that were proved. `n` labels were seen, and `n_free` requests that need none;
    `n_back` times it went back.
    """

    def __init__(self, start: int, target: float, error: float) -> None:
        """Raises ValueError for a level, a target or an error that cannot be."""
        if not 0 <= start < len(SHIFTS) or not 0 < error < 1:
            raise ValueError(f"start {start} and error {error}: expected a level below {len(SHIFTS)} and a probability")
        self.start = self.level = start
        self.target, self.error = target, error
        self.n = self.n_free = self.n_back = 0
        self._taken, self._watched = (Capital(target, side, n=len(SHIFTS)) for side in ("below", "above"))

    @classmethod
    def of(cls, state: State) -> Widening:
        """As it was kept."""
        made = cls(state.start, state.target, state.error)
        made.level, made.n, made.n_free, made.n_back = state.level, state.n, state.n_free, state.n_back
        made._taken = Capital(state.target, "below", np.array(state.taken))
        made._watched = Capital(state.target, "above", np.array(state.watched))
        return made

    def state(self) -> State:
        """What is kept of it."""
        taken, watched = self._taken.logs.tolist(), self._watched.logs.tolist()
        return State(self.start, self.level, self.target, self.error, self.n, self.n_back, taken, watched, self.n_free)

    def add(self, losses: Array, *, weight: float = 1.0, horizon: int | None = None, is_labelled: bool = True) -> None:
        """One request: P(sent too low) at each level [n_levels], which does not fall from level to level.

        `weight` as in `Capital.add`, where requests were not drawn evenly. A `horizon` says that the losses are known
        up to that level alone: a request that goes to the top tier there cannot go too low, and needs no label. All
        requests of such a draw must be added, with one horizon, which was chosen before.
        """
        if is_labelled:
            self.n += 1
        else:
            self.n_free += 1
        known = None if horizon is None else horizon + 1
        self._taken.add(losses, weight, known)
        self._watched.add(losses, weight, known)
        self._watched.begin_anew(self._watched.log < 0)  # a past that was good does not hide what has changed
        if self._watched.log[self.level] >= log(1 / self.error) and self.level > 0:
            self._go_back()
            return
        proved = self._taken.log >= self._needed
        while self.level + 1 < len(SHIFTS) and proved[self.level + 1]:
            self.level += 1

    @property
    def horizon(self) -> int:
        """Up to which level labels are worth having next: what is shown to send too much too low is left alone."""
        most = min(max(ZERO_SHOT, self.level + _AHEAD), len(SHIFTS) - 1)
        open_ = np.flatnonzero(self._watched.log[: most + 1] < log(1 / self.error))
        return max(int(open_[-1]), self.level) if len(open_) else self.level

    @property
    def _needed(self) -> float:
        """The logarithm of what a capital must reach: all errors together stay below the one that is allowed."""
        return log(1 / (self.error * 0.9 * 0.1**self.n_back))

    @property
    def is_proved(self) -> bool:
        """Whether the served level's risk is shown to be below the target, beyond trust."""
        return bool(self._taken.log[self.level] >= self._needed)

    def _go_back(self) -> None:
        """To the highest level below that nothing much speaks against."""
        self.n_back += 1
        good = np.flatnonzero(self._watched.log[: self.level] < log(1 / self.error) / 2)
        self.level = int(good[-1]) if len(good) else 0
        self._taken.begin_anew(slice(self.level + 1, None))
        self._watched.begin_anew(slice(0, self.level + 1))


def thresholds_at(level: int, base: Mapping[Tier, float]) -> dict[Tier, float]:
    """The thresholds of a level, from those of an operating point: P(suffices) from which a tier is taken."""
    shift = SHIFTS[level]
    if shift is None:
        return dict.fromkeys(base, 1.0)
    return {tier: min(1 / (1 + exp(-(_logit(value) + shift))), 1.0) for tier, value in base.items()}


def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return log(p / (1 - p))


def losses_at_each(p_suffices: Sequence[float], p_required: Array, base: Mapping[Tier, float]) -> Array:
    """P(sent too low) of one request at each level [n_levels].

    `p_suffices` is the classifier's, by tier; `p_required` [n_tiers] the label's. A fleet with all three tiers.
    """
    too_low = np.array([float(p_required[sent + 1 :].sum()) for sent in range(len(Tier))])
    return too_low[[sent_at(thresholds_at(level, base), p_suffices) for level in range(len(SHIFTS))]]


def sent_at(thresholds: Mapping[Tier, float], p_suffices: Sequence[float]) -> int:
    """The rank of the cheapest tier whose P(suffices) reaches its threshold, else the top one's."""
    lower = list(Tier)[:-1]
    return next((tier.rank for tier, p in zip(lower, p_suffices, strict=False) if p >= thresholds[tier]), len(lower))
