"""What happens before a stream says anything, prompts that turn out too long, and turns that are paused or begun."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from router import Api, Router, Settings, Tier, wrap
from router.offline import Upstream
from router.offline.failures import Failure
from router.types import Reason, Usage
from tests.conftest import Clock
from tests.gateway.conftest import STREAM_HEAD, Exact, Serve, whole

OWN = {"own": {"base_url": "", "context_tokens": 100_000}}
CHAT = {"model": "own", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
MESSAGES = {
    "model": "claude-opus-4-7",
    "max_tokens": 9,
    "stream": True,
    "messages": [{"role": "user", "content": "hi"}],
}
START = {
    "type": "message_start",
    "message": {"id": "m", "model": "c", "content": [], "usage": {"input_tokens": 900, "output_tokens": 1}},
}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def frame(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def failed(code: Any) -> bytes:
    return frame({"error": {"message": "The queue is full.", "type": "SERVICE_UNAVAILABLE", "code": code}})


def asked(serve: Serve, pieces: list[Any], body: dict[str, Any], path: str) -> tuple[int, bytes, int]:
    """(status, body, number of requests) where every attempt gets the same pieces."""
    with Exact([STREAM_HEAD, *pieces]) as exact:
        own = {"own": {**OWN["own"], "base_url": f"{exact.url}/v1"}}
        gateway = serve(exact.url, general={"models": own}, max_retries=1)
        reply = gateway.post(path, body, {"anthropic-version": "2023-06-01"})
        return reply.status_code, reply.content, len(exact.requests)


COMMENT = b": PROCESSING\n\n"
ROLE = frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})


@pytest.mark.parametrize("before", [[], [COMMENT], [COMMENT, 0.1, COMMENT, 0.1], [ROLE], [b"retry: 100\n\n"]])
@pytest.mark.parametrize(
    ("code", "status", "attempts"), [(503, 503, 2), ("429", 429, 2), (400, 400, 1), (None, 502, 2)]
)
def test_an_error_before_the_first_content_is_a_status(
    serve: Serve, before: list[Any], code: Any, status: int, attempts: int
) -> None:
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/messages", {**CHAT, "max_tokens": 9})):
        found, raw, n = asked(serve, [*before, failed(code), b"data: [DONE]\n\n"], body, path)
        assert (found, n) == (status, attempts)
        assert b"The queue is full." in raw


@pytest.mark.parametrize("before", [[], [frame({"type": "ping"})], [frame({"type": "ping"}), 0.1]])
def test_an_overloaded_messages_stream_is_asked_again(serve: Serve, before: list[Any]) -> None:
    assert asked(serve, [*before, frame(OVERLOADED)], MESSAGES, "/v1/messages")[::2] == (529, 2)


def test_a_responses_stream_that_fails_before_it_says_anything_is_asked_again(serve: Serve) -> None:
    error = {"code": "server_error", "message": "It failed."}
    created = frame({"type": "response.created", "response": {"id": "r", "model": "m"}})
    pieces = [created, frame({"type": "response.failed", "response": {"error": error}})]
    body = {"model": "own", "stream": True, "input": "hi"}
    assert asked(serve, pieces, body, "/v1/responses")[::2] == (500, 2)


def test_a_stream_that_was_billed_from_its_start_is_passed_on(serve: Serve) -> None:
    status, raw, n = asked(serve, [frame(START), 0.1, frame(OVERLOADED)], MESSAGES, "/v1/messages")
    assert (status, n) == (200, 1)
    assert b"overloaded_error" in raw


@pytest.mark.parametrize("sdk", ["anthropic", "openai"])
def test_wrap_asks_again_where_a_stream_broke_off_before_its_first_event(upstream: Upstream, sdk: str) -> None:
    upstream.failures += [Failure(error_after=0)]
    if sdk == "anthropic":
        with anthropic.Anthropic(base_url=upstream.url, api_key="offline") as plain:
            client = wrap(plain, Router.load(config=Settings()))
            with client.messages.stream(
                model="auto", max_tokens=50, messages=[{"role": "user", "content": "hi"}]
            ) as stream:
                assert stream.get_final_text()
    else:
        with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as plain_gpt:
            gpt = wrap(plain_gpt, Router.load(config=Settings()))
            chunks = gpt.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(upstream.requests) == 2


def refused(message: str, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


TOO_LONG: list[Any] = [
    {"type": "error", **refused("prompt is too long: 231457 tokens > 200000 maximum")},
    refused("This model's maximum context length is 8192 tokens."),
    refused("Too big.", "context_length_exceeded"),
    [refused("The input token count exceeds the maximum number of tokens allowed", 400)],  # Gemini's come in a list
]


@pytest.mark.parametrize("error", TOO_LONG)
def test_a_prompt_that_is_too_long_moves_once_to_a_larger_window(serve: Serve, upstream: Upstream, error: Any) -> None:
    with Exact([whole(json.dumps(error).encode(), "400 Bad Request")]) as small:
        own = {"small": {"base_url": f"{small.url}/v1", "context_tokens": 150_000}}
        fleet = {Tier.SIMPLE: "small", Tier.MODERATE: "claude-haiku-4-5", Tier.COMPLEX: "claude-opus-4-7"}
        gateway = serve(upstream.url, general={"models": own, "fleets": {"f": fleet}, "fleet": "f"})
        body = {
            "model": "auto",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "Translate 'good morning' into Dutch"}],
        }
        reply = gateway.post("/v1/messages", body)
        assert reply.headers["x-tierwise-model"] == "claude-haiku-4-5"
        assert len(small.requests) == 1
        (record,) = gateway.records(1)
        assert "the prompt is too long" in record["notes"]


def test_a_prompt_that_no_model_holds_is_the_providers_to_refuse(serve: Serve) -> None:
    with Exact([whole(json.dumps(TOO_LONG[0]).encode(), "400 Bad Request")]) as exact:
        gateway = serve(exact.url)
        body = {
            "model": "auto",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "Translate 'good morning'"}],
        }
        reply = gateway.post("/v1/messages", body)
        assert reply.status_code == 400
        assert len(exact.requests) == 2  # haiku, then the one with the larger window; then no more


ASK = {"role": "user", "content": "Prove, from the three newest rulings on invoice rounding, that our scheme cannot be unlawful, and refute every counterargument."}  # fmt: skip  # noqa: E501
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rulings"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
MCP = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "find", "server_name": "law", "input": {}}
TEXT = {"type": "text", "text": "One so far."}


@pytest.mark.parametrize("paused", [[SEARCH, FOUND], [SEARCH, FOUND, TEXT], [MCP], [TEXT, SEARCH]])
def test_a_paused_turn_goes_on_where_it_began(router: Router, clock: Clock, paused: list[Any]) -> None:
    body = {"model": "auto", "max_tokens": 4000, "system": "You are a legal clerk. " * 900, "messages": [ASK]}
    first = router.plan(body, Api.MESSAGES)
    router.record(first, Usage(fresh_tokens=100, cache_write_short_tokens=6000, output_tokens=100))
    clock.now += 30
    second = router.plan({**body, "messages": [ASK, {"role": "assistant", "content": paused}]}, Api.MESSAGES)
    assert (second.decision.model, second.decision.reason) == (first.decision.model, Reason.HELD)


@pytest.mark.parametrize("api", [Api.MESSAGES, Api.CHAT])
def test_a_begun_answer_goes_to_a_model_that_goes_on_with_it(router: Router, api: Api) -> None:
    body = {"model": "auto", "max_tokens": 900, "messages": [ASK, {"role": "assistant", "content": "{"}]}
    assert router.plan(body, api).decision.model == "claude-haiku-4-5"
