"""Six coding agents, as they talk, each for twenty turns through the gateway before the strict upstream.

The upstream refuses whatever the providers refuse, bills caches by their rules, and answers from a script: read a few
files, now and then two at once, thinking first, then say so. Held here: one conversation each, its turns held where it
began, caches read as far as a cache can be, and records that equal the upstream's bill.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from router import Tier
from router.offline import Upstream
from router.offline.replies import Reply, ToolCall
from tests.gateway.conftest import Running, Serve

TURNS = 20
FLEET = {Tier.SIMPLE: "gpt-6-luna", Tier.MODERATE: "gemini-4-argon", Tier.COMPLEX: "claude-opus-5-5"}
RULES = "You work in a terminal on the user's own files. Keep to what was asked, and say what you have done. " * 250
TASK = "Find out why the nightly import drops the last row of each file, and mend it."
FILE = (
    "def read_rows(path):\n    rows = path.read_text().split('\\n')\n    return rows[:-1]  # the last line is empty\n"
    * 12
)
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
CALLS = ("tool_use", "tool_calls", "function_call")


def scripted(body: dict[str, Any], _: str) -> Reply:
    """What the model says, by how far the loop has come. Agents without tools are told in text to go on."""
    given = body.get("messages") or body["input"]
    n = sum(turn.get("role") == "assistant" or turn.get("type") == "function_call" for turn in given)
    if not body.get("tools"):
        return Reply(f"<thinking>File {n} next.</thinking>\n<read_file>\n<path>src/part_{n}.py</path>\n</read_file>")
    paths = [f"src/part_{n}.py", *([f"tests/test_part_{n}.py"] if n % 3 == 0 else [])]
    return Reply(thinking=f"File {n} next.", tool_calls=tuple(ToolCall("read_file", {"path": path}) for path in paths))


def claude_code(url: str, model: str) -> None:
    """Messages over the SDK's stream; a billing block that changes each time, adaptive thinking, edits of context."""
    turns: list[Any] = [{"role": "user", "content": [{"type": "text", "text": TASK}]}]
    mark = {"type": "ephemeral"}
    headers = {"x-claude-code-session-id": "5b1f3f0e", "anthropic-beta": "context-management-2025-06-27"}
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0, default_headers=headers) as client:
        for n in range(TURNS):
            billing = f"x-anthropic-billing-header: cc_version=2.1.199.{n:03x}; cc_entrypoint=cli; cch={n * 7919:05x};"
            system: Any = [{"type": "text", "text": billing}, {"type": "text", "text": RULES, "cache_control": mark}]
            tool: Any = {"name": "read_file", "description": "Reads a file.", "input_schema": SCHEMA}
            last = [*turns[-1]["content"][:-1], {**turns[-1]["content"][-1], "cache_control": mark}]
            with client.messages.stream(
                model=model,
                max_tokens=32_000,
                system=system,
                tools=[tool],
                messages=[*turns[:-1], {**turns[-1], "content": last}],
                thinking={"type": "adaptive"},
                metadata={"user_id": f"user_{'a' * 64}_account__session_5b1f3f0e"},
                extra_body={"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
            ) as stream:
                content = [block.to_dict(mode="json") for block in stream.get_final_message().content]
            calls = [block["id"] for block in content if block["type"] == "tool_use"]
            results = [{"type": "tool_result", "tool_use_id": each, "content": FILE} for each in calls]
            turns += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]


def cline(url: str, model: str) -> None:
    """Chat Completions over the SDK's stream, without tools: calls are tags in the text, results come as the user's."""
    turns: list[Any] = [{"role": "system", "content": RULES}, {"role": "user", "content": f"<task>\n{TASK}\n</task>"}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        for n in range(TURNS):
            stream = client.chat.completions.create(
                model=model, messages=turns, stream=True, stream_options={"include_usage": True}
            )
            said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
            result = f"[read_file for 'src/part_{n}.py'] Result:\n{FILE}"
            turns += [
                {"role": "assistant", "content": said},
                {"role": "user", "content": [{"type": "text", "text": result}]},
            ]


def codex(url: str, model: str) -> None:
    """Responses over the SDK's stream: nothing stored, reasoning encrypted, output items sent back as they came."""
    items: list[Any] = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": TASK}]}]
    tool: Any = {"type": "function", "name": "read_file", "strict": False, "parameters": SCHEMA}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        for _ in range(TURNS):
            done: list[Any] = []
            for event in client.responses.create(
                model=model,
                instructions=RULES,
                input=items,
                tools=[tool],
                tool_choice="auto",
                parallel_tool_calls=True,
                store=False,
                stream=True,
                include=["reasoning.encrypted_content"],
                prompt_cache_key="019a-codex",
            ):
                if event.type == "response.output_item.done":
                    done.append(event.item.to_dict(mode="json"))
            items += done
            calls = [item["call_id"] for item in done if item["type"] == "function_call"]
            items += [{"type": "function_call_output", "call_id": each, "output": FILE} for each in calls]


FUNCTION: Any = {"type": "function", "function": {"name": "read_file", "parameters": SCHEMA}}


def opencode(url: str, model: str) -> None:
    """Chat Completions in a stream with tools; of the calls it keeps id, name and arguments alone."""
    turns: list[Any] = [{"role": "system", "content": RULES}, {"role": "user", "content": TASK}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        for _ in range(TURNS):
            calls: dict[int, Any] = {}
            stream = client.chat.completions.create(
                model=model, messages=turns, tools=[FUNCTION], tool_choice="auto", stream=True, max_tokens=32_000
            )
            for chunk in stream:
                for piece in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
                    number = piece.index if piece.index is not None else len(calls)
                    call = calls.setdefault(number, {"id": piece.id, "name": "", "arguments": ""})
                    call["name"] += (piece.function and piece.function.name) or ""
                    call["arguments"] += (piece.function and piece.function.arguments) or ""
            turns += called(list(calls.values()))


def langchain(url: str, model: str) -> None:
    """Chat Completions without a stream; messages rebuilt from its own classes, arguments parsed and written anew."""
    turns: list[Any] = [{"role": "system", "content": RULES}, {"role": "user", "content": TASK}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        for _ in range(TURNS):
            reply = client.chat.completions.create(model=model, messages=turns, tools=[FUNCTION])
            calls: Any = reply.choices[0].message.tool_calls or ()
            parsed = [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls]
            turns += called([{"id": i, "name": name, "arguments": json.dumps(given)} for i, name, given in parsed])


def called(calls: list[Any]) -> list[Any]:
    """The assistant's turn and the tools' answers, as the plain Chat Completions format has them."""
    functions = [
        {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls
    ]
    results = [{"role": "tool", "tool_call_id": c["id"], "content": FILE} for c in calls]
    return [{"role": "assistant", "content": "", "tool_calls": functions}, *results]


def aider(url: str, model: str) -> None:
    """Chat Completions in a stream, no tools: the files are in the chat, and each turn the user asks for more."""
    turns: list[Any] = [{"role": "system", "content": RULES}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        for n in range(TURNS):
            turns.append({"role": "user", "content": f"{TASK}\n\nsrc/part_{n}.py\n```\n{FILE}```"})
            stream = client.chat.completions.create(model=model, messages=turns, stream=True, temperature=0)
            turns.append(
                {"role": "assistant", "content": "".join(c.choices[0].delta.content or "" for c in stream if c.choices)}
            )


AGENTS: dict[str, Callable[[str, str], None]] = {
    "Claude Code": claude_code,
    "Cline": cline,
    "Codex CLI": codex,
    "opencode": opencode,
    "LangChain ReAct": langchain,
    "aider": aider,
}
IN_TEXT = ("Cline", "aider")  # without tools of the format's own


@pytest.fixture
def mixed(serve: Serve, upstream: Upstream) -> Running:
    upstream.reply = scripted
    return serve(upstream.url, general={"fleets": {"mixed": FLEET}, "fleet": "mixed"})


def ran(agent: str, tier: Tier, mixed: Running) -> list[dict[str, Any]]:
    """The records of an agent's session."""
    AGENTS[agent](mixed.url, tier)
    return mixed.records(TURNS)


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize("agent", list(AGENTS))
def test_twenty_turns_are_billed_as_recorded_and_read_from_cache(
    agent: str, tier: Tier, mixed: Running, upstream: Upstream
) -> None:
    records, bills = ran(agent, tier, mixed), upstream.bills
    assert len(records) == len(bills) == TURNS
    assert {record["model"] for record in records} == {FLEET[tier]}
    names = (
        "fresh_tokens",
        "cache_read_tokens",
        "cache_write_short_tokens",
        "cache_write_long_tokens",
        "output_tokens",
    )
    recorded = [tuple(record[name] for name in names) for record in records]
    assert recorded == [(b.fresh, b.read, b.write_short, b.write_long, b.output) for b in bills]
    cost = sum(int(record["cost_picousd"]) for record in records) / Decimal(10**12)
    assert cost == sum(bill.usd for bill in bills)
    if not (agent == "Claude Code" and tier is not Tier.COMPLEX):  # see below
        assert hit_rate(upstream) > possible_hit_rate(upstream) - 0.05


def hit_rate(upstream: Upstream) -> float:
    return sum(bill.read for bill in upstream.bills) / sum(_prompt(bill) for bill in upstream.bills)


def possible_hit_rate(upstream: Upstream) -> float:
    """Of a cache that holds each prompt for the next one."""
    prompts = [_prompt(bill) for bill in upstream.bills]
    return sum(prompts[:-1]) / sum(prompts)


def _prompt(bill: Any) -> int:
    return int(bill.fresh + bill.read + bill.write_short + bill.write_long)


EFFORTS = {
    "Claude Code": ("claude-opus-5-5", "low", "output_config"),
    "Codex CLI": ("gpt-6.1-sol", "low", "reasoning"),
    "opencode": ("gpt-6.1-sol", "low", "reasoning"),
}


@pytest.mark.parametrize("agent", list(EFFORTS))
def test_a_tier_that_is_an_effort_is_held_billed_and_cached(agent: str, serve: Serve, upstream: Upstream) -> None:
    model, effort, field = EFFORTS[agent]
    upstream.reply = scripted
    fleet = {Tier.MODERATE: {"model": model, "effort": effort}, Tier.COMPLEX: {"model": model, "effort": "high"}}
    running = serve(upstream.url, general={"fleets": {"mine": fleet}, "fleet": "mine"})
    records, bills = ran(agent, Tier.MODERATE, running), upstream.bills
    assert {(r["model"], r["tier"], json.loads(r["modifiers"])["effort"]) for r in records} == {
        (model, "moderate", effort)
    }
    assert {sent[field]["effort"] for sent in upstream.requests} == {effort}
    assert len({record["conversation"] for record in records}) == 1
    assert sum(int(r["cost_picousd"]) for r in records) / Decimal(10**12) == sum(bill.usd for bill in bills)
    assert hit_rate(upstream) > possible_hit_rate(upstream) - 0.05


@pytest.mark.parametrize("agent", list(AGENTS))
def test_a_session_is_one_conversation(agent: str, mixed: Running) -> None:
    assert len({record["conversation"] for record in ran(agent, Tier.MODERATE, mixed)}) == 1


@pytest.mark.parametrize(
    "agent",
    ["Claude Code", "Cline",
     "Codex CLI", "opencode", "LangChain ReAct"],
)  # fmt: skip
def test_a_loop_is_held_where_it_began(agent: str, mixed: Running) -> None:
    assert {record["reason"] for record in ran(agent, Tier.MODERATE, mixed)[1:]} == {"held"}


@pytest.mark.parametrize("tier", [Tier.SIMPLE, Tier.MODERATE])
def test_a_block_that_changes_each_time_costs_no_cache(tier: Tier, mixed: Running, upstream: Upstream) -> None:
    ran("Claude Code", tier, mixed)
    assert hit_rate(upstream) > possible_hit_rate(upstream) - 0.05
