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


# The status that each error inside a stream stands for: https://platform.claude.com/docs/en/api/errors (2026-11-22)
# and https://developers.openai.com/api/docs/guides/error-codes (2026-11-26). A number is itself the status.
_STATUS_OF = {
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
}

_TOO_LONG = (
    *("prompt is too long", "input is too long", "maximum context length", "context window", "context size"),
    *("input token count", "maximum number of tokens", "context length"),
)


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
    if status == 200 or (status is None and "APIError" in names):  # in a stream that had begun
        status = status_of(_said(error))
    if not isinstance(status, int) or not _may_be_repeated(error, status):
        return None
    kind = getattr(error, "type", None)
    return Fault(f"{status} {kind}" if kind else str(status), moves_up=status != 409, wait_s=_wait(_headers(error)))


def status_of(error: Any) -> int:
    """The HTTP status that an error inside a stream stands for: a number that it names, else its type's; 502 for none.

    `error` is the object under "error".
    """
    if isinstance(error, Mapping):
        for name in ("code", "status", "http_code", "type"):
            said = error.get(name)
            if str(said).isdigit() and 400 <= int(str(said)) < 600:
                return int(str(said))
            if isinstance(said, str) and said in _STATUS_OF:
                return _STATUS_OF[said]
    return 502


def _said(error: Exception) -> Any:
    """What an SDK's exception holds of the error that the provider sent."""
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, Mapping) else None
    return inner if isinstance(inner, Mapping) else body


def is_too_long(error: Exception) -> bool:
    """Whether a provider refused a prompt because its model's window does not hold it.

    Of Anthropic's, OpenAI's, Gemini's and compatible servers' errors, as users report them, 2026-11-26.
    """
    if getattr(error, "status_code", None) not in (400, 413, 422):
        return False
    if "context_length_exceeded" in (getattr(error, "code", None), getattr(error, "type", None)):
        return True
    said = str(getattr(error, "message", None) or error).lower()
    return any(words in said for words in _TOO_LONG)


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
