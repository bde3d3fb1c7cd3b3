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

MAX_PRICE_AGE_DAYS = 60


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Reasoning efforts from none to most: OpenAI's names; Anthropic has low to max of them."""


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """USD per million tokens from a day on and above a number of input tokens; None: not sold, so unknown."""

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write_short: Decimal | None = None
    cache_write_long: Decimal | None = None
    from_: dt.date = dt.date.min
    above_input_tokens: int = 0


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

    def price(self, on: dt.date, input_tokens: int) -> Price:
        """The price of a request of `input_tokens` on a day (UTC): the newest row in force, then the highest step.

        Raises CatalogError when no row is in force yet.
        """
        only = self.prices[0] if len(self.prices) == 1 else None
        if only is not None and only.from_ <= on and not only.above_input_tokens:
            return only  # six prices are asked for in a call, and most models have one
        in_force = [p for p in self.prices if p.from_ <= on and p.above_input_tokens < max(input_tokens, 1)]
        if not in_force:
            raise CatalogError(f"model {self.id!r} has no price in force on {on}; add a row with an earlier `from`")
        return max(in_force, key=lambda p: (p.from_, p.above_input_tokens))

    def estimate_tokens(self, n_chars: int) -> int:
        """Tokens in `n_chars` characters of text: an estimate for planning, never for a bill."""
        return int(n_chars / self.chars_per_token)


class CustomModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model of the user's own behind any OpenAI-compatible base URL: `[models.my-llama]` in the settings.

    The table's name is the one that the server knows. Without `price` its cost is unknown, never zero;
    for one that costs nothing say so: `price = { input = "0", output = "0" }`. Images and tools are off until declared:
    a model that ignores them would fail quietly.
    """

    base_url: str
    context_tokens: int
    api_key_env: str | None = None
    price: Price | None = None
    vision: bool = False
    tools: bool = False
    max_output_tokens: int | None = None
    chars_per_token: float = 3.5
    aliases: tuple[str, ...] = ()
    dialect: Dialect = Dialect()

    def named(self, name: str) -> Model:
        """The catalog's entry for it. Nothing is assumed of its cache."""
        return Model(
            id=name,
            provider=COMPATIBLE,
            context_tokens=self.context_tokens,
            chars_per_token=self.chars_per_token,
            cache_min_tokens=sys.maxsize,
            ttl_short_s=0,
            prices=(self.price or Price(),),
            source="settings",
            checked=dt.date.max,
            dialect=self.dialect,
            max_output_tokens=self.max_output_tokens,
            base_url=self.base_url,
            api_key_env=self.api_key_env,
            vision=self.vision,
            tools=self.tools,
            aliases=self.aliases,
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
            raise CatalogError(f"unknown fleet {name!r}; {_known(name, self.fleets)}")
        return self.fleets[name]

    def extended(
        self, fleets: Mapping[str, Mapping[Tier, str]], models: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Catalog:
        """This catalog with more fleets and models (tables of `CustomModel`), for example those of the settings file.

        Raises CatalogError, naming the model or fleet, for a wrong table, and for the name of a model that is known:
        its prices and rules would then be somebody else's.
        """
        named = {n: {t: m.id for t, m in f.models.items()} for n, f in self.fleets.items()}
        known = list({m.id: m for m in self.models.values()}.values())
        for name, table in (models or {}).items():
            if name in self.models:
                raise CatalogError(f"the model {name!r} is in the catalog already; give yours another name or an alias")
            try:
                known.append(msgspec.convert(table, CustomModel).named(name))
            except msgspec.ValidationError as exc:
                raise CatalogError(
                    f"[models.{name}]: {exc}; it takes {', '.join(CustomModel.__struct_fields__)}"
                ) from exc
        return Catalog(known, {**named, **fleets})

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
    """A catalog from TOML; a model names its dialect. Raises CatalogError with the place of the first mistake."""
    try:
        file = msgspec.convert(_with_dialects(tomllib.loads(text)), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise CatalogError(f"malformed catalog: {exc}") from exc
    for model in file.models:
        if model.source not in file.sources:
            raise CatalogError(
                f"model {model.id!r} cites the source {model.source!r}; {_known(model.source, file.sources)}"
            )
    return Catalog(file.models, file.fleets)


def _with_dialects(file: dict[str, Any]) -> dict[str, Any]:
    dialects = file.pop("dialects", {})
    for model in file.get("models", ()):
        name = model.get("dialect")
        if name not in dialects:
            raise CatalogError(f"model {model.get('id')!r} names the dialect {name!r}; {_known(str(name), dialects)}")
        model["dialect"] = dialects[name]
    return file


class CatalogFinding(msgspec.Struct, frozen=True):
    """Something to look at in the catalog before its prices are relied on."""

    model: str
    problem: str


def review(models: Catalog, today: dt.date) -> list[CatalogFinding]:
    """What is doubtful: prices not looked at for 60 days, retired models, other prices than genai-prices says.

    genai-prices (https://github.com/pydantic/genai-prices) is kept independently. Raises CatalogError when it is not
    installed.
    """
    findings = []
    for model in {m.id: m for m in models.models.values()}.values():
        age = (today - model.checked).days
        if age > MAX_PRICE_AGE_DAYS:
            findings.append(
                CatalogFinding(model.id, f"prices were checked {age} days ago, on {model.checked}: look again")
            )
        if model.retires is not None and model.retires <= today:
            findings.append(CatalogFinding(model.id, f"retired on {model.retires}: take it out of the fleets"))
        findings += [CatalogFinding(model.id, problem) for problem in _disagreements(model, today)]
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
