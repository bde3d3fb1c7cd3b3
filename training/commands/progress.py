"""Progress bars on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Never

    from tqdm import tqdm


class ProgressBars:
    """A tqdm bar for each step, only on a terminal."""

    def __init__(self) -> None:
        self._step = ""
        self._bar: tqdm[Never] | None = None

    def __call__(self, step: str, done: int, total: int) -> None:
        """`done` of `total` of a step; another step than before closes the bar of the one before."""
        from tqdm import tqdm

        if self._bar is None or step != self._step:
            self._close()
            self._step, self._bar = step, tqdm(desc=step, total=total, file=sys.stderr, disable=None)
        self._bar.total = max(total, done)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
