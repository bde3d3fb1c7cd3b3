"""Models, prices, cache rules and fleets, read from catalog.toml: every figure dated and sourced there."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from router.errors import CatalogError
from router.types import Tier

DEFAULT_FLEETS = {"anthropic": "claude", "openai": "gpt", "gemini": "gemini"}
"""The fleet that serves a provider's client when the caller names none."""

SDK = {"anthropic": "anthropic", "openai": "openai", "gemini": "openai"}
"""The SDK that speaks to a provider."""

MAX_PRICE_AGE_DAYS = 60


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """USD per million tokens from a day on and above a number of input tokens; None: not sold, so unknown."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write_short: Decimal | None = None
    cache_write_long: Decimal | None = None
    from_: dt.date = dt.date.min
    above_input_tokens: int = 0


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model. Times to live are in seconds; `ttl_long_s` is None where there is no second lifetime."""

    id: str
    provider: str
    context_tokens: int
    chars_per_token: float
    cache_min_tokens: int
    ttl_short_s: int
    prices: tuple[Price, ...]
    source: str
    checked: dt.date
    ttl_long_s: int | None = None
    vision: bool = True
    tools: bool = True
    aliases: tuple[str, ...] = ()
    retires: dt.date | None = None
    retires_not_before: dt.date | None = None

    def price(self, on: dt.date, input_tokens: int) -> Price:
        """The price of a request of `input_tokens` on a day (UTC): the newest row in force, then the highest step.

        Raises CatalogError when no row is in force yet.
        """
        in_force = [p for p in self.prices if p.from_ <= on and p.above_input_tokens < max(input_tokens, 1)]
        if not in_force:
            raise CatalogError(f"model {self.id!r} has no price in force on {on}; add a row with an earlier `from`")
        return max(in_force, key=lambda p: (p.from_, p.above_input_tokens))

    def estimate_tokens(self, n_chars: int) -> int:
        """Tokens in `n_chars` characters of text: an estimate for planning, never for a bill."""
        return int(n_chars / self.chars_per_token)


class Fleet(msgspec.Struct, frozen=True):
    """One model a tier, cheap to strong, of one provider. A fleet may leave tiers out, but never the top one."""

    name: str
    models: Mapping[Tier, Model]

    @property
    def provider(self) -> str:
        return self.top.provider

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
            raise CatalogError(f"unknown fleet {name!r}; {_known(name, self.fleets)}")
        return self.fleets[name]

    def extended(self, fleets: Mapping[str, Mapping[Tier, str]]) -> Catalog:
        """This catalog with more fleets, for example those of the settings file."""
        named = {n: {t: m.id for t, m in f.models.items()} for n, f in self.fleets.items()}
        return Catalog(list({m.id: m for m in self.models.values()}.values()), {**named, **fleets})

    def _fleet(self, name: str, tiers: Mapping[Tier, str]) -> Fleet:
        models: dict[Tier, Model] = {}
        for tier in Tier:
            if tier not in tiers:
                continue
            model = self.find(tiers[tier])
            if model is None:
                raise CatalogError(
                    f"fleet {name!r} names the unknown model {tiers[tier]!r}; {_known(tiers[tier], self.models)}"
                )
            models[tier] = model
        if Tier.COMPLEX not in models:
            raise CatalogError(f"fleet {name!r} has no {Tier.COMPLEX.value!r} tier; doubtful requests go there")
        if len({m.provider for m in models.values()}) > 1:
            raise CatalogError(f"fleet {name!r} mixes providers; one fleet serves one provider's client")
        return Fleet(name=name, models=models)


@cache
def shipped() -> Catalog:
    """The catalog that comes with this version."""
    return parse(Path(__file__).with_name("catalog.toml").read_text("utf-8"))


def parse(text: str) -> Catalog:
    """A catalog from TOML. Raises CatalogError with the place of the first mistake."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise CatalogError(f"malformed catalog: {exc}") from exc
    for model in file.models:
        if model.source not in file.sources:
            raise CatalogError(
                f"model {model.id!r} cites the source {model.source!r}; {_known(model.source, file.sources)}"
            )
    return Catalog(file.models, file.fleets)


class Finding(msgspec.Struct, frozen=True):
    """Something to look at in the catalog before its prices are relied on."""

    model: str
    problem: str


def review(models: Catalog, today: dt.date) -> list[Finding]:
    """What is doubtful: prices not looked at for 60 days, retired models, other prices than genai-prices says.

    genai-prices (https://github.com/pydantic/genai-prices) is kept independently. Raises CatalogError when it is not
    installed.
    """
    findings = []
    for model in {m.id: m for m in models.models.values()}.values():
        age = (today - model.checked).days
        if age > MAX_PRICE_AGE_DAYS:
            findings.append(Finding(model.id, f"prices were checked {age} days ago, on {model.checked}: look again"))
        if model.retires is not None and model.retires <= today:
            findings.append(Finding(model.id, f"retired on {model.retires}: take it out of the fleets"))
        findings += [Finding(model.id, problem) for problem in _disagreements(model, today)]
    return findings


def _disagreements(model: Model, today: dt.date) -> list[str]:
    try:
        from genai_prices import data_snapshot
    except ImportError as exc:
        raise CatalogError("genai-prices is not installed; pip install genai-prices, then check again") from exc
    provider = {"gemini": "google"}.get(model.provider, model.provider)
    listed = next(p for p in data_snapshot.get_snapshot().providers if p.id == provider)
    theirs = next((m for m in listed.models if m.id == model.id), None)
    if theirs is None:
        return ["genai-prices does not have it: nothing to compare with"]
    other = theirs.get_prices(dt.datetime.combine(today, dt.time(), dt.UTC))
    ours = model.price(today, 1)
    pairs = {
        "input": other.input_mtok,
        "output": other.output_mtok,
        "cache_read": other.cache_read_mtok,
    }
    if model.provider == "anthropic":  # it lists no writes, or not every lifetime, for the others
        pairs |= {"cache_write_short": other.cache_write_mtok, "cache_write_long": other.cache_write_1h_mtok}
    bases = {name: getattr(value, "base", value) for name, value in pairs.items()}  # a tiered price has a base
    return [
        f"{name} is {getattr(ours, name)} here and {value} in genai-prices, USD per million tokens"
        for name, value in bases.items()
        if value != getattr(ours, name)
    ]


def _known(name: str, names: Mapping[str, Any]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names))}"
