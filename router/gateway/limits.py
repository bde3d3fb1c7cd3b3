"""What one caller, and all together, may take: concurrent requests, requests a minute, USD a day and a month."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

from router.gateway.keys import Key
from router.gateway.store import JournalEntry, Spent, Store, spent_by
from router.gateway.wire import Refusal

_logger = logging.getLogger("tierwise")

_REDIS_TIMEOUT_S = 0.5
_REDIS_REST_S = 5.0

# The generic cell rate algorithm: one number a key, exact over any minute, the same in Redis and in memory.
_GCRA = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1000000
local at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + 60 / tonumber(ARGV[1])
local wait = at - 60 - now
if wait > 0.000001 then return tostring(wait) end
redis.call('SET', KEYS[1], string.format('%.6f', at), 'PX', 60000)
return '0'
"""


class Slots:
    """At most so many requests at once, and so many waiting; whoever comes then is turned away."""

    def __init__(self, max_concurrent: int, max_queue: int, queue_timeout_s: float) -> None:
        self.n_waiting = 0
        self.n_running = 0
        self._max_queue = max_queue
        self._timeout_s = queue_timeout_s
        self._max_concurrent = max_concurrent
        self._free = asyncio.Semaphore(max_concurrent)
        self._of_key: Counter[str] = Counter()

    async def acquire(self, key: str | None = None, most: int | None = None) -> None:
        """A slot, of which the holder of a key has at most so many. Raises Refusal (429 with retry-after) beyond them,
        or when the queue is full or has not moved in time.
        """
        if key is not None and most is not None and self._of_key[key] >= most:
            raise _busy(f"{most} requests of this key run already")
        if key is not None:
            self._of_key[key] += 1
        try:
            await self._acquire()
        except BaseException:
            self._forget(key)
            raise

    async def _acquire(self) -> None:
        if self._free.locked():
            if self.n_waiting >= self._max_queue:
                raise _busy(f"{self._max_concurrent} requests run and {self.n_waiting} wait")
            self.n_waiting += 1
            try:
                await asyncio.wait_for(self._free.acquire(), self._timeout_s)
            except TimeoutError:
                raise _busy(f"no request finished within {self._timeout_s:g} s") from None
            finally:
                self.n_waiting -= 1
        else:
            await self._free.acquire()
        self.n_running += 1

    def release(self, key: str | None = None) -> None:
        """Let the next one in."""
        self._forget(key)
        self.n_running -= 1
        self._free.release()

    def _forget(self, key: str | None) -> None:
        if key is not None:
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]


class Uploads:
    """Bytes of bodies that may be in memory at once, all callers together."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, n_bytes: int) -> None:
        """Raises Refusal (429 with retry-after) beyond the limit; nothing is taken then."""
        if n_bytes > self._left:
            raise _busy("the bodies of other requests fill its memory (gateway.max_upload_bytes)")
        self._left -= n_bytes

    def give_back(self, n_bytes: int) -> None:
        """The request is over."""
        self._left += n_bytes


class RateLimits:
    """Requests a minute by key, counted in this process."""

    trouble: str | None = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # one that is never set back, which would lock everybody out until it has caught up
        self._due: dict[str, float] = {}

    async def wait_s(self, key: str, a_minute: int) -> float:
        """Count one request; seconds until it may come again where that is one too many, else 0."""
        now = self._clock()
        due = max(self._due.get(key, 0.0), now) + 60 / a_minute
        wait_s = due - 60 - now
        if wait_s > 1e-6:
            return wait_s
        self._due[key] = due
        return 0.0

    async def close(self) -> None:
        """Nothing is held."""


class RedisRateLimits(RateLimits):
    """Requests a minute by key, counted by all replicas together; in this process while Redis is away."""

    def __init__(self, url: str) -> None:
        """Raises ImportError without the extra `redis`. Nothing is connected yet."""
        super().__init__()
        import redis.asyncio

        options: dict[str, Any] = {"socket_timeout": _REDIS_TIMEOUT_S, "socket_connect_timeout": _REDIS_TIMEOUT_S}
        self._redis = redis.asyncio.from_url(url, **options)
        self._count = self._redis.register_script(_GCRA)
        self._again_s = 0.0

    async def wait_s(self, key: str, a_minute: int) -> float:
        """See Rates."""
        if time.monotonic() >= self._again_s:
            try:
                wait_s = float(await self._count(keys=[f"tierwise:rate:{key}"], args=[a_minute]))
            except Exception as exc:  # whatever Redis does, requests go on
                self._again_s = time.monotonic() + _REDIS_REST_S
                if self.trouble is None:
                    _logger.error("each replica counts requests by itself until Redis is back: %s", type(exc).__name__)
                self.trouble = type(exc).__name__
            else:
                if self.trouble is not None:
                    _logger.warning("Redis is back")
                self.trouble = None
                return wait_s
        return await super().wait_s(key, a_minute)

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()


class Budgets:
    """What each key has spent: as the database says, for all replicas, plus what has not reached it yet, plus what its
    running requests are expected to cost at most.

    So one request can overrun a budget by its own cost, and no number of concurrent ones by more. Replicas hold back
    together where they share Redis (router/gateway/holds.py); else each can overrun it by one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: Spent = {}
        self._pending: Spent = defaultdict(Decimal)
        self._reserved: dict[str, Decimal] = {}

    def reserve(self, key: Key, usd: Decimal) -> None:
        """Hold back what a request may cost until `release`. Raises Refusal (429) as `check`; nothing is held then."""
        with self._lock:
            self._check(key)
            self._reserved[key.id] = self._reserved.get(key.id, Decimal(0)) + usd

    def release(self, key: Key, usd: Decimal) -> None:
        """The request is over, and what it did cost has been added."""
        with self._lock:
            left = self._reserved[key.id] - usd
            if left:
                self._reserved[key.id] = left
            else:
                del self._reserved[key.id]

    def left(self, key: Key) -> Decimal:
        """USD that the key may still spend today and this month, by what is known here; below zero where it has
        overspent."""
        with self._lock:
            return min((limit - used for _, used, limit in self._used(key) if limit is not None), default=Decimal(0))

    def add(self, entry: JournalEntry) -> None:
        """Count a record that is in the journal now."""
        self._move([entry], 1)

    def applied(self, entries: Sequence[JournalEntry]) -> None:
        """These records have reached the database."""
        self._move(entries, -1)
        with self._lock:
            for at, usd in spent_by(entries).items():
                self._stored[at] = self._stored.get(at, Decimal(0)) + usd

    def refresh(self, store: Store) -> None:
        """Read what all replicas have spent since the month began."""
        stored = store.spent(dt.datetime.now(dt.UTC).date().replace(day=1))
        with self._lock:
            self._stored = stored

    def check(self, key: Key) -> None:
        """Raises Refusal (429) when the key's budget is used up, or what is left of it is held for running requests."""
        if key.has_budget:
            with self._lock:
                self._check(key)

    def _used(self, key: Key) -> Iterator[tuple[str, Decimal, Decimal | None]]:
        """ "day" or "month", what was spent in it, and the limit."""
        today = dt.datetime.now(dt.UTC).date()
        spent = [(d, u) for part in (self._stored, self._pending) for (k, d), u in part.items() if k == key.id]
        day = sum((usd for at, usd in spent if at == today), Decimal(0))
        month = sum((usd for at, usd in spent if at >= today.replace(day=1)), Decimal(0))
        yield "day", day, key.usd_a_day
        yield "month", month, key.usd_a_month

    def _check(self, key: Key) -> None:
        reserved = self._reserved.get(key.id, Decimal(0))
        for what, used, limit in self._used(key):
            if limit is not None and used >= limit:
                message = f"the key {key.name!r} has used ${used:.4f} of the ${limit} that it may spend a {what}"
                raise Refusal(429, "billing_error", message, final=True)
            if limit is not None and used + reserved >= limit:
                raise held_back(f"the rest of the ${limit} that the key {key.name!r} may spend a {what}")

    def _move(self, entries: Sequence[JournalEntry], sign: int) -> None:
        with self._lock:
            for at, usd in spent_by(entries).items():
                self._pending[at] += sign * usd


def held_back(what: str) -> Refusal:
    """429 for a request that may come again when others are over."""
    message = f"{what} is held for its requests that run; try again shortly"
    return Refusal(429, "rate_limit_error", message, retry_after_s=1)


def _busy(why: str) -> Refusal:
    return Refusal(429, "rate_limit_error", f"the gateway is busy: {why}; try again shortly", retry_after_s=1)
