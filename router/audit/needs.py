"""Which tier the calls of a log need: what the classifier says of their asks, or a draw where no text is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from router.audit.calls import Call
from router.decide.leaning import leans
from router.engine import Router
from router.types import Tier

_MAX_CHARS = 20_000


def needs(
    calls: Sequence[Call], router: Router, mix: Sequence[float], seed: int, items: Iterable[int]
) -> tuple[list[Tier], int]:
    """The tier of each call, and how many were read from text. The others are drawn with the shares of `mix`, cheap to
    strong: once a turn, or once a call where the log does not say where a turn begins.

    An ask that leans on the one before it ("yes, do that") is read together with it.
    """
    tiers = tuple(Tier)
    shares = np.asarray(mix, float) / sum(mix)
    chance = np.random.default_rng(seed)
    held: dict[str, tuple[str | None, Tier]] = {}
    known: dict[str, Tier] = {}
    found, n_read = [], 0
    for i in items:
        call = calls[i]
        before = held.get(call.conversation) if call.conversation else None
        text: str | None
        if call.text:
            text = call.text[:_MAX_CHARS]
            if before and before[0] and before[0] != text and leans(text):
                text = f"{before[0]}\n\n{text}"[-_MAX_CHARS:]
            tier, n_read = _decided(text, router, known), n_read + 1
        elif before is not None and call.opens_turn is False:
            tier, text = before[1], before[0]
            n_read += text is not None
        else:
            tier, text = tiers[int(chance.choice(len(tiers), p=shares))], None
        if call.conversation:
            held[call.conversation] = text, tier
        found.append(tier)
    return found, n_read


def _decided(text: str, router: Router, known: dict[str, Tier]) -> Tier:
    if (tier := known.get(text)) is None:
        known[text] = tier = router.decide(text).tier or tuple(Tier)[-1]
    return tier
