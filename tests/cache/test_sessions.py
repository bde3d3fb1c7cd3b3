"""Whole sessions through the wrapped SDKs over sockets: bills, prefixes and cache hits, request by request."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import anthropic
import openai
import pytest

from router import Reason, Router, Settings, Tier, wrap
from router.offline import Reply, ToolCall, Upstream

ASKS = (
    "fix the flaky test in the scheduler and prove that it terminates",
    "rename the variable `tmp` in the parser",
    "translate the error message into Dutch",
    "design a migration of the ledger to double entry without downtime, and argue why it is safe",
    "yes, go on",
    "that's wrong, try again",
)
GUIDE = "Work carefully in the repository of the tidal model, say what you did, and touch nothing generated. "
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
TOOLS: list[Any] = [
    {
        "name": f"tool_{number}",
        "description": "Reads a part of the repository. " * 40,
        "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
    }
    for number in range(8)
]


def scripted(chance: random.Random, n_calls: int, *, thinks: bool = False) -> Reply:
    calls = tuple(ToolCall(f"tool_{number % 8}", {"path": f"src/{number}.py"}) for number in range(n_calls))
    return Reply("Looking. " * chance.randint(1, 40), calls, thinking="Which file is it?" if thinks else "")


def claude_code(client: Any, upstream: Upstream, clock: Any, seed: int) -> Iterator[None]:
    """Turns of tool loops, up to a dozen calls at once, pauses from seconds to hours; yields after each reply."""
    chance = random.Random(seed)
    system = [{"type": "text", "text": "x-attribution: cli"}, {"type": "text", "text": f"Agent {seed}. " + GUIDE * 300}]
    said: list[Any] = []
    for turn in range(4):
        ask: list[Any] = [{"type": "text", "text": f"{chance.choice(ASKS)} ({turn})"}]
        said.append({"role": "user", "content": [*([IMAGE] if chance.random() < 0.2 else []), *ask]})
        for step in range(5):
            upstream.scripts.append(scripted(chance, chance.choice([0, 1, 1, 3, 12]) if step < 4 else 0))
            body = {"model": "auto", "max_tokens": 600, "system": system, "tools": TOOLS, "messages": said}
            if chance.random() < 0.5:
                reply = client.messages.create(**body)
            else:
                with client.messages.stream(**body) as stream:
                    reply = stream.get_final_message()
            yield
            said.append(
                {"role": "assistant", "content": [part.model_dump(exclude_none=True) for part in reply.content]}
            )
            clock.now += chance.choice([5, 20, 60, 200])
            uses = [part for part in reply.content if part.type == "tool_use"]
            if not uses:
                break
            lines = ["a line of a file\n" * chance.randint(5, 200) for _ in uses]
            results = zip(uses, lines, strict=True)
            said.append(
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": u.id, "content": text} for u, text in results],
                }
            )
        clock.now += chance.choice([30, 200, 900, 5000])


def chat(client: Any, upstream: Upstream, clock: Any, seed: int) -> Iterator[None]:
    """A support bot: a system prompt that all share, a few turns, often none after the first."""
    chance = random.Random(seed)
    said: list[Any] = []
    for turn in range(chance.randint(1, 4)):
        said.append({"role": "user", "content": f"{chance.choice(ASKS)} ({seed}/{turn})"})
        upstream.scripts.append(scripted(chance, 0))
        reply = client.messages.create(model="auto", max_tokens=600, system=GUIDE * 300, messages=said)
        yield
        said.append({"role": "assistant", "content": reply.content[0].text})
        clock.now += chance.choice([20, 100, 400])


def gpt_chat(client: Any, upstream: Upstream, clock: Any, seed: int) -> Iterator[None]:
    chance = random.Random(seed)
    said: list[Any] = [{"role": "system", "content": GUIDE * 300}]
    for turn in range(4):
        said.append({"role": "user", "content": f"{chance.choice(ASKS)} ({seed}/{turn})"})
        upstream.scripts.append(scripted(chance, 0))
        if turn % 2:
            parts = client.chat.completions.create(model="auto", messages=said, stream=True)
            text = "".join(part.choices[0].delta.content or "" for part in parts)
        else:
            text = client.chat.completions.create(model="auto", messages=said).choices[0].message.content
        yield
        said.append({"role": "assistant", "content": text})
        clock.now += chance.choice([20, 100, 400, 2000])


def gpt_responses(client: Any, upstream: Upstream, clock: Any, seed: int) -> Iterator[None]:
    chance = random.Random(seed)
    tools = [{"type": "function", "name": "look", "description": "looks", "parameters": {"type": "object"}}]
    items: list[Any] = []
    for turn in range(3):
        items.append({"role": "user", "content": f"{chance.choice(ASKS)} ({seed}/{turn})"})
        for n_calls in (2, 0):
            calls = tuple(ToolCall("look", {"n": str(n)}) for n in range(n_calls))
            upstream.scripts.append(Reply("Looking.", calls))
            reply = client.responses.create(model="auto", instructions=GUIDE * 300, tools=tools, input=items)
            yield
            items += [item.model_dump(exclude_none=True) for item in reply.output]
            asked = [item for item in reply.output if item.type == "function_call"]
            items += [{"type": "function_call_output", "call_id": c.call_id, "output": "seen"} for c in asked]
            clock.now += chance.choice([20, 100, 400])


ANTHROPIC = [(claude_code, fleet, seed) for fleet in ("claude", "claude-latest") for seed in range(4)]
ANTHROPIC += [(chat, fleet, seed) for fleet in ("claude", "claude-latest") for seed in (10, 11)]
OPENAI = [
    (shape, fleet, seed) for shape in (gpt_chat, gpt_responses) for fleet in ("gpt", "gpt-latest") for seed in (0, 1)
]


@pytest.fixture
def routed(clock: Any, request: pytest.FixtureRequest) -> Router:
    return Router.load(config=Settings(), clock=clock, fleet=request.param)


def checked(session: Iterator[None], client: Any, upstream: Upstream, router: Router) -> list[Any]:
    """Run a session; after each reply the record is the bill, and nothing went below what the task needs."""
    records = []
    for _ in session:
        record, bill = client.last_record, upstream.bills[-1]
        assert record.cost_usd == bill.usd
        usage = record.usage
        assert (usage.fresh_tokens, usage.cache_read_tokens, usage.output_tokens) == (
            bill.fresh,
            bill.read,
            bill.output,
        )
        if record.reason is not Reason.HELD:
            needed = router.decide(plain(upstream.requests[-1])).tier
            assert list(Tier).index(record.tier) >= list(Tier).index(needed or Tier.COMPLEX)
        records.append(record)
    return records


def plain(value: Any) -> Any:
    """Without cache fields; a string of content is one text block."""
    if isinstance(value, Mapping):
        marks = ("cache_control", "prompt_cache_breakpoint")
        found = {k: plain(v) for k, v in value.items() if k not in marks}
        if isinstance(found.get("content"), str) and "role" in found:
            found["content"] = [{"type": "text", "text": found["content"]}]
        return found
    return [plain(item) for item in value] if isinstance(value, list) else value


def continues(earlier: Any, later: Any) -> bool:
    """Whether the cache of one prompt serves another: it begins with it, and neither or both show images."""
    shows = ["'type': 'image'" in str(body["messages"]) for body in (earlier, later)]
    return shows[0] == shows[1] and begins(earlier, later)


def begins(earlier: Any, later: Any) -> bool:
    """Whether a prompt begins with another, byte for byte but for cache fields."""
    return all(earlier.get(k) == later.get(k) for k in ("tools", "system")) and (
        later["messages"][: len(earlier["messages"])] == earlier["messages"]
    )


@pytest.mark.parametrize(
    ("shape", "routed", "seed"), ANTHROPIC, indirect=["routed"], ids=lambda v: getattr(v, "__name__", str(v))
)
def test_claude(shape: Any, routed: Router, seed: int, upstream: Upstream, clock: Any) -> None:
    times: list[float] = []
    with anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=0) as sdk:
        client = wrap(sdk, routed)

        def timed() -> Iterator[None]:
            for _ in shape(client, upstream, clock, seed):
                times.append(clock.now)
                yield

        checked(timed(), client, upstream, routed)
    bodies = [plain(body) for body in upstream.requests]
    assert all(begins(earlier, later) for earlier, later in pairwise(bodies))
    entries: list[tuple[str, int, int, float, int]] = []  # model, request, tokens up to its end, expiry, lifetime
    for number, (body, bill) in enumerate(zip(upstream.requests, upstream.bills, strict=True)):
        now = times[number]
        alive = [e for e in entries if e[0] == bill.model and e[3] > now and continues(bodies[e[1]], bodies[number])]
        deepest = max((e[2] for e in alive), default=0)
        assert bill.read >= deepest, f"request {number} read {bill.read} of {deepest} warm tokens"
        life_s = {"1h": 3600, "5m": 300}.get((body.get("cache_control") or {}).get("ttl", "5m"), 300)
        entries = [(m, r, t, now + life, life) if t == bill.read and m == bill.model else (m, r, t, end, life)
                   for m, r, t, end, life in entries]  # fmt: skip
        total = bill.fresh + bill.read + bill.write_short + bill.write_long
        if "cache_control" in body and (bill.write_short or bill.write_long):
            entries.append((bill.model, number, total, now + life_s, life_s))


@pytest.mark.parametrize(
    ("shape", "routed", "seed"), OPENAI, indirect=["routed"], ids=lambda v: getattr(v, "__name__", str(v))
)
def test_gpt(shape: Any, routed: Router, seed: int, upstream: Upstream, clock: Any) -> None:
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline", max_retries=0) as sdk:
        client = wrap(sdk, routed)
        records = checked(shape(client, upstream, clock, seed), client, upstream, routed)
    last: dict[str, float] = {}
    for record in records:
        at_s = record.at.timestamp()
        if at_s - last.get(record.model, 0.0) < 1800:
            assert record.usage.cache_read_tokens > 0
        last[record.model] = at_s
