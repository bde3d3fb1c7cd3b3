"""Usage x prices -> cost, the always-top-tier baseline beside it, and the store of records.

The baseline is the strongest honest one: the same tokens on the fleet's top model with prompt caching, its cache
warm or cold by its own history, at whichever TTL is cheaper over all calls. Output is assumed equally long on every
model, and tokens are not scaled between tokenizers (newer Claude models yield about 30 % more), so a saving over an
older cheap tier is understated rather than overstated.
"""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import threading
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from router.catalog import Model
from router.classifier.pointer import Feedback
from router.types import Record, Usage

BATCH_FACTOR = Decimal("0.5")
"""What a batch costs, caches included: https://platform.claude.com/docs/en/build-with-claude/batch-processing and
https://developers.openai.com/api/docs/guides/batch, 2026-11-25."""

_MTOK = Decimal(1_000_000)
PICO = Decimal(10) ** 12  # SQL sums integers exactly; every price is a multiple of 1e-10 USD a token


def cost(usage: Usage, model: Model | None, on: dt.date) -> Decimal | None:
    """USD for one reply; None (unknown) without usage, for an unknown model, or where a needed price is not known."""
    if model is None or not usage.is_known:
        return None
    price = model.price(on, usage.input_tokens)
    parts = (
        (usage.fresh_tokens, price.input),
        (usage.cache_read_tokens, price.cache_read),
        (usage.cache_write_short_tokens, price.cache_write_short),
        (usage.cache_write_long_tokens, price.cache_write_long),
        (usage.output_tokens, price.output),
    )
    total = Decimal(0)
    for n_tokens, usd_per_mtok in parts:
        if n_tokens and usd_per_mtok is None:
            return None
        total += n_tokens * (usd_per_mtok or Decimal(0))
    return total / _MTOK * (BATCH_FACTOR if usage.is_batch else 1)


def day(at_s: float) -> dt.date:
    """The day (UTC) whose prices hold at a time in seconds since the epoch."""
    return dt.datetime.fromtimestamp(at_s, dt.UTC).date()


@dataclass(slots=True)
class _Arm:
    """One way to cache the baseline: at which TTL, the tools and system prompt alone or the conversation too.

    `warm` maps a prefix key to its expiry in seconds and its tokens; `total_usd` is the cost so far.
    """

    ttl: Literal["short", "long"]
    ttl_s: int
    has_tail: bool
    warm: OrderedDict[str, tuple[float, int]]
    total_usd: Decimal = Decimal(0)


class Baseline:
    """What the same traffic would cost on one model with caching: a counterfactual cache for each way. Thread-safe."""

    def __init__(self, model: Model, *, max_prefixes: int = 50_000) -> None:
        self.model = model
        self._max_prefixes = max_prefixes
        self._lock = threading.Lock()
        self._arms = [_Arm("short", model.ttl_short_s, has_tail, OrderedDict()) for has_tail in (False, True)]
        if model.ttl_long_s is not None and model.prices[0].cache_write_long is not None:
            self._arms += [_Arm("long", model.ttl_long_s, has_tail, OrderedDict()) for has_tail in (False, True)]

    def cost(
        self,
        usage: Usage,
        prefix_key: str,
        prefix_tokens: int,
        at_s: float,
        *,
        conversation: str = "",
        known_tokens: int = 0,
    ) -> Decimal | None:
        """USD by which this call raises the baseline: over any run of calls these sum to the cheapest way's total.

        `prefix_tokens` of the call's input could be cached under `prefix_key`, `known_tokens` of it were in the last
        request of `conversation`; `at_s` is when the request started.
        """
        if not usage.is_known:
            return None
        on = day(at_s)
        with self._lock:
            if usage.input_tokens < self.model.cache_min_tokens:  # the same every way
                usd = cost(self._billed(self._arms[0], usage, 0, 0), self.model, on)
                for arm in self._arms:
                    arm.total_usd += usd or Decimal(0)
                return usd
            before = min(arm.total_usd for arm in self._arms)
            for arm in self._arms:
                if arm.has_tail and conversation:
                    counted = self._whole(arm, usage, (prefix_key, prefix_tokens), at_s, conversation, known_tokens)
                else:
                    counted = self._counterfactual(arm, usage, prefix_key, prefix_tokens, at_s)
                usd = cost(counted, self.model, on)
                if usd is None:
                    return None
                arm.total_usd += usd
            return min(arm.total_usd for arm in self._arms) - before

    def _counterfactual(self, arm: _Arm, usage: Usage, key: str, prefix_tokens: int, at_s: float) -> Usage:
        """The call with its tools and system prompt cached."""
        prefix = min(prefix_tokens, usage.input_tokens)
        if not key or prefix < self.model.cache_min_tokens:
            return self._billed(arm, usage, 0, 0)
        read = min(self._held(arm, key, at_s), prefix)
        self._keep(arm, key, prefix, at_s)
        return self._billed(arm, usage, read, prefix - read)

    def _whole(
        self, arm: _Arm, usage: Usage, head: tuple[str, int], at_s: float, conversation: str, known_tokens: int
    ) -> Usage:
        """The call with all of its prompt cached: what the conversation's last request left is read, else the head."""
        total = usage.input_tokens
        if total < self.model.cache_min_tokens:
            return self._billed(arm, usage, 0, 0)
        read = min(self._held(arm, conversation, at_s), known_tokens, total)
        if head[0] and head[1] >= self.model.cache_min_tokens:
            read = max(read, min(self._held(arm, head[0], at_s), total))
            self._keep(arm, head[0], min(head[1], total), at_s)
        self._keep(arm, conversation, total, at_s)
        return self._billed(arm, usage, read, total - read)

    def _held(self, arm: _Arm, key: str, at_s: float) -> int:
        expiry, held = arm.warm.pop(key, (0.0, 0))
        return held if expiry > at_s else 0

    def _keep(self, arm: _Arm, key: str, tokens: int, at_s: float) -> None:
        arm.warm[key] = (at_s + arm.ttl_s, tokens)
        if len(arm.warm) > self._max_prefixes:
            arm.warm.popitem(last=False)

    def _billed(self, arm: _Arm, usage: Usage, read: int, written: int) -> Usage:
        free_writes = self.model.prices[0].cache_write_short is None
        return Usage(
            fresh_tokens=usage.input_tokens - read - (0 if free_writes else written),
            cache_read_tokens=read,
            cache_write_short_tokens=written if arm.ttl == "short" and not free_writes else 0,
            cache_write_long_tokens=written if arm.ttl == "long" else 0,
            output_tokens=usage.output_tokens,
            is_batch=usage.is_batch,
        )


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
}
_INDEXES = """
CREATE INDEX IF NOT EXISTS records_conversation ON records (conversation) WHERE conversation != '';
CREATE INDEX IF NOT EXISTS records_request_id ON records (request_id) WHERE request_id IS NOT NULL;
"""
_KEEP_FEEDBACK = """
INSERT INTO feedback VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET at = excluded.at, good = MIN(good, excluded.good)
"""


class Ledger:
    """The record store: SQLite, a file or in memory. No prompt and no reply is stored. Thread-safe."""

    def __init__(self, path: str | Path = ":memory:") -> None:
        """Opens or creates the database. Raises sqlite3.Error if the file is not one."""
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._prepare()

    def write(self, record: Record, request_id: str | None = None, key: str | None = None) -> None:
        """Append one record; a gateway names the request and whose key it came with."""
        row = (record.at.isoformat(), *columns(record), request_id, key)
        with self._lock:
            self._db.execute(f"INSERT INTO records VALUES (NULL{', ?' * len(row)})", row)

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
    """A record as the databases keep it, but for its time: the columns from `tier` to `conversation`."""
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


def picousd(usd: Decimal | None) -> int | None:
    """USD as the databases keep it: whole picodollars, which sum exactly."""
    return None if usd is None else int(usd * PICO)
