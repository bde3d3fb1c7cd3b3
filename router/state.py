"""Where conversations are remembered between requests: in memory, in SQLite, or in Redis for several replicas.

What is kept is a `Hold` a conversation (its tier, hashes of its prefix, what is warm where): no prompt, no reply.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from router.errors import SettingsError

KEEP_S = 86_400
"""A conversation that was silent for so many seconds is forgotten."""

_logger = logging.getLogger("tierwise")


class State(Protocol):
    """A store of small values by key. Thread-safe."""

    def first(self, keys: Sequence[str]) -> bytes | None:
        """The value of the first key that has one."""

    def put(self, keys: Sequence[str], value: bytes) -> None:
        """Keep a value under each of the keys."""


class MemoryState:
    """In this process; the longest untouched are forgotten beyond `max_keys`."""

    def __init__(self, max_keys: int = 200_000) -> None:
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._max_keys = max_keys
        self._lock = threading.Lock()

    def first(self, keys: Sequence[str]) -> bytes | None:
        with self._lock:
            return next((self._values[key] for key in keys if key in self._values), None)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        with self._lock:
            for key in keys:
                self._values[key] = value
                self._values.move_to_end(key)
            while len(self._values) > self._max_keys:
                self._values.popitem(last=False)


class SqliteState:
    """In a file, for one machine: survives a restart."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates the database. Raises sqlite3.Error if the file is not one."""
        self._clock, self._lock, self._writes = clock, threading.Lock(), 0
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB, at REAL) WITHOUT ROWID")

    def first(self, keys: Sequence[str]) -> bytes | None:
        marks = ", ".join("?" * len(keys))
        with self._lock:
            rows = dict(self._db.execute(f"SELECT key, value FROM state WHERE key IN ({marks})", tuple(keys)))
        return next((rows[key] for key in keys if key in rows), None)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        now = self._clock()
        with self._lock:
            self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", [(key, value, now) for key in keys])
            self._writes += 1
            if self._writes % 1000 == 0:
                self._db.execute("DELETE FROM state WHERE at < ?", (now - KEEP_S,))


class RedisState:
    """In Redis, for several replicas. While it is away this process remembers alone, and says so once."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError when the redis package is missing; an absent server is no error."""
        try:
            import redis
        except ImportError as exc:
            raise SettingsError('a redis:// state needs the redis package; pip install "tierwise[gateway]"') from exc
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=0.25, socket_connect_timeout=0.25)
        self._error: type[Exception] = redis.RedisError
        self._alone, self._away_until_s = MemoryState(), 0.0

    def first(self, keys: Sequence[str]) -> bytes | None:
        found = self._try(lambda: self._redis.mget([f"tierwise:{key}" for key in keys])) or ()
        return next((value for value in found if value is not None), None) or self._alone.first(keys)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        def send() -> bool:
            pipe = self._redis.pipeline(transaction=False)
            for key in keys:
                pipe.set(f"tierwise:{key}", value, ex=KEEP_S)
            pipe.execute()
            return True

        if not self._try(send):
            self._alone.put(keys, value)

    def _try(self, work: Callable[[], Any]) -> Any:
        if time.monotonic() < self._away_until_s:
            return None
        try:
            return work()
        except self._error as exc:
            _logger.warning("redis is away (%s): this process remembers conversations alone", type(exc).__name__)
            self._away_until_s = time.monotonic() + 5.0
            return None


def open_state(url: str | None) -> State:
    """The store for a setting: None for memory, `redis://...` (or rediss, unix), or the path of an SQLite file."""
    if url is None:
        return MemoryState()
    if url.startswith(("redis://", "rediss://", "unix://")):
        return RedisState(url)
    return SqliteState(url)
