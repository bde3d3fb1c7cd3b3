from __future__ import annotations

import datetime as dt
from decimal import Decimal

import msgspec
import pytest

from router import CatalogError, Tier, Usage, catalog
from router.accounts.baseline import Baseline, cost

TODAY = dt.date(2026, 11, 22)
SHIPPED = catalog.shipped()


def test_fleets() -> None:
    named = {name: [m.id for m in fleet.models.values()] for name, fleet in SHIPPED.fleets.items()}
    assert named["claude"] == ["claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-7"]
    assert set(named) == {"claude", "claude-latest", "gpt", "gpt-latest", "gemini"}
    assert SHIPPED.fleet("claude").top.id == "claude-opus-4-7"
    assert SHIPPED.fleet("claude").tier_of("claude-haiku-4-5-20251001") is Tier.SIMPLE
    assert SHIPPED.fleet("claude").tier_of("gpt-4o") is None


@pytest.mark.parametrize("fleet", SHIPPED.fleets.values(), ids=lambda fleet: fleet.name)
def test_fleets_rise_in_price_and_outlive_the_year(fleet: catalog.Fleet) -> None:
    prices = [m.price(TODAY, 1000).output or Decimal(0) for m in fleet.models.values()]
    assert prices == sorted(prices)
    assert prices[0] > 0
    assert fleet.providers == (fleet.provider,)
    assert all(m.retires is None for m in fleet.models.values())


def test_prices_change_with_date_and_length() -> None:
    argon, haiku = SHIPPED.models["gemini-4-argon"], SHIPPED.models["claude-haiku-5-5"]
    assert argon.price(dt.date(2026, 11, 30), 10).input == Decimal(2)
    assert argon.price(dt.date(2026, 12, 1), 10).input == Decimal(4)
    assert haiku.price(TODAY, 100_000).output == Decimal("0.50")
    assert haiku.price(TODAY, 100_001).output == Decimal("2.50")


def test_prices_agree_with_genai_prices() -> None:
    """A second, independently kept source; what it does not have is pinned here so that the list stays honest."""
    missing = "genai-prices does not have it: nothing to compare with"
    assert catalog.review(SHIPPED, TODAY) == [
        catalog.CatalogFinding("gpt-6.2-sol", missing),
        catalog.CatalogFinding("gpt-6.2-astra", missing),
    ]


def test_review_finds_old_wrong_and_retired_rows() -> None:
    haiku = SHIPPED.models["claude-haiku-4-5"]
    wrong = msgspec.structs.replace(
        haiku,
        prices=(msgspec.structs.replace(haiku.prices[0], cache_read=Decimal("0.25")),),
        retires=dt.date(2026, 12, 1),
    )
    fleet = catalog.Catalog([wrong], {})
    assert [f.problem for f in catalog.review(fleet, TODAY)] == [
        "cache_read is 0.25 here and 0.1 in genai-prices, USD per million tokens"
    ]
    later = [f.problem for f in catalog.review(fleet, TODAY + dt.timedelta(days=61))]
    assert "prices were checked 61 days ago, on 2026-11-22: look again" in later
    assert "retired on 2026-12-01: take it out of the fleets" in later


@pytest.mark.parametrize("model", SHIPPED.models.values(), ids=lambda m: m.id)
def test_cache_prices_are_ordered(model: catalog.Model) -> None:
    for price in model.prices:
        assert price.input is not None
        assert price.cache_read is None or price.cache_read < price.input
        assert price.cache_write_short is None or price.input < price.cache_write_short
        assert price.cache_write_long is None or price.cache_write_short < price.cache_write_long
        assert price.cache_write_long is None or price.cache_write_short is not None
    assert (model.ttl_long_s is None) == (model.prices[0].cache_write_long is None)


@pytest.mark.parametrize("model", SHIPPED.models.values(), ids=lambda m: m.id)
def test_dialects_hold_together(model: catalog.Model) -> None:
    """What a provider cannot mean would be a slip of the pen in the table."""
    dialect = model.dialect
    assert 0 < (model.max_output_tokens or 0) <= model.context_tokens
    assert bool(dialect.thinking) == (model.provider == "anthropic")
    assert dialect.efforts == tuple(e for e in catalog.EFFORTS if e in dialect.efforts)
    assert dialect.default_effort is None or dialect.default_effort in dialect.efforts
    assert "effort_none" not in (dialect.sampling, dialect.chat_tools) or "none" in dialect.efforts
    assert bool(dialect.cache) <= (model.provider == "openai")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-haiku-4-5", {"sampling": "one", "thinking": ("enabled", "disabled"), "prefill": True}),
        ("claude-sonnet-4-6", {"thinking": ("enabled", "adaptive", "disabled"), "prefill": False}),
        ("claude-opus-4-7", {"sampling": "default", "thinking": ("adaptive", "disabled"), "system_in_messages": False}),
        ("claude-opus-4-8", {"system_in_messages": True, "binds_thinking": False, "forced_tool_choice": True}),
        ("claude-opus-5", {"thinking": ("adaptive", "disabled"), "disabled_up_to": "high"}),
        ("claude-opus-5-5", {"thinking": ("adaptive",), "forced_tool_choice": False, "binds_thinking": True}),
        ("claude-sonnet-5-5", {"thinking": ("adaptive", "between_tools"), "forced_tool_choice": False}),
        ("claude-haiku-5-5", {"forced_tool_choice": True, "binds_thinking": True, "system_in_messages": False}),
        ("gpt-4o", {"sampling": "any", "efforts": ()}),
        ("gpt-6.2-sol", {"sampling": "none", "chat_tools": "responses"}),
    ],
)
def test_documented_rejections(model: str, expected: dict[str, object]) -> None:
    dialect = SHIPPED.models[model].dialect
    assert {name: getattr(dialect, name) for name in expected} == expected


LLAMA = {"base_url": "http://localhost:8000/v1", "context_tokens": 32_768}


def test_fleets_may_mix_providers_and_have_models_of_your_own() -> None:
    mixed = {Tier.SIMPLE: "my-llama", Tier.MODERATE: "gpt-6.1-terra", Tier.COMPLEX: "claude-opus-4-7"}
    fleet = SHIPPED.extended({"mine": mixed}, {"my-llama": LLAMA}).fleet("mine")
    assert fleet.provider == "anthropic"
    assert fleet.providers == (catalog.COMPATIBLE, "openai", "anthropic")
    llama = fleet.models[Tier.SIMPLE]
    assert (llama.base_url, llama.api_key_env, llama.vision) == ("http://localhost:8000/v1", None, False)
    assert SHIPPED.find("my-llama") is None


def test_a_model_without_a_price_costs_an_unknown_sum() -> None:
    usage = Usage(fresh_tokens=10, output_tokens=5)
    free = {"input": "0", "output": "0"}
    extended = SHIPPED.extended({}, {"llama": LLAMA, "free": LLAMA | {"price": free}})
    assert cost(usage, extended.find("llama"), TODAY) is None
    assert cost(usage, extended.find("free"), TODAY) == 0
    assert Baseline(extended.models["llama"]).cost(usage, "key", 10, 0.0) is None


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("llama", {"context_tokens": 1}, r"\[models.llama\].*base_url"),
        ("llama", LLAMA | {"api_key": "sk-1"}, r"\[models.llama\].*api_key.*it takes base_url"),
        ("llama", LLAMA | {"dialect": {"sampling": "some"}}, "some"),
        ("gpt-4o", LLAMA, "'gpt-4o' is in the catalog already"),
    ],
)
def test_wrong_models_of_your_own(name: str, table: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        SHIPPED.extended({}, {name: table})


def test_unknown_names_suggest_the_nearest() -> None:
    assert SHIPPED.find("claude-nonexistent") is None
    with pytest.raises(CatalogError, match="did you mean 'claude'"):
        SHIPPED.fleet("cluade")
    with pytest.raises(CatalogError, match="known: claude"):
        SHIPPED.fleet("zzz")


@pytest.mark.parametrize(
    ("fleets", "message"),
    [
        ({"mine": {Tier.SIMPLE: "claude-haiku-4-5"}}, "no 'complex' tier"),
        ({"mine": {Tier.COMPLEX: "claude-opus-9"}}, "unknown model 'claude-opus-9'"),
    ],
)
def test_bad_fleets(fleets: dict[str, dict[Tier, str]], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        SHIPPED.extended(fleets)


@pytest.mark.parametrize("text", ["not toml [", "schema_version = 1", "schema_version = 'x'"])
def test_malformed_catalog(text: str) -> None:
    with pytest.raises(CatalogError, match="malformed catalog"):
        catalog.parse(text)


def test_a_dialect_must_be_known() -> None:
    with pytest.raises(CatalogError, match=r"'claude-45'; did you mean 'claude-4\.5'"):
        catalog.parse('[dialects."claude-4.5"]\n[[models]]\nid = "m"\ndialect = "claude-45"\n')


def test_no_price_in_force_yet() -> None:
    with pytest.raises(CatalogError, match="no price in force"):
        catalog.Model(
            "m", "openai", 1, 4.0, 1, 1, (catalog.Price(Decimal(1), Decimal(1), from_=TODAY),), "openai", TODAY
        ).price(dt.date(2020, 1, 1), 1)
