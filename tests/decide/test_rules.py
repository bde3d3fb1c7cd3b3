from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Api, Reason, Router, Settings, SettingsError, Tier, Usage, settings
from router.classifier import artifact
from router.decide.rules import Context, Rule, Rules, any_of
from router.types import Task, TurnState
from tests.conftest import ROOT

SIMPLE, MODERATE, COMPLEX = Tier
SUNDAY_NOON_S = 1795348800.0  # 2026-11-22 12:00 UTC


def task(text: str = "hello there", *, images: bool = False, tools: bool = False) -> Task:
    return Task(text, TurnState.USER_TURN, len(text), images, tools)


def matches(asked: Task, context: Context = Context(), at_s: float = SUNDAY_NOON_S, **conditions: Any) -> bool:  # noqa: B008
    rule = Rule("r", tier=SIMPLE, **conditions)
    return Rules([rule]).match(asked, context, at_s) is rule


@pytest.mark.parametrize(
    ("conditions", "yes", "no"),
    [
        ({"max_words": 3}, "one two three", "one two three four"),
        ({"min_words": 3}, "one two three", "one two"),
        ({"min_words": 2, "max_words": 3}, "one two", "one"),
        ({"max_words": 4}, "明日の天気", "明日の天気はどうですか"),
        ({"max_chars": 5}, "12345", "123456"),
        ({"min_chars": 5}, "12345", "1234"),
        ({"terms": ("lease", "tax return")}, "my TAX\n return is late", "release the taxreturn"),
        ({"terms": ("契約",)}, "この契約書を読んで", "この本を読んで"),
        ({"terms": ("c++",)}, "port it to C++", "vitamin c"),
        ({"without": ("proof",)}, "name a colour", "a proof, please"),
        ({"pattern": r"\bINC-\d{4}\b"}, "see INC-1234", "see INC-12"),
        ({"language": ("de", "fr")}, "Wie wird das Wetter und was ist mit dem Wind?", "What is the weather like?"),
        ({"language": ("ja",)}, "明日の天気はどうですか", "?!"),
    ],
)
def test_conditions_on_the_text(conditions: dict[str, Any], yes: str, no: str) -> None:
    assert matches(task(yes), **conditions)
    assert not matches(task(no), **conditions)


def test_conditions_on_the_request() -> None:
    assert matches(task(images=True), images=True)
    assert not matches(task(), images=True)
    assert matches(task(), tools=False)
    assert not matches(task(tools=True), tools=False)
    context = Context({"x-team": "search"}, key="batch")
    assert matches(task(), context, headers={"X-Team": "search"}, key=("batch", "nightly"))
    assert matches(task(), context, headers={"x-team": "*"})
    assert not matches(task(), context, headers={"x-team": "sales"})
    assert not matches(task(), headers={"x-team": "*"})
    assert not matches(task(), context, key=("web",))


@pytest.mark.parametrize(
    ("between", "timezone", "expected"),
    [
        ("11:00-13:00", "UTC", True),
        ("12:00-12:30", "UTC", True),
        ("11:00-12:00", "UTC", False),
        ("22:00-06:00", "UTC", False),
        ("18:00-12:01", "UTC", True),
        ("20:59-21:01", "Asia/Tokyo", True),
    ],
)
def test_time_of_day(between: str, timezone: str, expected: bool) -> None:
    assert matches(task(), between=between, timezone=timezone) is expected


def test_days() -> None:
    assert matches(task(), days=("sat", "sun"))
    assert not matches(task(), days=("mon",))
    assert matches(task(), days=("mon",), timezone="Pacific/Kiritimati")  # 14 hours ahead: already Monday


def test_all_conditions_must_hold_and_the_first_rule_wins() -> None:
    rules = Rules([Rule("a", tier=SIMPLE, max_words=2, tools=True), Rule("b", tier=MODERATE), Rule("c", tier=COMPLEX)])
    for tools, name in ((True, "a"), (False, "b")):
        found = rules.match(task(tools=tools), Context(), SUNDAY_NOON_S)
        assert found is not None
        assert found.name == name


tiers = st.sampled_from(list(Tier))


@given(st.sets(tiers, min_size=1), tiers, st.sampled_from(["tier", "min_tier", "max_tier"]))
def test_narrowing_keeps_what_can_take_the_request(allowed: set[Tier], tier: Tier, outcome: str) -> None:
    able = [t for t in Tier if t in allowed]
    left = Rule("r", **{outcome: tier}).narrow(able)  # type: ignore[arg-type]
    assert left
    assert set(left) <= allowed
    if outcome == "tier":
        assert len(left) == 1
    if outcome != "max_tier" and tier in allowed:
        assert left[0] == tier  # never below the tier or the floor where it can be had
    if outcome == "max_tier" and tier in allowed:
        assert left[-1] == tier


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"name": "a"}], "rule 'a': it has no outcome, expected one of tier, min_tier, max_tier"),
        ([{"name": "a", "tier": "simple", "max_tier": "complex"}], "it has tier and max_tier"),
        ([{"name": "a", "tier": "simple"}] * 2, "two rules are called 'a'"),
        ([{"name": "a", "tier": "simple", "pattern": "("}], r"pattern '\(' is no RE2 expression: missing \)"),
        ([{"name": "a", "tier": "simple", "pattern": r"(a)\1"}], "is no RE2 expression: invalid escape sequence"),
        (
            [{"name": "a", "tier": "simple", "between": "9-5"}],
            "between is '9-5', expected two times .* \"22:00-06:00\"",
        ),
        ([{"name": "a", "tier": "simple", "timezone": "Mars/Olympus"}], "'Mars/Olympus' is unknown"),
        ([{"name": "a", "tier": "simple", "days": ["monday"]}], r"days has \['monday'\], expected any of mon"),
        ([{"name": "a", "tier": "simple", "language": ["tlh"]}], r"language has \['tlh'\], expected any of ar, bn"),
        ([{"name": "a", "tier": "simple", "min_words": 9, "max_words": 3}], "min_words is 9 and max_words 3"),
        ([{"name": "a", "tier": "simple", "terms": ["x", " "]}], "an empty term is in every text"),
    ],
)
def test_mistakes_are_named(rules: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Rules(Rule(**rule) for rule in rules)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[rules]]\nname = "a"\nmax_word = 3', "rule 'a' has the unknown key 'max_word'; did you mean 'max_words'"),
        ('[[rules]]\nname = "a"\ntier = "tiny"', r"rules\[0\]\.tier.*tiny"),
        ('[[rules]]\ntier = "simple"', "missing required field `name`"),
        ("rules = 3", r"\$\.rules"),
        ("rules = [3]", r"\$\.rules\[0\]"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        settings.load(tmp_path / "my.toml", environ={})


def test_a_hostile_text_costs_milliseconds() -> None:
    rules = Rules([Rule("r", tier=SIMPLE, pattern="(a+)+b", min_words=10**6, terms=("zebra", "x y"), language=("de",))])
    for text in ("a" * 10_000_000, "x " * 5_000_000):
        started = time.perf_counter()
        assert rules.match(task(text), Context(), SUNDAY_NOON_S) is None
        assert Rules([Rule("p", tier=SIMPLE, pattern="(a+)+b")]).match(task(text), Context(), SUNDAY_NOON_S) is None
        assert time.perf_counter() - started < 1.0


def routed(*rules: Rule) -> Router:
    return Router.load(config=Settings(rules=rules))


HARD = "Prove that there are infinitely many primes of the form 4n + 1, and that the sum of 1/p over them diverges"
EASY = "Translate 'good morning' into Dutch"


def test_a_rule_decides_before_the_classifier() -> None:
    router = routed(Rule("mornings", tier=MODERATE, terms=("morning",)))
    decision = router.decide(EASY)
    assert (decision.tier, decision.reason, decision.notes) == (MODERATE, Reason.RULE, ("rule 'mornings'",))
    assert router.decide(HARD).reason is Reason.BELOW_THRESHOLD


def test_bounds_of_a_rule_are_named_where_they_changed_the_tier() -> None:
    floor = routed(Rule("careful", min_tier=MODERATE))
    assert (floor.decide(EASY).tier, floor.decide(EASY).reason) == (MODERATE, Reason.RULE)
    assert floor.decide(HARD).reason is Reason.BELOW_THRESHOLD
    ceiling = routed(Rule("thrifty", max_tier=SIMPLE))
    assert (ceiling.decide(HARD).tier, ceiling.decide(HARD).reason) == (SIMPLE, Reason.RULE)
    assert ceiling.decide(EASY).reason is Reason.SUFFICES
    assert ceiling.decide(EASY).notes == ("rule 'thrifty'",)


def test_the_callers_bounds_and_the_models_limits_win() -> None:
    router = routed(Rule("cheap", tier=SIMPLE))
    messages = [{"role": "user", "content": "hi"}]
    assert router.decide({"messages": messages, "router": {"min_tier": "complex"}}).tier is COMPLEX
    assert router.decide("tell me a story about ships " * 400_000).tier is not SIMPLE


def test_context_reaches_the_rules_through_plan() -> None:
    router = routed(Rule("search team", tier=COMPLEX, headers={"x-team": "search"}))
    body = {"model": "auto", "messages": [{"role": "user", "content": EASY}]}
    assert router.plan(body, Api.MESSAGES, Context({"x-team": "search"})).decision.reason is Reason.RULE
    assert router.plan(body, Api.MESSAGES).decision.reason is Reason.SUFFICES


WRONG: list[Any] = [
    {"role": "user", "content": EASY},
    {"role": "assistant", "content": "Goedenavond"},
    {"role": "user", "content": "That is wrong, it means good evening"},
]


def test_a_ceiling_holds_under_faults_and_trouble_and_nothing_else_of_a_rule_does() -> None:
    body = {"model": "auto", "max_tokens": 64, "messages": [{"role": "user", "content": EASY}]}
    went_up = {}
    for outcome in ({"max_tier": SIMPLE}, {"tier": SIMPLE}, {"min_tier": SIMPLE}, {"max_tier": MODERATE}):
        router = routed(Rule("bound", **outcome))  # type: ignore[arg-type]
        plan = router.plan(body, Api.MESSAGES)
        assert plan.decision.tier is SIMPLE
        higher = router.move_up(plan, body, "it failed")
        router.record(plan, Usage(fresh_tokens=20, output_tokens=5))
        again = router.plan({**body, "messages": WRONG}, Api.MESSAGES).decision.tier
        went_up[str(outcome)] = (higher and higher.decision.tier, again)
        if higher is not None and "max_tier" in outcome:
            assert router.move_up(higher, body, "it failed, too") is None
    assert [(up, again is SIMPLE) for up, again in went_up.values()] == [
        (None, True),
        (MODERATE, True),  # a rule that names a tier decides, trouble or not
        (MODERATE, False),
        (MODERATE, False),
    ]


def test_a_ceiling_by_header_holds_after_a_fault_and_the_callers_bound_wins() -> None:
    router = routed(Rule("search team", max_tier=SIMPLE, headers={"x-team": "search"}))
    body = {"model": "auto", "max_tokens": 64, "messages": [{"role": "user", "content": EASY}]}
    theirs = Context({"x-team": "search"})
    plan = router.plan(body, Api.MESSAGES, theirs)
    assert router.move_up(plan, body, "it failed", theirs) is None
    assert router.move_up(plan, body, "it failed") is not None
    wins = {**body, "router": {"min_tier": "moderate"}}
    plan = router.plan(wins, Api.MESSAGES, theirs)
    assert plan.decision.tier is MODERATE
    assert router.move_up(plan, wins, "it failed", theirs) is None


def test_rules_that_end_in_a_catch_all_need_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    router = routed(Rule("short", tier=SIMPLE, max_words=12, without=("proof", "prove")), Rule("other", tier=COMPLEX))
    monkeypatch.setattr(router.policy, "champion", msgspec.structs.replace(router.policy.champion, classifier=None))
    assert [router.decide(text).tier for text in (EASY, HARD, "why " * 20, "")] == [SIMPLE, COMPLEX, COMPLEX, SIMPLE]


def test_a_point_of_the_settings_is_used_and_checked(tmp_path: Path) -> None:
    shipped = artifact.SHIPPED
    text = '[operating_points.mine]\nthresholds = {{simple = 0.0, moderate = 1.0}}\ntarget = "t"\nachieved = 0.1\n'
    text += 'interval = [0.0, 0.2]\nshares = {{simple = 1.0}}\nsplit = "s"\nartifact = "{}"\n'
    (tmp_path / "tierwise.toml").write_text(text.format(shipped))
    decision = Router.load(operating_point="mine").decide(HARD)
    assert (decision.tier, decision.operating_point) == (SIMPLE, "mine")
    (tmp_path / "tierwise.toml").write_text(text.format("complexity-v1"))
    with pytest.raises(SettingsError, match=f"'mine' was tuned for complexity-v1, the artifact in use is {shipped}"):
        Router.load()
    (tmp_path / "tierwise.toml").write_text(text.format(shipped).replace(", moderate = 1.0", ""))
    with pytest.raises(SettingsError, match="'mine' has no threshold for moderate"):
        Router.load()


@pytest.mark.parametrize(
    ("term", "held", "not_held"),
    [
        ("lease", "Compare these two leases|leasing a car|he leased it|a LEASE.", "release it|please|leash"),
        ("leases", "a lease|two leases", "releases"),
        ("liability", "our liabilities", "liabilit"),
        ("tax", "taxes|taxed|taxing", "taxi|syntax"),
        ("contract", "contracts|contracted", "contraction|subcontract"),
        ("tax return", "her tax returns", "tax returner"),
        ("class", "classes", "classic|clas"),
        ("prove", "proving that|proved", "proverb|improve"),
        ("AI", "an AI", "ais|aid"),
        ("Vertrag", "der Vertrag", "Vertragsrecht"),
    ],
)
def test_terms_match_the_regular_forms_of_english(term: str, held: str, not_held: str) -> None:
    holds = any_of([term])
    assert [text for text in held.split("|") if not holds(text)] == []
    assert [text for text in not_held.split("|") if holds(text)] == []


@pytest.mark.parametrize(
    "outcome", [{"tier": SIMPLE}, {"max_tier": SIMPLE}, {"tier": MODERATE}, {"max_tier": MODERATE}]
)
def test_a_rule_that_sends_down_what_the_classifier_thinks_hard_says_so(outcome: dict[str, Tier]) -> None:
    """The note changes nothing but itself; it stands where the rule lowers, and only there."""
    router = routed(Rule("down", **outcome))  # type: ignore[arg-type]
    tier = next(iter(outcome.values()))
    doubted = router.decide(HARD)
    assert (doubted.tier, doubted.reason, doubted.notes[0]) == (tier, Reason.RULE, "rule 'down'")
    least = min(point.thresholds[tier] for point in router.policy.champion.manifest.operating_points.values())
    q = routed().decide(HARD).p_suffices[tier]
    assert doubted.notes[1:] == (
        f"the classifier disagrees: P({tier} suffices) is {q:.3f}, and no operating point takes less than {least:g}",
    )
    assert router.decide(EASY).notes == ("rule 'down'",)
    raised = routed(Rule("up", min_tier=COMPLEX)), routed(Rule("up", tier=COMPLEX))
    assert [each.decide(HARD).notes for each in raised] == [("rule 'up'",)] * 2


def test_what_the_classifier_cannot_judge_it_does_not_doubt() -> None:
    router = routed(Rule("down", tier=SIMPLE))
    assert router.decide("").notes == ("rule 'down'",)
    title = {"max_tokens": 1, "messages": [{"role": "user", "content": HARD}]}
    assert router.decide(title).notes == ("rule 'down'",)


@pytest.mark.parametrize(
    "text", ["Is this contract valid?", "Which drug interacts with warfarin?", HARD, "Why?", "Hi, fix it"]
)
def test_the_documented_rules_lower_nothing_that_is_merely_short(text: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    (tmp_path / "tierwise.toml").write_text(page.split("```toml")[1].split("```")[0])
    sent, alone = Router.load(config=settings.load(tmp_path / "tierwise.toml")).decide(text), routed().decide(text)
    assert sent.tier is not None and alone.tier is not None and sent.tier.at_least(alone.tier)
    if "contract" in text or "drug" in text:
        assert sent.tier is COMPLEX
