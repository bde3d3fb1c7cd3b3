"""Numbers and days as people read them."""

from __future__ import annotations

import datetime as dt

import pytest

from router.audit import labels


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0 k"),
        (41_049, "41.0 k"),
        (999_949, "999.9 k"),
        (999_950, "1.0 M"),
        (7_340_000_000, "7,340.0 M"),
    ],
)
def test_tokens(n: int, said: str) -> None:
    assert labels.tokens(n) == said


def test_days() -> None:
    first = dt.datetime(2026, 5, 3, 1, tzinfo=dt.UTC)
    assert labels.days(first, first.replace(hour=23)) == "on 3 May 2026"
    assert labels.days(first, first.replace(month=6, day=9)) == "from 3 May 2026 to 9 June 2026"
