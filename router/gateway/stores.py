"""Where keys, journal and records are, by the settings."""

from __future__ import annotations

import os
from pathlib import Path

from router.gateway.sqlite import SqliteStore
from router.gateway.store import Store
from router.settings import GatewaySettings, Settings


def state_dir(gateway: GatewaySettings) -> Path:
    """Where keys, journal and records are kept."""
    chosen = gateway.state_dir
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(chosen or f"{base}/tierwise").expanduser()


def sqlite_file(settings: Settings) -> Path:
    """Where records are kept without PostgreSQL: the file of `ledger`, else one in the state folder."""
    return Path(settings.ledger or state_dir(settings.gateway) / "records.db")


def open_store(settings: Settings) -> Store:
    """PostgreSQL by `gateway.database_url`, else SQLite."""
    if settings.gateway.database_url is not None:
        from router.gateway.postgres import PostgresStore

        return PostgresStore(settings.gateway.database_url)
    return SqliteStore(sqlite_file(settings))
