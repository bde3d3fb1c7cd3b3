"""What the dashboard shows: read from the records in a thread, and kept for a while."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from router.accounts.ledger import PICO, SEPARATOR, Totals
from router.gateway.gateway import Gateway
from router.gateway.stores import opened

DAYS = 30
_FRESH_S = 15.0
_PATIENCE_S = 0.6
"""A page waits so long for its figures; beyond it, one that says so is sent, which asks again."""
_GROUPS = ("day", "model", "tier", "key", "class")
_RECENT, _MEASURED = 25, 1000
_WHOSE = ("request req_", "key ")
"""How notes begin that only name the request or its key."""


class Decision(msgspec.Struct, frozen=True):
    """One of the newest requests."""

    at: str
    tier: str
    model: str
    reason: str
    p_suffices: dict[str, float]
    usd: float | None
    shadow_model: str
    notes: list[str]


class Overview(msgspec.Struct, frozen=True):
    """Totals of the last DAYS days: by day (all of them, UTC), and by whatever else a line can stand for.

    `today`, `total` and the lines are sums in USD and tokens; `latency` has milliseconds by name and quantile, of the
    newest requests.
    """

    at: dt.datetime
    today: Totals
    total: Totals
    days: list[tuple[str, Totals]]
    lines: dict[str, list[Totals]]
    latency: dict[str, dict[str, float]]
    recent: list[Decision]


class Overviews:
    """The newest overview. One is made at a time; while a new one is made the last is shown."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._made: Overview | None = None
        self._made_s = float("-inf")
        self._task: asyncio.Task[Overview] | None = None

    async def get(self) -> Overview | None:
        """The overview, None where there is none yet and the first takes longer than a page may wait.

        Raises SettingsError where the records cannot be read.
        """
        if time.monotonic() - self._made_s < _FRESH_S:
            return self._made
        if self._task is None:
            self._task = asyncio.create_task(asyncio.to_thread(_read, self._gateway))
        done, _ = await asyncio.wait({self._task}, timeout=_PATIENCE_S)
        if not done:
            return self._made
        task, self._task = self._task, None
        self._made, self._made_s = task.result(), time.monotonic()
        return self._made


def _read(gateway: Gateway) -> Overview:
    now = dt.datetime.now(dt.UTC)
    start = (now - dt.timedelta(days=DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
    with opened(gateway.serving.settings) as store:
        lines = _lines(store.report(",".join(_GROUPS), start))
        newest = store.rows(start, model=None, key=None, limit=_MEASURED)
    of_day = {row.name: row for row in lines.pop("day")}
    names = [(start + dt.timedelta(days=n)).date().isoformat() for n in range(DAYS)]
    days = [(name, of_day.get(name) or Totals.of([])) for name in names]
    return Overview(
        now,
        days[-1][1],
        Totals.of(of_day.values()),
        days,
        lines,
        {name: _quantiles([row[name] for row in newest]) for name in ("first_byte_ms", "total_ms")},
        [_decision(row) for row in newest[:_RECENT]],
    )


def _lines(rows: Sequence[Totals]) -> dict[str, list[Totals]]:
    """Lines by each group, the dearest first, of lines by all: one pass over a million records is 4 s, five are 13."""
    found: dict[str, dict[str, list[Totals]]] = {by: {} for by in _GROUPS}
    for row in rows:
        for by, name in zip(_GROUPS, row.name.split(SEPARATOR), strict=True):
            found[by].setdefault(name or "-", []).append(row)
    lines = {
        by: [msgspec.structs.replace(Totals.of(parts), name=name) for name, parts in of_group.items()]
        for by, of_group in found.items()
    }
    return {by: sorted(of_group, key=lambda row: -row.cost_usd) for by, of_group in lines.items()}


def _quantiles(values: Sequence[float | None]) -> dict[str, float]:
    known = sorted(value for value in values if value is not None)
    if not known:
        return {}
    return {name: known[min(int(share * len(known)), len(known) - 1)] for name, share in (("p50", 0.5), ("p95", 0.95))}


def _decision(row: dict[str, Any]) -> Decision:
    read = {name: json.loads(v) if isinstance(v := row[name], str) else v for name in ("p_suffices", "notes")}
    return Decision(
        str(row["at"])[:19].replace("T", " "),
        row["tier"] or "",
        row["model"],
        row["reason"],
        {str(tier): float(p) for tier, p in read["p_suffices"].items()},
        None if row["cost_picousd"] is None else row["cost_picousd"] / float(PICO),
        row["shadow_model"],
        [str(note)[:200] for note in read["notes"] if not str(note).startswith(_WHOSE)][:4],
    )
