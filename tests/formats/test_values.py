"""Values that a provider refuses: what is sent in their place, the same on every turn, and what the caller sees."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import catalog
from router.formats import interpreter, messages_chat, schemas
from router.formats.call_ids import callers_id, original_id
from router.formats.values import NO_TEXT, Fitted, fit
from router.types import Api, Telling

PLAIN = re.compile(r"[a-zA-Z0-9_-]+")
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"


def fitted(body: dict[str, Any], api: Api, model: str) -> Fitted:
    return fit(body, api, catalog.shipped().find(model))


def to_claude(*messages: Any, **fields: Any) -> dict[str, Any]:
    return fitted({"messages": list(messages), **fields}, Api.MESSAGES, "claude-opus-4-7").body


def loop(*ids: Any, results: Any = None) -> list[Any]:
    """A turn of Messages in which each of the ids is called and answered."""
    calls = [{"type": "tool_use", "id": each, "name": "run", "input": {}} for each in ids]
    answers = [{"type": "tool_result", "tool_use_id": each, "content": "ok"} for each in results or ids]
    return [{"role": "assistant", "content": calls}, {"role": "user", "content": answers}]


def ids_of(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    blocks = [block for message in body["messages"] for block in message["content"] if isinstance(block, dict)]
    called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    return called, [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]


@pytest.mark.parametrize(
    "ids",
    [
        ["functions.run_shell:0"],
        ["call|fc_1", "call/2"],
        ["naïve 数"],
        ["", ""],
        [None],
        ["a", "a"],
        ["call_0", "functions.x:0", "x" * 300],
        ["\ud83e"],
    ],
)
def test_ids_reach_claude_plain_and_their_own_and_still_pair(ids: list[Any]) -> None:
    body = to_claude({"role": "user", "content": "go"}, *loop(*ids), *loop(*ids))
    called, answered = ids_of(body)
    assert called == answered
    assert len(set(called)) == 2 * len(ids)
    assert all(PLAIN.fullmatch(each) for each in called)


def test_ids_that_are_taken_stay_as_they_are() -> None:
    turns = [{"role": "user", "content": "go"}, *loop("toolu_01", "call_2"), *loop("functions-3")]
    assert to_claude(*turns)["messages"] == turns


def test_a_second_result_of_a_call_keeps_its_id() -> None:
    body = to_claude({"role": "user", "content": "go"}, *loop("f.x:0", results=["f.x:0", "f.x:0"]))
    called, answered = ids_of(body)
    assert answered == called * 2


def test_an_id_goes_back_to_the_model_that_gave_it_as_it_was() -> None:
    shown = callers_id("functions.run_shell:0", Api.MESSAGES, "none")
    assert PLAIN.fullmatch(shown)
    call = {"id": shown, "type": "function", "function": {"name": "run", "arguments": "{}"}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": shown, "content": "x"},
    ]
    sent = fitted({"messages": turns}, Api.CHAT, "gemini-4-argon").body["messages"]
    assert sent[0]["tool_calls"][0]["id"] == sent[1]["tool_call_id"] == "functions.run_shell:0"


@given(st.text(min_size=1))
def test_every_id_comes_back(given_id: str) -> None:
    shown = callers_id(given_id, Api.MESSAGES, "none")
    assert PLAIN.fullmatch(shown)
    assert original_id(shown) == given_id or given_id.startswith("tw_")


@pytest.mark.parametrize(("api", "model"), [(Api.CHAT, "gpt-4o"), (Api.RESPONSES, "gpt-6-luna")])
@pytest.mark.parametrize("length", [64, 65, 450])
def test_openai_gets_ids_of_at_most_64_characters(api: Api, model: str, length: int) -> None:
    long = "c" * length
    call = {"id": long, "type": "function", "function": {"name": "run", "arguments": "{}"}}
    chat = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": long, "content": "x"}]
    item = {"type": "function_call", "call_id": long, "name": "run", "arguments": "{}"}
    items = [item, {"type": "function_call_output", "call_id": long, "output": "x"}]
    sent = fitted({"messages": chat, "input": items}, api, model).body
    if api is Api.CHAT:
        pair = sent["messages"][0]["tool_calls"][0]["id"], sent["messages"][1]["tool_call_id"]
    else:
        pair = sent["input"][0]["call_id"], sent["input"][1]["call_id"]
    assert pair[0] == pair[1]
    assert len(pair[0]) <= 64
    assert (pair[0] == long) == (length == 64)


NAMES = ["mcp.github/create issue", "ünï", "x" * 65, "9 lives", "a" * 129, "run"]


@pytest.mark.parametrize(
    ("api", "model", "most"),
    [(Api.MESSAGES, "claude-opus-4-7", 128), (Api.CHAT, "gpt-4o", 64), (Api.RESPONSES, "gpt-6-luna", 64),
     (Api.CHAT, "gemini-4-argon", 64)],
)  # fmt: skip
def test_tools_names_are_taken_everywhere_and_come_back(api: Api, model: str, most: int) -> None:
    schema = {"type": "object", "properties": {}}
    tools: list[Any] = [{"name": name, "input_schema": schema} for name in NAMES]
    if api is Api.CHAT:
        tools = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in NAMES]
    elif api is Api.RESPONSES:
        tools = [{"type": "function", "name": name, "parameters": schema} for name in NAMES]
    found = fitted({"tools": tools}, api, model)
    sent = [(tool.get("function") or tool)["name"] for tool in found.body["tools"]]
    assert all(re.fullmatch(r"[a-zA-Z0-9_.-]+", name) and len(name) <= most for name in sent)
    assert len(set(sent)) == len(NAMES)
    assert [found.names.get(name, name) for name in sent] == NAMES
    assert sent[-1] == "run"


def test_a_forced_tool_and_the_history_follow_the_tools_name() -> None:
    name = "mcp.search"
    call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    body = {
        "tools": [{"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}],
        "tool_choice": {"type": "function", "function": {"name": name}},
        "messages": [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": ""},
        ],
    }
    sent = fitted(body, Api.CHAT, "gpt-4o").body
    used = sent["tools"][0]["function"]["name"]
    assert used != name
    assert sent["tool_choice"]["function"]["name"] == sent["messages"][0]["tool_calls"][0]["function"]["name"] == used


def test_the_caller_sees_their_own_names_in_replies_and_streams() -> None:
    telling = Telling(names={"mcp_search_1": "mcp.search"})
    block = {"type": "tool_use", "id": "t1", "name": "mcp_search_1", "input": {}}
    message = {"id": "m", "model": "c", "content": [block], "stop_reason": "tool_use", "usage": None}
    assert interpreter.reply(message, Api.MESSAGES, Api.MESSAGES, telling)["content"][0]["name"] == "mcp.search"
    told = interpreter.reply(message, Api.MESSAGES, Api.CHAT, telling)
    assert told["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "mcp.search"
    events = interpreter.Events(Api.MESSAGES, Api.CHAT, telling=telling)
    chunks = events.feed({"type": "content_block_start", "index": 0, "content_block": block})
    assert chunks[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "mcp.search"


BLANK = ["", " ", "\n\n", "\t\u00a0\u2003"]


@pytest.mark.parametrize("blank", BLANK)
def test_no_blank_text_reaches_claude(blank: str) -> None:
    text = {"type": "text", "text": blank}
    call = {"type": "tool_use", "id": "t1", "name": "run", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text, {"type": "text", "text": "ok"}]}
    body = to_claude(
        {"role": "user", "content": blank},
        {"role": "assistant", "content": blank},
        {"role": "user", "content": [text, {"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": [text, call]},
        {"role": "user", "content": [result, text]},
        {"role": "assistant", "content": [text]},
        {"role": "user", "content": [text]},
        system=[text],
    )
    assert "system" not in body
    assert body["messages"] == [
        {"role": "user", "content": NO_TEXT},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{**result, "content": [{"type": "text", "text": "ok"}]}]},
        {"role": "user", "content": NO_TEXT},
    ]


def test_a_breakpoint_on_blank_text_moves_to_the_block_before() -> None:
    mark = {"type": "ephemeral"}
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": " ", "cache_control": mark}]
    assert to_claude({"role": "user", "content": content})["messages"][0]["content"] == [
        {"type": "text", "text": "a", "cache_control": mark}
    ]


def test_a_begun_answer_ends_with_its_last_word() -> None:
    assert (
        to_claude({"role": "user", "content": "q"}, {"role": "assistant", "content": "{ \n"})["messages"][-1]["content"]
        == "{"
    )


@pytest.mark.parametrize(
    ("given_type", "data", "sent"),
    [
        ("image/jpg", "/9j/4AAQ", "image/jpeg"),
        ("IMAGE/JPG", "AAAA", "image/jpeg"),
        ("image/jpeg; charset=binary", "AAAA", "image/jpeg"),
        ("image/jpeg", PNG, "image/png"),
        ("application/octet-stream", PNG, "image/png"),
        ("image/webp", "UklGRgAA", "image/webp"),
    ],
)
def test_images_have_the_type_of_their_bytes(given_type: str, data: str, sent: str) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": given_type, "data": data}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    body = to_claude({"role": "user", "content": [image, result]})
    direct, inner = body["messages"][0]["content"]
    assert direct["source"]["media_type"] == inner["content"][0]["source"]["media_type"] == sent
    part = {"type": "image_url", "image_url": {"url": f"data:{given_type};base64,{data}"}}
    chat = fitted({"messages": [{"role": "user", "content": [part]}]}, Api.CHAT, "gemini-4-argon").body
    assert chat["messages"][0]["content"][0]["image_url"]["url"].startswith(f"data:{sent};")


A, B = {"type": "string"}, {"type": "integer"}
SCHEMAS = [
    ({"type": "object", "properties": {"a": A, "b": A}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
     {"a", "b"}, set()),
    ({"oneOf": [{"type": "object", "properties": {"a": A}, "required": ["a"]},
                {"type": "object", "properties": {"a": A, "b": B}, "required": ["a", "b"]}]}, {"a", "b"}, {"a"}),
    ({"allOf": [{"properties": {"a": A}, "required": ["a"]}, {"properties": {"b": B}, "required": ["b"]}]},
     {"a", "b"}, {"a", "b"}),
    ({"$ref": "#/$defs/Route", "$defs": {"Route": {"type": "object", "properties": {"a": A}, "required": ["a"]}}},
     {"a"}, {"a"}),
    ({"anyOf": [{"$ref": "#/definitions/X"}, {"type": "null"}], "definitions": {"X": {"properties": {"a": A}}}},
     {"a"}, set()),
    ({"properties": {"a": A}}, {"a"}, set()),
    ({"type": ["object", "null"], "properties": {"a": A}}, {"a"}, set()),
    ({"type": "object"}, set(), set()),
    ({}, set(), set()),
    (None, set(), set()),
    (True, set(), set()),
    ({"$ref": "#"}, set(), set()),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "properties", "required"), SCHEMAS)
@pytest.mark.parametrize(
    ("api", "model"), [(Api.MESSAGES, "claude-opus-4-7"), (Api.CHAT, "gpt-4o"), (Api.RESPONSES, "gpt-6-luna")]
)
def test_a_schemas_root_is_one_object(
    schema: Any, properties: set[str], required: set[str], api: Api, model: str
) -> None:
    tool: dict[str, Any] = {"name": "run", "input_schema": schema}
    if api is Api.CHAT:
        tool = {"type": "function", "function": {"name": "run", "parameters": schema}}
    elif api is Api.RESPONSES:
        tool = {"type": "function", "name": "run", "parameters": schema}
    found = fitted({"tools": [tool]}, api, model).body["tools"][0]
    sent = found.get("input_schema") or (found.get("function") or found).get("parameters")
    assert sent["type"] == "object"
    assert set(sent.get("properties", ())) == properties
    assert set(sent.get("required", ())) == required
    assert not {"anyOf", "oneOf", "allOf", "$ref", "enum", "const", "not"} & set(sent)


def test_properties_of_the_same_name_are_any_of_them() -> None:
    root = {"oneOf": [{"properties": {"a": A}}, {"properties": {"a": B}}, {"properties": {"a": A}}]}
    assert schemas.to_object(root)["properties"] == {"a": {"anyOf": [A, B]}}


def test_alternatives_deeper_down_and_plain_schemas_stay_as_they_are() -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [A, B]}}, "additionalProperties": False}
    tool = {"name": "run", "input_schema": schema}
    assert fitted({"tools": [tool]}, Api.MESSAGES, "claude-opus-4-7").body["tools"][0] is tool
    own = {"type": "web_search_20250305", "name": "web_search"}
    assert fitted({"tools": [own]}, Api.MESSAGES, "claude-opus-4-7").body["tools"] == [own]


@pytest.mark.parametrize(
    ("api", "model", "name", "asked", "sent"),
    [
        (Api.RESPONSES, "gpt-6-luna", "max_output_tokens", 1, 16),
        (Api.RESPONSES, "gpt-6-luna", "max_output_tokens", 16, 16),
        (Api.CHAT, "gpt-4o", "max_completion_tokens", 0, 1),
        (Api.CHAT, "gpt-4o", "max_tokens", 5, 5),
        (Api.MESSAGES, "claude-opus-4-7", "max_tokens", 0, 0),
    ],
)
def test_the_least_output(api: Api, model: str, name: str, asked: int, sent: int) -> None:
    assert fitted({name: asked}, api, model).body[name] == sent


EDIT = {"type": "clear_thinking_20251015", "keep": "all"}
OTHER = {"type": "clear_tool_uses_20250919"}


@pytest.mark.parametrize(
    ("model", "thinking", "edits", "sent"),
    [
        ("claude-haiku-4-5", None, [EDIT], None),
        ("claude-haiku-4-5", {"type": "disabled"}, [EDIT, OTHER], {"edits": [OTHER]}),
        ("claude-haiku-4-5", {"type": "enabled", "budget_tokens": 2000}, [EDIT], {"edits": [EDIT]}),
        ("claude-opus-4-7", {"type": "adaptive"}, [EDIT, OTHER], {"edits": [EDIT, OTHER]}),
        ("claude-opus-5-5", None, [EDIT], {"edits": [EDIT]}),
        ("claude-haiku-4-5", None, [OTHER], {"edits": [OTHER]}),
    ],
)
def test_an_edit_of_thinking_goes_only_with_thinking(model: str, thinking: Any, edits: list[Any], sent: Any) -> None:
    body = {"context_management": {"edits": edits}, **({"thinking": thinking} if thinking else {})}
    assert fitted(body, Api.MESSAGES, model).body.get("context_management") == sent


def test_fields_without_what_they_depend_on_are_dropped() -> None:
    chat = fitted({"tool_choice": "auto", "parallel_tool_calls": False}, Api.CHAT, "gpt-4o")
    assert chat.body == {}
    assert chat.notes == ("tool_choice dropped: there are no tools", "parallel_tool_calls dropped: there are no tools")
    asked = {"include": ["reasoning.encrypted_content"]}
    assert fitted(asked, Api.RESPONSES, "gpt-4o").body == {}
    assert fitted(asked, Api.RESPONSES, "gpt-6-luna").body == asked


def test_a_long_users_identifier_goes_as_its_digest() -> None:
    one, other = ({"user": f"user_{'a' * 80}_account_{n}"} for n in range(2))
    sent = [fitted(body, Api.CHAT, "gpt-4o").body["user"] for body in (one, other)]
    assert len(set(sent)) == 2
    assert all(len(name) <= 64 for name in sent)


def test_an_unknown_model_gets_what_was_asked() -> None:
    body = {"messages": loop("functions.x:0")}
    assert fit(body, Api.MESSAGES, None).body is body


BLOCKS = st.one_of(
    st.builds(lambda t: {"type": "text", "text": t}, st.sampled_from([*BLANK, "said", "a b"])),
    st.builds(lambda i: {"type": "tool_use", "id": i, "name": "r.x", "input": {}}, st.sampled_from(["", "a", "f.x:0"])),
)
TURNS = st.lists(st.builds(lambda c: {"role": "assistant", "content": c}, st.lists(BLOCKS, max_size=3)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(TURNS, TURNS)
def test_what_a_conversation_begins_with_stays_the_same_bytes(before: list[Any], after: list[Any]) -> None:
    """Caches: the next request's messages begin with this one's; and fitting twice changes nothing more."""
    user = {"role": "user", "content": "go"}
    earlier = to_claude(user, *before, user)["messages"]
    later = to_claude(user, *before, user, *after, user)["messages"]
    assert json.dumps(later[: len(earlier)]) == json.dumps(earlier)
    assert to_claude(*later)["messages"] == later


def test_text_documents_of_chat_go_as_text() -> None:
    data = base64.b64encode(b"Rain and wind.").decode()
    part = {"type": "file", "file": {"filename": "a.txt", "file_data": f"data:text/plain;base64,{data}"}}
    body, _ = messages_chat.to_messages({"messages": [{"role": "user", "content": [part]}]})
    source = body["messages"][0]["content"][0]["source"]
    assert source == {"type": "text", "media_type": "text/plain", "data": "Rain and wind."}
