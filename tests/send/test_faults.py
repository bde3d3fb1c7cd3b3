"""Faults through the real SDKs and sockets: what is tried again, what goes up, what reaches the caller; none cheap."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
from collections.abc import Iterator
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from router import Reason, Router, Tier, wrap
from router.decide import breaker
from router.decide.breaker import Breaker
from router.offline import Failure, Upstream
from router.send import faults
from router.types import Api

USER: list[Any] = [{"role": "user", "content": "hi"}]
SOON = {"retry-after-ms": "1"}
SIMPLE, MODERATE, COMPLEX = "claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-7"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def claude(upstream: Upstream, router: Router) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=2) as client:
        yield wrap(client, router.with_fleet("claude"))  # a breaker of its own, all awake


def ask(client: Any, **options: Any) -> Any:
    return client.messages.create(**{"model": "auto", "max_tokens": 64, "messages": USER, **options})


def models(upstream: Upstream) -> list[str]:
    return [request["model"] for request in upstream.requests]


@pytest.mark.parametrize(
    "failure",
    [
        Failure(429, "rate_limit_error", headers=SOON),
        Failure(429, "rate_limit_error"),
        Failure(529, "overloaded_error"),
        Failure(500, "api_error"),
        Failure(503, "api_error", headers={"retry-after": "0.001"}),
        Failure(409, "conflict_error"),
        Failure(400, "odd_error", headers={"x-should-retry": "true"}),
    ],
    ids=lambda failure: f"{failure.status}-{'-'.join(failure.headers) or 'plain'}",
)
def test_a_passing_fault_is_tried_again_on_the_same_model(claude: Any, upstream: Upstream, failure: Failure) -> None:
    upstream.failures += [failure, failure]
    reply = ask(claude)
    assert models(upstream)[-3:] == [SIMPLE] * 3
    assert reply.model == SIMPLE
    assert claude.last_record.reason is Reason.SUFFICES
    assert claude.last_record.notes == (f"{SIMPLE}: {failure.status} {failure.kind}",) * 2


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_lasting_fault_goes_up_a_tier(claude: Any, upstream: Upstream, status: int) -> None:
    upstream.failures += [Failure(status, "x", model=SIMPLE)] * 3
    ask(claude)
    assert models(upstream)[-4:] == [SIMPLE] * 3 + [MODERATE]
    record = claude.last_record
    assert (record.tier, record.model, record.reason) == (Tier.MODERATE, MODERATE, Reason.PROVIDER_FAULT)
    assert f"{SIMPLE} failed 3 times: {status} x" in record.notes
    assert record.cost_usd == upstream.bills[-1].usd > 0


def test_it_goes_up_to_the_top_and_then_raises_the_sdks_own_error(claude: Any, upstream: Upstream) -> None:
    upstream.failures += [Failure(529)] * 9
    before = len(upstream.requests)
    with pytest.raises(anthropic.OverloadedError):
        ask(claude)
    assert models(upstream)[before:] == [SIMPLE] * 3 + [MODERATE] * 3 + [COMPLEX] * 3


def test_it_goes_up_no_further_than_the_call_allows(claude: Any, upstream: Upstream) -> None:
    upstream.failures += [Failure(529)] * 6
    before = len(upstream.requests)
    with pytest.raises(anthropic.OverloadedError):
        ask(claude, extra_body={"router": {"max_tier": "moderate"}})
    assert models(upstream)[before:] == [SIMPLE] * 3 + [MODERATE] * 3


def test_a_wait_beyond_the_budget_goes_up_at_once(claude: Any, upstream: Upstream) -> None:
    upstream.failures.append(Failure(429, "rate_limit_error", headers={"retry-after": "3600"}))
    ask(claude)
    assert models(upstream)[-2:] == [SIMPLE, MODERATE]


def test_a_timeout_goes_up(upstream: Upstream, router: Router) -> None:
    upstream.failures.append(Failure(delay_s=0.6))
    with anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=0, timeout=0.3) as client:
        wrapped = wrap(client, router.with_fleet("claude"))
        ask(wrapped)
    assert wrapped.last_record.model == MODERATE
    assert f"{SIMPLE}: timeout" in wrapped.last_record.notes


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(400, "invalid_request_error"), anthropic.BadRequestError),
        (Failure(401, "authentication_error"), anthropic.AuthenticationError),
        (Failure(403, "permission_error"), anthropic.PermissionDeniedError),
        (Failure(404, "not_found_error"), anthropic.NotFoundError),
        (Failure(529, headers={"x-should-retry": "false"}), anthropic.OverloadedError),
        (
            Failure(429, "rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            anthropic.RateLimitError,
        ),
    ],
    ids=["400", "401", "403", "404", "should-not-retry", "spend-limit"],
)
def test_what_no_attempt_mends_is_raised_at_once(
    claude: Any, upstream: Upstream, failure: Failure, error: type[Exception]
) -> None:
    upstream.failures.append(failure)
    before = len(upstream.requests)
    with pytest.raises(error):
        ask(claude)
    assert len(upstream.requests) == before + 1


@pytest.mark.parametrize("host", ["refused", "unresolved"])
def test_without_a_connection_no_tier_behind_the_same_address_helps(router: Router, host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}" if host == "refused" else "http://no-such-host.invalid"
    with anthropic.Anthropic(base_url=url, api_key="offline", max_retries=1) as client:
        wrapped = wrap(client, router.with_fleet("claude"))
        with pytest.raises(anthropic.APIConnectionError):
            ask(wrapped)
    assert wrapped.last_record is None
    assert wrapped.router.policy.breaker._failed[SIMPLE][0] == 2
    assert MODERATE not in wrapped.router.policy.breaker._failed


def test_a_named_model_is_tried_again_but_never_replaced(claude: Any, upstream: Upstream) -> None:
    upstream.failures += [Failure(529)] * 3
    with pytest.raises(anthropic.OverloadedError):
        ask(claude, model=MODERATE)
    assert models(upstream)[-3:] == [MODERATE] * 3


def test_the_callers_number_of_retries_holds(claude: Any, upstream: Upstream) -> None:
    upstream.failures += [Failure(529, model=SIMPLE)]
    ask(claude.with_options(max_retries=0))
    assert models(upstream)[-2:] == [SIMPLE, MODERATE]


def test_a_stream_moves_up_before_its_first_event(claude: Any, upstream: Upstream) -> None:
    upstream.failures += [Failure(529, model=SIMPLE)] * 3
    with claude.messages.stream(model="auto", max_tokens=64, messages=USER) as stream:
        assert stream.get_final_message().model == MODERATE
    assert claude.last_record.reason is Reason.PROVIDER_FAULT


def test_a_stream_that_breaks_is_not_replayed(claude: Any, upstream: Upstream) -> None:
    upstream.failures.append(Failure(cut_after=5))
    before, seen = len(upstream.requests), []
    with pytest.raises(Exception, match=r"(?i)closed|incomplete|peer"):
        seen.extend(ask(claude, stream=True))
    assert seen[0].type == "message_start"
    assert len(upstream.requests) == before + 1
    assert any("ended early" in note for note in claude.last_record.notes)


@pytest.mark.parametrize("failure", [Failure(cut_after=4), Failure(malformed_after=4), Failure(error_after=4)])
@pytest.mark.parametrize("api", ["messages", "chat", "responses"])
def test_however_a_stream_breaks_it_is_noted_and_not_replayed(
    upstream: Upstream, router: Router, api: str, failure: Failure
) -> None:
    upstream.failures.append(failure)
    seen: list[Any] = []
    with (
        anthropic.Anthropic(base_url=upstream.url, api_key="offline") as claude,
        openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as gpt,
    ):
        client: Any = wrap(claude, router) if api == "messages" else wrap(gpt, router.with_fleet("gpt"))
        with contextlib.suppress(anthropic.APIError, openai.APIError, httpx2.HTTPError, ValueError):
            if api == "messages":
                seen.extend(client.messages.create(model="auto", max_tokens=64, messages=USER, stream=True))
            elif api == "chat":
                seen.extend(client.chat.completions.create(model="auto", messages=USER, stream=True))
            else:
                seen.extend(client.responses.create(model="auto", input="hi", stream=True))
    assert seen
    assert len(upstream.requests) == 1
    assert client.last_record.tier is Tier.SIMPLE
    assert any("ended early" in note or "broke the stream" in note for note in client.last_record.notes)


def test_a_reset_connection_is_tried_again(claude: Any, upstream: Upstream) -> None:
    upstream.failures.append(Failure(is_reset=True))
    assert ask(claude).model == SIMPLE
    assert any("no connection" in note for note in claude.last_record.notes)


def test_async_and_openai_go_the_same_way(upstream: Upstream, router: Router) -> None:
    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="offline", max_retries=1) as client:
            wrapped = wrap(client, router.with_fleet("gpt"))
            cheap = wrapped.router.fleet.models[Tier.SIMPLE].id
            upstream.failures += [Failure(503, "server_error", model=cheap)] * 2
            stream = await wrapped.chat.completions.create(model="auto", messages=USER, stream=True)
            chunks = [chunk async for chunk in stream]
            return wrapped, chunks

    wrapped, chunks = asyncio.run(run())
    assert wrapped.last_record.tier is Tier.MODERATE
    assert wrapped.last_record.cost_usd == upstream.bills[-1].usd
    assert all(chunk.choices for chunk in chunks)  # the usage chunk is still kept from a caller who did not ask


def test_a_model_that_keeps_failing_rests_and_then_gets_another_chance(upstream: Upstream, router: Router) -> None:
    now = [0.0]
    resting = router.with_fleet("claude")
    resting.policy.breaker = Breaker(clock=lambda: now[0])
    with anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=0) as client:
        wrapped = wrap(client, resting)
        upstream.failures += [Failure(529, model=SIMPLE)] * breaker.FAULTS_TO_REST
        for _ in range(breaker.FAULTS_TO_REST):
            ask(wrapped)
        before = len(upstream.requests)
        ask(wrapped)
        assert models(upstream)[before:] == [MODERATE]
        assert f"{SIMPLE} rests after failing" in wrapped.last_record.notes
        now[0] += breaker.REST_S
        ask(wrapped)
        assert models(upstream)[-1] == SIMPLE
        ask(wrapped)
        assert not resting.policy.breaker.rests(SIMPLE)


def test_above_the_top_there_is_nothing(router: Router) -> None:
    body = {"model": "auto", "max_tokens": 5, "messages": []}
    top = router.plan(body, Api.MESSAGES)
    assert top.decision.tier is Tier.COMPLEX  # no text to judge
    assert router.move_up(top, body, "it failed") is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({"retry-after-ms": "250"}, 0.25), ({"retry-after": "2"}, 2.0), ({"retry-after": "soon"}, None), ({}, None)],
)
def test_the_providers_wait_is_read(headers: dict[str, str], expected: float | None) -> None:
    error = SimpleNamespace(status_code=429, type="rate_limit_error", response=SimpleNamespace(headers=headers))
    fault = faults.read_fault(error)  # type: ignore[arg-type]
    assert fault is not None
    assert fault.wait_s == expected


def test_a_date_to_wait_for_is_read() -> None:
    at = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30), usegmt=True)
    error = SimpleNamespace(status_code=503, response=SimpleNamespace(headers={"retry-after": at}))
    fault = faults.read_fault(error)  # type: ignore[arg-type]
    assert fault is not None
    assert fault.wait_s == pytest.approx(30, abs=2)


def test_pauses_double_up_to_a_limit_with_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_S", 0.5)
    fault = faults.Fault("529", moves_up=True)
    assert [faults.pause(fault, n, chance=lambda: 0.0) for n in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert faults.pause(fault, 0, chance=lambda: 1.0) == 0.375


def test_other_errors_are_no_faults() -> None:
    assert faults.read_fault(ValueError("a bug")) is None
