"""The store of records: SQLite."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from router.cache.memory import made_private
from router.classifier.pointer import Feedback
from router.prices import Dimension, is_plain
from router.types import Record, Usage

PICO = Decimal(10) ** 12  # SQL sums integers exactly; every price is a multiple of 1e-10 USD a token

COUNTS = ("fresh_tokens", "cache_read_tokens", "cache_write_short_tokens", "cache_write_long_tokens", "output_tokens")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  id INTEGER PRIMARY KEY,
  at TEXT NOT NULL,
  tier TEXT, model TEXT NOT NULL, reason TEXT NOT NULL, p_suffices TEXT NOT NULL,
  fresh_tokens INTEGER NOT NULL, cache_read_tokens INTEGER NOT NULL,
  cache_write_short_tokens INTEGER NOT NULL, cache_write_long_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, usage_reported INTEGER NOT NULL,
  cost_picousd INTEGER, baseline_model TEXT, baseline_cost_picousd INTEGER, notes TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS feedback (
  artifact TEXT, conversation TEXT, at TEXT NOT NULL, good INTEGER NOT NULL, PRIMARY KEY (artifact, conversation)
) STRICT;
"""
# What later versions added to `records`; a file of an earlier one gets it when it is opened.
_ADDED = {
    "artifact": "TEXT NOT NULL DEFAULT ''",
    "conversation": "TEXT NOT NULL DEFAULT ''",
    "request_id": "TEXT",
    "key": "TEXT",
    "modifiers": "TEXT NOT NULL DEFAULT '{}'",
    "class": "TEXT NOT NULL DEFAULT ''",
    "mode": "TEXT NOT NULL DEFAULT 'on'",
    "propensity": "REAL NOT NULL DEFAULT 1.0",
    "shadow_model": "TEXT NOT NULL DEFAULT ''",
    "shadow_cost_picousd": "INTEGER",
    "first_byte_ms": "REAL",
    "total_ms": "REAL",
}
_PROMPTS = """
CREATE TABLE IF NOT EXISTS prompts (
  id INTEGER PRIMARY KEY, at TEXT NOT NULL, conversation TEXT NOT NULL, class TEXT NOT NULL, text TEXT NOT NULL
) STRICT
"""
_INDEXES = """
CREATE INDEX IF NOT EXISTS records_conversation ON records (conversation) WHERE conversation != '';
CREATE INDEX IF NOT EXISTS records_request_id ON records (request_id) WHERE request_id IS NOT NULL;
"""
COLUMNS = (
    *("tier", "model", "reason", "p_suffices", *COUNTS, "usage_reported", "cost_picousd"),
    *("baseline_model", "baseline_cost_picousd", "notes", "artifact", "conversation"),
)
"""What `columns` gives, in its order."""

LATER_COLUMNS = ("class", "mode", "propensity", "shadow_model", "shadow_cost_picousd", "first_byte_ms", "total_ms")
"""What `later_columns` gives."""

_WRITTEN = ("at", *COLUMNS, "request_id", "key", "modifiers", *LATER_COLUMNS)
_INSERT = f"INSERT INTO records ({', '.join(_WRITTEN)}) VALUES ({', '.join('?' * len(_WRITTEN))})"
_KEEP_FEEDBACK = """
INSERT INTO feedback VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET at = excluded.at, good = MIN(good, excluded.good)
"""


REPORT_GROUPS = ("model", "tier", "key", "class", "mode", "reason", "artifact", "day")
"""What a report can have a line for."""

EVER = dt.datetime.max.replace(tzinfo=dt.UTC)
"""The end of a span that has none."""

SEPARATOR = "\x1f"


class Totals(msgspec.Struct, frozen=True):
    """Sums over the requests of one group; `saved_usd` and `baseline_usd` over those with both costs known.

    `n_shadow` requests were decided and not routed; `shadow_usd` is what they would have cost, `shadowed_usd` what they
    did, over those with both known.
    """

    name: str
    n_requests: int
    input_tokens: int
    cache_read_tokens: int
    output_tokens: int
    cost_usd: Decimal
    baseline_usd: Decimal
    saved_usd: Decimal
    n_unpriced: int
    n_estimated: int
    n_shadow: int = 0
    shadow_usd: Decimal = Decimal(0)
    shadowed_usd: Decimal = Decimal(0)

    @property
    def hit_rate(self) -> float | None:
        """The share of input tokens that was read from a cache, in [0, 1]; None without input."""
        return self.cache_read_tokens / self.input_tokens if self.input_tokens else None

    @property
    def saved_share(self) -> float | None:
        """What was saved of the baseline, in (-inf, 1]; None where nothing was routed."""
        return float(self.saved_usd / self.baseline_usd) if self.baseline_usd else None

    @property
    def unrouted_usd(self) -> Decimal:
        """What the same requests would have cost: the baseline of those that were routed, the cost of the others."""
        return self.cost_usd + self.saved_usd

    @classmethod
    def of(cls, rows: Iterable[Totals]) -> Totals:
        """All of them together."""
        fields = cls.__struct_fields__[1:]
        sums = {name: sum((getattr(row, name) for row in rows), 0) for name in fields}
        return cls("", **{n: Decimal(v) if n.endswith("_usd") else v for n, v in sums.items()})  # type: ignore[arg-type]

    @classmethod
    def read(cls, row: Sequence[Any]) -> Totals:
        """From a row of `report_query`."""
        numbers = [int(value or 0) for value in row[1:]]
        names = cls.__struct_fields__[1:]
        usd = {name: Decimal(n) / PICO if name.endswith("_usd") else n for name, n in zip(names, numbers, strict=True)}
        return cls(str(row[0] or "-"), **usd)  # type: ignore[arg-type]


def report_query(table: str, by: str, day: str, mark: str) -> str:
    """SQL for `Totals` by a group, the dearest first; `day` is how this database says a record's day (UTC).

    `by` may name several, with commas: a line for each of their combinations, named by them with SEPARATOR between.
    """
    columns = [day if name == "day" else name for name in by.split(",")]
    group = columns[0] if len(columns) == 1 else f" || '{SEPARATOR}' || ".join(f"COALESCE({c}, '')" for c in columns)
    both = "cost_picousd IS NOT NULL AND baseline_cost_picousd IS NOT NULL"
    shadow = "cost_picousd IS NOT NULL AND shadow_cost_picousd IS NOT NULL"
    return f"""
        SELECT {group}, COUNT(*),
          SUM(fresh_tokens + cache_read_tokens + cache_write_short_tokens + cache_write_long_tokens),
          SUM(cache_read_tokens), SUM(output_tokens), SUM(cost_picousd),
          SUM(CASE WHEN {both} THEN baseline_cost_picousd END),
          SUM(CASE WHEN {both} THEN baseline_cost_picousd - cost_picousd END),
          SUM(CASE WHEN cost_picousd IS NULL THEN 1 ELSE 0 END), SUM(CASE WHEN usage_reported THEN 0 ELSE 1 END),
          SUM(CASE WHEN shadow_model != '' THEN 1 ELSE 0 END),
          SUM(CASE WHEN {shadow} THEN shadow_cost_picousd END), SUM(CASE WHEN {shadow} THEN cost_picousd END)
        FROM {table} WHERE at >= {mark} AND at < {mark} GROUP BY 1 ORDER BY {"1" if by == "day" else "6 DESC, 1"}
    """


def rows_query(table: str, mark: str, model: str | None, key: str | None) -> tuple[str, list[str]]:
    """SQL for the newest records, and the values that follow the two times in it."""
    given = {name: value for name, value in (("model", model), ("key", key)) if value is not None}
    bounds = "".join(f" AND {name} = {mark}" for name in given)
    query = f"SELECT * FROM {table} WHERE at >= {mark} AND at < {mark}{bounds} ORDER BY id DESC LIMIT {mark}"
    return query, list(given.values())


def _span(since: dt.datetime, until: dt.datetime) -> tuple[str, str]:
    return since.astimezone(dt.UTC).isoformat(), until.astimezone(dt.UTC).isoformat()


class Ledger:
    """The record store: SQLite, a file or in memory. No prompt and no reply is stored. Thread-safe."""

    def __init__(self, path: str | Path = ":memory:") -> None:
        """Opens or creates the database. Raises sqlite3.Error if the file is not one."""
        self._lock = threading.Lock()
        made_private(path)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._prepare()

    def write(self, record: Record, request_id: str | None = None, key: str | None = None) -> None:
        """Append one record; a gateway names the request and whose key it came with."""
        beside = modifiers(record.usage, record.effort)
        row = (record.at.isoformat(), *columns(record), request_id, key, beside, *later_columns(record))
        with self._lock:
            self._db.execute(_INSERT, row)
            if record.prompt:
                kept = (record.at.isoformat(), record.conversation, record.traffic_class, record.prompt)
                self._db.execute("INSERT INTO prompts VALUES (NULL, ?, ?, ?, ?)", kept)

    def keep_feedback(self, artifact: str, conversation: str, *, good: bool) -> None:
        """Count a conversation for the artifact that served it: once, and as bad after one bad word."""
        now = dt.datetime.now(dt.UTC).isoformat()
        with self._lock:
            self._db.execute(_KEEP_FEEDBACK, (artifact, conversation, now, good))

    def feedback(self, since: dt.datetime | None = None) -> dict[str, Feedback]:
        """What users said of each artifact's conversations, from a time on."""
        query = "SELECT artifact, COUNT(*), SUM(1 - good) FROM feedback WHERE at >= ? GROUP BY artifact"
        start = "" if since is None else since.astimezone(dt.UTC).isoformat()
        with self._lock:
            return {name: Feedback(n, n_bad) for name, n, n_bad in self._db.execute(query, (start,))}

    def report(self, by: str, since: dt.datetime, until: dt.datetime = EVER) -> list[Totals]:
        """Totals by one of REPORT_GROUPS, or by several with commas between, of the records from a time on, to before
        another."""
        query = report_query("records", by, "substr(at, 1, 10)", "?")
        with self._lock:
            return [Totals.read(row) for row in self._db.execute(query, _span(since, until))]

    def rows(
        self,
        since: dt.datetime,
        until: dt.datetime = EVER,
        *,
        model: str | None = None,
        key: str | None = None,
        limit: int = 1000,
    ) -> list[dict[str, Any]]:
        """The newest records from a time on, to before another, as they are kept, the newest first."""
        query, values = rows_query("records", "?", model, key)
        with self._lock:
            cursor = self._db.execute(query, (*_span(since, until), *values, limit))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def expire(self, *, prompts_before: dt.datetime, records_before: dt.datetime | None) -> None:
        """Delete prompts, and records if a time is given, that are older than that."""
        with self._lock:
            self._db.execute("DELETE FROM prompts WHERE at < ?", (prompts_before.astimezone(dt.UTC).isoformat(),))
            if records_before is not None:
                self._db.execute("DELETE FROM records WHERE at < ?", (records_before.astimezone(dt.UTC).isoformat(),))

    def forget_prompts(self, conversation: str) -> int:
        """Delete what is kept of a conversation's text; how many prompts that were."""
        with self._lock:
            return self._db.execute("DELETE FROM prompts WHERE conversation = ?", (conversation,)).rowcount

    def by_model(self) -> list[dict[str, Any]]:
        """Totals a tier and model: n_requests, tokens by kind, cost_usd, baseline_cost_usd, n_unpriced."""
        query = """
            SELECT tier, model, COUNT(*) AS n_requests,
              SUM(fresh_tokens) AS fresh_tokens, SUM(cache_read_tokens) AS cache_read_tokens,
              SUM(cache_write_short_tokens) AS cache_write_short_tokens,
              SUM(cache_write_long_tokens) AS cache_write_long_tokens, SUM(output_tokens) AS output_tokens,
              SUM(cost_picousd) AS cost_usd, SUM(baseline_cost_picousd) AS baseline_cost_usd,
              SUM(cost_picousd IS NULL) AS n_unpriced
            FROM records GROUP BY tier, model ORDER BY MIN(id)
        """
        with self._lock:
            cursor = self._db.execute(query)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
        for row in rows:
            for money in ("cost_usd", "baseline_cost_usd"):
                row[money] = None if row[money] is None else Decimal(row[money]) / PICO
        return rows

    def _prepare(self) -> None:
        """Create the tables, or add to those of an earlier version what they lack, all or nothing."""
        self._db.execute(_PROMPTS)
        if self._columns() >= _ADDED.keys():
            return
        self._db.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, _SCHEMA.split(";")):
            self._db.execute(statement)
        for column in [name for name in _ADDED if name not in self._columns()]:
            self._db.execute(f"ALTER TABLE records ADD COLUMN {column} {_ADDED[column]}")
        for statement in filter(str.strip, _INDEXES.split(";")):
            self._db.execute(statement)
        self._db.execute("COMMIT")

    def _columns(self) -> set[str]:
        return {row[1] for row in self._db.execute("PRAGMA table_info(records)")}

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; writing afterwards raises sqlite3.ProgrammingError."""
        self._db.close()


def columns(record: Record) -> tuple[Any, ...]:
    """A record as the databases keep it: COLUMNS."""
    usage = record.usage
    return (
        record.tier,
        record.model,
        record.reason,
        json.dumps(dict(record.p_suffices)),
        usage.fresh_tokens,
        usage.cache_read_tokens,
        usage.cache_write_short_tokens,
        usage.cache_write_long_tokens,
        usage.output_tokens,
        usage.reported,
        picousd(record.cost_usd),
        record.baseline_model,
        picousd(record.baseline_cost_usd),
        json.dumps(record.notes),
        record.artifact,
        record.conversation,
    )


def later_columns(record: Record) -> tuple[Any, ...]:
    """The rest of a record: LATER_COLUMNS."""
    return (
        record.traffic_class,
        record.mode,
        record.propensity,
        record.shadow_model,
        picousd(record.shadow_cost_usd),
        record.first_byte_ms,
        record.total_ms,
    )


def modifiers(usage: Usage, effort: str = "") -> str:
    """The effort asked for, and what a bill holds beside its counts, as a JSON object: only what is there."""
    dimensions: tuple[Dimension, ...] = ("service_tier", "speed", "geo")
    given: dict[str, Any] = {
        "effort": effort,
        "batch": usage.is_batch,
        **{name: value for name in dimensions if not is_plain(name, value := getattr(usage, name))},
        "calls": dict(usage.calls),
        "parts": [{"kind": p.kind, "model": p.model, **_counts(p.usage)} for p in usage.parts],
        "unpriced": usage.unpriced,
        "unknown_fields": usage.unknown_fields,
    }
    return json.dumps({name: value for name, value in given.items() if value})


def _counts(usage: Usage) -> dict[str, int]:
    return {name: n for name in COUNTS if (n := getattr(usage, name))}


def picousd(usd: Decimal | None) -> int | None:
    """USD as the databases keep it: whole picodollars, which sum exactly."""
    return None if usd is None else int(usd * PICO)
