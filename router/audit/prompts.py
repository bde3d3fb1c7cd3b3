"""What the prompts of a log have in common: calls -> a trace that can be replayed.

A log of sessions holds sizes and not prompts. What two prompts share is read from their sizes and from what came out of
the provider's cache: a conversation goes on from its last call, unless it became shorter (compacted, cleared, rewound)
or less was read while the cache was warm (its beginning had changed). Then it shares what was read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from router.audit.calls import Call
from router.simulate.trace import Trace

_WARM_S, _LONG_WARM_S = 270.0, 3570.0
"""Within this long after a call its cache is warm for certain: the lifetimes are five minutes and an hour."""
_SAME = 0.02
_NEAR = 64
"""Sizes are the same if they differ by less than this share or so many tokens: breakpoints fall short of the end."""


class Rebuilt(msgspec.Struct, frozen=True):
    """Calls of one model as a trace, and what each of them has in common with earlier ones, in tokens.

    `shared` was in the conversation's last call (0 for its first), `head` is tools and system prompt (0: unknown).
    `sent` is how much of the prompt the last call of the conversation, or for its first one the last call with that
    head, had sent at the same place, changed or not; `gap_s` are the seconds since then, infinite where there is none.
    """

    calls: Sequence[Call]
    trace: Trace
    shared: npt.NDArray[np.int64]
    head: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    gap_s: npt.NDArray[np.float64]


class _Open(msgspec.Struct):
    """A conversation so far: the parts of its last prompt and where each ends."""

    parts: list[int]
    ends: list[int]
    n_head: int
    at_s: float
    cached: int
    is_long: bool


def rebuilt(calls: Sequence[Call]) -> Rebuilt:
    """The trace of calls, which must be in the order of time, not empty, and of one model."""
    numbers: dict[object, int] = {}
    heads = _heads(calls)
    opened, ends = dict[str, _Open](), _ends(calls)
    names: dict[str, int] = {}
    rows: list[tuple[int, _Open]] = []
    shared, head, sent = (np.zeros(len(calls), np.int64) for _ in range(3))
    gap_s, head_at_s = np.full(len(calls), np.inf), dict[int, float]()
    for i, call in enumerate(calls):
        before = opened.get(call.conversation) if call.conversation else None
        if call.prefix is not None:
            now = _exact(call, numbers, ends)
            n = _n_shared(now.parts, before.parts) if before else 0
            shared[i] = now.ends[n - 1] if n else 0
        else:
            size = _shared(call, before) if before else 0
            now = _grown(call, before, size, heads[i], numbers)
            shared[i] = min(size, call.usage.input_tokens)
        head[i] = now.ends[now.n_head - 1] if now.n_head else 0
        if before:
            sent[i], gap_s[i] = min(before.ends[-1], call.usage.input_tokens), call.at_s - before.at_s
        elif now.n_head and (seen_s := head_at_s.get(now.parts[now.n_head - 1])) is not None:
            sent[i], gap_s[i] = head[i], call.at_s - seen_s
        if now.n_head:
            head_at_s[now.parts[now.n_head - 1]] = call.at_s
        if call.conversation:
            opened[call.conversation] = now
        rows.append((names.setdefault(call.conversation or f"\0{i}", len(names)), now))
    opens = [call.opens_turn for call in calls]
    trace = Trace(
        np.array([call.at_s - calls[0].at_s for call in calls]),
        np.array([number for number, _ in rows]),
        np.array([call.usage.input_tokens for call in calls]),
        np.array([call.usage.output_tokens for call in calls]),
        None if None in opens else np.asarray(opens, bool),
        [np.asarray(now.parts, np.int64) for _, now in rows],
        [np.asarray(now.ends, np.int64) for _, now in rows],
        len(numbers),
        np.array([now.n_head for _, now in rows]),
        np.array([bool(call.conversation) for call in calls]),
    )
    return Rebuilt(calls, trace, shared, head, sent, gap_s)


def _heads(calls: Sequence[Call]) -> list[int]:
    """Tokens of tools and system prompt for each call that opens a conversation: what it read that others had written.

    Where it read nothing, those that opened others of the same `head` tell; 0 where none does.
    """
    seen: set[str] = set()
    found: dict[str, list[int]] = defaultdict(list)
    first = []
    for call in calls:
        first.append(not call.conversation or call.conversation not in seen)
        seen.add(call.conversation)
        if first[-1] and call.head and call.usage.cache_read_tokens:
            found[call.head].append(call.usage.cache_read_tokens)
    usual = {name: int(np.median(sizes)) for name, sizes in found.items()}
    return [
        0 if not opens else min(call.usage.cache_read_tokens or usual.get(call.head, 0), call.usage.input_tokens)
        for call, opens in zip(calls, first, strict=True)
    ]


def _exact(call: Call, numbers: dict[object, int], ends: Mapping[object, int]) -> _Open:
    """A prompt that the log holds whole: its own parts, and where each ends in tokens."""
    assert call.prefix is not None
    parts = dict(_parts(call))
    found = [min(ends[part], call.usage.input_tokens) for part in parts]
    if found:
        found[-1] = call.usage.input_tokens
    n_head, read = int(bool(call.prefix.head_key)), call.usage.cache_read_tokens
    return _Open([numbers.setdefault(part, len(numbers)) for part in parts], found, n_head, call.at_s, read, False)


def _parts(call: Call) -> Iterator[tuple[object, int]]:
    """The parts of a whole prompt, each with the tokens up to its end by the prompt's own characters a token."""
    prefix = call.prefix
    assert prefix is not None
    scale = call.usage.input_tokens / prefix.size if prefix.size else 0.0
    if prefix.head_key:
        yield ("head", prefix.head_key, prefix.head_bytes), int(prefix.head_units * scale)
    for key, units in zip(prefix.keys, prefix.units, strict=True):
        yield ("key", key, prefix.head_bytes), int(units * scale)


def _ends(calls: Sequence[Call]) -> dict[object, int]:
    """Where each part of whole prompts ends: as the prompt says that has the least behind it, for characters make
    tokens at another rate in each text, and a part must end at one place."""
    found: dict[object, tuple[int, int]] = {}
    for call in calls:
        for part, end in _parts(call) if call.prefix is not None else ():
            behind = call.usage.input_tokens - end
            found[part] = min(found.get(part, (behind, end)), (behind, end))
    return {part: end for part, (_, end) in found.items()}


def _n_shared(parts: Sequence[int], before: Sequence[int]) -> int:
    n = min(len(parts), len(before))
    return next((i for i in range(n) if parts[i] != before[i]), n)


def _shared(call: Call, before: _Open) -> int:
    """Tokens that a call's prompt shares with the one before it, as far as sizes tell."""
    total, read = call.usage.input_tokens, call.usage.cache_read_tokens
    last = before.ends[-1]
    if total < last - near(last):
        return read or (before.ends[before.n_head - 1] if before.n_head else 0)
    was_warm = before.cached > 0 and call.at_s - before.at_s < (_LONG_WARM_S if before.is_long else _WARM_S)
    if was_warm and read < before.cached - near(before.cached):
        return read
    return min(last, total)


def _grown(call: Call, before: _Open | None, shared: int, head: int, numbers: dict[object, int]) -> _Open:
    """The prompt of a call: the parts that it shares, and one more for what is new."""
    usage, total = call.usage, call.usage.input_tokens
    if before is not None:
        n = bisect_right(before.ends, shared + near(shared))
        parts, ends, n_head = before.parts[:n], before.ends[:n], min(before.n_head, n)
    elif head:
        # Heads of a few tokens more or less are the same: their size is rounded to 1 %.
        known = ("head", call.head or call.conversation, round(np.log(head) / np.log1p(_SAME)))
        parts, ends, n_head = [numbers.setdefault(known, len(numbers))], [head], 1
    else:
        parts, ends, n_head = [], [], 0
    if not ends or total > ends[-1]:
        parts, ends = [*parts, numbers.setdefault(object(), len(numbers))], [*ends, total]
    cached = usage.cache_read_tokens + usage.cache_write_short_tokens + usage.cache_write_long_tokens
    is_long = usage.cache_write_long_tokens > 0 or (before is not None and before.is_long)
    return _Open(parts, ends, n_head, call.at_s, cached, is_long and not usage.cache_write_short_tokens)


def near(size: int) -> int:
    """How many tokens two sizes may differ by and still be the same."""
    return max(_NEAR, int(size * _SAME))
