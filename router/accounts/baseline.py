"""The always-top-tier baseline: what the same traffic would have cost.

The baseline is the strongest honest one: the same tokens on the fleet's top model with prompt caching, its cache
warm or cold by its own history, at whichever TTL is cheaper over all calls. Output is assumed equally long on every
model, and tokens are not scaled between tokenizers (newer Claude models yield about 30 % more), so a saving over an
older cheap tier is understated rather than overstated.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import msgspec

from router.accounts.bill import Find, bill
from router.accounts.bill import cost as cost
from router.catalog import Model, day
from router.prices import BATCH_FACTOR as BATCH_FACTOR
from router.types import Usage


@dataclass(slots=True)
class _Arm:
    """One way to cache the baseline: at which TTL, the tools and system prompt alone or the conversation too.

    `warm` maps a prefix key to its expiry in seconds and its tokens; `total_usd` is the cost so far.
    """

    ttl: Literal["short", "long"]
    ttl_s: int
    has_tail: bool
    warm: OrderedDict[str, tuple[float, int]]
    total_usd: Decimal = Decimal(0)


class Baseline:
    """What the same traffic would cost on one model with caching: a counterfactual cache for each way. Thread-safe."""

    def __init__(self, model: Model, *, max_prefixes: int = 50_000) -> None:
        self.model = model
        self._max_prefixes = max_prefixes
        self._lock = threading.Lock()
        self._arms = [_Arm("short", model.ttl_short_s, has_tail, OrderedDict()) for has_tail in (False, True)]
        if model.ttl_long_s is not None and model.prices[0].cache_write_long is not None:
            self._arms += [_Arm("long", model.ttl_long_s, has_tail, OrderedDict()) for has_tail in (False, True)]

    def cost(
        self,
        usage: Usage,
        prefix_key: str,
        prefix_tokens: int,
        at_s: float,
        *,
        conversation: str = "",
        known_tokens: int = 0,
        answered: Model | None = None,
        find: Find | None = None,
    ) -> Decimal | None:
        """USD by which this call raises the baseline: over any run of calls these sum to the cheapest way's total.

        `prefix_tokens` of the call's input could be cached under `prefix_key`, `known_tokens` of it were in the last
        request of `conversation`; `at_s` is when the request started. Tier, speed, place, batch, tools and parts are
        the call's, priced as on `answered` (the model that did) where this one has no price for them.
        """
        if not usage.is_known:
            return None
        on = day(at_s)
        with self._lock:
            if usage.input_tokens < self.model.cache_min_tokens:  # the same every way
                usd = bill(self._billed(self._arms[0], usage, 0, 0), self.model, on, find, instead_of=answered).usd
                for arm in self._arms:
                    arm.total_usd += usd or Decimal(0)
                return usd
            before = min(arm.total_usd for arm in self._arms)
            added = []
            for arm in self._arms:
                if arm.has_tail and conversation:
                    counted = self._whole(arm, usage, (prefix_key, prefix_tokens), at_s, conversation, known_tokens)
                else:
                    counted = self._counterfactual(arm, usage, prefix_key, prefix_tokens, at_s)
                usd = bill(counted, self.model, on, find, instead_of=answered).usd
                if usd is None:
                    return None
                added.append(usd)
            for arm, usd in zip(self._arms, added, strict=True):
                arm.total_usd += usd
            return min(arm.total_usd for arm in self._arms) - before

    def _counterfactual(self, arm: _Arm, usage: Usage, key: str, prefix_tokens: int, at_s: float) -> Usage:
        """The call with its tools and system prompt cached."""
        prefix = min(prefix_tokens, usage.input_tokens)
        if not key or prefix < self.model.cache_min_tokens:
            return self._billed(arm, usage, 0, 0)
        read = min(self._held(arm, key, at_s), prefix)
        self._keep(arm, key, prefix, at_s)
        return self._billed(arm, usage, read, prefix - read)

    def _whole(
        self, arm: _Arm, usage: Usage, head: tuple[str, int], at_s: float, conversation: str, known_tokens: int
    ) -> Usage:
        """The call with all of its prompt cached: what the conversation's last request left is read, else the head."""
        total = usage.input_tokens
        if total < self.model.cache_min_tokens:
            return self._billed(arm, usage, 0, 0)
        read = min(self._held(arm, conversation, at_s), known_tokens, total)
        if head[0] and head[1] >= self.model.cache_min_tokens:
            read = max(read, min(self._held(arm, head[0], at_s), total))
            self._keep(arm, head[0], min(head[1], total), at_s)
        self._keep(arm, conversation, total, at_s)
        return self._billed(arm, usage, read, total - read)

    def _held(self, arm: _Arm, key: str, at_s: float) -> int:
        expiry, held = arm.warm.pop(key, (0.0, 0))
        return held if expiry > at_s else 0

    def _keep(self, arm: _Arm, key: str, tokens: int, at_s: float) -> None:
        arm.warm[key] = (at_s + arm.ttl_s, tokens)
        if len(arm.warm) > self._max_prefixes:
            arm.warm.popitem(last=False)

    def _billed(self, arm: _Arm, usage: Usage, read: int, written: int) -> Usage:
        free_writes = self.model.prices[0].cache_write_short is None
        return msgspec.structs.replace(
            usage,
            fresh_tokens=usage.input_tokens - read - (0 if free_writes else written),
            cache_read_tokens=read,
            cache_write_short_tokens=written if arm.ttl == "short" and not free_writes else 0,
            cache_write_long_tokens=written if arm.ttl == "long" else 0,
        )
