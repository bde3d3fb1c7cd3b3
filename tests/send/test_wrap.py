"""The wrapped SDK clients over real sockets, against the embedded upstream."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from router import Api, ClientError, Ledger, Reason, RequestError, Router, Tier, Usage, wrap
from router.accounts.record import ESTIMATED
from router.offline import Reply, ToolCall, Upstream
from router.send.wrap import router_for

SYSTEM = "You answer questions about lighthouses, briefly and kindly, and never about anything else. " * 300
SYSTEM_MESSAGE = {"role": "system", "content": SYSTEM}
USER: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture
def claude(upstream: Upstream, router: Router) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=0) as client:
        yield wrap(client, router)


@pytest.fixture
def gpt(upstream: Upstream, router: Router) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline", max_retries=0) as client:
        yield wrap(client, router)


def settled(upstream: Upstream, client: Any) -> None:
    """The last record is the upstream's last bill, token for token and to the last digit."""
    bill, record = upstream.bills[-1], client.last_record
    usage = record.usage
    assert record.model == bill.model
    assert (usage.fresh_tokens, usage.cache_read_tokens, usage.output_tokens) == (bill.fresh, bill.read, bill.output)
    assert (usage.cache_write_short_tokens, usage.cache_write_long_tokens) == (bill.write_short, bill.write_long)
    assert record.cost_usd == bill.usd > 0


class TestAnthropic:
    def test_auto_is_routed_cached_and_accounted(self, claude: Any, upstream: Upstream) -> None:
        assert claude.last_record is None
        for expected_read in (0, upstream_prefix(claude)):
            reply = claude.messages.create(model="auto", max_tokens=512, system=SYSTEM, messages=USER)
            assert type(reply) is anthropic.types.Message
            assert reply.model == claude.last_record.model == "claude-haiku-4-5"
            assert claude.last_record.tier is Tier.SIMPLE
            assert upstream.bills[-1].read >= expected_read  # the same question once more: its own end is read, too
            assert (upstream.bills[-1].read == 0) == (expected_read == 0)
            settled(upstream, claude)
        assert claude.last_record.saved_usd > 0

    def test_it_is_still_an_sdk_client(self, claude: Any) -> None:
        assert type(claude) is anthropic.Anthropic
        assert claude.api_key == "offline"
        assert list(inspect.signature(claude.messages.create).parameters)[:2] == ["max_tokens", "messages"]

    def test_wrapping_leaves_the_original_alone(self, upstream: Upstream, router: Router) -> None:
        with anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=0) as original:
            wrap(original, router)
            with pytest.raises(anthropic.NotFoundError, match="auto"):
                original.messages.create(model="auto", max_tokens=5, messages=USER)

    def test_explicit_model_is_sent_as_it_is_and_only_accounted(self, claude: Any, upstream: Upstream) -> None:
        claude.messages.create(model="claude-opus-4-7", max_tokens=64, system=SYSTEM, messages=USER)
        sent = {"model": "claude-opus-4-7", "max_tokens": 64, "system": SYSTEM, "messages": USER}
        assert upstream.requests[-1] == sent
        settled(upstream, claude)
        assert claude.last_record.reason is Reason.EXPLICIT_MODEL
        assert claude.last_record.saved_usd is None

    def test_the_callers_cache_control_is_respected(self, claude: Any, upstream: Upstream) -> None:
        system = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
        claude.messages.create(model="auto", max_tokens=64, system=system, messages=USER)
        assert upstream.requests[-1]["system"] == system
        assert upstream.bills[-1].write_long > 0
        settled(upstream, claude)

    def test_everything_else_passes_through(self, claude: Any, upstream: Upstream) -> None:
        options: dict[str, Any] = {
            "stop_sequences": ["END"],
            "metadata": {"user_id": "u-1"},
            "tools": [{"name": "t", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
            "extra_body": {"beta_field": [1, 2]},
        }
        claude.messages.create(model="auto", max_tokens=64, messages=USER, **options)
        extra = options.pop("extra_body")
        sent = {"model": claude.last_record.model, "max_tokens": 64, "messages": USER, **options, **extra}
        assert upstream.requests[-1] == sent

    @pytest.mark.parametrize(
        ("asked", "model"),
        [
            ({"min_tier": "complex"}, "claude-opus-4-7"),
            ({"min_tier": "moderate", "max_tier": "moderate"}, "claude-sonnet-4-6"),
            ({"max_tier": "moderate", "operating_point": "quality"}, "claude-haiku-4-5"),
            ({}, "claude-haiku-4-5"),
        ],
    )
    def test_one_call_may_bound_its_tier(
        self, claude: Any, upstream: Upstream, asked: dict[str, str], model: str
    ) -> None:
        for name in ("auto", "claude-opus-4-7"):
            claude.messages.create(model=name, max_tokens=64, messages=USER, extra_body={"router": asked})
            assert "router" not in upstream.requests[-1]
            assert upstream.requests[-1]["model"] == (model if name == "auto" else name)
        claude.messages.count_tokens(model="auto", messages=USER, extra_body={"router": asked})
        assert "router" not in upstream.requests[-1]

    @pytest.mark.parametrize(
        ("asked", "match"),
        [
            ({"min_teir": "complex"}, "min_teir.*expected any of operating_point, min_tier, max_tier"),
            ({"min_tier": "huge"}, "huge"),
            ({"min_tier": "complex", "max_tier": "simple"}, "min_tier complex above max_tier simple"),
            ({"operating_point": "cheapest"}, "unknown operating point 'cheapest'"),
        ],
    )
    def test_a_wrong_option_is_named(self, claude: Any, asked: dict[str, str], match: str) -> None:
        with pytest.raises(RequestError, match=match):
            claude.messages.create(model="auto", max_tokens=64, messages=USER, extra_body={"router": asked})

    def test_create_stream_is_accounted_at_its_end(self, claude: Any, upstream: Upstream) -> None:
        events = list(claude.messages.create(model="auto", max_tokens=512, messages=USER, stream=True))
        assert events[0].type == "message_start"
        assert events[-1].type == "message_stop"
        settled(upstream, claude)

    def test_stream_helper(self, claude: Any, upstream: Upstream) -> None:
        with claude.messages.stream(model="auto", max_tokens=512, system=SYSTEM, messages=USER) as stream:
            text = "".join(stream.text_stream)
            assert stream.get_final_text() == text
        assert "simulated" in text
        settled(upstream, claude)
        assert upstream.bills[-1].write_short > 0

    def test_a_stream_left_early_is_recorded_once_and_says_so(self, claude: Any) -> None:
        records = []
        original = claude.router.record
        claude.router.record = lambda *args, **more: records.append(original(*args, **more)) or records[-1]
        with claude.messages.create(model="auto", max_tokens=512, messages=USER, stream=True) as stream:
            next(iter(stream))
        del stream
        assert len(records) == 1
        assert "ended early" in claude.last_record.notes[-1]
        assert claude.last_record.usage.fresh_tokens > 0

    def test_raw_responses(self, claude: Any, upstream: Upstream) -> None:
        raw = claude.messages.with_raw_response.create(model="auto", max_tokens=64, messages=USER)
        assert raw.headers["request-id"] == upstream.bills[-1].request_id
        assert raw.parse().model == "claude-haiku-4-5"
        settled(upstream, claude)
        raw = claude.messages.with_raw_response.create(model="auto", max_tokens=64, messages=USER, stream=True)
        assert list(raw.parse())
        settled(upstream, claude)

    def test_streaming_response_is_the_callers_to_read(self, claude: Any) -> None:
        options = {"model": "auto", "max_tokens": 64, "messages": USER}
        with claude.messages.with_streaming_response.create(**options) as response:
            assert response.parse().model == "claude-haiku-4-5"
        assert claude.last_record.cost_usd is None
        assert "not read" in claude.last_record.notes[-1]

    def test_beta_count_tokens_and_with_options(self, claude: Any, upstream: Upstream) -> None:
        assert claude.beta.messages.create(model="auto", max_tokens=64, messages=USER).model == "claude-haiku-4-5"
        settled(upstream, claude)
        n_bills = len(upstream.bills)
        assert claude.messages.count_tokens(model="auto", messages=USER).input_tokens > 0
        assert len(upstream.bills) == n_bills
        again = claude.with_options(timeout=5).messages.create(model="auto", max_tokens=64, messages=USER)
        assert again.model == "claude-haiku-4-5"

    def test_messages_may_be_an_iterator(self, claude: Any, upstream: Upstream) -> None:
        claude.messages.create(model="auto", max_tokens=64, messages=iter(USER))
        assert upstream.requests[-1]["messages"] == USER

    def test_the_sdks_own_replies_can_be_sent_back(self, claude: Any, upstream: Upstream) -> None:
        first = claude.messages.create(model="auto", max_tokens=64, messages=USER)
        history = [*USER, {"role": "assistant", "content": first.content}, {"role": "user", "content": "thanks!"}]
        claude.messages.create(model="auto", max_tokens=64, messages=history)
        assert upstream.requests[-1]["messages"][1]["content"][0]["text"].startswith("[simulated")
        settled(upstream, claude)

    def test_errors_are_the_sdks_own_and_leave_no_record(self, claude: Any) -> None:
        with pytest.raises(anthropic.BadRequestError, match="ttl"):
            claude.messages.create(
                model="auto", max_tokens=5, messages=USER, cache_control={"type": "ephemeral", "ttl": "2h"},
                system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": 3600}}],
            )  # fmt: skip
        with pytest.raises(TypeError, match="max_tokens"):
            claude.messages.create(model="auto", messages=USER)
        assert claude.last_record is None

    def test_async(self, upstream: Upstream, router: Router) -> None:
        async def main() -> None:
            async with anthropic.AsyncAnthropic(base_url=upstream.url, api_key="offline", max_retries=0) as client:
                claude: Any = wrap(client, router)
                reply = await claude.messages.create(model="auto", max_tokens=64, system=SYSTEM, messages=USER)
                assert type(reply) is anthropic.types.Message
                settled(upstream, claude)
                async with claude.messages.stream(model="auto", max_tokens=64, system=SYSTEM, messages=USER) as stream:
                    assert "simulated" in "".join([text async for text in stream.text_stream])
                settled(upstream, claude)
                assert upstream.bills[-1].read > 0
                raw = await claude.messages.with_raw_response.create(model="auto", max_tokens=64, messages=USER)
                assert (await raw.parse()).model == "claude-haiku-4-5"
                settled(upstream, claude)
                stream = await claude.messages.create(model="auto", max_tokens=64, messages=USER, stream=True)
                async for _ in stream:
                    break
                await stream.close()
                assert "ended early" in claude.last_record.notes[-1]

        asyncio.run(main())


class TestOpenAI:
    def test_chat_is_routed_cached_and_accounted(self, gpt: Any, upstream: Upstream) -> None:
        for _ in range(2):
            reply = gpt.chat.completions.create(model="auto", messages=[SYSTEM_MESSAGE, *USER])
            assert type(reply) is openai.types.chat.ChatCompletion
            assert reply.model == gpt.last_record.model == "gpt-6-luna"
            settled(upstream, gpt)
        assert upstream.requests[-1]["prompt_cache_key"].startswith("tierwise-")
        assert upstream.bills[-1].read > 1024

    def test_chat_stream_hides_the_usage_chunk_nobody_asked_for(self, gpt: Any, upstream: Upstream) -> None:
        chunks = list(gpt.chat.completions.create(model="auto", messages=USER, stream=True))
        assert all(chunk.choices for chunk in chunks)
        assert upstream.requests[-1]["stream_options"] == {"include_usage": True}
        settled(upstream, gpt)

    def test_chat_stream_shows_the_usage_chunk_that_was_asked_for(self, gpt: Any, upstream: Upstream) -> None:
        options = {"include_usage": True, "include_obfuscation": False}
        chunks = list(gpt.chat.completions.create(model="auto", messages=USER, stream=True, stream_options=options))
        assert chunks[-1].usage.prompt_tokens > 0
        assert upstream.requests[-1]["stream_options"] == options
        settled(upstream, gpt)

    def test_explicit_model_stream_is_untouched_and_its_cost_estimated(self, gpt: Any, upstream: Upstream) -> None:
        assert list(gpt.chat.completions.create(model="gpt-4o-mini", messages=USER, stream=True))
        assert upstream.requests[-1] == {"model": "gpt-4o-mini", "messages": USER, "stream": True}
        assert gpt.last_record.notes == (ESTIMATED,)
        assert float(gpt.last_record.cost_usd) == pytest.approx(float(upstream.bills[-1].usd), rel=0.2)

    def test_responses_and_their_stream(self, gpt: Any, upstream: Upstream) -> None:
        reply = gpt.responses.create(model="auto", instructions=SYSTEM, input="hi")
        assert type(reply) is openai.types.responses.Response
        assert "simulated" in reply.output_text
        settled(upstream, gpt)
        with gpt.responses.stream(model="auto", instructions=SYSTEM, input="hi") as stream:
            assert "simulated" in stream.get_final_response().output_text
        settled(upstream, gpt)
        assert upstream.bills[-1].read > 0

    def test_long_histories_through_extra_body(self, gpt: Any, upstream: Upstream) -> None:
        body = {"messages": [SYSTEM_MESSAGE, *USER]}
        gpt.chat.completions.create(model="auto", messages=[], extra_body=body)
        system, *rest = upstream.requests[-1]["messages"]
        assert rest == body["messages"][1:]
        (part,) = system["content"]
        assert part == {
            "type": "text",
            "text": body["messages"][0]["content"],
            "prompt_cache_breakpoint": {"mode": "explicit"},
        }
        settled(upstream, gpt)

    def test_async(self, upstream: Upstream, router: Router) -> None:
        async def main() -> None:
            base_url = f"{upstream.url}/v1"
            async with openai.AsyncOpenAI(base_url=base_url, api_key="offline", max_retries=0) as client:
                gpt: Any = wrap(client, router)
                reply = await gpt.chat.completions.create(model="auto", messages=[SYSTEM_MESSAGE, *USER])
                assert reply.model == "gpt-6-luna"
                settled(upstream, gpt)
                stream = await gpt.chat.completions.create(model="auto", messages=USER, stream=True)
                assert all([chunk.choices async for chunk in stream])
                settled(upstream, gpt)
                raw = await gpt.chat.completions.with_raw_response.create(model="auto", messages=USER)
                assert raw.parse().model == "gpt-6-luna"
                settled(upstream, gpt)

        asyncio.run(main())

    def test_gemini_endpoint_gets_gemini_models(self, router: Router) -> None:
        url = "https://generativelanguage.googleapis.com/v1beta/openai/"
        with openai.OpenAI(base_url=url, api_key="k") as client:
            wrapped: Any = wrap(client, router)
            assert wrapped.router.fleet.name == "gemini"


@pytest.mark.parametrize("thing", [None, "client", object(), anthropic.Anthropic, openai])
def test_only_clients_can_be_wrapped(thing: Any) -> None:
    with pytest.raises(ClientError, match=r"expected an instance of anthropic\.Anthropic"):
        wrap(thing)


def test_a_full_disk_does_not_cost_the_reply(
    claude: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Ledger()
    store.close()
    monkeypatch.setattr(claude.router.accounts, "store", store)
    assert claude.messages.create(model="auto", max_tokens=5, messages=USER).content
    assert "no record of a call to claude-haiku-4-5: ProgrammingError" in caplog.text


def test_a_call_without_a_model_is_the_providers_to_judge(gpt: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="model: None"):
        gpt.responses.create(prompt={"id": "pmpt_1"}, input="hi")
    assert gpt.last_record is None


def test_wrapping_twice_is_refused(claude: Any) -> None:
    with pytest.raises(ClientError, match="wrapped already"):
        wrap(claude)


def test_fleet_of_another_provider_is_refused() -> None:
    with openai.OpenAI(api_key="k") as client, pytest.raises(ClientError, match="claude"):
        wrap(client, Router.load(fleet="claude"))


def test_no_key_reaches_a_record_or_an_error(claude: Any, upstream: Upstream) -> None:
    secret = "sk-ant-very-secret"  # noqa: S105
    client = claude.with_options(api_key=secret)
    client.messages.create(model="auto", max_tokens=5, messages=USER)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="nope", max_tokens=5, messages=USER)
    assert secret not in repr(client.last_record) + str(caught.value) + repr(upstream.bills)
    assert client.last_record.cost_usd > Decimal(0)


def upstream_prefix(claude: Any) -> int:
    """What a warm system prompt is expected to read: its tokens by the upstream's own count."""
    block = [{"type": "text", "text": SYSTEM}]
    alone = claude.messages.count_tokens(model="claude-haiku-4-5", system=block, messages=USER).input_tokens
    user = claude.messages.count_tokens(model="claude-haiku-4-5", messages=USER).input_tokens
    assert isinstance(alone, int)
    return int(alone - user)


def said(client: Any, api: str, stream: bool) -> None:
    """One reply through the SDK, read to the end."""
    if api == "messages":
        reply = client.messages.create(model="auto", max_tokens=512, system=SYSTEM, messages=USER, stream=stream)
    elif api == "chat":
        reply = client.chat.completions.create(model="auto", messages=[SYSTEM_MESSAGE, *USER], stream=stream)
    else:
        reply = client.responses.create(model="auto", instructions=SYSTEM, input="hi", stream=stream)
    if stream:
        list(reply)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["messages", "chat", "responses"])
class TestMissingUsage:
    """A reply without usage is estimated, says so, and teaches nothing."""

    @pytest.fixture
    def client(self, request: pytest.FixtureRequest, api: str) -> Any:
        return request.getfixturevalue("claude" if api == "messages" else "gpt")

    def test_it_is_estimated(self, client: Any, upstream: Upstream, api: str, stream: bool) -> None:
        call = ToolCall("look", {"where": "in the tower, behind the lamp, under the stairs"})
        upstream.scripts += [
            Reply("It is the tallest. " * 40, has_usage=False),
            Reply("", (call,) * 3, has_usage=False),
        ]
        for _ in range(2):
            said(client, api, stream)
            record, bill = client.last_record, upstream.bills[-1]
            assert ESTIMATED in record.notes
            assert not record.usage.reported
            billed = bill.fresh + bill.read + bill.write_short + bill.write_long
            assert record.usage.fresh_tokens == record.usage.input_tokens == pytest.approx(billed, rel=0.3)
            assert record.usage.output_tokens == pytest.approx(bill.output, rel=0.5)
            assert record.cost_usd is not None
            assert record.saved_usd is not None

    def test_it_teaches_nothing(self, client: Any, upstream: Upstream, api: str, stream: bool) -> None:
        body = {
            "messages": {"max_tokens": 512, "system": SYSTEM, "messages": USER},
            "chat": {"messages": [SYSTEM_MESSAGE, *USER]},
            "responses": {"instructions": SYSTEM, "input": "hi"},
        }[api]

        def known() -> Any:
            route = client.router.plan({"model": "auto", **body}, Api[api.upper()]).route
            placement = client.router.accounts.placement
            return placement._ratios.copy(), placement.signals(), route.warm, route.head_warm, route.expected_units

        said(client, api, stream)
        said(client, api, stream)
        before = known()
        assert before[-1] > 0
        upstream.scripts.append(Reply("x" * 9000, has_usage=False))
        said(client, api, stream)
        assert known() == before


def test_what_is_not_read_stays_unknown(gpt: Any, upstream: Upstream) -> None:
    upstream.scripts.append(Reply("hello", has_usage=False))
    with gpt.chat.completions.with_streaming_response.create(model="auto", messages=USER) as reply:
        reply.read()
    assert gpt.last_record.cost_usd is None
    assert gpt.last_record.usage == Usage(reported=False)
    assert ESTIMATED not in gpt.last_record.notes


def test_the_router_for_a_client_of_each_provider(shipped: Router) -> None:
    assert router_for(shipped, "anthropic") is shipped
    assert router_for(shipped, "openai").fleet.name == "gpt"
    assert router_for(shipped, "gemini").fleet.name == "gemini"
    with pytest.raises(ClientError, match=r"Router\.load\(fleet='gpt'\)"):
        router_for(Router.load(fleet="claude-latest"), "openai")
