"""Streams of one format as another's, event by event, where the upstream has no way of saying them."""

from __future__ import annotations

from typing import Any

import pytest

from router import TierwiseError
from router.formats.interpreter import Events, error, reply
from router.types import Api

RESPONSE: dict[str, Any] = {"id": "resp_1", "model": "gpt-6-luna", "output": [], "usage": None}
USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
    "output_tokens": 7,
}


def said(*events: dict[str, Any]) -> list[dict[str, Any]]:
    """A Responses stream as a Messages one, from its second event on."""
    stream = Events(Api.RESPONSES, Api.MESSAGES)
    given = ({"type": "response.created", "response": RESPONSE}, *events)
    return [told for event in given for told in stream.feed(event)][1:] + stream.end()


@pytest.mark.parametrize(
    ("changes", "stop"),
    [
        ({}, "end_turn"),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "max_tokens"),
        ({"incomplete_details": {"reason": "content_filter"}}, "refusal"),
        ({"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]}, "refusal"),
    ],
)
def test_why_a_streamed_response_stopped(changes: dict[str, Any], stop: str) -> None:
    last = {"type": "response.completed", "response": {**RESPONSE, "usage": USAGE, **changes}}
    delta, end = said({"type": "response.reasoning_summary_text.delta", "delta": "hm"}, last)
    assert delta["delta"]["stop_reason"] == stop
    assert delta["usage"]["input_tokens"] == 30
    assert delta["usage"]["cache_read_input_tokens"] == 60
    assert end == {"type": "message_stop"}


@pytest.mark.parametrize(
    "failed",
    [
        {"type": "error", "code": "server_error", "message": "it broke"},
        {"type": "response.failed", "response": {**RESPONSE, "error": {"code": "x", "message": "it broke"}}},
    ],
)
def test_a_failed_response_ends_in_an_error_and_nothing_else(failed: dict[str, Any]) -> None:
    (told,) = said(failed)
    assert (told["type"], told["error"]["message"]) == ("error", "it broke")
    if "response" in failed:
        with pytest.raises(TierwiseError, match="it broke"):
            reply({**failed["response"], "status": "failed"}, Api.RESPONSES, Api.MESSAGES)


@pytest.mark.parametrize("body", [None, [], "x", {}, {"error": "no"}, {"error": None}])
def test_an_error_that_is_none_becomes_one(body: Any) -> None:
    told = error(body, 503, Api.MESSAGES, "req_1")
    assert told["error"] == {"type": "api_error", "message": "the provider answered 503"}
    assert told["request_id"] == "req_1"
    assert error(body, 503, Api.CHAT, "req_1")["error"]["message"] == "the provider gave no message"
