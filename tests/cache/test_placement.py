"""Conversations through the engine: held, moved, remembered; and what the caches' use says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router import Api, Reason, Router, Settings, Tier, Usage
from router.cache.memory import SqliteMemory

SYSTEM = "You repair the software of a small observatory and report what you did. " * 120  # about 2,300 tokens
EASY = "Translate 'good morning' into Dutch"
HARD = "Prove that every bipartite regular graph has a perfect matching, and that the bound is tight for trees."
BIG = Usage(cache_write_short_tokens=4000, output_tokens=100)


def asked(*texts: str, **fields: Any) -> dict[str, Any]:
    """A body whose user said these in turn, the assistant answering "Done." in between."""
    said: list[dict[str, Any]] = []
    for text in texts:
        said += [{"role": "assistant", "content": "Done."}] if said else []
        said.append({"role": "user", "content": text})
    return {"model": "auto", "max_tokens": 100, "system": SYSTEM, "messages": said, **fields}


def in_loop(body: dict[str, Any], n_results: int = 1, *, failed: bool = False) -> dict[str, Any]:
    said = list(body["messages"])
    for number in range(n_results):
        use = {"type": "tool_use", "id": f"t{number}", "name": "run", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": "ok", "is_error": failed}
        said += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return {**body, "messages": said}


def go(router: Router, body: dict[str, Any], usage: Usage = BIG) -> Any:
    plan = router.plan(body, Api.MESSAGES)
    router.record(plan, usage)
    return plan


def test_a_turn_is_held_through_its_tool_loop(router: Router) -> None:
    first = go(router, asked(HARD))
    again = go(router, in_loop(asked(HARD), 2))
    assert (again.decision.reason, again.decision.tier) == (Reason.HELD, first.decision.tier)
    assert again.route.required is first.route.required


def test_without_a_memory_the_task_decides_again(router: Router) -> None:
    plan = router.plan(in_loop(asked(HARD), 2), Api.MESSAGES)
    assert plan.decision.reason is not Reason.HELD
    assert plan.decision.tier is Tier.COMPLEX


def test_failing_tools_and_a_user_who_objects_go_up(router: Router) -> None:
    easy = asked(EASY)
    assert go(router, easy).decision.tier is Tier.SIMPLE
    trouble = go(router, in_loop(easy, 2, failed=True))
    assert (trouble.decision.reason, trouble.decision.tier) == (Reason.TROUBLE, Tier.MODERATE)
    other = asked("Translate 'good evening' into Dutch")
    go(router, other)
    objection = asked("Translate 'good evening' into Dutch", "That's wrong, try again.")
    assert go(router, objection).decision.tier is not Tier.SIMPLE


def test_a_new_task_goes_up_at_once(router: Router) -> None:
    go(router, asked(EASY))
    assert go(router, asked(EASY, HARD)).decision.tier is Tier.COMPLEX


def test_nothing_goes_below_what_the_task_needs(router: Router, clock: Any) -> None:
    texts: list[str] = []
    for number in range(12):
        texts.append(HARD if number % 3 == 0 else f"{EASY}, variant {number} of the greeting for the morning")
        clock.now += 45
        body = asked(*texts)
        needed = router.decide(body).tier
        went = go(router, body).decision.tier
        assert list(Tier).index(went) >= list(Tier).index(needed or Tier.COMPLEX)


def test_the_conversation_is_known_by_history_by_name_and_by_session(router: Router) -> None:
    from router.decide.rules import Context

    one, two = go(router, asked(HARD)), go(router, asked(HARD, "Thanks. Now the same for trees with loops, please."))
    assert one.route.conversation == two.route.conversation
    named = {"router": {"conversation_id": "abc"}}
    assert go(router, asked(HARD, **named)).route.conversation == "c:abc"
    context = Context(headers={"x-claude-code-session-id": "s1"})
    plan = router.plan(asked(HARD), Api.MESSAGES, context)
    assert plan.route is not None
    assert plan.route.conversation.startswith("c:s1/")


def test_a_held_conversation_survives_a_restart(tmp_path: Path, clock: Any) -> None:
    config = Settings(state=str(tmp_path / "state.db"))
    go(Router.load(config=config, clock=clock), asked(HARD))
    later = Router.load(config=config, clock=clock)
    assert isinstance(later.accounts.placement.memory, SqliteMemory)
    assert go(later, in_loop(asked(HARD))).decision.reason is Reason.HELD


def test_a_rehearsal_goes_to_the_top(router: Router) -> None:
    plan = router.plan(asked(EASY, router={"dry_run": True}), Api.MESSAGES)
    assert (plan.decision.reason, plan.decision.model) == (Reason.DRY_RUN, "claude-opus-4-7")
    assert "claude-haiku-4-5" in plan.decision.notes[-1]


def test_counting_tokens_moves_and_teaches_nothing(router: Router) -> None:
    plan = router.plan(asked(HARD), Api.MESSAGES, counts_only=True)
    assert plan.route is None
    assert router.accounts.placement.signals() == []


def test_signals_say_why_nothing_is_read(router: Router, clock: Any) -> None:
    texts = [HARD]
    for _ in range(25):
        go(router, asked(*texts), Usage(cache_write_short_tokens=4000, output_tokens=10))
        clock.now += 400  # always later than five minutes
        texts.append(HARD)
    (signal,) = [s for s in router.accounts.placement.signals() if s.model == "claude-opus-4-7"]
    assert signal.hit_rate == 0
    assert signal.alert is not None
    assert sum(signal.misses.values()) == signal.n_requests


LONG = HARD * 200


def said(*texts: str, conversation: str = "one", tier: Tier | None = None) -> dict[str, Any]:
    """A body without a system prompt, of a named conversation, for a tier."""
    bounds = {"min_tier": tier, "max_tier": tier} if tier else {}
    return {**asked(*texts), "system": "", "router": {"conversation_id": conversation, **bounds}}


@pytest.mark.parametrize(
    ("cause", "fleet", "gap_s", "body"),
    [
        ("window too short", "gpt-latest", 2500.0, lambda n: said(*[LONG] * (n + 1), tier=Tier.COMPLEX)),
        ("nothing was written", "claude", 9000.0, lambda n: said(*[LONG] * (n + 1))),
        ("below the minimum", "claude", 10.0, lambda _: said(HARD)),
        ("prefix changes at message 0", "claude", 10.0, lambda n: said(f"now {n} {LONG}", LONG)),
        (
            "model switch",
            "claude",
            10.0,
            lambda n: said(f"{n // 2} {LONG}", conversation=str(n // 2), tier=list(Tier)[1 + n % 2]),
        ),
    ],
)
def test_the_alert_names_the_cause(router: Router, clock: Any, cause: str, fleet: str, gap_s: float, body: Any) -> None:
    router = router.with_fleet(fleet)
    api = Api.MESSAGES if fleet == "claude" else Api.CHAT
    assert router.signals() == []
    # by then it is learned that nothing comes back in the window, so that the next ones are not written
    for number in range(24 if cause == "window too short" else 40):
        plan = router.plan(body(number), api)
        assert plan.route is not None
        kind = "cache_read_tokens" if plan.route.expected_units else "cache_write_short_tokens"
        router.record(plan, Usage(**{kind if plan.route.tail else "fresh_tokens": 9000}, output_tokens=10))
        clock.now += gap_s
    alerts = [signal.alert for signal in router.signals()]
    assert any(str(alert).endswith(f"% of input tokens read from cache; most misses: {cause}") for alert in alerts), (
        router.signals()
    )


def test_no_alert_while_all_is_well(router: Router, clock: Any) -> None:
    for number in range(30):
        go(router, asked(*[HARD] * (number + 1)), Usage(fresh_tokens=900, cache_read_tokens=1000, output_tokens=10))
        clock.now += 10
    (signal,) = router.signals()
    assert (signal.n_requests, signal.hit_rate, signal.alert) == (30, pytest.approx(1000 / 1900), None)


@pytest.mark.parametrize("gap_s", [30.0, 290.0])
def test_what_is_believed_warm_is_what_the_replies_reported(router: Router, clock: Any, gap_s: float) -> None:
    go(router, asked(HARD))
    clock.now += gap_s
    plan = router.plan(asked(HARD, HARD), Api.MESSAGES)
    assert plan.route is not None
    assert plan.route.expected_units > len(SYSTEM)
    router.record(plan, Usage(fresh_tokens=4100))  # it was not there after all
    after = router.plan(asked(HARD, HARD, HARD), Api.MESSAGES)
    assert after.route is not None
    assert after.route.warm.get("claude-opus-4-7", ()) == ()


def test_what_another_version_remembered_is_passed_over(router: Router) -> None:
    go(router, asked(HARD))
    for key in list(router.accounts.placement.memory._values):  # type: ignore[attr-defined]
        router.accounts.placement.memory.put([key], b"\x81\xa3odd\x01")
    plan = go(router, in_loop(asked(HARD), 2))
    assert plan.decision.reason is not Reason.HELD


def test_a_long_prompt_is_cached_where_the_cheap_model_charges_more_for_length(router: Router, clock: Any) -> None:
    """claude-haiku-5-5 charges five times as much above 100,000 tokens, and so much more is saved by caching there."""
    router = router.with_fleet("claude-latest")
    long = HARD * 5000  # 520,000 characters
    tails = []
    for number in range(30):
        plan = router.plan(in_loop(said(long, tier=Tier.SIMPLE), number), Api.MESSAGES)
        assert plan.route is not None
        read = {"cache_read_tokens": 130_000} if plan.route.expected_units else {}
        router.record(plan, Usage(**read, cache_write_short_tokens=500, output_tokens=50))
        tails.append(plan.route.tail.name)
        clock.now += 10.0
    assert "NONE" not in tails
