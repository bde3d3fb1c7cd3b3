from __future__ import annotations

import datetime as dt
from decimal import Decimal

import msgspec
import pytest

from router import CatalogError, Tier, catalog

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
    prices = [m.price(TODAY, 1000).output for m in fleet.models.values()]
    assert prices == sorted(prices)
    assert all(m.retires is None for m in fleet.models.values())


def test_prices_change_with_date_and_length() -> None:
    argon, haiku = SHIPPED.models["gemini-4-argon"], SHIPPED.models["claude-haiku-5-5"]
    assert argon.price(dt.date(2026, 11, 30), 10).input == Decimal(2)
    assert argon.price(dt.date(2026, 12, 1), 10).input == Decimal(4)
    assert haiku.price(TODAY, 100_000).output == Decimal("0.50")
    assert haiku.price(TODAY, 100_001).output == Decimal("2.50")


def test_prices_agree_with_genai_prices() -> None:
    """A second, independently kept source; what it does not have is pinned here so that the list stays honest."""
    missing = catalog.Finding("gpt-6.2-sol", "genai-prices does not have it: nothing to compare with")
    assert catalog.review(SHIPPED, TODAY) == [missing]


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
        assert price.cache_read is None or price.cache_read < price.input
        assert price.cache_write_short is None or price.input < price.cache_write_short
        assert price.cache_write_long is None or price.cache_write_short < price.cache_write_long
    assert (model.ttl_long_s is None) == (model.prices[0].cache_write_long is None)


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
        ({"mine": {Tier.SIMPLE: "gpt-4o", Tier.COMPLEX: "claude-opus-4-7"}}, "mixes providers"),
    ],
)
def test_bad_fleets(fleets: dict[str, dict[Tier, str]], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        SHIPPED.extended(fleets)


@pytest.mark.parametrize("text", ["not toml [", "schema_version = 1", "schema_version = 'x'"])
def test_malformed_catalog(text: str) -> None:
    with pytest.raises(CatalogError, match="malformed catalog"):
        catalog.parse(text)


def test_no_price_in_force_yet() -> None:
    with pytest.raises(CatalogError, match="no price in force"):
        catalog.Model(
            "m", "openai", 1, 4.0, 1, 1, (catalog.Price(Decimal(1), Decimal(1), from_=TODAY),), "openai", TODAY
        ).price(dt.date(2020, 1, 1), 1)
