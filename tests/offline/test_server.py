"""The embedded upstream against the documented rules, through the plain SDKs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from router.offline import Upstream

LONG = "A rule about shipping parcels by night train, which nobody remembers. " * 400
HAIKU, SONNET = "claude-haiku-4-5", "claude-sonnet-4-6"


@pytest.fixture
def claude(upstream: Upstream) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0) as client:
        yield client


def send(client: anthropic.Anthropic, model: str = SONNET, text: str = LONG, ttl: str = "5m", user: str = "hi") -> Any:
    system: Any = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}}]
    return client.messages.create(
        model=model, max_tokens=50, system=system, messages=[{"role": "user", "content": user}]
    ).usage


def test_write_then_read_then_expiry_from_the_request_start(claude: anthropic.Anthropic, clock: Any) -> None:
    first = send(claude)
    assert (first.cache_read_input_tokens, first.cache_creation.ephemeral_5m_input_tokens > 4000) == (0, True)
    clock.now += 299
    assert send(claude, user="other").cache_read_input_tokens == first.cache_creation_input_tokens
    clock.now += 299  # the read has refreshed it
    assert send(claude).cache_read_input_tokens == first.cache_creation_input_tokens
    clock.now += 301
    assert send(claude).cache_read_input_tokens == 0


def test_an_hour_is_an_hour(claude: anthropic.Anthropic, clock: Any) -> None:
    assert send(claude, ttl="1h").cache_creation.ephemeral_1h_input_tokens > 4000
    clock.now += 3599
    assert send(claude, ttl="1h").cache_read_input_tokens > 4000
    clock.now += 3601
    assert send(claude, ttl="1h").cache_read_input_tokens == 0


def test_caches_are_per_model_and_respect_the_minimum(claude: anthropic.Anthropic) -> None:
    short = LONG[: len(LONG) // 3]
    assert send(claude, SONNET).cache_creation_input_tokens > 0
    assert send(claude, HAIKU).cache_read_input_tokens == 0
    assert send(claude, SONNET, short).cache_creation_input_tokens > 1024
    usage = send(claude, HAIKU, short)  # below Haiku 4.5's 4,096: silently not cached
    assert (usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (0, 0)


def test_a_changed_prefix_misses(claude: anthropic.Anthropic) -> None:
    send(claude)
    assert send(claude, text=f"Today is Monday. {LONG}").cache_read_input_tokens == 0


def test_look_back_reaches_twenty_positions(claude: anthropic.Anthropic) -> None:
    def turn(n_blocks: int) -> Any:
        blocks: Any = [{"type": "text", "text": f"{LONG[:9000]} {n}"} for n in range(n_blocks)]
        blocks[-1] = {**blocks[-1], "cache_control": {"type": "ephemeral"}}
        return claude.messages.create(model=SONNET, max_tokens=5, messages=[{"role": "user", "content": blocks}]).usage

    turn(2)
    assert turn(21).cache_read_input_tokens > 0
    assert turn(42).cache_read_input_tokens == 0  # 21 positions further: out of reach


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "claude-none"}, "model: claude-none"),
        ({"messages": []}, "at least one message"),
        ({"extra_body": {"temperature": 1}}, "temperature"),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": 3600}}]}, "ttl"),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}] * 5}, "Found 5"),
        (
            {"system": [
                {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "y", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            ]},
            "must not come after",
        ),
    ],
)  # fmt: skip
def test_what_a_provider_rejects_is_rejected(claude: Any, changes: dict[str, Any], message: str) -> None:
    body: dict[str, Any] = {"model": SONNET, "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(anthropic.APIStatusError, match=message) as caught:
        claude.messages.create(**(body | changes))
    assert caught.value.status_code in (400, 404)


def test_an_invalid_key_is_refused(upstream: Upstream) -> None:
    with (
        anthropic.Anthropic(base_url=upstream.url, api_key="invalid", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        send(client)


def test_unknown_path(upstream: Upstream) -> None:
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="x", input="y")
        with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'messages'"):
            client.chat.completions.create(model="gpt-4o", messages=[])


def test_openai_caches_on_its_own_and_newer_models_bill_the_write(upstream: Upstream, clock: Any) -> None:
    def ask(model: str) -> Any:
        messages: Any = [{"role": "system", "content": LONG}, {"role": "user", "content": "hi"}]
        return client.chat.completions.create(model=model, messages=messages).usage.prompt_tokens_details

    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as client:
        older, newer = ask("gpt-4o"), ask("gpt-6-luna")
        assert (older.cached_tokens, older.cache_write_tokens) == (0, 0)
        assert newer.cache_write_tokens > 4000
        assert ask("gpt-4o").cached_tokens % 128 == 0 < ask("gpt-6-luna").cached_tokens
        clock.now += 1801
        assert ask("gpt-6-luna").cached_tokens == 0
