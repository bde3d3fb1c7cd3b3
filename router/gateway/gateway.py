"""What lives as long as the gateway's process, and what a reload replaces."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from router.errors import TierwiseError
from router.gateway import drift
from router.gateway.fault_log import FaultLog
from router.gateway.holds import Holds, RedisHolds
from router.gateway.journal import Journal
from router.gateway.keys import Key, KeyFile
from router.gateway.limits import Budgets, RateLimits, RedisRateLimits, Slots, Uploads
from router.gateway.metrics import Metrics
from router.gateway.serving import Serving
from router.gateway.store import JournalEntry, Store
from router.gateway.stores import open_store, state_dir
from router.gateway.wire import RawHeaders, Refusal

_logger = logging.getLogger("tierwise")

_EXPIRE_EVERY_S = 3600.0


class Gateway:
    """What lives as long as the process: connections, journal, limits, metrics; and `serving`, which a reload replaces.

    Call `start` in the running event loop and `close` at the end. `load` gives a new Serving from the settings now in
    force. `on_refresh` are called with the database now and then, in the journal's thread.
    """

    def __init__(self, load: Callable[[], Serving]) -> None:
        """Raises what `load` raises, ImportError for a missing database driver, sqlite3.Error for a bad file."""
        self._load = load
        self.serving = load()
        self.metrics = Metrics()
        self.fault_log = FaultLog()
        self.budgets = Budgets()
        self.draining = False
        self.on_refresh: list[Callable[[Store], None]] = []
        self._expired_s = float("-inf")
        self._warned: set[tuple[str, str]] = set()
        settings = self.serving.gateway
        folder = state_dir(settings)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.keys = KeyFile(folder / "keys.json")
        self.slots = Slots(settings.max_concurrent, settings.max_queue, settings.queue_timeout_s)
        self.uploads = Uploads(settings.max_upload_bytes)
        self.rates = RedisRateLimits(settings.redis_url) if settings.redis_url else RateLimits()
        redis_url, longest_s = settings.redis_url, settings.reply_timeout_s + settings.queue_timeout_s
        self.holds = RedisHolds(redis_url, longest_s) if redis_url else Holds()
        self.journal = Journal(
            folder / "journal",
            open_store(self.serving.settings),
            on_applied=self.budgets.applied,
            on_refresh=self._refresh,
        )
        self.session: aiohttp.ClientSession

    async def start(self) -> None:
        """Open the connection pool."""
        settings = self.serving.gateway
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_timeout_s, sock_read=settings.first_byte_timeout_s
        )
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        self.session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        )

    async def close(self) -> None:
        """Bring the journal to the database and let go of everything."""
        await self.session.close()
        await self.rates.close()
        await self.holds.close()
        await asyncio.to_thread(self.journal.close)

    async def reload(self) -> None:
        """Take the settings and the artifact now on disk; when they are wrong, log it and keep the old ones."""
        try:
            serving = await asyncio.to_thread(self._load)
        except Exception as exc:  # whatever is wrong with what is on disk, what is in force stays
            why = exc if isinstance(exc, TierwiseError | OSError) else f"{type(exc).__name__}: {exc}"
            _logger.error("not reloaded, the settings before stay in force: %s", why)
            return
        serving.take_over(self.serving)
        self.serving, canary = serving, serving.router.policy.canary
        beside = f", {canary.loaded.name} to {canary.pointer.share:.0%} of the conversations" if canary else ""
        _logger.warning("reloaded: artifact %s%s", serving.router.policy.champion.name, beside)

    def admit(self, headers: RawHeaders) -> Key | None:
        """Who is calling: a key of ours, or None where none is asked for. Raises Refusal (401)."""
        if self.serving.gateway.access != "keys":
            return None
        key = self._key(headers)
        if key is None:
            message = "this gateway needs a key of its own: x-api-key or Authorization: Bearer tw-..."
            raise Refusal(401, "authentication_error", message, final=True)
        return key

    def admit_admin(self, headers: RawHeaders) -> None:
        """Raises Refusal (401, 403) for whoever may not see what all callers do: with open access, nobody."""
        if self.serving.gateway.access == "open":
            return
        key = self._key(headers)
        if key is None or not key.admin:
            message = "this needs an administrator's key: tierwise keys create NAME --admin"
            status, kind = (401, "authentication_error") if key is None else (403, "permission_error")
            raise Refusal(status, kind, message, final=True)

    def _key(self, headers: RawHeaders) -> Key | None:
        token = ""
        for name, value in headers:
            if name == b"x-api-key" or (name == b"authorization" and value[:7].lower() == b"bearer "):
                token = value.decode("latin-1").strip() if name == b"x-api-key" else value[7:].decode("latin-1").strip()
                if token.startswith("tw-"):
                    break
        return self.keys.find(token)

    async def check_limits(self, key: Key) -> None:
        """Raises Refusal (429) beyond the key's budget or rate."""
        self.budgets.check(key)
        if key.requests_a_minute is not None:
            wait_s = await self.rates.wait_s(key.id, key.requests_a_minute)
            if wait_s > 0:
                message = f"the key {key.name!r} may make {key.requests_a_minute} requests a minute"
                raise Refusal(429, "rate_limit_error", message, retry_after_s=wait_s)

    def keep(self, entry: JournalEntry) -> None:
        """Keep a record for good."""
        self.budgets.add(entry)
        self.journal.append(entry)

    def _refresh(self, store: Store) -> None:
        self.budgets.refresh(store)
        if time.monotonic() - self._expired_s >= _EXPIRE_EVERY_S:
            self._expired_s = time.monotonic()  # first: what fails here is tried in an hour, and holds no record up
            store.expire(**self.serving.settings.expiry())
            self._measure_drift(store)
        for refresh in self.on_refresh:
            refresh(store)
        for signal in self.serving.signals():
            which = signal.traffic_class, signal.model
            if signal.alert is not None and which not in self._warned:
                self._warned.add(which)  # the class is not named: callers choose its name
                _logger.warning("a class of traffic on %s: %s", signal.model, signal.alert)

    def _measure_drift(self, store: Store) -> None:
        found = next(iter(drift.measure(store, dt.timedelta(days=7), dt.timedelta(days=30))), None)
        if found is not None and found.psi is not None:
            self.metrics.drift.set(found.psi)
            if found.is_alert:
                _logger.warning("traffic has changed (index %.2f): see `tierwise drift`", found.psi)

    def health(self) -> dict[str, Any]:
        """What is not as it should be: "ok", "degraded" (it serves; records wait on disk) or "draining"."""
        state = self.serving.router.accounts.placement.memory
        trouble = {"database": self.journal.trouble, "state": state.trouble}
        if self.serving.gateway.access == "keys":
            trouble["keys"] = self.keys.trouble
        if self.serving.gateway.redis_url:
            trouble["redis"] = self.rates.trouble
        status = "draining" if self.draining else "degraded" if any(trouble.values()) else "ok"
        said = {name: f"away: {why}" if why else "ok" for name, why in trouble.items()}
        return {"status": status, **said, "journal_backlog_bytes": self.journal.backlog_bytes}
