"""What the running requests of a key may cost, held back of its budget by all replicas together."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from decimal import Decimal
from typing import Any

_logger = logging.getLogger("tierwise")

_TIMEOUT_S = 0.5
_REST_S = 5.0
_SETTLED_S = 15.0
"""A cost reaches the database, and from there the other replicas, in less."""
_PICO = 10**12

# A sorted set a key: each request's name and picodollars, by when they are no longer held.
_HOLD = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local held = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  held = held + tonumber(string.match(member, ':(%d+)$'))
end
if held >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3])) + 60)
return 1
"""
_SETTLE = """
local now = redis.call('TIME')
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now[1] + now[2] / 1000000 + tonumber(ARGV[3]), ARGV[2])
return 1
"""


class Holds:
    """Of one process alone: `Budgets` holds them back already, so nothing is done here."""

    async def hold(self, key: str, usd: Decimal, left: Decimal) -> str | None:  # noqa: ARG002
        """Hold USD of what is left of a key's budget; the name to settle it by, None where others hold the rest."""
        return ""

    def settle(self, key: str, name: str, usd: Decimal) -> None:
        """The request is over; its cost is on the way to the database, and is held until it is there."""

    async def close(self) -> None:
        """Nothing is held."""


class RedisHolds(Holds):
    """Of all replicas. While Redis is away each holds back only its own."""

    def __init__(self, url: str, longest_s: float) -> None:
        """`longest_s` is how long a request may take at most: then its hold ends by itself, whatever became of it.

        Raises ImportError without the extra `redis`. Nothing is connected yet.
        """
        import redis.asyncio

        options: dict[str, Any] = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
        self._redis = redis.asyncio.from_url(url, **options)
        self._hold, self._settle = self._redis.register_script(_HOLD), self._redis.register_script(_SETTLE)
        self._longest_s, self._again_s = longest_s, 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def hold(self, key: str, usd: Decimal, left: Decimal) -> str | None:
        """See Holds."""
        if time.monotonic() < self._again_s:
            return ""
        name = _member(usd)
        try:
            held = await self._hold(keys=[f"tierwise:held:{key}"], args=(name, int(left * _PICO), self._longest_s))
            return name if held else None
        except Exception as exc:  # whatever Redis does, requests go on
            self._again_s = time.monotonic() + _REST_S
            _logger.error("each replica holds back only its own budgets until Redis is back: %s", type(exc).__name__)
            return ""

    def settle(self, key: str, name: str, usd: Decimal) -> None:
        """See Holds."""
        if name:
            task = asyncio.get_running_loop().create_task(self._settled(key, name, usd))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _settled(self, key: str, name: str, usd: Decimal) -> None:
        try:
            await self._settle(keys=[f"tierwise:held:{key}"], args=(name, _member(usd), _SETTLED_S))
        except Exception as exc:  # then it ends by itself
            _logger.info("a hold was not settled: %s", type(exc).__name__)

    async def close(self) -> None:
        """Give the connections back."""
        await asyncio.gather(*self._tasks)
        await self._redis.aclose()


def _member(usd: Decimal) -> str:
    return f"{secrets.token_hex(8)}:{max(int(usd * _PICO), 0)}"
