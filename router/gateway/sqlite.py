"""Records in SQLite: the library's ledger with the gateway's two tables beside it."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from router.accounts.ledger import PICO, Ledger, picousd
from router.classifier.pointer import Feedback
from router.gateway.store import JournalEntry, Served, Spent, StoreAway, spent_by

ResultT = TypeVar("ResultT")


class SqliteStore(Ledger):
    """One connection, used by one thread at a time."""

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
        except sqlite3.DatabaseError as exc:
            # Locked, full, damaged or no database: the records wait in the journal. Others are of a record itself.
            if type(exc) in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise StoreAway(str(exc)) from exc
            raise

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
        except sqlite3.DatabaseError as exc:
            raise StoreAway(str(exc)) from exc
