"""What a model wants back, through every format, and what no other provider is sent of it."""

from __future__ import annotations

from typing import Any

import pytest

from router import catalog
from router.formats import interpreter, states
from router.formats.states import State, StateStore, restored, seal, unseal
from router.formats.translations import Translations
from router.types import Api, Telling

MODELS = catalog.shipped()
GEMINI, OPUS, LUNA, HAIKU = (
    MODELS.models[name] for name in ("gemini-4-argon", "claude-opus-4-7", "gpt-6-luna", "claude-haiku-4-5")
)
EXTRA = {"google": {"thought_signature": "EjQ+/=="}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
ITEM = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ZW5j"}
STATES = {
    "gemini-4-argon": State("gemini-4-argon", calls={"call_1": EXTRA}),
    "claude-opus-4-7": State("claude-opus-4-7", blocks=[(0, THOUGHT)]),
    "gpt-6-luna": State("gpt-6-luna", items=[ITEM]),
}


def nothing(_: str) -> None:
    return None


def messages_body(state: State | None) -> dict[str, Any]:
    thinking = [] if state is None else [{"type": "thinking", "thinking": "", "signature": seal(state)}]
    call = {"type": "tool_use", "id": "call_1", "name": "run", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "ok"}
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": [*thinking, call]}]
    return {"messages": [*turns, {"role": "user", "content": [result]}]}


def responses_body(state: State | None) -> dict[str, Any]:
    reasoning = (
        [] if state is None else [{"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": seal(state)}]
    )
    call = {"type": "function_call", "call_id": "call_1", "name": "run", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "ok"}
    return {"input": [{"role": "user", "content": "go"}, *reasoning, call, result]}


def sent(
    body: dict[str, Any], asked: Api, model: catalog.Model, recall: Any = nothing, within: str = ""
) -> dict[str, Any]:
    api = catalog.PROVIDERS[model.provider].formats[0] if model is not LUNA else Api.RESPONSES
    return restored(Translations(body, asked).to(api)[0], api, model, recall, within)[0]


def found(body: dict[str, Any], model: catalog.Model) -> Any:
    """What of a model's own state a body brings it."""
    if model is GEMINI:
        return next(m for m in body["messages"] if m.get("tool_calls"))["tool_calls"][0].get("extra_content")
    if model is OPUS:
        return next(m for m in body["messages"] if m["role"] == "assistant")["content"][0]
    return next((item for item in body["input"] if item.get("type") == "reasoning"), None)


WANTED = {"gemini-4-argon": EXTRA, "claude-opus-4-7": THOUGHT, "gpt-6-luna": ITEM}


@pytest.mark.parametrize("asked", [Api.MESSAGES, Api.RESPONSES])
@pytest.mark.parametrize("model", [GEMINI, OPUS, LUNA], ids=lambda model: model.id)
def test_a_model_gets_back_what_its_caller_carried(asked: Api, model: catalog.Model) -> None:
    body = (messages_body if asked is Api.MESSAGES else responses_body)(STATES[model.id])
    assert found(sent(body, asked, model), model) == WANTED[model.id]


@pytest.mark.parametrize("asked", [Api.MESSAGES, Api.RESPONSES])
@pytest.mark.parametrize("model", [GEMINI, OPUS, LUNA, HAIKU], ids=lambda model: model.id)
@pytest.mark.parametrize("other", list(STATES))
def test_no_model_is_sent_what_another_wants_back(asked: Api, model: catalog.Model, other: str) -> None:
    if model.id == other:
        return
    body = (messages_body if asked is Api.MESSAGES else responses_body)(STATES[other])
    assert "tierwise" not in str(sent(body, asked, model))
    assert "c2ln" not in str(sent(body, asked, model))
    assert "ZW5j" not in str(sent(body, asked, model))


@pytest.mark.parametrize("asked", [Api.MESSAGES, Api.RESPONSES])
@pytest.mark.parametrize("model", [GEMINI, OPUS, LUNA], ids=lambda model: model.id)
def test_what_the_caller_dropped_is_remembered_by_its_call(asked: Api, model: catalog.Model) -> None:
    store = StateStore()
    store.keep(states.key("conversation", "call_1", "run", 0), STATES[model.id])
    body = (messages_body if asked is Api.MESSAGES else responses_body)(None)
    assert found(sent(body, asked, model, store.recall, "conversation"), model) == WANTED[model.id]
    other = sent(body, asked, model, store.recall, "another conversation")
    assert str(WANTED[model.id]) not in str(other)


def test_gemini_takes_unsigned_calls_of_others_marked_as_such() -> None:
    body = sent(messages_body(None), Api.MESSAGES, GEMINI)
    assert found(body, GEMINI) == {"google": {"thought_signature": "skip_thought_signature_validator"}}
    older = MODELS.models["gemini-2.5-flash"]
    assert "extra_content" not in str(sent(messages_body(None), Api.MESSAGES, older))


def test_what_another_left_in_chat_messages_is_not_sent_to_openai_and_gemini() -> None:
    call = {"id": "call_1", "type": "function", "extra_content": EXTRA, "function": {"name": "run", "arguments": "{}"}}
    left = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm.",
        "reasoning_details": [],
        "tool_calls": [call],
    }
    gpt = restored({"messages": [left]}, Api.CHAT, MODELS.models["gpt-4o"], nothing, "")[0]["messages"][0]
    assert set(gpt) == {"role", "content", "tool_calls"}
    assert set(gpt["tool_calls"][0]) == {"id", "type", "function"}
    gemini = restored({"messages": [left]}, Api.CHAT, GEMINI, nothing, "")[0]["messages"][0]
    assert set(gemini) == {"role", "content", "tool_calls"}
    assert gemini["tool_calls"][0]["extra_content"] == EXTRA


def test_a_budget_is_not_thought_with_in_a_loop_that_began_without() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000}
    body, notes = restored({**messages_body(None), "thinking": thinking}, Api.MESSAGES, HAIKU, nothing, "")
    assert "thinking" not in body
    assert notes
    own = {**messages_body(None), "thinking": thinking}
    own["messages"][1]["content"].insert(0, THOUGHT)
    assert restored(own, Api.MESSAGES, HAIKU, nothing, "")[0]["thinking"] == thinking


def test_thinking_comes_back_in_its_place() -> None:
    content = [
        {"type": "text", "text": "a"},
        THOUGHT,
        {"type": "text", "text": "b"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "tool_use", "id": "toolu_0000000001", "name": "run", "input": {}},
    ]
    kept: list[Any] = []
    message = {"id": "m", "model": "claude-opus-4-7", "content": content, "stop_reason": "tool_use", "usage": None}
    telling = Telling("claude-opus-4-7", within="here")
    interpreter.reply(message, Api.MESSAGES, Api.CHAT, telling, lambda *found: kept.append(found))
    [(call_id, name, state)] = kept
    assert (call_id, name) == ("toolu_0000000001", "run")
    bare = [block for block in content if "thinking" not in str(block["type"])]
    turn = {"role": "assistant", "content": bare}
    body, _ = restored({"messages": [turn]}, Api.MESSAGES, OPUS, lambda _: state, "here")
    assert body["messages"][0]["content"] == content


@pytest.mark.parametrize("shows", [True, False])
def test_a_claude_stream_told_on_responses_carries_its_thinking(shows: bool) -> None:
    kept: list[Any] = []
    telling = Telling("claude-opus-4-7", shows_thinking=shows, within="here")
    events = interpreter.Events(Api.MESSAGES, Api.RESPONSES, telling=telling, keep=lambda *found: kept.append(found))
    message = {"id": "m", "model": "claude-opus-4-7", "usage": {"input_tokens": 1}}
    call = {"type": "tool_use", "id": "toolu_1", "name": "run", "input": {}}
    stream = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {**THOUGHT, "thinking": "", "signature": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": call},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    output = [e for event in stream for e in events.feed(event)][-1]["response"]["output"]
    assert kept == [("toolu_1", "run", State("claude-opus-4-7", blocks=[(0, THOUGHT)]))]
    assert [item["type"] for item in output] == [*(["reasoning"] if shows else []), "function_call"]
    if shows:
        assert output[0]["summary"] == [{"type": "summary_text", "text": "Hm."}]
        assert unseal(output[0]["encrypted_content"]) == kept[0][2]


class _Beside:
    """A store that counts how often it is asked."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.asked = 0

    def first(self, keys: Any) -> bytes | None:
        self.asked += 1
        return next((self.values[key] for key in keys if key in self.values), None)

    def put(self, keys: Any, value: bytes) -> None:
        self.values |= dict.fromkeys(keys, value)


def test_a_store_beside_is_asked_once_and_survives_the_process() -> None:
    beside = _Beside()
    StateStore(beside).keep("k", STATES["gpt-6-luna"])
    store = StateStore(beside)
    assert [store.recall("k"), store.recall("k")] == [STATES["gpt-6-luna"]] * 2
    assert [store.recall("none"), store.recall("none")] == [None, None]
    assert beside.asked == 2


def test_one_process_keeps_so_many_bytes_and_drops_the_longest_untouched() -> None:
    store = StateStore(max_bytes=5000)
    for n in range(9):
        store.keep(f"k{n}", State("m", fields={"reasoning_content": "x" * 1000}))
    assert store.recall("k0") is None
    assert store.recall("k8") is not None


def test_what_is_no_seal_is_none() -> None:
    assert [unseal(text) for text in (None, "", "c2ln", "tierwise.%%%", "tierwise.AAAA", 5)] == [None] * 6


def test_repeated_ids_of_a_server_that_numbers_its_calls_do_not_meet() -> None:
    keys = {states.key("c", "call_0", "run", n) for n in range(3)} | {states.key("c", "functions.run:0", "run", 3)}
    assert len(keys) == 4
    assert states.key("c", "toolu_01ABCDEFGHIJKLMNOP", "run", 1) == states.key(
        "c", "toolu_01ABCDEFGHIJKLMNOP", "run", 2
    )
