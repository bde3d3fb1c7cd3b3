"""Models, prices, dialects and fleets, read from catalog.toml: every figure dated and sourced there."""

from __future__ import annotations

import datetime as dt
import sys
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from router.errors import CatalogError
from router.prices import FIGURES, Modifiers, in_force
from router.prices import Price as Price
from router.types import Api, Tier

COMPATIBLE = "openai-compatible"
"""The provider of a model behind a base URL of the user's own: vLLM, Ollama, a LiteLLM proxy."""


class Provider(msgspec.Struct, frozen=True):
    """How a provider is spoken to. `formats` are those that it takes, the usual one first.

    `url` is its address without an endpoint's path, `key_env` the variable that holds its key; both are None where
    each model has its own. `fleet` is the one that serves a client of the provider's when the caller names none.
    """

    sdk: Literal["anthropic", "openai"]
    formats: tuple[Api, ...]
    url: str | None = None
    key_env: str | None = None
    fleet: str | None = None


# The SDKs' defaults (anthropic 2.12 and openai 3.54, `_client.py`), and https://ai.google.dev/gemini-api/docs/openai,
# which has no Responses; 2026-11-22. OpenAI's is the one with /v1 in it.
PROVIDERS: Mapping[str, Provider] = {
    "anthropic": Provider(
        "anthropic", (Api.MESSAGES,), "https://api.anthropic.com", "ANTHROPIC_API_KEY", fleet="claude"
    ),
    "openai": Provider("openai", (Api.CHAT, Api.RESPONSES), "https://api.openai.com/v1", "OPENAI_API_KEY", fleet="gpt"),
    "gemini": Provider(
        "openai",
        (Api.CHAT,),
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        fleet="gemini",
    ),
    COMPATIBLE: Provider("openai", (Api.CHAT, Api.RESPONSES)),
}

DEFAULT_FLEET = "claude"

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Reasoning efforts from none to most: OpenAI's names; Anthropic has low to max of them."""


class Dialect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's API accepts; the defaults are a plain OpenAI-compatible server's. formats/accepts.py acts on it.

    - `sampling`: temperature, top_p and the like: any; one of temperature and top_p; only at their default; only with
      reasoning effort none; not at all. Whatever it says, Anthropic takes none under version 2026-10-21.
    - `thinking`: the `thinking.type` values taken (Anthropic); `disabled` only up to the effort `disabled_up_to`.
    - `prefill`: messages may end with the assistant's. `forced_tool_choice`: `any` / `required` / one tool.
    - `system_in_messages`: messages of role "system" after the first (Anthropic: at all).
    - `binds_thinking`: thinking blocks are refused once the history before them was edited.
    - `max_tokens_names`: how Chat Completions calls the longest output, the preferred name first.
    - `efforts`: reasoning efforts taken, in the order of EFFORTS; none at all where it is empty.
    - `default_effort`: what applies when a request names none; None where that is not documented.
    - `chat_tools`: function tools on Chat Completions: always; only with effort none; only on Responses.
    - `cache`: OpenAI's explicit cache controls that it knows; implicit caching needs none of them.
    """

    sampling: Literal["any", "one", "default", "effort_none", "none"] = "any"
    thinking: tuple[Literal["enabled", "adaptive", "disabled", "between_tools"], ...] = ()
    disabled_up_to: Effort = "max"
    prefill: bool = True
    forced_tool_choice: bool = True
    system_in_messages: bool = True
    binds_thinking: bool = False
    max_tokens_names: tuple[Literal["max_tokens", "max_completion_tokens"], ...] = ("max_tokens",)
    efforts: tuple[Effort, ...] = ()
    default_effort: Effort | None = None
    chat_tools: Literal["any", "effort_none", "responses"] = "any"
    cache: tuple[Literal["breakpoints", "ttl_12h", "retention_in_memory", "retention_24h"], ...] = ()


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


class Fleet(msgspec.Struct, frozen=True):
    """One model a tier, cheap to strong; providers may differ. A fleet may leave tiers out, but never the top one."""

    name: str
    models: Mapping[Tier, Model]

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

    def tier_of(self, model_id: str) -> Tier | None:
        """The tier that a model serves here, by id or alias; None if it is not in the fleet."""
        for tier, model in self.models.items():
            if model_id == model.id or model_id in model.aliases:
                return tier
        return None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    schema_version: int
    sources: dict[str, str]
    models: list[Model]
    fleets: dict[str, dict[Tier, str]]


class Catalog:
    """Models by id or alias, and fleets by name."""

    def __init__(self, models: list[Model], fleets: Mapping[str, Mapping[Tier, str]]) -> None:
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
        self, fleets: Mapping[str, Mapping[Tier, str]], models: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Catalog:
        """This catalog with the fleets and models of the settings file: tables of `CustomModel`.

        Raises CatalogError, naming the model or fleet, for a wrong table.
        """
        named = {n: {t: m.id for t, m in f.models.items()} for n, f in self.fleets.items()}
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

    def _fleet(self, name: str, tiers: Mapping[Tier, str]) -> Fleet:
        models: dict[Tier, Model] = {}
        for tier in Tier:
            if tier not in tiers:
                continue
            model = self.find(tiers[tier])
            if model is None:
                raise CatalogError(
                    f"fleet {name!r} names the unknown model {tiers[tier]!r}; {nearest(tiers[tier], self.models)}"
                )
            models[tier] = model
        if Tier.COMPLEX not in models:
            raise CatalogError(f"fleet {name!r} has no {Tier.COMPLEX.value!r} tier; doubtful requests go there")
        return Fleet(name=name, models=models)


def day(at_s: float) -> dt.date:
    """The day (UTC) whose prices hold at a time in seconds since the epoch."""
    return dt.datetime.fromtimestamp(at_s, dt.UTC).date()


@cache
def shipped() -> Catalog:
    """The catalog that comes with this version."""
    return parse(Path(__file__).with_name("catalog.toml").read_text("utf-8"))


def configured(fleets: Mapping[str, Mapping[Tier, str]], models: Mapping[str, Mapping[str, Any]]) -> Catalog:
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
