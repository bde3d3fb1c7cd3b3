"""Which models to leave alone for a while because they keep failing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FAULTS_TO_REST = 5
REST_S = 30.0
"""A model that failed so many times in a row is passed over for so many seconds; then one success clears it."""


class Breaker:
    """Remembers which models keep failing. Thread-safe; one entry a model."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def failed(self, model: str) -> None:
        """Count one failure."""
        with self._lock:
            count, _ = self._failed.get(model, (0, 0.0))
            self._failed[model] = (count + 1, self._clock())

    def succeeded(self, model: str) -> None:
        """Forget the failures."""
        if model in self._failed:
            with self._lock:
                self._failed.pop(model, None)

    def rests(self, model: str) -> bool:
        """Whether a model is to be passed over now. After its rest one more failure sends it back at once."""
        count, at = self._failed.get(model, (0, 0.0))
        return count >= FAULTS_TO_REST and self._clock() - at < REST_S
