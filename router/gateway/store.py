"""Where records end up: SQLite (the library's ledger) or PostgreSQL, each batch in one transaction.

Both also keep how far each journal has been applied, in the same transaction as the records, so that no record is
written twice, and what each key has spent a day.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import msgspec

from router.ledger import Ledger
from router.types import Record

Spent = dict[tuple[str, dt.date], Decimal]
"""USD by key and day (UTC)."""

_PICO = Decimal(10) ** 12


class Entry(msgspec.Struct, frozen=True):
    """One line of the journal: a record, and whose request it was."""

    request_id: str
    record: Record
    key: str | None = None


class StoreAway(Exception):
    """The database cannot be reached or used now; later it may."""


class Store(Protocol):
    """What the journal needs of a database. Every method may raise StoreAway."""

    def write_all(self, entries: Sequence[Entry], journal: str, position: int) -> None:
        """Append records and note that `journal` is applied up to `position`, all or nothing."""

    def position(self, journal: str) -> int:
        """Bytes of `journal` that have been applied; 0 for an unknown one."""

    def forget(self, journal: str) -> None:
        """Drop the position of a journal that is gone."""

    def spent(self, since: dt.date) -> Spent:
        """What each key has spent, by day."""

    def by_model(self) -> list[dict[str, Any]]:
        """Totals a tier and model, as `Ledger.by_model`."""

    def close(self) -> None:
        """Give the connection back."""


def spent_by(entries: Sequence[Entry]) -> Spent:
    """USD by key and day of some entries."""
    spent: Spent = defaultdict(Decimal)
    for entry in entries:
        if entry.key is not None and entry.record.cost_usd:
            spent[entry.key, entry.record.at.date()] += entry.record.cost_usd
    return spent


def picousd(usd: Decimal) -> int:
    """USD as the databases keep it: whole picodollars, which sum exactly."""
    return int(usd * _PICO)


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

    def write_all(self, entries: Sequence[Entry], journal: str, position: int) -> None:
        """See Store."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for entry in entries:
                    self.write(entry.record)
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
        return {(key, dt.date.fromisoformat(day)): Decimal(pico) / _PICO for key, day, pico in rows}
