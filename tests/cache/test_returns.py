"""What is learned of when prefixes come back."""

from __future__ import annotations

import numpy as np
import pytest

from router.cache.returns import EDGES_S, Returns, stage

MIX = (0.7, 0.2, 0.1)


def chats(returns: Returns, n: int, *, gap_s: float, n_turns: int, every_s: float = 10.0) -> None:
    """n conversations, one starting every `every_s`, each of so many turns."""
    events = sorted((c * every_s + t * gap_s, c, t) for c in range(n) for t in range(n_turns))
    for at_s, conversation, turn in events:
        returns.arrive(str(conversation), at_s, 0, new_turn=True, units=1000.0 * (turn + 1))


def test_stages() -> None:
    assert [stage(n) for n in range(1, 7)] == [0, 1, 2, 2, 3, 3]


def test_before_anything_is_known_reuse_is_expected() -> None:
    short, later = Returns(MIX).p_next(300, 3600).sum(1).mean(0)
    hour = short + later
    assert 0.5 < short < 0.75
    assert short < hour < 0.9


def test_conversations_that_never_come_back_are_learned() -> None:
    returns = Returns(MIX)
    chats(returns, 1000, gap_s=1.0, n_turns=1)
    assert returns.p_next(300, 3600)[0].sum() < 0.05


def test_gaps_are_told_apart_by_lifetime() -> None:
    returns = Returns(MIX)
    chats(returns, 800, gap_s=900.0, n_turns=2)
    p = returns.p_next(300, 3600)[0]
    assert p[:, 0].sum() < 0.05  # within five minutes
    assert p[1, 1] > 0.85  # later, as a new turn
    assert returns.mean_gap_s()[1, 1] == pytest.approx(900, rel=0.01)


def test_those_that_still_wait_are_not_read_as_lost() -> None:
    """Half the conversations come back after 50 minutes; the class is watched for an hour."""
    returns = Returns(MIX)
    events = [(c * 2.0, str(c)) for c in range(1500)] + [(c * 2.0 + 3000, str(c)) for c in range(0, 1500, 2)]
    for at_s, key in sorted(event for event in events if event[0] < 3600):
        returns.arrive(key, at_s, 0, new_turn=True, units=1000)
    assert 0.35 < returns.p_next(300, 3600)[0, 1, 1] < 0.7


def test_tiers_follow_one_another() -> None:
    returns = Returns(MIX)
    for turn in range(200):
        returns.arrive("c", 10.0 * turn, turn % 2 * 2, new_turn=True, units=1000)
        returns.arrive("loop", 10.0 * turn, 1, new_turn=False, units=1000)
    p = returns.p_tier()
    assert p.sum(2) == pytest.approx(np.ones((2, 3)))
    assert p[1, 0, 2] > 0.9
    assert p[0, 1, 1] > 0.9


def test_memory_is_bounded() -> None:
    returns = Returns(MIX, max_waiting=100)
    chats(returns, 5000, gap_s=1.0, n_turns=1, every_s=0.1)
    assert len(returns._waiting) <= 100
    returns.arrive("late", 1e6, 0, new_turn=True, units=1)
    assert len(returns._waiting) == 1
    returns.arrive("later", 1e6 + 2 * EDGES_S[-1], 0, new_turn=True, units=1)
    for number in range(1000):
        returns.arrive("busy", 2e6 + number * 0.001, 0, new_turn=True, units=1)
    assert sum(map(len, returns._queues)) == len(returns._waiting) == 1
