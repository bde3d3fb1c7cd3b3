"""Prices and what changes them: service tier, speed, place, batch, server tools. USD throughout, exact.

Sources are named in catalog.toml, at each figure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

BATCH_FACTOR = Decimal("0.5")
"""What a batch costs, caches included: https://platform.claude.com/docs/en/build-with-claude/batch-processing and
https://developers.openai.com/api/docs/guides/batch, 2026-11-25. Models that differ say so in catalog.toml."""

Figure = Literal["input", "output", "cache_read", "cache_write_short", "cache_write_long"]
FIGURES: tuple[Figure, ...] = ("input", "cache_read", "cache_write_short", "cache_write_long", "output")

Dimension = Literal["service_tier", "speed", "geo", "batch"]

_PLAIN: Mapping[str, frozenset[str]] = {
    "service_tier": frozenset({"", "default", "standard", "standard_only", "auto", "on_demand"}),
    "speed": frozenset({"", "standard"}),
    "geo": frozenset({"", "global", "not_available"}),
}
"""The values that change no price. Sources: types of anthropic 2.14 (types/usage.py) and openai 3.57
(types/responses/service_tier.py), https://platform.claude.com/docs/en/manage-claude/data-residency, Groq's `on_demand`;
2026-11-26."""


def is_plain(dimension: Dimension, value: str) -> bool:
    """Whether a service tier, speed or place is the usual one, at the usual price."""
    return value in _PLAIN[dimension]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """USD per million tokens from a day on and above a number of input tokens; None: not sold, so unknown."""

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write_short: Decimal | None = None
    cache_write_long: Decimal | None = None
    from_: dt.date = dt.date.min
    above_input_tokens: int = 0

    def times(self, factor: Decimal) -> Price:
        """Every figure by a factor."""
        figures = {name: None if (usd := getattr(self, name)) is None else usd * factor for name in FIGURES}
        return msgspec.structs.replace(self, **figures)

    def completed(self, base: Price) -> Price:
        """With cache figures that are not given in the ratio to the input price that they have in another price."""
        if self.input is None or not base.input:
            return self
        given = {}
        for name in ("cache_read", "cache_write_short", "cache_write_long"):
            usd = getattr(base, name)
            if getattr(self, name) is None and usd is not None:
                given[name] = self.input * usd / base.input
        return msgspec.structs.replace(self, **given)


class Modifier(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """What a value of a dimension does to a price: a factor, and figures (USD per million tokens) that differ from it.

    It holds from a day on, until before another and up to a number of input tokens; beyond them the price is unknown.
    """

    factor: Decimal | None = None
    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write_short: Decimal | None = None
    cache_write_long: Decimal | None = None
    from_: dt.date = dt.date.min
    until: dt.date = dt.date.max
    up_to_input_tokens: int | None = None

    def holds(self, on: dt.date, input_tokens: int) -> bool:
        """Whether it says the price of a request of `input_tokens` on a day."""
        return self.from_ <= on < self.until and input_tokens <= (self.up_to_input_tokens or input_tokens)

    def applied(self, price: Price) -> Price:
        """The price as modified. Its own figures are those of a row without a step; in others the factor holds."""
        figures = {}
        for name in FIGURES:
            usd, own = getattr(price, name), None if price.above_input_tokens else getattr(self, name)
            by_factor = None if self.factor is None or usd is None else usd * self.factor
            figures[name] = by_factor if own is None else own
        return msgspec.structs.replace(price, **figures)

    def as_factor(self, price: Price) -> Modifier:
        """The same as a factor alone, for another price than the one that its own figures belong to."""
        factor = self.factor
        if factor is None and price.output and self.output is not None:
            factor = self.output / price.output
        return Modifier(factor=factor, from_=self.from_, until=self.until, up_to_input_tokens=self.up_to_input_tokens)

    def discounted(self, factor: Decimal) -> Modifier:
        """Its own figures by a factor, as those of the price are."""
        return msgspec.structs.replace(
            self, **{name: usd * factor for name in FIGURES if (usd := getattr(self, name)) is not None}
        )


class Modifiers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What changes a model's price, by the value that the provider reports; `calls` are USD per thousand calls.

    A plain number is a factor; a batch of which nothing is said costs half. What else is not here has no price, and the
    cost is then unknown. In `geo`, `*` is every other place. `source` and `checked` as in a model.
    """

    service_tier: Mapping[str, Decimal | Modifier] = {}
    speed: Mapping[str, Decimal | Modifier] = {}
    geo: Mapping[str, Decimal | Modifier] = {}
    batch: Decimal | Modifier | None = None
    calls: Mapping[str, Decimal] = {}
    source: str = "settings"
    checked: dt.date = dt.date.max

    def find(self, dimension: Dimension, value: str) -> Modifier | None:
        """What a value does to the price; None where that is not known."""
        if dimension == "batch":
            found: Decimal | Modifier | None = BATCH_FACTOR if self.batch is None else self.batch
        else:
            table: Mapping[str, Decimal | Modifier] = getattr(self, dimension)
            found = table.get(value, table.get("*"))
        return Modifier(factor=found) if isinstance(found, Decimal) else found

    def overlaid(self, other: Modifiers) -> Modifiers:
        """These with another's values over them."""
        return msgspec.structs.replace(
            other,
            service_tier={**self.service_tier, **other.service_tier},
            speed={**self.speed, **other.speed},
            geo={**self.geo, **other.geo},
            batch=self.batch if other.batch is None else other.batch,
            calls={**self.calls, **other.calls},
        )

    def discounted(self, factor: Decimal) -> Modifiers:
        """Their own figures by a factor; factors are relative to the price and stay."""
        calls = {tool: usd * factor for tool, usd in self.calls.items()}
        return msgspec.structs.replace(self._each(lambda modifier: modifier.discounted(factor)), calls=calls)

    def as_factors(self, price: Price) -> Modifiers:
        """The same as factors alone, for another price than `price`."""
        return self._each(lambda modifier: modifier.as_factor(price))

    def _each(self, change: Callable[[Modifier], Modifier]) -> Modifiers:
        def changed(value: Decimal | Modifier | None) -> Any:
            return change(value) if isinstance(value, Modifier) else value

        return msgspec.structs.replace(
            self,
            service_tier={name: changed(value) for name, value in self.service_tier.items()},
            speed={name: changed(value) for name, value in self.speed.items()},
            geo={name: changed(value) for name, value in self.geo.items()},
            batch=changed(self.batch),
        )


def in_force(prices: tuple[Price, ...], on: dt.date, input_tokens: int) -> Price | None:
    """The price of a request of `input_tokens` on a day (UTC): the newest row in force, then the highest step."""
    only = prices[0] if len(prices) == 1 else None
    if only is not None and only.from_ <= on and not only.above_input_tokens:
        return only  # six prices are asked for in a call, and most models have one
    rows = [p for p in prices if p.from_ <= on and p.above_input_tokens < max(input_tokens, 1)]
    return max(rows, key=lambda p: (p.from_, p.above_input_tokens)) if rows else None


def region_of(url: str) -> str:
    """The place that an address of OpenAI's stands for, such as "eu" for eu.api.openai.com; "" for every other.

    Source: https://developers.openai.com/api/docs/guides/data-residency, 2026-11-26.
    """
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    region, dot, rest = host.partition(".")
    return region if dot and rest == "api.openai.com" else ""
