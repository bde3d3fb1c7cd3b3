"""Chat Completions bodies as Responses bodies: what is kept, what is dropped with a note, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import CompletionCreateParams
from openai.types.responses import ResponseCreateParams
from pydantic import TypeAdapter

from router import RequestError
from router.formats.chat_on_responses import to_responses

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
USER: dict[str, Any] = {"role": "user", "content": "Look it up."}
MARK = {"mode": "explicit"}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def translated(**fields: Any) -> dict[str, Any]:
    """The translation of a body that the SDK's type allows, as the SDK's type allows it."""
    body = {"model": "m", "messages": [USER], "tools": [TOOL], **fields}
    TypeAdapter(CompletionCreateParams).validate_python(body)
    sent, notes = to_responses(body)
    TypeAdapter(ResponseCreateParams).validate_python(sent)
    assert notes == ()
    return sent


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 6, "verbosity": "low"}, {"max_output_tokens": 6, "text": {"verbosity": "low"}}),
        ({"store": True, "metadata": {"a": "b"}}, {"store": True, "metadata": {"a": "b"}}),
        ({"reasoning_effort": "high", "n": 1}, {"reasoning": {"effort": "high"}}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        ({"response_format": {"type": "text"}, "modalities": ["text"]}, {}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}},
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}},
        ),
        ({"prompt_cache_key": "k", "stream": True}, {"prompt_cache_key": "k", "stream": True}),
    ],
)
def test_fields(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    usual = {"model", "input", "tools", "include"} | ({"store"} - sent.keys())
    assert {name: value for name, value in translated(**fields).items() if name not in usual} == sent


def test_messages() -> None:
    parts = [
        {"type": "text", "text": "See these.", "prompt_cache_breakpoint": MARK},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sent = translated(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [text("And kind.")]},
            {"role": "user", "content": parts},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "I "}, {"type": "refusal", "refusal": "won't."}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": [{"type": "text", "text": "No"}, {"type": "text", "text": "."}],
            },
        ]
    )
    assert "instructions" not in sent  # it could carry no cache breakpoint
    assert sent["input"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "input_text", "text": "And kind."}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See these.", "prompt_cache_breakpoint": MARK},
                {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "low"},
                {"type": "input_file", "file_id": "file-1"},
            ],
        },
        {"role": "assistant", "content": "I won't."},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "No."},
    ]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n": 3}, "n=3"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"web_search_options": {"search_context_size": "low"}}, "`web_search_options`"),
        ({"functions": [{"name": "f"}]}, "`functions`"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "a tool of type 'custom'"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "c"}}}, "tool_choice of type 'custom'"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "a message of role 'function'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "a part of type 'input_audio'",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom"}]}]},
            "a call of type 'custom'",
        ),
    ],
)
def test_what_has_no_counterpart_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestError, match=f"cannot translate {why}"):
        to_responses({"model": "m", "messages": [USER], "tools": [TOOL], **fields})


def test_what_changes_the_answer_little_is_dropped_with_a_note() -> None:
    body = {"model": "m", "messages": [USER], "stop": ["END"], "seed": 1, "logprobs": None, "router": {}}
    _, notes = to_responses(body)
    assert notes == ("stop dropped: Responses has no such field", "seed dropped: Responses has no such field")
