"""Prompt prefix caches as the providers document them, per model: what a request reads, writes and pays fresh.

Sources (2026-11-22): https://platform.claude.com/docs/en/build-with-claude/prompt-caching,
https://developers.openai.com/api/docs/guides/prompt-caching and the SDKs' types.

Assumed, for no document says so: each breakpoint that finds an entry refreshes that entry; of a run of tool_use blocks,
or of tool_result blocks, only blocks of the same kind are one position; OpenAI's implicit breakpoint is at the end of
the newest message that is not the assistant's, and one of an earlier request is found again where such a message ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from router.offline.models import Gpt
from router.offline.prompt import Position

TTL_S = {"5m": 300, "1h": 3600, "30m": 1800, "12h": 43200}
LONG = ("1h", "12h")
LOOK_BACK = 20
MATCHED_BREAKPOINTS = 80
WRITES = 4
_RUNS = ("tool_use", "tool_result")


@dataclass(frozen=True)
class Use:
    """One request's prompt in tokens by kind; `entries` are what it makes readable once its response begins."""

    total: int
    read: int = 0
    write_short: int = 0
    write_long: int = 0
    entries: tuple[tuple[str, str, float, int], ...] = field(default=(), repr=False)

    @property
    def fresh(self) -> int:
        return self.total - self.read - self.write_short - self.write_long


class PrefixCache:
    """What is warm: (model, prefix) to when it expires, in the clock's seconds, and its TTL."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def begin(self, use: Use) -> None:
        """The response begins: from now on others can read what its request wrote."""
        with self._lock:
            for model_id, key, expires_at, ttl_s in use.entries:
                known = self._entries.get((model_id, key), (0.0, 0))
                self._entries[model_id, key] = max(known, (expires_at, ttl_s))

    def use_anthropic(self, model_id: str, min_tokens: int, positions: Sequence[Position], now: float) -> Use:
        """Read what the breakpoints reach and write at those beyond it, from the request's start `now`.

        The highest hit is read; from there to each further breakpoint is written at that breakpoint's TTL, so that
        with 1h before 5m the tokens are read up to A, written for 1h up to B and for 5m up to C.
        """
        marked = [i for i, position in enumerate(positions) if position.ttl]
        with self._lock:
            hits = [self._hit(model_id, _reach(positions, i), positions, now) for i in marked]
        written = {i: positions[i].ttl for i in marked}
        return _billed(model_id, positions, max(hits, default=-1), written, min_tokens, now)

    def use_openai(
        self, model_id: str, model: Gpt, positions: Sequence[Position], now: float, implicit_ttl: str | None
    ) -> Use:
        """Read and write as the model's generation does. `implicit_ttl` is None in explicit mode.

        Models with breakpoints match at them alone, the latest 80, and write at the latest four: in implicit mode one
        at the end of the newest message and three set by the request. Older models read the longest stored prefix,
        128 tokens at a time, and store for nothing.
        """
        total = positions[-1].tokens
        if not model.has_breakpoints:
            with self._lock:
                hit = self._hit(model_id, range(len(positions) - 1, -1, -1), positions, now)
            read = positions[hit].tokens // 128 * 128 if hit >= 0 else 0
            if total < model.cache_min_tokens:
                return Use(total)
            entries = tuple((model_id, p.key, now + TTL_S["5m"], TTL_S["5m"]) for p in positions)
            return Use(total, read if read >= model.cache_min_tokens else 0, entries=entries)
        marked = [i for i, position in enumerate(positions) if position.ttl]
        if implicit_ttl is None and not marked:
            return Use(total)
        ends = [i for i, position in enumerate(positions) if position.ends_message and implicit_ttl]
        candidates = sorted({*marked, *ends}, reverse=True)[:MATCHED_BREAKPOINTS]
        with self._lock:
            hit = self._hit(model_id, candidates, positions, now)
        written = {i: positions[i].ttl for i in marked[-WRITES if implicit_ttl is None else 1 - WRITES :]}
        if ends:
            written.setdefault(ends[-1], implicit_ttl)
        return _billed(model_id, positions, hit, written, model.cache_min_tokens, now)

    def _hit(self, model_id: str, candidates: Iterable[int], positions: Sequence[Position], now: float) -> int:
        """The first of the candidates that is warm, refreshed; -1 if none is."""
        for i in candidates:
            expires_at, ttl_s = self._entries.get((model_id, positions[i].key), (0.0, 0))
            if expires_at > now:
                self._entries[model_id, positions[i].key] = (max(expires_at, now + ttl_s), ttl_s)
                return i
        return -1


def _reach(positions: Sequence[Position], start: int) -> Iterable[int]:
    """The indices that a breakpoint at `start` looks at: 20 positions with itself, a run of tool blocks being one."""
    n_positions = 0
    for i in range(start, -1, -1):
        is_same_run = i < start and positions[i].kind == positions[i + 1].kind in _RUNS
        n_positions += not is_same_run
        if n_positions > LOOK_BACK:
            return
        yield i


def _billed(
    model_id: str,
    positions: Sequence[Position],
    hit: int,
    written: Mapping[int, str | None],
    min_tokens: int,
    now: float,
) -> Use:
    """Read up to `hit`; from there on each index of `written`, if it has the minimum, is written for its TTL."""
    read = done = positions[hit].tokens if hit >= 0 else 0
    short = long = 0
    entries = []
    for i, ttl in sorted(written.items()):
        tokens = positions[i].tokens
        if i <= hit or tokens < min_tokens or ttl is None:
            continue
        short, long = (short, long + tokens - done) if ttl in LONG else (short + tokens - done, long)
        done = tokens
        entries.append((model_id, positions[i].key, now + TTL_S[ttl], TTL_S[ttl]))
    return Use(positions[-1].tokens, read, short, long, tuple(entries))
