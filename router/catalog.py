"""Models, prices and fleets, read from catalog.toml: every figure dated and sourced there."""

from __future__ import annotations

import datetime as dt
import sys
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from router.dialects import COMPATIBLE as COMPATIBLE
from router.dialects import EFFORTS as EFFORTS
from router.dialects import PROVIDERS as PROVIDERS
from router.dialects import REPLY_LENGTH as REPLY_LENGTH
from router.dialects import Dialect as Dialect
from router.dialects import Effort as Effort
from router.dialects import Provider as Provider
from router.errors import CatalogError
from router.prices import FIGURES, Modifiers, in_force
from router.prices import Price as Price
from router.types import Tier

DEFAULT_FLEET = "claude"


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model. Times to live are in seconds; `ttl_long_s` is None where there is no second lifetime.

    `base_url` is None for the provider's own address; `api_key_env` names the variable that holds the key (None: the
    provider's usual one, or no key). A key itself is never in here.
    """

    id: str
    provider: str
    context_tokens: int
    chars_per_token: float
    cache_min_tokens: int
    ttl_short_s: int
    prices: tuple[Price, ...]
    source: str
    checked: dt.date
    dialect: Dialect = Dialect()
    max_output_tokens: int | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    ttl_long_s: int | None = None
    vision: bool = True
    tools: bool = True
    aliases: tuple[str, ...] = ()
    retires: dt.date | None = None
    retires_not_before: dt.date | None = None
    modifiers: Modifiers = Modifiers()

    @property
    def address(self) -> tuple[str, str | None]:
        """What models have in common that cannot be reached together."""
        return self.provider, self.base_url

    def price(self, on: dt.date, input_tokens: int) -> Price:
        """The price of a request of `input_tokens` on a day (UTC): the newest row in force, then the highest step.

        Raises CatalogError when no row is in force yet.
        """
        if (price := in_force(self.prices, on, input_tokens)) is None:
            raise CatalogError(f"model {self.id!r} has no price in force on {on}; add a row with an earlier `from`")
        return price

    def estimate_tokens(self, n_chars: int) -> int:
        """Tokens in `n_chars` characters of text: an estimate for planning, never for a bill."""
        return int(n_chars / self.chars_per_token)


class CustomModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[models.NAME]` of the settings: a model of the user's own, or what they change of one in the catalog.

    - NAME is in the catalog: what is given here holds instead: another price, a private deployment, a longer window.
    - `like` names a model of the catalog: a new one of the same provider, with its dialect, cache rules and window.
    - else: one behind any OpenAI-compatible address, which NAME is known by there; it needs `base_url` and
      `context_tokens`. Images and tools are off until declared: a model that ignores them would fail quietly.

    `price` replaces all rows; cache figures that it leaves out keep their ratio to the input price. `discount` is a
    share off every figure (0.15 is 15 %; 0 beside `like` is the same price). Without either a new model's cost is
    unknown, never zero; for one that costs nothing say so: `price = { input = "0", output = "0" }`.
    """

    base_url: str | None = None
    like: str | None = None
    context_tokens: int | None = None
    api_key_env: str | None = None
    price: Price | tuple[Price, ...] | None = None
    discount: Decimal | None = None
    modifiers: Modifiers | None = None
    vision: bool | None = None
    tools: bool | None = None
    max_output_tokens: int | None = None
    chars_per_token: float | None = None
    aliases: tuple[str, ...] = ()
    dialect: Dialect | None = None

    def named(self, name: str, models: Mapping[str, Model]) -> Model:
        """The catalog's entry for it; `models` are those known so far. Raises CatalogError for what does not fit."""
        known = models.get(name)
        if self.like is not None and known is not None:
            raise CatalogError(f"{known.id!r} is in the catalog already, so `like` says nothing")
        if known is not None and self == CustomModel():
            raise CatalogError(f"{known.id!r} is in the catalog already, and this says nothing of it")
        if self.like is not None and self.like not in models:
            raise CatalogError(f"like = {self.like!r} is not in the catalog; {nearest(self.like, models)}")
        base = known or models.get(self.like or "")
        given = {
            field: value
            for field in (
                "base_url",
                "context_tokens",
                "api_key_env",
                "vision",
                "tools",
                "max_output_tokens",
                "dialect",
            )
            if (value := getattr(self, field)) is not None
        }
        if self.chars_per_token is not None:
            given["chars_per_token"] = self.chars_per_token
        if base is None:
            if self.base_url is None or self.context_tokens is None:
                raise CatalogError("it is not in the catalog, so it needs base_url and context_tokens, or like = MODEL")
            base = _unknown_model(name)
        aliases = (*base.aliases, *self.aliases) if known else self.aliases
        prices = self._prices(base, is_new=known is None)
        less = 1 - (self.discount or Decimal(0))
        modifiers = base.modifiers.discounted(less)
        if self.price is not None:
            modifiers = modifiers.as_factors(base.prices[0])
        return msgspec.structs.replace(
            base,
            **given,
            id=base.id if known else name,
            prices=prices,
            modifiers=modifiers.overlaid(self.modifiers) if self.modifiers else modifiers,
            aliases=aliases,
            retires=base.retires if known else None,
            retires_not_before=base.retires_not_before if known else None,
            source="settings",
            checked=dt.date.max,
        )

    def _prices(self, base: Model, *, is_new: bool) -> tuple[Price, ...]:
        if self.discount is not None:
            if self.price is not None or not 0 <= self.discount < 1:
                raise CatalogError(
                    f"discount = {self.discount} beside price; give one"
                    if self.price is not None
                    else f"discount = {self.discount}, expected a share from 0 up to 1, such as 0.15"
                )
            return tuple(price.times(1 - self.discount) for price in base.prices)
        if self.price is None:
            return (Price(),) if is_new else base.prices
        rows = self.price if isinstance(self.price, tuple) else (self.price,)
        if not rows or any((getattr(row, figure) or 0) < 0 for row in rows for figure in FIGURES):
            raise CatalogError("price is empty or negative; expected USD per million tokens")
        if base.provider == COMPATIBLE:
            return rows
        if any(row.input is None or row.output is None for row in rows):
            raise CatalogError("price needs input and output, USD per million tokens")
        return tuple(row.completed(base.prices[-1]) for row in rows)


def _unknown_model(name: str) -> Model:
    """A model of which only its address is known; nothing is assumed of its cache, and it has no price."""
    return Model(
        id=name,
        provider=COMPATIBLE,
        context_tokens=0,
        chars_per_token=3.5,
        cache_min_tokens=sys.maxsize,
        ttl_short_s=0,
        prices=(Price(),),
        source="settings",
        checked=dt.date.max,
        vision=False,
        tools=False,
    )


class TierModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tier of a fleet: a model by id or alias, and the reasoning effort that its requests are sent with.

    `reasoning_effort` is OpenAI's name for `effort`; one of the two, or neither: then the caller's own effort, or the
    model's default, holds.
    """

    model: str
    effort: Effort | None = None
    reasoning_effort: Effort | None = None


class Fleet(msgspec.Struct, frozen=True):
    """One model a tier, cheap to strong; providers may differ. A fleet may leave tiers out, but never the top one.

    `efforts` are of the tiers whose requests are sent with one: two tiers may share a model and differ in effort.
    """

    name: str
    models: Mapping[Tier, Model]
    efforts: Mapping[Tier, Effort] = {}

    @property
    def provider(self) -> str:
        """The top model's provider, which is every model's unless `providers` names more."""
        return self.top.provider

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers of its models, each once, cheap to strong."""
        return tuple(dict.fromkeys(model.provider for model in self.models.values()))

    @property
    def top(self) -> Model:
        """The strongest model: the baseline, and where everything doubtful goes."""
        return self.models[list(self.models)[-1]]

    def effort(self, tier: Tier) -> str:
        """The effort that a tier's requests are sent with, "" for none of the fleet's."""
        return self.efforts.get(tier, "")

    def tier_of(self, model_id: str) -> Tier | None:
        """The strongest tier that a model serves here, by id or alias; None if it is not in the fleet."""
        for tier, model in reversed(list(self.models.items())):
            if model_id == model.id or model_id in model.aliases:
                return tier
        return None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    schema_version: int
    sources: dict[str, str]
    models: list[Model]
    fleets: dict[str, dict[Tier, str | TierModel]]


class Catalog:
    """Models by id or alias, and fleets by name."""

    def __init__(self, models: list[Model], fleets: Mapping[str, Mapping[Tier, str | TierModel]]) -> None:
        self.models = {name: model for model in models for name in (model.id, *model.aliases)}
        self.fleets = {name: self._fleet(name, tiers) for name, tiers in fleets.items()}

    def find(self, model_id: str) -> Model | None:
        """The model, or None when the catalog does not know it (its cost is then unknown)."""
        return self.models.get(model_id)

    def fleet(self, name: str) -> Fleet:
        """The fleet of that name. Raises CatalogError, naming the nearest known one."""
        if name not in self.fleets:
            raise CatalogError(f"unknown fleet {name!r}; {nearest(name, self.fleets)}")
        return self.fleets[name]

    def extended(
        self,
        fleets: Mapping[str, Mapping[Tier, str | TierModel]],
        models: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Catalog:
        """This catalog with the fleets and models of the settings file: tables of `CustomModel`.

        Raises CatalogError, naming the model or fleet, for a wrong table.
        """
        named = {
            name: {tier: TierModel(model.id, fleet.efforts.get(tier)) for tier, model in fleet.models.items()}
            for name, fleet in self.fleets.items()
        }
        known = {m.id: m for m in self.models.values()}
        for name, table in (models or {}).items():
            try:
                by_name = {n: m for m in known.values() for n in (m.id, *m.aliases)}
                model = msgspec.convert(table, CustomModel).named(name, by_name)
            except (msgspec.ValidationError, CatalogError) as exc:
                fields = ", ".join(CustomModel.__struct_fields__)
                raise CatalogError(f"[models.{name}]: {exc}; it takes {fields}") from exc
            known[model.id] = model
        return Catalog(list(known.values()), {**named, **fleets})

    def _fleet(self, name: str, tiers: Mapping[Tier, str | TierModel]) -> Fleet:
        models: dict[Tier, Model] = {}
        efforts: dict[Tier, Effort] = {}
        for tier in filter(tiers.__contains__, Tier):
            given, where = tiers[tier], f"fleet {name!r}, tier {tier.value!r}"
            try:
                asked = TierModel(given) if isinstance(given, str) else msgspec.convert(given, TierModel)
            except msgspec.ValidationError as exc:
                raise CatalogError(f"{where}: {exc}; expected a model's id, or model and effort") from exc
            model = self.find(asked.model)
            if model is None:
                raise CatalogError(
                    f"fleet {name!r} names the unknown model {asked.model!r}; {nearest(asked.model, self.models)}"
                )
            models[tier] = model
            if effort := asked.effort or asked.reasoning_effort:
                efforts[tier] = _accepted(effort, asked, model, where)
        if Tier.COMPLEX not in models:
            raise CatalogError(f"fleet {name!r} has no {Tier.COMPLEX.value!r} tier; doubtful requests go there")
        return Fleet(name, models, efforts)


def _accepted(effort: Effort, asked: TierModel, model: Model, where: str) -> Effort:
    if asked.effort and asked.reasoning_effort:
        raise CatalogError(f"{where}: effort and reasoning_effort are two names for one thing; give one")
    if effort not in model.dialect.efforts:
        takes = ", ".join(model.dialect.efforts) or "no effort: name the model alone"
        raise CatalogError(f"{where}: effort {effort!r} is not one of {model.id}'s; it takes {takes}")
    return effort


def day(at_s: float) -> dt.date:
    """The day (UTC) whose prices hold at a time in seconds since the epoch."""
    return dt.datetime.fromtimestamp(at_s, dt.UTC).date()


@cache
def shipped() -> Catalog:
    """The catalog that comes with this version."""
    return parse(Path(__file__).with_name("catalog.toml").read_text("utf-8"))


def configured(
    fleets: Mapping[str, Mapping[Tier, str | TierModel]], models: Mapping[str, Mapping[str, Any]]
) -> Catalog:
    """The shipped catalog with the fleets and models of the settings, if there are any. Raises CatalogError."""
    return shipped().extended(fleets, models) if fleets or models else shipped()


def parse(text: str) -> Catalog:
    """A catalog from TOML; a model names its dialect and, if it has any, its modifiers.

    Raises CatalogError with the place of the first mistake.
    """
    try:
        file = msgspec.convert(_with_sets(tomllib.loads(text)), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise CatalogError(f"malformed catalog: {exc}") from exc
    for model in file.models:
        for source in {model.source, model.modifiers.source} - {"settings"}:
            if source not in file.sources:
                raise CatalogError(f"model {model.id!r} cites the source {source!r}; {nearest(source, file.sources)}")
    return Catalog(file.models, file.fleets)


def _with_sets(file: dict[str, Any]) -> dict[str, Any]:
    """The file with each model's dialect and modifiers in the place of their names."""
    for field, sets in (("dialect", file.pop("dialects", {})), ("modifiers", file.pop("modifiers", {}))):
        for model in file.get("models", ()):
            name = model.get(field)
            if name is None and field == "modifiers":
                continue
            if name not in sets:
                said = f"names the {field} {name!r}; {nearest(str(name), sets)}"
                raise CatalogError(f"model {model.get('id')!r} {said}")
            model[field] = sets[name]
    return file


def nearest(name: str, names: Mapping[str, Any]) -> str:
    """What to say of a name that is unknown: the nearest known one, else all of them."""
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names))}"
