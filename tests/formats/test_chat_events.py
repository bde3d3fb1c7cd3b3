"""A Chat Completions stream as a Messages stream: however a server tells its calls apart, and what it thinks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.formats.chat_events import MessageEvents
from router.formats.states import State, unseal

CITIES = ["Bergen", "Graz", "Oulu"]


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(number: int, arguments: str, *, call_id: str | None = None, **more: Any) -> dict[str, Any]:
    ids = {} if call_id is None else {"id": call_id}
    function = {"arguments": arguments, **({"name": "weather"} if call_id else {})}
    return {**({"index": number} if number >= 0 else {}), **ids, "function": function, **more}


def whole(number: int, index: int = -1) -> dict[str, Any]:
    return call(index, json.dumps({"city": CITIES[number]}), call_id=f"call-{number}")


def told(*deltas: dict[str, Any], shows: bool = False, finish: str = "tool_calls") -> tuple[MessageEvents, list[Any]]:
    """The stream, and its blocks put together from their events as an SDK would."""
    stream = MessageEvents("model-x", shows=shows)
    events = [e for delta in (*map(chunk, deltas), chunk({}, finish)) for e in stream.feed(delta)] + stream.end()
    blocks: list[Any] = []
    open_blocks: set[int] = set()
    for event in events:
        kind, index = event["type"], event.get("index")
        if kind == "content_block_start":
            assert index == len(blocks)
            assert not open_blocks
            open_blocks.add(index)
            blocks.append({**event["content_block"], "json": ""})
        elif kind == "content_block_delta":
            assert index in open_blocks
            delta = event["delta"]
            field = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
            name = field.get(delta["type"], "json")
            blocks[index][name] += delta[name if name != "json" else "partial_json"]
        elif kind == "content_block_stop":
            open_blocks.remove(index)
    assert not open_blocks
    assert events[-2]["delta"]["stop_reason"] == (
        "tool_use" if any(b["type"] == "tool_use" for b in blocks) else "end_turn"
    )
    return stream, blocks


@pytest.mark.parametrize(
    "deltas",
    [
        [{"tool_calls": [whole(0)]}, {"tool_calls": [whole(1)]}, {"tool_calls": [whole(2)]}],
        [{"tool_calls": [whole(0), whole(1), whole(2)]}],
        [{"tool_calls": [whole(0, 0)]}, {"tool_calls": [whole(1, 0)]}, {"tool_calls": [whole(2, 0)]}],
        [{"tool_calls": [whole(n, n)]} for n in range(3)],
        [
            {"tool_calls": [call(n, piece, call_id=f"call-{n}" if first else None)]}
            for n in range(3)
            for first, piece in ((True, ""), (False, '{"city"'), (False, f': "{CITIES[n]}"}}'))
        ],
        [
            {"tool_calls": [call(-1, piece, call_id=f"call-{n}")]}
            for n in range(3)
            for piece in ("", '{"city"', f': "{CITIES[n]}"}}')
        ],
        [
            {"tool_calls": [call(n, piece.replace("CITY", CITIES[n]), call_id=f"call-{n}" if step == 0 else None)]}
            for step, piece in enumerate(("", '{"city"', ': "CITY"}'))
            for n in range(3)
        ],
    ],
    ids=["a delta each", "one delta", "index always 0", "by index", "in pieces", "in pieces by id", "in turns"],
)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_calls_stay_apart_however_they_come(deltas: list[Any], finish: str) -> None:
    _, blocks = told(*deltas, finish=finish)
    assert [block["id"] for block in blocks] == ["call-0", "call-1", "call-2"]
    assert [json.loads(block["json"]) for block in blocks] == [{"city": city} for city in CITIES]


def test_calls_without_any_id_get_one_each() -> None:
    given = [{"function": {"name": "weather", "arguments": json.dumps({"city": city})}} for city in CITIES]
    _, blocks = told(*({"tool_calls": [each]} for each in given))
    assert len({block["id"] for block in blocks}) == 3
    assert [json.loads(block["json"]) for block in blocks] == [{"city": city} for city in CITIES]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("shows", [True, False])
def test_thinking_is_shown_to_who_asks_and_kept_for_the_next_turn(name: str, shows: bool) -> None:
    deltas = [{name: "I should "}, {name: "look."}, {"content": "Looking."}, {"tool_calls": [whole(0)]}]
    stream, blocks = told(*deltas, shows=shows)
    assert [b["type"] for b in blocks] == [*(["thinking"] if shows else []), "text", "tool_use"]
    assert stream.states == [State("model-x", fields={name: "I should look."})]
    assert stream.first_call == ("call-0", "weather")
    if shows:
        assert blocks[0]["thinking"] == "I should look."
        assert unseal(blocks[0]["signature"], blocks[0]["thinking"]) == stream.states[0]


@pytest.mark.parametrize("shows", [True, False])
def test_a_calls_signature_goes_before_the_call(shows: bool) -> None:
    extra = {"google": {"thought_signature": "EjQ+/=="}}
    stream, blocks = told({"tool_calls": [{**whole(0), "extra_content": extra}, whole(1)]}, shows=shows)
    assert [b["type"] for b in blocks] == [*(["thinking"] if shows else []), "tool_use", "tool_use"]
    assert stream.states == [State("model-x", calls={"call-0": extra})]
    if shows:
        assert unseal(blocks[0]["signature"]) == stream.states[0]


def test_an_error_keeps_the_status_that_it_names() -> None:
    stream = MessageEvents()
    kinds = [
        stream.feed({"error": {"code": code, "message": "m"}})[0]["error"]["type"] for code in (429, "503", 400, None)
    ]
    assert kinds == ["rate_limit_error", "api_error", "invalid_request_error", "api_error"]


@pytest.mark.parametrize("function", [{"name": "run", "arguments": 7}, {"arguments": ["x"]}])
def test_a_piece_that_is_no_text_is_refused_as_it_comes(function: dict[str, Any]) -> None:
    """Two calls at once: the second waits, and would be joined only at the end, where nothing can be said any more."""
    first = {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"city":'}}
    stream = MessageEvents("model-x", shows=False)
    stream.feed(chunk({"tool_calls": [first]}))
    with pytest.raises(TypeError):
        stream.feed(chunk({"tool_calls": [{"index": 1, "id": "b", "function": function}]}))
