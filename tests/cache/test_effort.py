"""Tiers that share a model and differ in effort: what is sent, what stays warm, and where a request goes for it."""

from __future__ import annotations

from typing import Any

import pytest

from router import Api, Reason, Router, Settings, Tier, Usage
from router.cache.sharing import cache_name
from router.catalog import TierModel, shipped
from router.errors import CatalogError
from tests.cache.test_placement import BIG, EASY, HARD, SYSTEM, asked, go, in_loop

OPUS, SOL = "claude-opus-5-5", "gpt-6.1-sol"
ALL_OPUS = {tier: TierModel(OPUS, effort) for tier, effort in zip(Tier, ("low", "medium", "high"), strict=True)}
ALL_SOL = {tier: TierModel(SOL, effort) for tier, effort in zip(Tier, ("low", "medium", "high"), strict=True)}


@pytest.fixture
def clock() -> Any:
    class Clock:
        now = 1_795_000_000.0

        def __call__(self) -> float:
            return self.now

    return Clock()


@pytest.fixture
def router(clock: Any) -> Router:
    return Router.load(config=Settings(fleets={"effort": ALL_OPUS}, fleet="effort"), clock=clock)


def test_a_tier_is_sent_with_its_effort_in_the_models_format(router: Router) -> None:
    easy, hard = (go(router, asked(text)) for text in (EASY, HARD))
    assert [(p.decision.tier, p.decision.effort, p.body["output_config"]) for p in (easy, hard)] == [
        (Tier.SIMPLE, "low", {"effort": "low"}),
        (Tier.COMPLEX, "high", {"effort": "high"}),
    ]
    sol = Router.load(config=Settings(fleets={"effort": ALL_SOL}, fleet="effort"))
    said = [{"role": "user", "content": EASY}]
    chat = sol.plan({"model": "auto", "messages": said}, Api.CHAT)
    items = sol.plan({"model": "auto", "input": said}, Api.RESPONSES)
    assert (chat.body["reasoning_effort"], items.body["reasoning"]) == ("low", {"effort": "low"})
    record = sol.record(chat, Usage(fresh_tokens=10, output_tokens=5))
    assert record.effort == "low"


def test_the_tiers_effort_comes_before_the_callers_and_is_noted(router: Router) -> None:
    plan = router.plan(asked(EASY, output_config={"effort": "max", "format": {"type": "text"}}), Api.MESSAGES)
    assert plan.body["output_config"] == {"effort": "low", "format": {"type": "text"}}
    assert "effort max sent as low: the tier's" in plan.decision.notes
    plain = Router.load(fleet="claude-latest").plan(asked(HARD, output_config={"effort": "max"}), Api.MESSAGES)
    assert (plain.body["output_config"], plain.decision.effort) == ({"effort": "max"}, "")


def test_a_named_model_keeps_the_callers_effort(router: Router) -> None:
    body = {**asked(EASY), "model": OPUS, "output_config": {"effort": "max"}}
    plan = router.plan(body, Api.MESSAGES)
    assert (plan.decision.reason, plan.body["output_config"]) == (Reason.EXPLICIT_MODEL, {"effort": "max"})
    assert plan.decision.tier is Tier.COMPLEX  # the strongest that it serves


@pytest.mark.parametrize(
    ("tier", "message"),
    [
        (
            TierModel(OPUS, "none"),
            "tier 'simple': effort 'none' is not one of claude-opus-5-5's; it takes low, me",
        ),
        (TierModel("gpt-4o", "low"), "gpt-4o's; it takes no effort: name the model alone"),
        (TierModel(OPUS, "low", "low"), "two names for one thing; give one"),
        ({"model": OPUS, "efort": "low"}, "unknown field `efort`; expected a model's id, or model and effort"),
        (TierModel("claude-opus-55", "low"), "unknown model 'claude-opus-55'; did you mean 'claude-opus-5-5'?"),
    ],
)
def test_what_a_fleet_may_not_name(tier: Any, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        shipped().extended({"mine": {Tier.SIMPLE: tier, Tier.COMPLEX: OPUS}})


def test_a_caches_name_is_the_models_at_its_own_effort() -> None:
    opus, sol = shipped().models[OPUS], shipped().models[SOL]
    assert [cache_name(opus, effort) for effort in ("", "high", "low")] == [OPUS, OPUS, f"{OPUS}@low"]
    assert [cache_name(sol, effort) for effort in ("", "medium", "low")] == [SOL, SOL, f"{SOL}@low"]


def test_tools_and_system_prompt_stay_warm_across_efforts_and_messages_do_not(router: Router, clock: Any) -> None:
    go(router, asked(EASY))
    clock.now += 10
    other = router.plan(asked(HARD), Api.MESSAGES)  # another conversation under the same system prompt
    assert other.decision.effort == "high"
    assert other.route is not None
    assert other.route.expected_units == pytest.approx(len(SYSTEM), rel=0.02)
    clock.now += 10
    longer = router.plan(asked(EASY, HARD), Api.MESSAGES)
    assert longer.route is not None
    assert longer.route.expected_units == pytest.approx(len(SYSTEM), rel=0.02)  # the head, not the first turn


def test_a_models_own_caches_at_openai_are_apart_by_effort(clock: Any) -> None:
    router = Router.load(config=Settings(fleets={"effort": ALL_SOL}, fleet="effort"), clock=clock)
    said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": EASY}]
    easy = router.plan({"model": "auto", "messages": said, "router": {"max_tier": "simple"}}, Api.CHAT)
    router.record(easy, BIG)
    clock.now += 10
    hard = router.plan({"model": "auto", "messages": [said[0], {"role": "user", "content": HARD}]}, Api.CHAT)
    assert (easy.decision.effort, hard.decision.effort) == ("low", "high")
    assert hard.route is not None
    assert (hard.route.expected_units, hard.route.miss) == (0, "first request")


def test_a_loop_is_held_at_its_effort(router: Router) -> None:
    go(router, asked(EASY))
    held = go(router, in_loop(asked(EASY), 2))
    assert (held.decision.reason, held.body["output_config"]) == (Reason.HELD, {"effort": "low"})


def test_what_needs_little_goes_to_little_effort_where_nothing_is_warm(router: Router) -> None:
    for number in range(30):
        plan = go(router, {**asked(f"{EASY}, number {number}"), "system": f"{number} {SYSTEM}"})
        assert plan.decision.tier is Tier.SIMPLE, plan.decision.notes


def test_a_failed_model_is_not_asked_again_with_more_effort(router: Router) -> None:
    body = asked(EASY)
    assert router.move_up(router.plan(body, Api.MESSAGES), body, "overloaded") is None
    fleet = {Tier.SIMPLE: TierModel("claude-haiku-5-5", "low"), Tier.COMPLEX: TierModel(OPUS, "low")}
    mixed = Router.load(config=Settings(fleets={"effort": fleet}, fleet="effort"))
    moved = mixed.move_up(mixed.plan(body, Api.MESSAGES), body, "overloaded")
    assert moved is not None
    assert (moved.decision.model, moved.body["output_config"]) == (OPUS, {"effort": "low"})
