"""Faults of a provider: which are worth another try, and after how long.

Sources: the retry rules of anthropic 2.12 and openai 3.54 (`_base_client.py`, `_should_retry`), read 2026-11-22.
Neither SDK is imported: their exceptions have the same shape.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

BUDGET_S = 60.0
"""What one call may spend on waiting between its attempts, in seconds."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0

_NO_REMEDY = ("spend_limit", "insufficient_quota", "billing")
"""Error codes of a 429 that no waiting mends: the account's own limit, the same for every model."""


class Fault(msgspec.Struct, frozen=True):
    """What went wrong, and whether a stronger model may help: one at another address only, if it is of the address.

    `wait_s` is what the provider asked for, in seconds, or None.
    """

    what: str
    moves_up: bool
    wait_s: float | None = None
    is_of_address: bool = False


def read_fault(error: Exception) -> Fault | None:
    """The fault behind an SDK's exception; None when another attempt cannot help (a 400, a wrong key, a bug)."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if "APITimeoutError" in names:
        return Fault("timeout", moves_up=True)
    if "APIConnectionError" in names:
        return Fault("no connection", moves_up=True, is_of_address=True)
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not _may_be_repeated(error, status):
        return None
    kind = getattr(error, "type", None)
    return Fault(f"{status} {kind}" if kind else str(status), moves_up=status != 409, wait_s=_wait(_headers(error)))


def pause(fault: Fault, attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Seconds after failed attempt `attempt` (from 0): as the provider says, else 0.5 s doubled up to 8 s, jittered."""
    if fault.wait_s is not None:
        return fault.wait_s
    return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt) * (1 - 0.25 * chance()))


def _may_be_repeated(error: Any, status: int) -> bool:
    asked = _headers(error).get("x-should-retry")
    if asked in ("true", "false"):
        return asked == "true"
    if status == 429:
        code = str(getattr(error, "error_code", None) or getattr(error, "code", None) or "")
        return not any(word in code for word in _NO_REMEDY)
    return status in (408, 409) or status >= 500


def _headers(error: Any) -> Mapping[str, str]:
    return getattr(getattr(error, "response", None), "headers", None) or {}


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after` (seconds, or a date); None when absent or unreadable."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(float(headers.get(name, "")) * unit, 0.0)
        except ValueError:
            continue
    try:
        return max(parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None
