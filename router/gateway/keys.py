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
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import msgspec

from router.errors import SettingsError

_logger = logging.getLogger("tierwise")

_CHECK_EVERY_S = 1.0
_NO_DIGEST = hashlib.sha256(b"").hexdigest()


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key and what its holder may do. Budgets are in USD by calendar day and month (UTC); None is no limit."""

    id: str
    name: str
    digest: str
    created_at: dt.datetime
    fleet: str | None = None
    operating_point: str | None = None
    usd_a_day: Decimal | None = None
    usd_a_month: Decimal | None = None
    requests_a_minute: int | None = None
    revoked_at: dt.datetime | None = None


class KeyFile:
    """The keys in one file. Reading is cheap enough for every request."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
        now = time.monotonic()
        if now - self._checked_s < _CHECK_EVERY_S:
            return
        self._checked_s = now
        try:
            mtime_ns = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            self._keys, self._mtime_ns = {}, -1
            return
        if mtime_ns != self._mtime_ns:
            self._mtime_ns = mtime_ns
            try:
                self._keys = self._read()
            except SettingsError as exc:
                _logger.error("the keys read before stay in force: %s", exc)

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
