"""Tierwise's own records: the SQLite file of `ledger`, or of the gateway's state folder."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from router.accounts.ledger import COUNTS, PICO
from router.audit.calls import Call, Log
from router.audit.files import count, seconds
from router.types import Usage

KIND = "Tierwise"


def read_log(paths: Iterable[Path]) -> Log:
    """The calls of databases of records; those whose usage was estimated are left out."""
    log = Log(KIND, [], [], Counter())
    seen: set[tuple[Any, ...]] = set()
    for path in paths:
        log.paths.append(path)
        try:
            for row in _rows(path):
                if row in seen:
                    log.skipped["records that stand in two files"] += 1
                    continue
                seen.add(row)
                _, at, model, reported, cost, conversation, fresh, read, short, long, output = row
                at_s = seconds(at)
                if not reported:
                    log.skipped["records whose usage was estimated"] += 1
                elif at_s is None or not isinstance(model, str):
                    log.skipped["records without a time or a model"] += 1
                else:
                    usage = Usage(count(fresh), count(read), count(short), count(long), count(output))
                    usd = Decimal(cost) / PICO if isinstance(cost, int) else None
                    whose = conversation if isinstance(conversation, str) else ""
                    log.calls.append(Call(at_s, model, usage, whose, KIND, cost_usd=usd))
        except sqlite3.Error as exc:
            log.skipped[f"databases that cannot be read ({exc})"] += 1
    log.calls.sort(key=lambda call: call.at_s)
    return log


def _rows(path: Path) -> Iterator[tuple[Any, ...]]:
    """The records of a database: id, time, model, whether usage was reported, cost, conversation and the counts."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        database.text_factory = lambda data: data.decode(errors="replace")
        names = {name for _, name, *_ in database.execute("PRAGMA table_info(records)")}
        whose = "conversation" if "conversation" in names else "''"  # the first versions did not record it
        columns = f"id, at, model, usage_reported, cost_picousd, {whose}, {', '.join(COUNTS)}"
        yield from database.execute(f"SELECT {columns} FROM records ORDER BY at")
