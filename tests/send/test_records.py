"""The record of each reply, by the reply itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest

from router import RequestError, Router, Settings, Tier, complete, record_of, wrap
from router.offline import Upstream
from router.send import records

EASY = [{"role": "user", "content": "Translate 'good morning' into Dutch"}]


@pytest.fixture
def claude(upstream: Upstream) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=upstream.url, api_key="any") as client:
        yield wrap(client, Router.load(config=Settings()))


def test_threads_find_their_own(claude: Any) -> None:
    def call(number: int) -> bool:
        tier = list(Tier)[number % 3]
        reply = claude.messages.create(
            model="auto", max_tokens=20, messages=EASY, extra_body={"router": {"min_tier": tier, "max_tier": tier}}
        )
        return record_of(reply).tier is tier

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(40)))


def test_tasks_find_their_own_and_a_timeout_costs_nobody_elses(upstream: Upstream) -> None:
    async def go() -> list[bool]:
        plain = anthropic.AsyncAnthropic(base_url=upstream.url, api_key="any")
        client: Any = wrap(plain, Router.load(config=Settings()))

        async def call(number: int) -> bool:
            tier = list(Tier)[number % 3]
            body: Any = {"router": {"min_tier": tier, "max_tier": tier}}
            create = client.messages.create(model="auto", max_tokens=20, messages=EASY, extra_body=body)
            reply = await asyncio.wait_for(create, 20)
            return record_of(reply).tier is tier

        async with plain:
            return await asyncio.gather(*map(call, range(20)))

    assert all(asyncio.run(go()))


def test_a_stream_has_its_record_at_its_end(claude: Any) -> None:
    stream = claude.messages.create(model="auto", max_tokens=20, messages=EASY, stream=True)
    with pytest.raises(RequestError, match="has not ended"):
        record_of(stream)
    for _ in stream:
        pass
    assert record_of(stream).usage.output_tokens > 0
    with claude.messages.stream(model="auto", max_tokens=20, messages=EASY) as helper:
        helper.until_done()
    assert record_of(helper).usage.output_tokens > 0


def test_every_shape_of_reply_has_one(claude: Any, upstream: Upstream) -> None:
    raw = claude.messages.with_raw_response.create(model="auto", max_tokens=20, messages=EASY)
    assert record_of(raw) is record_of(raw.parse())
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="any") as client:
        gpt: Any = wrap(client, Router.load(config=Settings()))
        assert record_of(gpt.chat.completions.create(model="auto", messages=EASY)).cost_usd
        assert record_of(gpt.responses.create(model="auto", input="hi")).cost_usd
        plain = gpt.post("/chat/completions", cast_to=object, body={"model": "auto", "messages": EASY})
        with pytest.raises(RequestError, match="no record of a dict"):
            record_of(plain)
    with anthropic.Anthropic(base_url=upstream.url, api_key="any") as plain:
        answer = complete(Router.load(config=Settings()), "hi", clients={"anthropic": plain})
    assert record_of(answer) is answer.record


def test_what_is_no_reply_has_none_and_nothing_is_held(claude: Any) -> None:
    with pytest.raises(RequestError, match="no record of a dict"):
        record_of({})
    before = len(records._known)
    reply = claude.messages.create(model="auto", max_tokens=20, messages=EASY)
    assert len(records._known) > before
    del reply
    gc.collect()
    assert len(records._known) <= before
