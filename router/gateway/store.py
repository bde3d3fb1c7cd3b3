"""What a database of records must do: each batch of the journal in one transaction.

It also keeps how far each journal has been applied, in the same transaction as the records, so that no record is
written twice, and what each key has spent a day.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from router.accounts.ledger import EVER, Totals
from router.classifier.pointer import Feedback
from router.types import Record

Spent = dict[tuple[str, dt.date], Decimal]
"""USD by key and day (UTC)."""


class JournalEntry(msgspec.Struct, frozen=True):
    """One line of the journal: a record, and whose request it was."""

    request_id: str
    record: Record
    key: str | None = None
    charged_usd: Decimal | None = None
    """What a budget is charged where the record's cost is not known."""


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

    def report(self, by: str, since: dt.datetime, until: dt.datetime = EVER) -> list[Totals]:
        """As `Ledger.report`."""

    def rows(
        self, since: dt.datetime, until: dt.datetime = EVER, *, model: str | None, key: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """As `Ledger.rows`."""

    def expire(self, *, prompts_before: dt.datetime, records_before: dt.datetime | None) -> None:
        """As `Ledger.expire`."""

    def forget_prompts(self, conversation: str) -> int:
        """As `Ledger.forget_prompts`."""

    def close(self) -> None:
        """Give the connection back."""


def spent_by(entries: Sequence[JournalEntry]) -> Spent:
    """USD by key and day of some entries."""
    spent: Spent = defaultdict(Decimal)
    for entry in entries:
        if entry.key is not None and (usd := entry.record.cost_usd or entry.charged_usd):
            spent[entry.key, entry.record.at.date()] += usd
    return spent
