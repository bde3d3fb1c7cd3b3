"""Where keys, journal and records are, by the settings."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.errors import SettingsError
from router.gateway.sqlite import SqliteStore
from router.gateway.store import Store, StoreAway
from router.settings import GatewaySettings, Settings


def state_dir(gateway: GatewaySettings) -> Path:
    """Where keys, journal and records are kept."""
    chosen = gateway.state_dir
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(chosen or f"{base}/tierwise").expanduser()


def sqlite_file(settings: Settings) -> Path:
    """Where records are kept without PostgreSQL: the file of `ledger`, else one in the state folder."""
    return Path(settings.ledger or state_dir(settings.gateway) / "records.db")


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The records that there are, to be read. Raises SettingsError where there are none, or they cannot be read."""
    if settings.gateway.database_url is None and not sqlite_file(settings).is_file():
        raise SettingsError(
            f"no records: {sqlite_file(settings)} is not there; set `ledger` for the library, or run `tierwise serve`"
        )
    try:
        store = open_store(settings)
        try:
            yield store
        finally:
            store.close()
    except (StoreAway, sqlite3.Error) as exc:
        raise SettingsError(f"the records cannot be read: {exc}") from exc


def where(settings: Settings) -> str:
    """Where the records are, for people; no address of a database, which may hold a password."""
    return "PostgreSQL" if settings.gateway.database_url is not None else str(sqlite_file(settings))


def open_store(settings: Settings) -> Store:
    """PostgreSQL by `gateway.database_url`, else SQLite."""
    if settings.gateway.database_url is not None:
        from router.gateway.postgres import PostgresStore

        return PostgresStore(settings.gateway.database_url)
    return SqliteStore(sqlite_file(settings))
