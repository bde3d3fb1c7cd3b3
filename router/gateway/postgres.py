"""Records in PostgreSQL: one row a request, shared by every replica. Needs the extra `postgres` (psycopg)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg.rows import dict_row

from router.accounts.ledger import (
    COLUMNS,
    EVER,
    LATER_COLUMNS,
    PICO,
    Totals,
    columns,
    later_columns,
    modifiers,
    picousd,
    report_query,
    rows_query,
)
from router.classifier.pointer import Feedback
from router.gateway.store import JournalEntry, Served, Spent, StoreAway, spent_by

ResultT = TypeVar("ResultT")

_CONNECT_TIMEOUT_S = 5
_STATEMENT_TIMEOUT_MS = 15_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tierwise_records (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  request_id TEXT NOT NULL UNIQUE, key TEXT,
  at TIMESTAMPTZ NOT NULL,
  tier TEXT, model TEXT NOT NULL, reason TEXT NOT NULL, p_suffices JSONB NOT NULL,
  fresh_tokens BIGINT NOT NULL, cache_read_tokens BIGINT NOT NULL,
  cache_write_short_tokens BIGINT NOT NULL, cache_write_long_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL, usage_reported BOOLEAN NOT NULL,
  cost_picousd BIGINT, baseline_model TEXT, baseline_cost_picousd BIGINT, notes JSONB NOT NULL
);
DO $$ BEGIN  -- altering locks the table, so only where it is that of an earlier version
  IF NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'tierwise_records'::regclass AND attname = 'conversation'
  ) THEN
    ALTER TABLE tierwise_records
      ADD COLUMN artifact TEXT NOT NULL DEFAULT '', ADD COLUMN conversation TEXT NOT NULL DEFAULT '';
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'tierwise_records'::regclass AND attname = 'modifiers'
  ) THEN
    ALTER TABLE tierwise_records ADD COLUMN modifiers TEXT NOT NULL DEFAULT '{}';
  END IF;
  IF NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'tierwise_records'::regclass AND attname = 'total_ms'
  ) THEN
    ALTER TABLE tierwise_records
      ADD COLUMN class TEXT NOT NULL DEFAULT '', ADD COLUMN mode TEXT NOT NULL DEFAULT 'on',
      ADD COLUMN propensity DOUBLE PRECISION NOT NULL DEFAULT 1.0, ADD COLUMN shadow_model TEXT NOT NULL DEFAULT '',
      ADD COLUMN shadow_cost_picousd BIGINT,
      ADD COLUMN first_byte_ms DOUBLE PRECISION, ADD COLUMN total_ms DOUBLE PRECISION;
  END IF;
END $$;
CREATE INDEX IF NOT EXISTS tierwise_records_at ON tierwise_records (at);
CREATE INDEX IF NOT EXISTS tierwise_records_conversation ON tierwise_records (conversation) WHERE conversation != '';
CREATE TABLE IF NOT EXISTS tierwise_feedback (
  artifact TEXT, conversation TEXT, at TIMESTAMPTZ NOT NULL, good BOOLEAN NOT NULL, PRIMARY KEY (artifact, conversation)
);
CREATE TABLE IF NOT EXISTS tierwise_prompts (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at TIMESTAMPTZ NOT NULL, conversation TEXT NOT NULL, class TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tierwise_journals (name TEXT PRIMARY KEY, position BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS tierwise_spend (
  key TEXT, day DATE, picousd BIGINT NOT NULL, PRIMARY KEY (key, day)
);
"""
_SCHEMA_LOCK = 0x7469657277697365  # any fixed number: replicas that start together create the tables one by one

_WRITTEN = ("request_id", "key", "at", *COLUMNS, "modifiers", *LATER_COLUMNS)
_INSERT = (
    f"INSERT INTO tierwise_records ({', '.join(_WRITTEN)}) VALUES ({', '.join(['%s'] * len(_WRITTEN))})"
    " ON CONFLICT (request_id) DO NOTHING"
)


class PostgresStore:
    """One connection, opened when first needed and again after it was lost. Used by one thread at a time."""

    def __init__(self, url: str) -> None:
        """`url` is a libpq URL; nothing is connected yet."""
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    def write_all(self, entries: Sequence[JournalEntry], journal: str, position: int) -> None:
        """See Store."""
        rows = [_row(entry) for entry in entries]
        prompts = [
            (record.at, record.conversation, _text(record.traffic_class), _text(record.prompt))
            for record in (entry.record for entry in entries)
            if record.prompt
        ]
        spent = [(key, day, picousd(usd)) for (key, day), usd in spent_by(entries).items()]

        def write(db: psycopg.Connection[Any]) -> None:
            with db.transaction(), db.cursor() as cursor:
                cursor.executemany(_INSERT, rows)
                cursor.executemany(
                    "INSERT INTO tierwise_prompts (at, conversation, class, text) VALUES (%s, %s, %s, %s)", prompts
                )
                cursor.executemany(
                    "INSERT INTO tierwise_spend VALUES (%s, %s, %s)"
                    " ON CONFLICT (key, day) DO UPDATE SET picousd = tierwise_spend.picousd + excluded.picousd",
                    spent,
                )
                cursor.execute(
                    "INSERT INTO tierwise_journals VALUES (%s, %s)"
                    " ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                    (journal, position),
                )

        self._with(write)

    def position(self, journal: str) -> int:
        """See Store."""
        query = "SELECT position FROM tierwise_journals WHERE name = %s"
        row = self._with(lambda db: db.execute(query, (journal,)).fetchone())
        return row[0] if row else 0

    def forget(self, journal: str) -> None:
        """See Store."""
        self._with(lambda db: db.execute("DELETE FROM tierwise_journals WHERE name = %s", (journal,)))

    def spent(self, since: dt.date) -> Spent:
        """See Store."""
        query = "SELECT key, day, picousd FROM tierwise_spend WHERE day >= %s"
        rows = self._with(lambda db: db.execute(query, (since,)).fetchall())
        return {(key, day): Decimal(pico) / PICO for key, day, pico in rows}

    def report(self, by: str, since: dt.datetime, until: dt.datetime = EVER) -> list[Totals]:
        """See Store."""
        query = report_query("tierwise_records", by, "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD')", "%s")
        return [Totals.read(row) for row in self._with(lambda db: db.execute(query, (since, until)).fetchall())]

    def rows(
        self, since: dt.datetime, until: dt.datetime = EVER, *, model: str | None, key: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """See Store."""
        query, values = rows_query("tierwise_records", "%s", model, key)

        def read(db: psycopg.Connection[Any]) -> list[dict[str, Any]]:
            with db.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query, (since, until, *values, limit)).fetchall()

        return self._with(read)

    def served(self, key: str | None, *, request_id: str = "", conversation: str = "") -> Served | None:
        """See Store."""
        asked, value = ("request_id", request_id) if request_id else ("conversation", conversation)
        query = f"""
            SELECT artifact, conversation FROM tierwise_records
            WHERE {asked} = %s AND {asked} != '' AND (%s::TEXT IS NULL OR key = %s) ORDER BY id DESC LIMIT 1
        """
        row = self._with(lambda db: db.execute(query, (_text(value), key, key)).fetchone())
        return None if row is None else Served(*row)

    def keep_feedback(self, artifact: str, conversation: str, *, good: bool) -> None:
        """See Store."""
        query = """
            INSERT INTO tierwise_feedback VALUES (%s, %s, now(), %s) ON CONFLICT (artifact, conversation)
            DO UPDATE SET at = excluded.at, good = tierwise_feedback.good AND excluded.good
        """
        self._with(lambda db: db.execute(query, (artifact, conversation, good)))

    def feedback(self, since: dt.datetime | None = None) -> dict[str, Feedback]:
        """See Store."""
        query = """
            SELECT artifact, COUNT(*), COUNT(*) FILTER (WHERE NOT good) FROM tierwise_feedback
            WHERE %s::TIMESTAMPTZ IS NULL OR at >= %s GROUP BY artifact
        """
        rows = self._with(lambda db: db.execute(query, (since, since)).fetchall())
        return {name: Feedback(n, n_bad) for name, n, n_bad in rows}

    def expire(self, *, prompts_before: dt.datetime, records_before: dt.datetime | None) -> None:
        """See Store."""
        self._with(lambda db: db.execute("DELETE FROM tierwise_prompts WHERE at < %s", (prompts_before,)))
        if records_before is not None:
            self._with(lambda db: db.execute("DELETE FROM tierwise_records WHERE at < %s", (records_before,)))

    def forget_prompts(self, conversation: str) -> int:
        """See Store."""
        query = "DELETE FROM tierwise_prompts WHERE conversation = %s"
        return self._with(lambda db: db.execute(query, (conversation,)).rowcount)

    def close(self) -> None:
        """See Store."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _with(self, use: Callable[[psycopg.Connection[Any]], ResultT]) -> ResultT:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self._connect()
            return use(self._connection)
        except (psycopg.OperationalError, psycopg.InterfaceError) as exc:
            self.close()
            raise StoreAway(f"PostgreSQL: {type(exc).__name__}") from None  # its text may repeat the URL

    def _connect(self) -> psycopg.Connection[Any]:
        db = psycopg.connect(self._url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S)
        db.execute(f"SET statement_timeout = {_STATEMENT_TIMEOUT_MS}")
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            db.execute(_SCHEMA)
        return db


def _row(entry: JournalEntry) -> tuple[Any, ...]:
    record = entry.record
    kept = msgspec.structs.replace(
        record,
        model=_text(record.model),
        notes=tuple(map(_text, record.notes)),
        traffic_class=_text(record.traffic_class),
    )
    beside = modifiers(record.usage, record.effort)
    return (entry.request_id, entry.key, record.at, *columns(kept), beside, *later_columns(kept))


def _text(value: str) -> str:
    """PostgreSQL keeps neither NUL nor a lone surrogate."""
    return value.replace("\0", "�").encode("utf-8", "replace").decode()
