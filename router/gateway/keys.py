"""The gateway's own API keys: only their SHA-256 is kept, in a file that serving processes read again when it changes.

A key holds 256 random bits, so a plain hash is enough: there is no dictionary to try.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import msgspec

from router.decide.mode import Mode
from router.errors import SettingsError
from router.types import Tier

_logger = logging.getLogger("tierwise")

_CHECK_EVERY_S = 1.0
_IN_FORCE_S = 60.0
_NO_DIGEST = hashlib.sha256(b"").hexdigest()


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key and what its holder may do. Budgets are in USD by calendar day and month (UTC); None is no limit.

    `models` are names that it may ask for, `*` allowed: models, tiers, fleets and "auto"; empty allows all. Nothing
    goes above `max_tier`. `admin` may also read /metrics. `mode` wins over the settings and over the caller's header.
    """

    id: str
    name: str
    digest: str
    created_at: dt.datetime
    fleet: str | None = None
    operating_point: str | None = None
    usd_a_day: Decimal | None = None
    usd_a_month: Decimal | None = None
    requests_a_minute: int | None = None
    models: tuple[str, ...] = ()
    max_tier: Tier | None = None
    admin: bool = False
    mode: Mode | None = None
    revoked_at: dt.datetime | None = None

    @property
    def has_budget(self) -> bool:
        """Whether what it may spend is limited."""
        return self.usd_a_day is not None or self.usd_a_month is not None


class KeyFile:
    """The keys in one file. Reading is cheap enough for every request.

    `trouble` says why the file cannot be read, None while it can. The keys read before then stay in force for a minute,
    after which nobody is let in: a key that was revoked since must not be good for ever.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.trouble: str | None = None
        self._clock = clock
        self._unreadable_since_s: float | None = None
        self._keys: dict[str, Key] = {}
        self._mtime_ns = -1
        self._checked_s = float("-inf")

    def create(self, name: str, **limits: object) -> tuple[Key, str]:
        """A new key and its secret, which is not kept. Raises SettingsError if a live key has that name."""
        with self._locked():
            keys = self._read()
            if any(key.name == name and key.revoked_at is None for key in keys.values()):
                raise SettingsError(f"there is a key named {name!r} already; revoke it first or choose another name")
            key_id = secrets.token_hex(4)
            token = f"tw-{key_id}-{secrets.token_urlsafe(32)}"
            values = {"id": key_id, "name": name, "digest": _digest(token), "created_at": dt.datetime.now(dt.UTC)}
            key = msgspec.convert({**values, **limits}, Key)
            self._write({**keys, key_id: key})
        return key, token

    def revoke(self, name_or_id: str) -> Key:
        """End a key. Serving processes refuse it within a second. Raises SettingsError if there is no such live key."""
        with self._locked():
            keys = self._read()
            live = [k for k in keys.values() if name_or_id in (k.id, k.name) and k.revoked_at is None]
            if not live:
                names = ", ".join(k.name for k in keys.values() if k.revoked_at is None) or "none"
                raise SettingsError(f"no live key named {name_or_id!r}; live keys: {names}")
            ended = msgspec.structs.replace(live[0], revoked_at=dt.datetime.now(dt.UTC))
            self._write({**keys, ended.id: ended})
        return ended

    def all(self) -> list[Key]:
        """Every key, live or revoked, oldest first."""
        return list(self._read().values())

    def find(self, token: str) -> Key | None:
        """The live key that a caller presents; takes equally long for a wrong secret and an unknown key."""
        self._refresh()
        prefix, _, rest = token.partition("-")
        key = self._keys.get(rest.partition("-")[0]) if prefix == "tw" else None
        same = hmac.compare_digest(_digest(token), _NO_DIGEST if key is None else key.digest)
        return key if same and key is not None and key.revoked_at is None else None

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked_s < _CHECK_EVERY_S:
            return
        self._checked_s = now
        try:
            mtime_ns = self.path.stat().st_mtime_ns if self.path.exists() else -1
            if mtime_ns != self._mtime_ns or self.trouble is not None:
                self._keys, self._mtime_ns = self._read(), mtime_ns
        except (SettingsError, OSError) as exc:
            self._failed(str(exc), now)
        else:
            if self.trouble is not None:
                _logger.warning("%s can be read again", self.path)
            self.trouble = self._unreadable_since_s = None

    def _failed(self, why: str, now: float) -> None:
        if self.trouble is None:
            _logger.error("the keys read before stay in force for %d s: %s", _IN_FORCE_S, why)
            self._unreadable_since_s = now
        self.trouble = why
        if self._keys and now - (self._unreadable_since_s or now) >= _IN_FORCE_S:
            _logger.error("no key is accepted until %s can be read: %s", self.path, why)
            self._keys = {}

    def _read(self) -> dict[str, Key]:
        try:
            keys = msgspec.json.decode(self.path.read_bytes(), type=list[Key])
        except FileNotFoundError:
            return {}
        except msgspec.MsgspecError as exc:
            raise SettingsError(f"{self.path}: {exc}; restore it from a copy, or delete it and make new keys") from exc
        return {key.id: key for key in keys}

    def _write(self, keys: dict[str, Key]) -> None:
        new = self.path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            with suppress(FileNotFoundError):  # whoever serves must still be able to read what an administrator writes
                before = self.path.stat()
                os.fchmod(file.fileno(), before.st_mode & 0o777)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.write(msgspec.json.format(msgspec.json.encode(list(keys.values())), indent=1))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
