from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import Api, catalog
from router.cache import breakpoints
from router.offline import validation
from router.types import Ttl

HAIKU = catalog.shipped().models["claude-haiku-4-5"]  # minimum 4,096 tokens
SONNET = catalog.shipped().models["claude-sonnet-4-6"]  # 1,024
LUNA = catalog.shipped().models["gpt-6-luna"]
GEMINI = catalog.shipped().models["gemini-3.8-flash"]
USER = [{"role": "user", "content": "hi"}]
LONG = "An instruction that every reply has to follow. " * 200  # about 2,500 tokens
TOOL = {"name": "lookup", "description": LONG, "input_schema": {"type": "object"}}


def marks(body: dict[str, Any]) -> list[str]:
    return [
        part
        for part in ("tools", "system")
        for block in body.get(part, ())
        if isinstance(block, dict) and "cache_control" in block
    ]


def planned(body: dict[str, Any], model: catalog.Model, api: Api = Api.MESSAGES) -> dict[str, Any]:
    return breakpoints.apply(body, breakpoints.plan(body, api, model))


def test_system_string_becomes_a_marked_block() -> None:
    body = planned({"system": LONG, "messages": USER}, SONNET)
    assert body["system"] == [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]


def test_below_the_models_minimum_nothing_is_marked() -> None:
    body = {"system": LONG, "messages": USER}
    assert planned(body, HAIKU) == body
    assert planned({"system": "short", "messages": USER}, SONNET) == {"system": "short", "messages": USER}


def test_tools_and_system_are_marked_where_each_prefix_reaches_the_minimum() -> None:
    assert marks(planned({"tools": [TOOL], "system": LONG, "messages": USER}, SONNET)) == ["tools", "system"]
    assert marks(planned({"tools": [TOOL], "system": LONG, "messages": USER}, HAIKU)) == ["system"]
    assert marks(planned({"tools": [TOOL, TOOL], "messages": USER}, SONNET)) == ["tools"]


def test_an_empty_last_block_is_never_marked() -> None:
    body = planned({"system": [{"type": "text", "text": LONG}, {"type": "text", "text": ""}], "messages": USER}, SONNET)
    assert "cache_control" in body["system"][0]
    assert "cache_control" not in body["system"][1]


@pytest.mark.parametrize(
    "own",
    [
        {"cache_control": {"type": "ephemeral"}},
        {"system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}]},
    ],
    ids=["automatic", "system", "tools", "messages"],
)
def test_the_callers_breakpoints_are_left_alone(own: dict[str, Any]) -> None:
    body = {"system": LONG, "tools": [TOOL], "messages": USER} | own
    assert planned(body, SONNET) == body
    assert breakpoints.plan(body, Api.MESSAGES, SONNET).owned_by_caller


def test_openai_gets_a_key_for_its_prefix() -> None:
    system = {"role": "system", "content": LONG}
    first = planned({"messages": [system, *USER]}, LUNA, Api.CHAT)
    second = planned({"messages": [system, {"role": "user", "content": "other"}]}, LUNA, Api.CHAT)
    assert first["prompt_cache_key"] == second["prompt_cache_key"]
    responses = planned({"instructions": LONG, "input": "hi"}, LUNA, Api.RESPONSES)
    assert responses["prompt_cache_key"].startswith("tierwise-")
    other = planned({"messages": [{"role": "system", "content": LONG + "x"}, *USER]}, LUNA, Api.CHAT)
    assert other["prompt_cache_key"] != first["prompt_cache_key"]


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"messages": [{"role": "system", "content": "short"}, *USER]}, LUNA),
        ({"messages": [{"role": "system", "content": LONG}, *USER], "prompt_cache_key": "mine"}, LUNA),
        ({"messages": [{"role": "system", "content": LONG}, *USER]}, GEMINI),
        ({"messages": USER}, LUNA),
    ],
    ids=["short", "callers key", "gemini has no key", "no prefix"],
)
def test_openai_bodies_that_need_nothing(body: dict[str, Any], model: catalog.Model) -> None:
    assert planned(body, model, Api.CHAT) == body


def test_unknown_model_gets_no_breakpoints() -> None:
    plan = breakpoints.plan({"system": LONG, "messages": USER}, Api.MESSAGES, None)
    assert plan.breakpoints == ()
    assert plan.prefix_key


text_blocks = st.lists(st.builds(lambda t: {"type": "text", "text": t}, st.sampled_from(["", "a", LONG])), max_size=3)
bodies = st.fixed_dictionaries(
    {"messages": st.just(USER)},
    optional={"system": text_blocks | st.sampled_from(["", "b", LONG]), "tools": st.lists(st.just(TOOL), max_size=3)},
)


@settings(deadline=None)
@given(bodies, st.sampled_from([HAIKU, SONNET]))
def test_plans_are_legal_idempotent_and_change_cache_fields_only(body: dict[str, Any], model: catalog.Model) -> None:
    before = copy.deepcopy(body)
    once = planned(body, model)
    assert body == before
    assert len(marks(once)) <= 4
    assert planned(once, model) == once
    stripped = copy.deepcopy(once)
    for part in ("tools", "system"):
        for block in stripped.get(part, ()):
            if isinstance(block, dict):
                block.pop("cache_control", None)
    if isinstance(body.get("system"), str) and isinstance(stripped.get("system"), list):
        assert stripped["system"] == [{"type": "text", "text": body["system"]}]
        stripped["system"] = body["system"]
    assert stripped == body


said = st.lists(
    st.sampled_from(
        [
            {"type": "text", "text": "a"},
            {"type": "text", "text": LONG},
            {"type": "thinking", "thinking": "hm", "signature": "s"},
        ]
    ),
    min_size=1,
    max_size=30,
)
histories = st.lists(said | st.just("a plain string"), min_size=1, max_size=7).map(
    lambda contents: [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
)
ttls = st.sampled_from(list(Ttl))


def unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        found = {k: unmarked(v) for k, v in value.items() if k != "cache_control"}
        for name in ("system", "content"):
            if isinstance(found.get(name), str):
                found[name] = [{"type": "text", "text": found[name]}]
        return found
    return [unmarked(item) for item in value] if isinstance(value, list) else value


@settings(deadline=None, max_examples=200)
@given(bodies, histories, ttls, ttls, st.integers(0, 7), st.sampled_from([HAIKU, SONNET]))
def test_whatever_the_history_the_plan_is_legal_and_changes_cache_fields_only(
    body: dict[str, Any], history: list[Any], head: Ttl, tail: Ttl, n_known: int, model: catalog.Model
) -> None:
    body = {**body, "max_tokens": 5, "messages": history}
    before = copy.deepcopy(body)
    known = min(n_known, len(history))
    plan = breakpoints.plan(body, Api.MESSAGES, model, head=head, tail=tail, n_known=known)
    once = breakpoints.apply(body, plan)
    assert body == before
    assert unmarked(once) == unmarked(body)
    validation._check_breakpoints(once)  # raises what the provider would answer
    again = breakpoints.plan(once, Api.MESSAGES, model, head=head, tail=tail, n_known=known)
    assert breakpoints.apply(once, again) == once


def test_a_long_turn_keeps_the_last_breakpoint_within_reach() -> None:
    """40 blocks since the last request: without one more breakpoint the look-back of 20 would end before it."""
    old = [{"role": "user", "content": LONG}]
    new = [{"role": "assistant", "content": [{"type": "text", "text": f"step {n}"} for n in range(30)]}]
    body = {"messages": [*old, *new, {"role": "user", "content": "and now?"}]}
    plan = breakpoints.plan(body, Api.MESSAGES, SONNET, head=Ttl.NONE, tail=Ttl.SHORT, n_known=1)
    assert plan.breakpoints
    positions = [(1, n) for n in range(30)] + [(2, 0)]
    marked = [-1, *(positions.index((i, b)) for _, i, b, _ in plan.breakpoints if b is not None), len(positions) - 1]
    assert max(later - earlier for earlier, later in pairwise(marked)) < breakpoints.LOOK_BACK


ODD = ["a lone \ud800 surrogate", {"n": 2**70}, {"deep": [{"cache_control": None}]}, b"bytes", 1.5, None]
parts = st.sampled_from(
    [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "a", "citations": None},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "b"}]},
        {"type": "image", "source": {"type": "base64", "data": "A" * 5000}},
        *({"type": "tool_use", "id": "t", "name": "n", "input": odd} for odd in ODD),
    ]
)


@settings(deadline=None)
@given(st.lists(st.lists(parts, min_size=1, max_size=3), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 2))
def test_a_prefix_is_known_by_what_is_in_it_and_not_by_its_marks(contents: list[Any], at: int, part: int) -> None:
    messages = [{"role": "user", "content": [copy.deepcopy(p) for p in content]} for content in contents]
    read = breakpoints.read_prefix({"messages": messages}, Api.MESSAGES)
    assert not read.owned
    assert read.has_images == any(p["type"] == "image" for content in contents for p in content)
    assert len(read.keys) == len(read.units) == len(messages) == len(set(read.keys))
    for n in range(1, len(messages)):
        shorter = breakpoints.read_prefix({"messages": messages[:n]}, Api.MESSAGES)
        assert (list(shorter.keys), list(shorter.units)) == (list(read.keys[:n]), list(read.units[:n]))
    at %= len(messages)
    part %= len(contents[at])
    marked = copy.deepcopy(messages)
    marked[at]["content"][part]["cache_control"] = {"type": "ephemeral"}
    owned = breakpoints.read_prefix({"messages": marked}, Api.MESSAGES)
    assert owned.owned
    assert (owned.keys, owned.units) == (read.keys, read.units)
    changed = copy.deepcopy(messages)
    changed[at]["content"][part]["more"] = True
    other = breakpoints.read_prefix({"messages": changed}, Api.MESSAGES)
    assert read.shares(other.keys) == at
