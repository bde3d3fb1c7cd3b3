"""What changes a prompt's chain from where on, and what does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from router.offline.models import claude
from router.offline.prompt import MEDIA_TOKENS, anthropic_positions, count_tokens, cut, openai_positions

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 50_000}}
BODY: dict[str, Any] = {
    "model": "m",
    "tools": [{"name": "t", "description": "d", "input_schema": {"type": "object", "properties": {}}}],
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "and?"}]},
    ],
}
FIRST_CHANGED = {"nothing": None, "tools": 0, "system": 1, "messages": 2}


def keys(body: dict[str, Any], model: str = "claude-sonnet-4-6") -> list[str]:
    return [position.key for position in anthropic_positions(body, claude(model))]


@pytest.mark.parametrize(
    ("change", "section"),
    [
        ({"tools": [{**BODY["tools"][0], "description": "D"}]}, "tools"),
        ({"tools": [{"input_schema": {"properties": {}, "type": "object"}, "name": "t", "description": "d"}]}, "tools"),
        ({"tools": [{k: BODY["tools"][0][k] for k in ("input_schema", "description", "name")}]}, "nothing"),
        ({"system": "Be brief!"}, "system"),
        ({"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]}, "nothing"),
        ({"speed": "fast"}, "system"),
        ({"speed": "standard"}, "nothing"),
        ({"tool_choice": {"type": "any"}}, "messages"),
        ({"tool_choice": {"type": "auto"}}, "nothing"),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, "messages"),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": False}}, "nothing"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "messages"),
        ({"thinking": {"type": "disabled"}}, "nothing"),
        ({"output_config": {"effort": "low"}}, "messages"),
        ({"output_config": {"effort": "high"}}, "nothing"),
        ({"max_tokens": 7, "metadata": {"user_id": "u"}, "stream": True}, "nothing"),
        ({"cache_control": {"type": "ephemeral"}}, "nothing"),
    ],
    ids=str,
)
def test_what_a_change_invalidates(change: dict[str, Any], section: str) -> None:
    before, after = keys(BODY), keys(BODY | change)
    changed = next((i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]), None)
    assert changed == FIRST_CHANGED[section]


def test_an_image_anywhere_invalidates_the_messages() -> None:
    plain, pictured = copy.deepcopy(BODY), copy.deepcopy(BODY)
    result = {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "ok"}]}
    plain["messages"].append({"role": "user", "content": [result]})
    pictured["messages"].append({"role": "user", "content": [{**result, "content": [IMAGE]}]})
    assert [a == b for a, b in zip(keys(plain), keys(pictured), strict=True)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_citations_invalidate_the_system_prompt() -> None:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    bodies = [{**BODY, "messages": [{"role": "user", "content": [{**document, "citations": {"enabled": on}}]}]}
              for on in (False, True)]  # fmt: skip
    assert [a == b for a, b in zip(*map(keys, bodies), strict=True)] == [True, False, False]


def test_where_thinking_cannot_be_disabled_adaptive_is_the_default() -> None:
    assert keys(BODY, "claude-opus-5-5") == keys(BODY | {"thinking": {"type": "adaptive"}}, "claude-opus-5-5")
    assert keys(BODY, "claude-opus-4-7") != keys(BODY | {"thinking": {"type": "adaptive"}}, "claude-opus-4-7")


def test_automatic_caching_marks_the_last_block_that_can_be() -> None:
    def ttls(*content: dict[str, Any], ttl: str | None = None) -> list[str | None]:
        automatic = {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})
        body = {"messages": [{"role": "assistant", "content": list(content)}], "cache_control": automatic}
        return [position.ttl for position in anthropic_positions(body, claude("claude-sonnet-4-6"))]

    text, thinking = {"type": "text", "text": "x"}, {"type": "thinking", "thinking": "x", "signature": "s"}
    assert ttls(text, text) == [None, "5m"]
    assert ttls(text, text, ttl="1h") == [None, "1h"]
    assert ttls(text, thinking) == ["5m", None]
    assert ttls(text, {"type": "text", "text": ""}) == ["5m", None]


def test_pictures_cost_the_same_whatever_their_size() -> None:
    def tokens(content: list[Any]) -> int:
        body = {"messages": [{"role": "user", "content": content}]}
        return anthropic_positions(body, claude("claude-sonnet-4-6"))[-1].tokens

    small = {**IMAGE, "source": {**IMAGE["source"], "data": "A"}}
    assert tokens([IMAGE]) == tokens([small]) >= MEDIA_TOKENS
    nested = {"type": "tool_result", "tool_use_id": "x", "content": [IMAGE]}
    assert MEDIA_TOKENS < tokens([nested]) < MEDIA_TOKENS + 50
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word " * 5000}}
    assert tokens([text]) > 5000


def test_cut() -> None:
    text = "one two three, four"
    assert [cut(text, n) for n in (0, 1, 4, 5, 9)] == ["", "one", "one two three,", text, text]
    assert count_tokens(text) == 5


class TestOpenAI:
    def test_a_string_is_one_text_part_in_both_formats(self) -> None:
        said = [{"role": "user", "content": "hi"}]
        parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        inputs = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
        found = [openai_positions({"messages": m}, "messages") for m in (said, parts)]
        found += [openai_positions({"input": i}, "input") for i in ("hi", said, inputs)]
        assert len({positions[0].key for positions in found}) == 1

    def test_breakpoints_inherit_the_requests_lifetime_and_change_no_key(self) -> None:
        part = {"type": "input_text", "text": "hi"}
        mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
        own = {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}

        def first(part: dict[str, Any], **options: str) -> Any:
            body = {"input": [{"role": "user", "content": [part]}], "prompt_cache_options": options}
            return openai_positions(body, "input")[0]

        assert [first(part).ttl, first(part | mark).ttl, first(part | own).ttl] == [None, "30m", "12h"]
        assert first(part | mark, ttl="12h").ttl == "12h"
        assert first(part).key == first(part | own).key

    def test_keys_keep_caches_apart(self) -> None:
        bodies = [{"messages": [{"role": "user", "content": "x"}], "prompt_cache_key": key} for key in ("a", "b")]
        assert len({openai_positions(body, "messages")[0].key for body in bodies}) == 2

    def test_only_the_last_part_ends_a_message_and_none_of_the_assistants(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        messages = [{"role": "system", "content": parts}, {"role": "assistant", "content": "c", "tool_calls": []}]
        messages += [{"role": "assistant", "content": None}, {"role": "tool", "content": "d"}]
        ends = [p.ends_message for p in openai_positions({"messages": messages}, "messages")]
        assert ends == [False, True, False, False, True]
