"""Where conversations are remembered between requests: in memory, in SQLite, or in Redis for several replicas.

What is kept is a `Hold` a conversation (its tier, hashes of its prefix, what is warm where): no prompt, no reply. What
models think in tool loops (router/formats/states.py) is text of replies: it goes beyond this process by setting alone.
"""

from __future__ import annotations

import logging
import os
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

_TIMEOUT_S = 0.25
_AGAIN_AFTER_S = 5.0

_logger = logging.getLogger("tierwise")


class Memory(Protocol):
    """A store of small values by key. Thread-safe. `trouble` says what is wrong with it, None when it is well;
    `keeps_reasoning` whether text of models' thinking may be put there."""

    trouble: str | None
    keeps_reasoning: bool

    def first(self, keys: Sequence[str]) -> bytes | None:
        """The value of the first key that has one."""

    def put(self, keys: Sequence[str], value: bytes) -> None:
        """Keep a value under each of the keys."""


class InProcessMemory:
    """In this process; the longest untouched are forgotten beyond `max_keys`, and beyond `max_bytes` in all."""

    trouble: str | None = None
    keeps_reasoning = False

    def __init__(self, max_keys: int = 200_000, max_bytes: int = 200_000_000) -> None:
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._max_keys, self._max_bytes, self._n_bytes = max_keys, max_bytes, 0
        self._lock = threading.Lock()

    def first(self, keys: Sequence[str]) -> bytes | None:
        with self._lock:
            return next((self._values[key] for key in keys if key in self._values), None)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        with self._lock:
            for key in keys:
                before = self._values.get(key)
                self._n_bytes += len(value) - len(before) if before is not None else len(key) + len(value)
                self._values[key] = value
                self._values.move_to_end(key)
            while len(self._values) > self._max_keys or self._n_bytes > self._max_bytes:
                oldest, gone = self._values.popitem(last=False)
                self._n_bytes -= len(oldest) + len(gone)


class _Away(Exception):
    """The store cannot be used now."""


class _Kept:
    """What a store outside this process has in common: while it is away this process remembers alone, and says so."""

    trouble: str | None = None
    """What is wrong with the store, None when it is well."""

    keeps_reasoning = False

    def __init__(self, what: str) -> None:
        self._what, self._alone, self._away_until_s = what, InProcessMemory(), 0.0

    def first(self, keys: Sequence[str]) -> bytes | None:
        found = self._try(lambda: self._read(keys)) or {}
        return next((found[key] for key in keys if key in found), None) or self._alone.first(keys)

    def put(self, keys: Sequence[str], value: bytes) -> None:
        if self._try(lambda: self._write(keys, value)) is None:
            self._alone.put(keys, value)

    def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values there are. Raises _Away."""
        raise NotImplementedError

    def _write(self, keys: Sequence[str], value: bytes) -> bool:
        """True. Raises _Away."""
        raise NotImplementedError

    def _try(self, use: Callable[[], Any]) -> Any:
        """What `use` gives; None while the store is away, which is tried again every few seconds only."""
        if time.monotonic() < self._away_until_s:
            return None
        try:
            found = use()
        except _Away as exc:
            if self.trouble is None:
                _logger.warning("%s is away (%s): this process remembers conversations alone", self._what, exc)
            self.trouble, self._away_until_s = str(exc), time.monotonic() + _AGAIN_AFTER_S
            return None
        if self.trouble is not None:
            _logger.warning("%s is back", self._what)
        self.trouble = None
        return found


class SqliteMemory(_Kept):
    """In a file, for one machine: survives a restart."""

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.time) -> None:
        """Opens or creates the database. Raises sqlite3.Error if the file is not one."""
        super().__init__("the state file")
        made_private(path)
        self._clock, self._lock, self._writes = clock, threading.Lock(), 0
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_TIMEOUT_S)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB, at REAL) WITHOUT ROWID")

    def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        marks = ", ".join("?" * len(keys))
        try:
            with self._lock:
                return dict(self._db.execute(f"SELECT key, value FROM state WHERE key IN ({marks})", tuple(keys)))
        except sqlite3.OperationalError as exc:
            raise _Away(str(exc)) from exc

    def _write(self, keys: Sequence[str], value: bytes) -> bool:
        now = self._clock()
        try:
            with self._lock:
                rows = [(key, value, now) for key in keys]
                self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", rows)
                self._writes += 1
                if self._writes % 1000 == 0:
                    self._db.execute("DELETE FROM state WHERE at < ?", (now - KEEP_S,))
        except sqlite3.OperationalError as exc:
            raise _Away(str(exc)) from exc
        return True


class RedisMemory(_Kept):
    """In Redis, for several replicas. Each request takes two round trips."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError when the redis package is missing; an absent server is no error."""
        try:
            import redis
        except ImportError as exc:
            raise SettingsError('a redis:// state needs the redis package; pip install "tierwise[redis]"') from exc
        super().__init__("redis")
        options = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S}
        self._redis: Any = redis.Redis.from_url(url, **options)
        self._error: type[Exception] = redis.RedisError

    def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        try:
            values = self._redis.mget([f"tierwise:{key}" for key in keys])
        except self._error as exc:
            raise _Away(type(exc).__name__) from exc  # its text may repeat the URL
        return {key: value for key, value in zip(keys, values, strict=True) if value is not None}

    def _write(self, keys: Sequence[str], value: bytes) -> bool:
        pipe = self._redis.pipeline(transaction=False)
        for key in keys:
            pipe.set(f"tierwise:{key}", value, ex=KEEP_S)
        try:
            pipe.execute()
        except self._error as exc:
            raise _Away(type(exc).__name__) from exc
        return True


def open_memory(url: str | None, *, keeps_reasoning: bool = False) -> Memory:
    """The store for a setting: None for memory, `redis://...` (or rediss, unix), or the path of an SQLite file."""
    if url is None:
        return InProcessMemory()
    memory = RedisMemory(url) if url.startswith(("redis://", "rediss://", "unix://")) else SqliteMemory(url)
    memory.keeps_reasoning = keeps_reasoning
    return memory


def made_private(path: str | Path) -> None:
    """See to it that a database that is made now is its owner's alone; what SQLite puts beside it has the same mode."""
    if str(path) != ":memory:" and not Path(path).exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
