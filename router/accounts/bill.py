"""Usage x prices -> what one reply costs, with all that changes it: tier, speed, place, batch, server tools, parts.

What has no price makes the sum unknown, and a note says what it is: never the plain price in its place.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from decimal import Decimal

import msgspec

from router.catalog import Model
from router.prices import BATCH_FACTOR, FIGURES, Dimension, Modifier, Price, is_plain
from router.types import Part, Usage

_MTOK = Decimal(1_000_000)
_THOUSAND = Decimal(1000)

Find = Callable[[str], Model | None]
"""A model by the name that a provider gives it; None for an unknown one."""


class Bill(msgspec.Struct, frozen=True):
    """What one reply costs in USD, None where that is not known, and notes on what was not plain about it."""

    usd: Decimal | None
    notes: tuple[str, ...] = ()


def cost(usage: Usage, model: Model | None, on: dt.date, find: Find | None = None) -> Decimal | None:
    """USD for one reply; None (unknown) without usage, for an unknown model, or where a needed price is not known."""
    return bill(usage, model, on, find).usd


def bill(
    usage: Usage, model: Model | None, on: dt.date, find: Find | None = None, *, instead_of: Model | None = None
) -> Bill:
    """What a reply of `model` costs; `find` knows the models that its parts name.

    `instead_of` is the model that did answer, where `model` only might have: what `model` sells no price for is then
    changed as it is there, so that the two bills differ by the model alone.
    """
    if model is None or not usage.is_known:
        return Bill(None, tuple(_seen(usage)))
    dimensions = tuple(_dimensions(usage))
    if not dimensions and _is_tokens_alone(usage) and (usd := _plain(usage, model, on)) is not None:
        return Bill(usd)  # nearly every call, and six of them are priced in each
    total = _Sum(on, instead_of)
    total.tokens(usage, model, dimensions)
    for part in usage.parts:
        total.part(part, model, dimensions, find)
    for tool, times in usage.calls:
        total.calls(tool, times, model)
    total.missing += usage.unpriced
    unknown = (f"cost unknown: no price for {', '.join(dict.fromkeys(total.missing))}",) if total.missing else ()
    usd = None if total.missing or total.is_unpriced else total.usd
    return Bill(usd, (*total.notes, *_seen(usage), *unknown))


def _is_tokens_alone(usage: Usage) -> bool:
    return not (usage.parts or usage.calls or usage.unpriced or usage.remarks or usage.unknown_fields)


def _plain(usage: Usage, model: Model, on: dt.date) -> Decimal | None:
    """The five counts at the model's price; None where a figure is missing."""
    price, total = model.price(on, usage.input_tokens), Decimal(0)
    for n_tokens, figure in zip(_counts(usage), FIGURES, strict=True):
        if n_tokens:
            usd_per_mtok = getattr(price, figure)
            if usd_per_mtok is None:
                return None
            total += n_tokens * usd_per_mtok
    return None if price.input is None and price.output is None else total / _MTOK


class _Sum:
    """A bill as it grows: `missing` is what has no price, `is_unpriced` that the model has none at all."""

    def __init__(self, on: dt.date, instead_of: Model | None) -> None:
        self.usd = Decimal(0)
        self.notes: list[str] = []
        self.missing: list[str] = []
        self.is_unpriced = False
        self._on = on
        self._instead_of = instead_of

    def tokens(self, usage: Usage, model: Model, dimensions: tuple[tuple[Dimension, str], ...]) -> None:
        """Add the five counts of `usage`, at the model's price as the dimensions modify it."""
        price = model.price(self._on, usage.input_tokens)
        if price.input is None and price.output is None:
            self.is_unpriced = True
            return
        for dimension, value in dimensions:
            price = self._modified(price, model, dimension, value, usage.input_tokens)
        total = Decimal(0)
        for n_tokens, figure in zip(_counts(usage), FIGURES, strict=True):
            if not n_tokens:
                continue
            usd_per_mtok: Decimal | None = getattr(price, figure)
            if usd_per_mtok is None and self._instead_of is not None and figure.startswith("cache_write"):
                usd_per_mtok = price.input  # it writes for nothing
            if usd_per_mtok is None:
                self.missing.append(f"{figure} on {model.id}")
            else:
                total += n_tokens * usd_per_mtok
        self.usd += total / _MTOK

    def part(self, part: Part, model: Model, dimensions: tuple[tuple[Dimension, str], ...], find: Find | None) -> None:
        """Add what was done beside the answer; another model's part runs at its own tier and speed."""
        if part.model and part.model != model.id:
            billed = find(part.model) if find is not None else None
            if billed is None:
                self.missing.append(f"{part.kind} of {part.model}")
                return
            dimensions = tuple((d, value) for d, value in dimensions if d in ("geo", "batch"))
        else:
            billed = model
        before = self.usd
        self.tokens(part.usage, billed, dimensions)
        self.notes.append(f"iterations: {part.kind} on {billed.id}, ${self.usd - before:f}")

    def calls(self, tool: str, times: int, model: Model) -> None:
        """Add the calls of a server tool; they cost the same at every tier and speed."""
        usd_per_thousand = model.modifiers.calls.get(tool)
        if usd_per_thousand is None and self._instead_of is not None:
            usd_per_thousand = self._instead_of.modifiers.calls.get(tool)
        if usd_per_thousand is None:
            self.missing.append(f"{times} calls of {tool}")
        elif usd_per_thousand:
            usd = times * usd_per_thousand / _THOUSAND
            self.usd += usd
            self.notes.append(f"{times} calls of {tool}: ${usd:f}")

    def _modified(self, price: Price, model: Model, dimension: Dimension, value: str, input_tokens: int) -> Price:
        modifier = self._modifier(model, dimension, value, input_tokens)
        if modifier is None and self._instead_of is not None:
            modifier = self._stand_in(dimension, value, input_tokens)
        if modifier is None:
            self.missing.append(f"{dimension} {value} on {model.id}")
            return price
        self.notes.append(_note(dimension, value, modifier))
        return modifier.applied(price)

    def _modifier(self, model: Model, dimension: Dimension, value: str, input_tokens: int) -> Modifier | None:
        found = model.modifiers.find(dimension, value)
        return found if found is not None and found.holds(self._on, input_tokens) else None

    def _stand_in(self, dimension: Dimension, value: str, input_tokens: int) -> Modifier | None:
        """What a value does to the price of the model that did answer, as a factor."""
        assert self._instead_of is not None
        found = self._modifier(self._instead_of, dimension, value, input_tokens)
        return None if found is None else found.as_factor(self._instead_of.price(self._on, input_tokens))


def _counts(usage: Usage) -> tuple[int, int, int, int, int]:
    """Its tokens in the order of FIGURES."""
    return (
        usage.fresh_tokens,
        usage.cache_read_tokens,
        usage.cache_write_short_tokens,
        usage.cache_write_long_tokens,
        usage.output_tokens,
    )


def _dimensions(usage: Usage) -> Iterator[tuple[Dimension, str]]:
    """What is not plain about a reply."""
    if usage.is_batch:
        yield "batch", ""
    given: tuple[tuple[Dimension, str], ...] = (
        ("service_tier", usage.service_tier),
        ("speed", usage.speed),
        ("geo", usage.geo),
    )
    for dimension, value in given:
        if value and not is_plain(dimension, value):
            yield dimension, value


def _note(dimension: Dimension, value: str, modifier: Modifier) -> str:
    if dimension == "batch" and modifier.factor == BATCH_FACTOR:
        return "batch: half the price"
    how = "a price of its own" if modifier.factor is None else f"x{modifier.factor:f}"
    return f"{dimension} {value}: {how}".replace(" :", ":")


def _seen(usage: Usage) -> Iterator[str]:
    """What a reader of the record should know of odd counts and of fields that are in no price."""
    yield from usage.remarks
    yield from (f"unknown usage field {field}: in no price" for field in usage.unknown_fields)
