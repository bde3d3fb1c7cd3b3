"""Tierwise's own records: the SQLite file of `ledger`, or of the gateway's state folder."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from router.accounts.ledger import COUNTS, PICO
from router.audit.calls import Call, Log
from router.audit.files import seconds
from router.types import Usage

KIND = "Tierwise"


def read_log(paths: Iterable[Path]) -> Log:
    """The calls of databases of records; those whose usage was estimated are left out."""
    log = Log(KIND, [], [], Counter())
    query = (
        f"SELECT at, model, usage_reported, cost_picousd, conversation, {', '.join(COUNTS)} FROM records ORDER BY at"
    )
    for path in paths:
        log.paths.append(path)
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
                for at, model, reported, cost, conversation, *counts in database.execute(query):
                    at_s = seconds(at)
                    if not reported or at_s is None:
                        log.skipped["records whose usage was estimated"] += 1
                        continue
                    usage = Usage(**dict(zip(COUNTS, counts, strict=True)))
                    usd = None if cost is None else Decimal(cost) / PICO
                    log.calls.append(Call(at_s, model, usage, conversation, KIND, cost_usd=usd))
        except sqlite3.Error as exc:
            log.skipped[f"databases that cannot be read ({exc})"] += 1
    log.calls.sort(key=lambda call: call.at_s)
    return log
