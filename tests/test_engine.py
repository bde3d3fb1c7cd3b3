from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from router import AUTO, Api, ArtifactNotFound, CatalogError, Reason, RequestError, Router, Tier, Usage, settings
from router.classifier.model import Prediction
from router.formats.states import State
from router.types import Reach

HELLO = [{"role": "user", "content": "hi"}]


def test_decision_has_all_that_a_caller_needs(shipped: Router) -> None:
    decision = shipped.decide("Translate 'good morning' into Dutch")
    assert decision.model == shipped.fleet.models[decision.tier or Tier.COMPLEX].id
    assert list(decision.p_suffices) == list(Tier)
    assert decision.reason in (Reason.SUFFICES, Reason.BELOW_THRESHOLD)
    assert decision.operating_point == "balanced"


def test_text_messages_and_body_are_decided_alike(shipped: Router) -> None:
    assert shipped.decide("hi") == shipped.decide(messages=HELLO)
    assert shipped.decide("hi") == shipped.decide({"messages": HELLO, "model": "x"})
    assert shipped.decide("hi") == shipped.decide({"input": "hi"})


def test_stricter_points_never_go_down(shipped: Router) -> None:
    rank = list(Tier)
    for text in (
        "hi",
        "Compare these two contracts and tell me which one is riskier",
        "prove it",
        "refactor my parser",
    ):
        tiers = [shipped.decide(text, operating_point=p).tier for p in ("economy", "balanced", "quality")]
        assert [rank.index(tier or Tier.COMPLEX) for tier in tiers] == sorted(
            rank.index(tier or Tier.COMPLEX) for tier in tiers
        )


@pytest.mark.parametrize("text", ["", "  \n\t ", "\u3000"])
def test_empty_goes_up(shipped: Router, text: str) -> None:
    decision = shipped.decide(text)
    assert (decision.tier, decision.reason, decision.p_suffices) == (Tier.COMPLEX, Reason.EMPTY_TASK, {})


@pytest.mark.parametrize(
    "text",
    ["\x00" * 50, "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 30, "ꦲꦏ꧀ꦱꦫꦗꦮ ꦱꦸꦒꦼꦁ ꦫꦮꦸꦃ", "\ud800\ud801"],
    ids=["NUL", "base64", "javanese", "surrogates"],
)
def test_unreadable_text_goes_up(shipped: Router, text: str) -> None:
    decision = shipped.decide(text)
    assert (decision.tier, decision.reason) == (Tier.COMPLEX, Reason.OUT_OF_DISTRIBUTION)
    assert decision.notes


def test_ten_megabytes(shipped: Router) -> None:
    decision = shipped.decide("tell me a story about ships " * 400_000)
    assert decision.tier is not Tier.SIMPLE  # 11 MB do not fit the small model's window
    assert decision.notes


def test_images_without_text_go_up(shipped: Router) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AA"}}
    decision = shipped.decide(messages=[{"role": "user", "content": [image]}])
    assert decision.reason is Reason.EMPTY_TASK


class Failing:
    """Stands where the classifier stands and breaks as a corrupted graph would."""

    def __init__(self, outcome: Exception | Prediction) -> None:
        self.outcome = outcome

    classes = None

    def predict(self, _: str, traffic_class: str = "") -> Prediction:  # noqa: ARG002
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (RuntimeError("graph"), Reason.CLASSIFIER_ERROR),
        (Prediction((math.nan, math.nan, math.nan), 0.0), Reason.BELOW_THRESHOLD),
        (Prediction((0.9,), 0.0), Reason.CLASSIFIER_ERROR),
    ],
)
def test_a_broken_classifier_goes_up(
    router: Router, monkeypatch: pytest.MonkeyPatch, outcome: Exception | Prediction, reason: Reason
) -> None:
    failing = msgspec.structs.replace(router.policy.champion, classifier=Failing(outcome))
    monkeypatch.setattr(router.policy, "champion", failing)
    decision = router.decide("hi")
    assert (decision.tier, decision.reason) == (Tier.COMPLEX, reason)


@pytest.mark.parametrize("wrong", [["a", "list"], 5, None, b"bytes"])
def test_wrong_types_are_named(shipped: Router, wrong: Any) -> None:
    with pytest.raises(RequestError, match=type(wrong).__name__):
        shipped.decide(wrong)


def test_wrong_names_are_listed(shipped: Router) -> None:
    with pytest.raises(RequestError, match=r"'cheapest'.*economy, balanced, quality"):
        shipped.decide("hi", operating_point="cheapest")
    with pytest.raises(CatalogError, match="did you mean 'claude'"):
        Router.load(fleet="claud")
    with pytest.raises(ArtifactNotFound, match="x-v3"):
        Router.load("models/x-v3")
    with pytest.raises(RequestError, match="text, messages"):
        shipped.decide("hi", messages=HELLO)


def test_plan_fills_in_the_model_and_keeps_the_rest(shipped: Router) -> None:
    body = {"model": f"{AUTO}:quality", "messages": HELLO, "max_tokens": 5, "metadata": {"user_id": "u"}}
    plan = shipped.plan(body, Api.MESSAGES)
    assert plan.decision.operating_point == "quality"
    assert plan.body == {**body, "model": plan.decision.model}


@pytest.mark.parametrize("api", Api)
@pytest.mark.parametrize(
    "odd",
    [
        {"system": [{"type": "text", "text": "\ud800 x" * 3000}]},
        {"system": 5, "tools": "x", "instructions": ["y"]},
        {"system": ["loose"], "tools": [None]},
        {"tools": [{"name": "t", "schema": object()}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"data": b"x"}}]}]},
    ],
)
def test_odd_bodies_are_planned_for_the_provider_to_judge(shipped: Router, api: Api, odd: dict[str, Any]) -> None:
    router = shipped if api is Api.MESSAGES else shipped.with_fleet("gpt")
    body = {"model": AUTO, "messages": HELLO, "input": HELLO, "reasoning_effort": "none", **odd}
    plan = router.plan(body, api, reach=Reach.SDK)
    assert plan.body["messages"] == body["messages"]
    assert plan.decision.tier is not None


def test_explicit_model_is_left_alone(shipped: Router) -> None:
    body = {"model": "claude-haiku-4-5", "messages": HELLO, "system": "long " * 20_000}
    plan = shipped.plan(body, Api.MESSAGES)
    assert plan.body == body
    assert (plan.decision.reason, plan.decision.tier) == (Reason.EXPLICIT_MODEL, Tier.SIMPLE)


@pytest.mark.parametrize("model", [None, 5])
def test_model_must_be_a_name(shipped: Router, model: Any) -> None:
    with pytest.raises(RequestError, match="expected a string"):
        shipped.plan({"model": model, "messages": HELLO}, Api.MESSAGES)


def test_record_of_an_unknown_model_is_unknown(router: Router) -> None:
    plan = router.plan({"model": "claude-next", "messages": HELLO}, Api.MESSAGES)
    record = router.record(plan, Usage(fresh_tokens=10, output_tokens=10))
    assert (record.cost_usd, record.baseline_cost_usd, record.saved_usd, record.tier) == (None, None, None, None)


def test_saved_is_baseline_minus_cost_and_may_be_negative(router: Router, clock: Any) -> None:
    body = {"model": AUTO, "messages": HELLO, "system": "Answer as the keeper of a lighthouse would. " * 400}
    plan = router.plan(body, Api.MESSAGES)
    tokens = plan.cache.prefix_tokens
    cold = router.record(plan, Usage(cache_write_short_tokens=tokens))
    assert cold.saved_usd == (cold.baseline_cost_usd or 0) - (cold.cost_usd or 0) > 0
    clock.now += 60
    again = router.record(router.plan(body, Api.MESSAGES), Usage(cache_write_short_tokens=tokens))
    assert again.saved_usd is not None
    assert again.saved_usd < 0  # the cheap model's cache was cold where the top model's would have been warm


@pytest.mark.parametrize("keeps", [False, True])
def test_what_models_think_leaves_the_process_by_setting_alone(tmp_path: Path, keeps: bool) -> None:
    chosen = settings.Settings(state=str(tmp_path / "state.db"), state_keeps_reasoning=keeps)
    state = State("gemini-4-argon", fields={"reasoning_content": "a thought that is text of a reply"})
    Router.load(config=chosen).states.keep("k", state)
    assert Router.load(config=chosen).states.recall("k") == (state if keeps else None)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (b"a thought that is text" in kept) is keeps
