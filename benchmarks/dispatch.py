"""What does `wrap` add to an SDK call? JSON on stdout: microseconds, p50 and p99, warm, one thread.

    python benchmarks/dispatch.py [--rounds N]

Both clients are the real SDK's, over a transport in the same process that answers at once: no socket, so that the
difference is not lost in its noise. `plain` names a model, `wrapped` says "auto": it decides, plans, reads the
usage and accounts. Compare the two columns of one run, which are interleaved. `plan_record` is what of it the router
does, on a conversation of 100 turns and 200 KB: chat as text blocks and as strings, and the tool loop of an agent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai

from router import Api, Router, Usage, wrap

SYSTEM = "You answer questions about lighthouses, briefly and kindly, and never about anything else. "
ASK = "Compare the two lamps in the table and say which one needs less care in a salty climate, with a reason. "
ANTHROPIC_REPLY: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "The second one."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 900, "output_tokens": 5, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
}
OPENAI_REPLY: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "created": 0,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "The second one."}}],
    "usage": {"prompt_tokens": 900, "completion_tokens": 5, "total_tokens": 905},
}


def messages(n_turns: int) -> list[Any]:
    """A conversation of `n_turns` questions with an answer between each two."""
    turns = [{"role": "user", "content": ASK}]
    for _ in range(n_turns - 1):
        turns += [{"role": "assistant", "content": "The second one. " * 20}, {"role": "user", "content": ASK}]
    return turns


def percentiles(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """min, p50 and p99 in microseconds of each run, interleaved, and the difference of the medians of two."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 20):
        for name, run in runs.items():
            start = time.perf_counter_ns()
            run()
            if number >= 20:
                times[name].append((time.perf_counter_ns() - start) / 1000)
    row: dict[str, Any] = {
        name: {
            "min_us": round(min(t), 1),
            "p50_us": round(statistics.median(t), 1),
            "p99_us": round(statistics.quantiles(t, n=100)[98], 1),
        }
        for name, t in times.items()
    }
    if "wrapped" in row:
        row["added_p50_us"] = round(row["wrapped"]["p50_us"] - row["plain"]["p50_us"], 1)
    return row


def anthropic_runs(router: Router, n_turns: int, system: str) -> dict[str, Callable[[], object]]:
    """One Messages call through the plain and through the wrapped client."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=ANTHROPIC_REPLY))
    plain = anthropic.Anthropic(api_key="k", http_client=anthropic.DefaultHttpxClient(transport=transport))
    wrapped, turns = wrap(plain, router), messages(n_turns)
    return {
        "plain": lambda: plain.messages.create(model="claude-haiku-4-5", max_tokens=64, system=system, messages=turns),
        "wrapped": lambda: wrapped.messages.create(model="auto", max_tokens=64, system=system, messages=turns),
    }


def openai_runs(router: Router, n_turns: int, system: str) -> dict[str, Callable[[], object]]:
    """One Chat Completions call through the plain and through the wrapped client."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=OPENAI_REPLY))
    plain = openai.OpenAI(api_key="k", http_client=openai.DefaultHttpxClient(transport=transport))
    wrapped = wrap(plain, router)
    turns: list[Any] = [{"role": "system", "content": system}, *messages(n_turns)]
    return {
        "plain": lambda: plain.chat.completions.create(model="gpt-4o-mini", messages=turns),
        "wrapped": lambda: wrapped.chat.completions.create(model="auto", messages=turns),
    }


def router_runs(router: Router) -> dict[str, Callable[[], object]]:
    """plan and record alone, on conversations of 100 turns and 200 KB."""
    asks = [(ASK * 20)[:1000] + str(number) for number in range(100)]
    answers = [("The second one, because it is closed. " * 40)[:1000] + str(number) for number in range(100)]
    texts = [text for pair in zip(asks, answers, strict=True) for text in pair]
    roles = ["user", "assistant"] * 100
    strings = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
    blocks = [
        {"role": role, "content": [{"type": "text", "text": text}]} for role, text in zip(roles, texts, strict=True)
    ]
    loop: list[Any] = [{"role": "user", "content": ASK}]
    for number in range(100):
        use = {"type": "tool_use", "id": f"t{number}", "name": "read", "input": {"path": "src/lamps.py"}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": ("a line of a file\n" * 120)[:2000]}
        loop += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    ask = {"role": "user", "content": ASK}
    tools = [{"name": "read", "description": "Reads a file.", "input_schema": {"type": "object"}}]
    usage = Usage(fresh_tokens=100, cache_read_tokens=50_000, output_tokens=100)

    def run(turns: list[Any], **fields: Any) -> Callable[[], object]:
        body = {"model": "auto", "max_tokens": 64, "system": SYSTEM * 8, "messages": turns, **fields}
        return lambda: router.record(router.plan(body, Api.MESSAGES), usage)

    return {"blocks": run([*blocks, ask]), "strings": run([*strings, ask]), "tool_loop": run(loop, tools=tools)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="calls a cell (default 300)")
    rounds = parser.parse_args().rounds
    router = Router.load()
    report: dict[str, Any] = {}
    for size, n_turns, system in (("1 KB", 1, SYSTEM * 8), ("40 KB", 11, SYSTEM * 400)):
        report[size] = {
            "anthropic": percentiles(anthropic_runs(router, n_turns, system), rounds),
            "openai": percentiles(openai_runs(router, n_turns, system), rounds),
        }
    report["plan_record"] = percentiles(router_runs(router), rounds)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
