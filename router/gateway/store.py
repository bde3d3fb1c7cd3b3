"""Where records end up: SQLite (the library's ledger) or PostgreSQL, each batch in one transaction.

Both also keep how far each journal has been applied, in the same transaction as the records, so that no record is
written twice, and what each key has spent a day.
"""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from router.accounts.ledger import PICO, Ledger, picousd
from router.classifier.pointer import Feedback
from router.settings import GatewaySettings, Settings
from router.types import Record

ResultT = TypeVar("ResultT")

Spent = dict[tuple[str, dt.date], Decimal]
"""USD by key and day (UTC)."""


class JournalEntry(msgspec.Struct, frozen=True):
    """One line of the journal: a record, and whose request it was."""

    request_id: str
    record: Record
    key: str | None = None


class Served(msgspec.Struct, frozen=True):
    """Which artifact served a conversation."""

    artifact: str
    conversation: str


class StoreAway(Exception):
    """The database cannot be reached or used now; later it may."""


class Store(Protocol):
    """What the journal needs of a database. Every method may raise StoreAway."""

    def write_all(self, entries: Sequence[JournalEntry], journal: str, position: int) -> None:
        """Append records and note that `journal` is applied up to `position`, all or nothing."""

    def position(self, journal: str) -> int:
        """Bytes of `journal` that have been applied; 0 for an unknown one."""

    def forget(self, journal: str) -> None:
        """Drop the position of a journal that is gone."""

    def spent(self, since: dt.date) -> Spent:
        """What each key has spent, by day."""

    def served(self, key: str | None, *, request_id: str = "", conversation: str = "") -> Served | None:
        """Who served a request or, of late, a conversation; None when there is none, or it is not of that `key`."""

    def keep_feedback(self, artifact: str, conversation: str, *, good: bool) -> None:
        """As `Ledger.keep_feedback`."""

    def feedback(self, since: dt.datetime | None = None) -> dict[str, Feedback]:
        """As `Ledger.feedback`."""

    def close(self) -> None:
        """Give the connection back."""


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


def spent_by(entries: Sequence[JournalEntry]) -> Spent:
    """USD by key and day of some entries."""
    spent: Spent = defaultdict(Decimal)
    for entry in entries:
        if entry.key is not None and entry.record.cost_usd:
            spent[entry.key, entry.record.at.date()] += entry.record.cost_usd
    return spent


class SqliteStore(Ledger):
    """The library's ledger with the gateway's two tables beside it."""

    def __init__(self, path: str | Path) -> None:
        """Opens or creates the file. Raises sqlite3.Error if it is not a database."""
        super().__init__(path)
        self._db.execute("CREATE TABLE IF NOT EXISTS gateway_journals (name TEXT PRIMARY KEY, position INTEGER) STRICT")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS gateway_spend"
            " (key TEXT, day TEXT, picousd INTEGER NOT NULL, PRIMARY KEY (key, day)) STRICT"
        )

    def write_all(self, entries: Sequence[JournalEntry], journal: str, position: int) -> None:
        """See Store."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for entry in entries:
                    self.write(entry.record, entry.request_id, entry.key)
                spent = [(key, day.isoformat(), picousd(usd)) for (key, day), usd in spent_by(entries).items()]
                self._db.executemany(
                    "INSERT INTO gateway_spend VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET picousd = picousd + excluded.picousd",
                    spent,
                )
                self._db.execute("INSERT OR REPLACE INTO gateway_journals VALUES (?, ?)", (journal, position))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as exc:
            raise StoreAway(str(exc)) from exc

    def position(self, journal: str) -> int:
        """See Store."""
        row = self._db.execute("SELECT position FROM gateway_journals WHERE name = ?", (journal,)).fetchone()
        return row[0] if row else 0

    def forget(self, journal: str) -> None:
        """See Store."""
        self._db.execute("DELETE FROM gateway_journals WHERE name = ?", (journal,))

    def spent(self, since: dt.date) -> Spent:
        """See Store."""
        query = "SELECT key, day, picousd FROM gateway_spend WHERE day >= ?"
        rows = self._db.execute(query, (since.isoformat(),)).fetchall()
        return {(key, dt.date.fromisoformat(day)): Decimal(pico) / PICO for key, day, pico in rows}

    def served(self, key: str | None, *, request_id: str = "", conversation: str = "") -> Served | None:
        """See Store."""
        asked, value = ("request_id", request_id) if request_id else ("conversation", conversation)
        query = f"""
            SELECT artifact, conversation FROM records
            WHERE {asked} = ? AND {asked} != '' AND (? IS NULL OR key = ?) ORDER BY id DESC LIMIT 1
        """
        row = self._guarded(lambda: self._db.execute(query, (value, key, key)).fetchone())
        return None if row is None else Served(*row)

    def keep_feedback(self, artifact: str, conversation: str, *, good: bool) -> None:
        """See Store."""
        self._guarded(lambda: super(SqliteStore, self).keep_feedback(artifact, conversation, good=good))

    def feedback(self, since: dt.datetime | None = None) -> dict[str, Feedback]:
        """See Store."""
        return self._guarded(lambda: super(SqliteStore, self).feedback(since))

    def _guarded(self, use: Callable[[], ResultT]) -> ResultT:
        try:
            return use()
        except sqlite3.OperationalError as exc:
            raise StoreAway(str(exc)) from exc
