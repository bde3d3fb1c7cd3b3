"""Faults of providers in the log: named, and few, however many requests a dead provider fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_logger = logging.getLogger("tierwise")

_EVERY_S = 10.0
_NOTED = frozenset((401, 403, 408, 429))


def is_noted(status: int) -> bool:
    """Whether a status is the provider's, the key's or the account's fault; what a caller's body earned is not."""
    return status >= 500 or status in _NOTED


class FaultLog:
    """The first fault of a kind at once, then a line in ten seconds, with how many there were between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, model: str, what: str, request_id: str) -> None:
        """`model` as metrics name it and `what`, such as "the provider answered 503", are of a bounded number."""
        now = self._clock()
        last_s, n_untold = self._kinds.get((model, what), (-_EVERY_S, 0))
        if now - last_s < _EVERY_S:
            self._kinds[model, what] = (last_s, n_untold + 1)
            return
        self._kinds[model, what] = (now, 0)
        more = f", and {n_untold:,} like it before" if n_untold else ""
        told = {"model": model, "request_id": request_id}
        _logger.warning("%s: model %s, request %s%s", what, model, request_id, more, extra=told)
