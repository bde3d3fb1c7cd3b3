"""Where a log's tokens and dollars go: what prompts are made of, what weighs most in them, what was paid for twice."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from router.audit.calls import Piece
from router.audit.prompts import Rebuilt, near
from router.catalog import Model
from router.types import Usage

Part = Literal["static", "history", "new", "output"]
Cause = Literal["not cached", "pause", "changed", "shortened"]

_SHORT_S = 300.0


class Weight(msgspec.Struct):
    """Tokens and USD of one part of the bill."""

    tokens: int = 0
    usd: float = 0.0


class Heavy(msgspec.Struct, frozen=True):
    """A tool or a file: how often its output entered a prompt, its tokens then, and those of all times it was sent."""

    name: str
    n_times: int
    tokens: int
    sent_tokens: int


class Weights(msgspec.Struct, frozen=True):
    """`parts`: tools and system prompt (static), what was sent before (history), what is new, and replies (output).

    `misses`: what was sent again and not read from the cache, by cause, with the USD that reading it would have saved.
    """

    parts: dict[Part, Weight]
    misses: dict[Cause, Weight]
    n_misses: dict[Cause, int]
    tools: list[Heavy]
    files: list[Heavy]
    hit_rate: float


def weigh(prompts: Iterable[tuple[Model, Rebuilt]], today: dt.date, *, top: int = 10) -> Weights:
    """The weights of all models' calls together; `top` tools and files are named."""
    parts: dict[Part, Weight] = {name: Weight() for name in ("static", "history", "new", "output")}
    misses: dict[Cause, Weight] = {name: Weight() for name in ("not cached", "pause", "changed", "shortened")}
    n_misses: Counter[Cause] = Counter()
    heavy: tuple[dict[str, list[int]], dict[str, list[int]]] = (defaultdict(_three), defaultdict(_three))
    read = total = 0
    for model, rebuilt in prompts:
        for i, call in enumerate(rebuilt.calls):
            read, total = read + call.usage.cache_read_tokens, total + call.usage.input_tokens
            _split(model, rebuilt, i, today, parts)
            if (missed := _missed(model, rebuilt, i)) is not None:
                cause, tokens = missed
                n_misses[cause] += 1
                misses[cause].tokens += tokens
                misses[cause].usd += tokens * _extra(call.usage, model, today)
        _count(model, rebuilt, heavy)
    tools, files = ([Heavy(name, *row) for name, row in _heaviest(table, top)] for table in heavy)
    kept = {cause: weight for cause, weight in misses.items() if weight.tokens}
    return Weights(parts, kept, dict(n_misses), tools, files, read / total if total else 0.0)


def _three() -> list[int]:
    return [0, 0, 0]


def _split(model: Model, rebuilt: Rebuilt, i: int, today: dt.date, parts: dict[Part, Weight]) -> None:
    """One call's tokens by part. What was read from the cache is the beginning, so the rest paid the full rate."""
    usage = rebuilt.calls[i].usage
    price = model.price(today, usage.input_tokens)
    read_rate, rate = float(price.cache_read or price.input or 0) / 1e6, _rate(usage, model, today)
    head = int(rebuilt.head[i])
    known = max(head, min(int(rebuilt.shared[i]), usage.input_tokens))
    sizes: dict[Part, int] = {"static": head, "history": known - head, "new": usage.input_tokens - known}
    left = usage.cache_read_tokens
    for name, tokens in sizes.items():
        read, left = min(tokens, left), max(left - tokens, 0)
        parts[name].tokens += tokens
        parts[name].usd += read * read_rate + (tokens - read) * rate
    parts["output"].tokens += usage.output_tokens
    parts["output"].usd += usage.output_tokens * float(price.output or 0) / 1e6


def _rate(usage: Usage, model: Model, today: dt.date) -> float:
    """USD a token for what was not read from the cache: fresh, or written at a higher price."""
    price = model.price(today, usage.input_tokens)
    plain = price.input or 0
    short, long = usage.cache_write_short_tokens, usage.cache_write_long_tokens
    paid = usage.fresh_tokens * plain
    paid += short * (plain if price.cache_write_short is None else price.cache_write_short)
    paid += long * (plain if price.cache_write_long is None else price.cache_write_long)
    n = usage.fresh_tokens + short + long
    return float(paid) / n / 1e6 if n else float(plain) / 1e6


def _extra(usage: Usage, model: Model, today: dt.date) -> float:
    """USD a token that reading from the cache would have saved."""
    price = model.price(today, usage.input_tokens)
    return _rate(usage, model, today) - float(price.cache_read or price.input or 0) / 1e6


def _missed(model: Model, rebuilt: Rebuilt, i: int) -> tuple[Cause, int] | None:
    """Why a call did not read what had been sent before, and how many tokens that is; None where it did."""
    call, sent = rebuilt.calls[i], int(rebuilt.sent[i])
    usage = call.usage
    lost = sent - usage.cache_read_tokens
    if sent < model.cache_min_tokens or lost <= near(sent):
        return None
    gap_s = rebuilt.gap_s[i]
    if not (usage.cache_read_tokens or usage.cache_write_short_tokens or usage.cache_write_long_tokens):
        return ("not cached", lost) if model.prices[0].cache_write_short is not None else ("pause", lost)
    if gap_s > (3600.0 if usage.cache_write_long_tokens > usage.cache_write_short_tokens else _SHORT_S):
        return "pause", lost
    return ("shortened" if usage.input_tokens <= sent and call.conversation else "changed"), lost


def _count(model: Model, rebuilt: Rebuilt, heavy: tuple[dict[str, list[int]], dict[str, list[int]]]) -> None:
    """Add each tool result and file of the conversations, with the calls that it stayed in the prompt for."""
    open_: dict[str, list[tuple[Piece, int]]] = {}
    numbers: Counter[str] = Counter()
    per_token = model.chars_per_token

    def close(conversation: str) -> None:
        for piece, number in open_.pop(conversation, ()):
            times = numbers[conversation] - number
            for table, name in zip(heavy, (piece.name, piece.path), strict=True):
                if name:
                    row, tokens = table[name], int(piece.chars / per_token)
                    table[name] = [row[0] + 1, row[1] + tokens, row[2] + tokens * times]

    for i, call in enumerate(rebuilt.calls):
        if not call.conversation:
            continue
        if rebuilt.sent[i] and rebuilt.shared[i] <= rebuilt.head[i]:
            close(call.conversation)  # begun anew: what was in the prompt has gone
        kept = open_.setdefault(call.conversation, [])
        kept += [(piece, numbers[call.conversation]) for piece in call.pieces if piece.kind == "tool"]
        numbers[call.conversation] += 1
    for conversation in list(open_):
        close(conversation)


def _heaviest(table: dict[str, list[int]], top: int) -> Iterator[tuple[str, list[int]]]:
    yield from sorted(table.items(), key=lambda item: -item[1][2])[:top]
