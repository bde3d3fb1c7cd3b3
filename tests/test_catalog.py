from __future__ import annotations

import datetime as dt
from decimal import Decimal

import msgspec
import pytest

from router import CatalogError, Tier, Usage, catalog
from router.accounts.baseline import Baseline, cost
from router.price_review import CatalogFinding, review
from router.prices import FIGURES, Modifier, Price

TODAY = dt.date(2026, 11, 26)
SHIPPED = catalog.shipped()


def test_fleets() -> None:
    named = {name: [m.id for m in fleet.models.values()] for name, fleet in SHIPPED.fleets.items()}
    assert named["claude"] == ["claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-7"]
    assert set(named) == {"claude", "claude-latest", "claude-effort", "gpt", "gpt-latest", "gpt-effort", "gemini"}
    assert SHIPPED.fleet("claude").top.id == "claude-opus-4-7"
    assert SHIPPED.fleet("claude").tier_of("claude-haiku-4-5-20251001") is Tier.SIMPLE
    assert SHIPPED.fleet("claude").tier_of("gpt-4o") is None


@pytest.mark.parametrize("fleet", SHIPPED.fleets.values(), ids=lambda fleet: fleet.name)
def test_fleets_rise_in_price_and_outlive_half_a_year(fleet: catalog.Fleet) -> None:
    prices = [m.price(TODAY, 1000).output or Decimal(0) for m in fleet.models.values()]
    assert prices == sorted(prices)
    assert prices[0] > 0
    assert fleet.providers == (fleet.provider,)
    assert all(m.retires is None or m.retires > TODAY + dt.timedelta(days=182) for m in fleet.models.values())


def test_prices_change_with_date_and_length() -> None:
    argon, haiku = SHIPPED.models["gemini-4-argon"], SHIPPED.models["claude-haiku-5-5"]
    assert argon.price(dt.date(2026, 11, 30), 10).input == Decimal(2)
    assert argon.price(dt.date(2026, 12, 1), 10).input == Decimal(4)
    assert haiku.price(TODAY, 100_000).output == Decimal("0.50")
    assert haiku.price(TODAY, 100_001).output == Decimal("2.50")


def test_prices_agree_with_genai_prices() -> None:
    """A second, independently kept source; what it does not have is pinned here so that the list stays honest."""
    missing = "genai-prices does not have it: nothing to compare with"
    assert review(SHIPPED, TODAY) == [
        CatalogFinding("gpt-6.2-sol", missing),
        CatalogFinding("gpt-6.2-astra", missing),
        CatalogFinding("gemini-4-hydrogen", missing),
    ]


@pytest.mark.parametrize("model", SHIPPED.models.values(), ids=lambda m: m.id)
def test_modifiers_agree_with_genai_prices(model: catalog.Model) -> None:
    """Where it has a price for a batch, a service tier or a speed, ours is that one: every figure, at both lengths."""
    snapshot = pytest.importorskip("genai_prices.data_snapshot").get_snapshot()
    provider = {"gemini": "google"}.get(model.provider, model.provider)
    listed = next(p for p in snapshot.providers if p.id == provider).models
    theirs = next((m for m in listed if m.id == model.id), None)
    for variant in (theirs.price_variants or ()) if theirs else ():
        starts = variant.constraint.start_date if variant.constraint else TODAY
        if variant.prices is None or starts > TODAY or set(vars(variant.prices)) == set():
            continue
        ((dimension, value),) = variant.when.items()
        name = "batch" if dimension == "processing" else dimension
        found = model.modifiers.find(name, value)
        assert found is not None, f"{model.id} has no {name} {value}"
        for length in (1000, 300_000):
            if not found.holds(TODAY, length):
                continue
            ours = found.applied(model.price(TODAY, length))
            for field, figure in (
                ("input_mtok", "input"),
                ("output_mtok", "output"),
                ("cache_read_mtok", "cache_read"),
                ("cache_write_mtok", "cache_write_short"),
                ("cache_write_1h_mtok", "cache_write_long"),
            ):
                price = vars(variant.prices).get(field)
                tiers = [tier.price for tier in getattr(price, "tiers", ()) if tier.start < length]
                expected = tiers[-1] if tiers else getattr(price, "base", price)
                if expected is not None:
                    assert getattr(ours, figure) == expected, f"{model.id} {name} {value} {figure} at {length}"


@pytest.mark.parametrize(
    ("model", "context_tokens", "retires"),
    [
        *[(name, 922_000, None) for name in SHIPPED.models if name.startswith(("gpt-5.6", "gpt-6"))],
        ("gpt-5.4-mini", 272_000, None),
        ("gpt-5.4-nano", 272_000, dt.date(2027, 4, 1)),
        ("gemini-3.5-flash-lite", 1_000_000, dt.date(2027, 7, 21)),
        ("gemini-3.1-flash-lite", 1_048_576, dt.date(2027, 5, 7)),
        ("gemini-4-hydrogen", 1_048_576, None),
    ],
)
def test_documented_limits(model: str, context_tokens: int, retires: dt.date | None) -> None:
    found = SHIPPED.models[model]
    assert (found.context_tokens, found.retires) == (context_tokens, retires)


def test_review_finds_old_wrong_and_retired_rows() -> None:
    haiku = SHIPPED.models["claude-haiku-4-5"]
    wrong = msgspec.structs.replace(
        haiku,
        prices=(msgspec.structs.replace(haiku.prices[0], cache_read=Decimal("0.25")),),
        retires=dt.date(2026, 12, 1),
    )
    fleet = catalog.Catalog([wrong], {})
    assert [f.problem for f in review(fleet, TODAY)] == [
        "cache_read is 0.25 here and 0.1 in genai-prices, USD per million tokens"
    ]
    later = [f.problem for f in review(fleet, TODAY + dt.timedelta(days=61))]
    assert "prices were checked 65 days ago, on 2026-11-22: look again" in later
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
        ("gpt-4o", {"price": {"input": "1"}}, r"\[models.gpt-4o\]: price needs input and output"),
        ("gpt-4o", {"price": {"input": "-1", "output": "1"}}, "negative"),
        ("gpt-4o", {"discount": "1.5"}, "expected a share from 0 up to 1"),
        ("gpt-4o", {"discount": "0.1", "price": {"input": "1", "output": "1"}}, "give one"),
        ("gpt-4o", {"like": "gpt-5.4"}, "'gpt-4o' is in the catalog already"),
        ("gpt-4o", {}, "says nothing"),
        ("gpt-7", {"price": {"input": "1", "output": "1"}}, "needs base_url and context_tokens, or like = MODEL"),
        ("gpt-7", {"like": "gpt-6.1-sun"}, "did you mean 'gpt-6.1-sol'"),
        ("gpt-7", {"like": "gpt-6-sol", "modifiers": {"service_tier": {"flex": "cheap"}}}, r"service_tier"),
    ],
)
def test_wrong_models_of_your_own(name: str, table: dict[str, object], message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        SHIPPED.extended({}, {name: table})


def test_a_price_of_your_own_holds_instead_of_the_catalogs() -> None:
    """The cache figures that it leaves out keep their ratio, what changes the price still does, the alias follows."""
    table = {"price": {"input": 0.8, "output": "4"}, "context_tokens": 150_000}
    mine = SHIPPED.extended({}, {"claude-haiku-4-5": table})
    haiku = mine.models["claude-haiku-4-5"]
    price = haiku.price(TODAY, 1000)
    assert [getattr(price, figure) for figure in FIGURES] == [
        Decimal(text) for text in ("0.8", "0.08", "1", "1.6", "4")
    ]
    assert (haiku.provider, haiku.context_tokens, haiku.source) == ("anthropic", 150_000, "settings")
    assert mine.fleet("claude").models[Tier.SIMPLE] is mine.models["claude-haiku-4-5-20251001"] is haiku
    half = Usage(1000, output_tokens=100, is_batch=True)
    assert cost(half, haiku, TODAY) == Decimal("0.0006")
    by_alias = SHIPPED.extended({}, {"claude-haiku-4-5-20251001": table})
    assert by_alias.models["claude-haiku-4-5"] == haiku
    assert SHIPPED.models["claude-haiku-4-5"].source == "anthropic"


def test_what_changes_a_price_follows_a_price_of_your_own() -> None:
    """Priority on gpt-4o-mini has figures of its own, 5/3 of the price; so it is of another price too."""
    mine = SHIPPED.extended({}, {"gpt-4o-mini": {"price": {"input": "0.30", "output": "1.20"}}}).models["gpt-4o-mini"]
    usd = cost(Usage(1000, output_tokens=100, service_tier="priority"), mine, TODAY)
    assert usd is not None
    assert usd.quantize(Decimal("1e-9")) == Decimal("0.0007")
    assert cost(Usage(0, 1000, is_batch=True), mine, TODAY) == Decimal("0.000075")


def test_a_discount_is_off_every_figure() -> None:
    """Steps, figures of a modifier's own and calls of tools too; the same on every model that has one."""
    for name in ("claude-haiku-5-5", "gpt-4o-mini", "gpt-5.4"):
        mine = SHIPPED.extended({}, {name: {"discount": 0.2}}).models[name]
        for usage in (
            Usage(1000, 200, 0, 0, 50, calls=(("web_search", 3),)),
            Usage(300_000, output_tokens=10),
            Usage(1000, 200, 0, 0, 50, is_batch=True),
        ):
            assert cost(usage, mine, TODAY) == (cost(usage, SHIPPED.models[name], TODAY) or 0) * Decimal("0.8")


def test_a_model_released_today_is_like_another() -> None:
    tables = {
        "claude-opus-6": {"like": "claude-opus-5-5", "price": {"input": "3", "output": "15"}},
        "my-opus": {"like": "claude-opus-6", "base_url": "https://opus.example", "discount": 0},
        "gpt-7": {"like": "gpt-6.1-sol", "modifiers": {"service_tier": {"flex": "0.4"}, "calls": {"maps": "7"}}},
    }
    mine = SHIPPED.extended({"new": {Tier.COMPLEX: "claude-opus-6"}}, tables)
    opus, own, unpriced = (mine.models[name] for name in tables)
    like = SHIPPED.models["claude-opus-5-5"]
    assert (opus.dialect, opus.cache_min_tokens, opus.ttl_long_s) == (like.dialect, like.cache_min_tokens, 3600)
    assert cost(Usage(1000, output_tokens=100, speed="fast"), opus, TODAY) == Decimal("0.009")
    assert (own.provider, own.base_url, own.prices) == ("anthropic", "https://opus.example", opus.prices)
    assert cost(Usage(1000), unpriced, TODAY) is None
    assert unpriced.modifiers.find("service_tier", "flex") == Modifier(factor=Decimal("0.4"))
    assert unpriced.modifiers.calls["maps"] == 7
    assert unpriced.modifiers.calls["web_search"] == 10
    assert mine.fleet("new").top is opus


def test_prices_of_your_own_may_have_steps_and_days() -> None:
    rows = [
        {"input": "1", "output": "2"},
        {"input": "2", "output": "4", "above_input_tokens": 100_000},
        {"from": dt.date(2027, 1, 1), "input": "3", "output": "6"},
    ]
    mine = SHIPPED.extended({}, {"gpt-4o": {"price": rows}}).models["gpt-4o"]
    assert mine.price(TODAY, 1000) == Price(Decimal(1), Decimal(2), Decimal("0.5"))
    assert mine.price(TODAY, 100_001).input == 2
    assert mine.price(dt.date(2027, 2, 1), 1000).cache_read == Decimal("1.5")


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
