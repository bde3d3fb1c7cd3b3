"""What people are told the parts, causes and levers of an audit are."""

from __future__ import annotations

import datetime as dt

PARTS = {"static": "tools, system prompt", "history": "sent before", "new": "new", "output": "replies"}
CAUSES = {
    "not cached": "never cached",
    "pause": "cache had expired",
    "changed": "prompt had changed",
    "shortened": "history was shortened",
}
LEVERS = {
    "uncached": "without any caching",
    "caching": "caching alone",
    "routing": "routing alone",
    "effort": "effort alone",
    "together": "caching and routing",
}


def tokens(n: int) -> str:
    """A number of tokens for people: 812, 41.0 k, 7.3 M."""
    if n < 1000:
        return f"{n}"
    return f"{n / 1e3:,.1f} k" if n < 999_950 else f"{n / 1e6:,.1f} M"


def days(start: dt.datetime, end: dt.datetime) -> str:
    """When calls were made: "on 3 May 2026", "from 3 May 2026 to 9 June 2026"."""
    first, last = (f"{at:%-d %B %Y}" for at in (start, end))
    return f"on {first}" if first == last else f"from {first} to {last}"
