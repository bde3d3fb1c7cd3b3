"""Whether a decision is acted on: always, never (shadow), or for a share of the conversations (canary)."""

from __future__ import annotations

import random
from typing import Literal

import msgspec
from xxhash import xxh3_64_intdigest

Mode = Literal["on", "shadow", "canary"]
"""`on` routes. `shadow` decides, prices and records, and sends what the caller asked for. `canary` routes a share of
the conversations and treats the others as in shadow."""


class Trial(msgspec.Struct, frozen=True):
    """A mode, and the share of conversations that a canary routes, in [0, 1]."""

    mode: Mode = "on"
    share: float = 0.1

    def routes(self, conversation: str) -> bool:
        """Whether the requests of a conversation are routed; a conversation stays on its side. A request without one
        is drawn by itself."""
        if self.mode != "canary":
            return self.mode == "on"
        drawn = xxh3_64_intdigest(conversation.encode()) / 2**64 if conversation else random.random()
        return drawn < self.share

    def propensity(self, *, routed: bool) -> float:
        """The probability with which a conversation came to be on its side."""
        return (self.share if routed else 1 - self.share) if self.mode == "canary" else 1.0


ON = Trial()
"""Every decision is acted on."""
