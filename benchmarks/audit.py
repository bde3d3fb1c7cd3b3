"""How near `tierwise audit` comes to what the same calls do cost; prints JSON.

    python benchmarks/audit.py [--calls 2000] [--trace traffic.parquet]

A bot's calls are sent to the embedded upstream without caching, and audited; then the same calls are sent with caching
alone, routing alone and both, and the audit is compared with the upstream's bills. With --trace, a trace is logged as a
client would that caches for five minutes or an hour, and both levers are compared with what the replay of the trace
itself costs, every turn needing the same tier in both.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic

from router.accounts.bill import cost
from router.audit import sources
from router.audit.audit import audit
from router.audit.calls import Call
from router.audit.levers import group
from router.catalog import Fleet, shipped
from router.demo import system_prompt, workload
from router.engine import Router
from router.offline import Upstream
from router.send.wrap import wrap
from router.settings import Settings
from router.simulate import replay
from router.simulate.trace import draw, read_trace
from router.types import Tier, Ttl, Usage

TOP = shipped().models["claude-opus-4-7"]
TODAY = dt.datetime.now(dt.UTC).date()


class Clock:
    """The time, which the workload drives."""

    now = dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0).timestamp()

    def __call__(self) -> float:
        return self.now


def bots_day(n_calls: int) -> dict[str, float]:
    """The audit's USD over the upstream's, less one, by lever."""
    clock, calls = Clock(), workload(n_calls)
    midnight, billed = clock.now, {}
    router = Router.load(config=Settings(), clock=clock)
    alone = Router(router.policy.champion, router.catalog, Fleet("alone", {Tier.COMPLEX: TOP}), clock=clock)
    with Upstream(clock=clock) as upstream, anthropic.Anthropic(base_url=upstream.url, api_key="k") as plain:

        def send(lever: str, client: Any, model: Callable[[str], str]) -> list[dict[str, Any]]:
            rows = []
            for call in calls:
                clock.now = midnight + call.at_s
                body: dict[str, Any] = {"model": model(call.text), "max_tokens": 512, "system": system_prompt()}
                body["messages"] = [{"role": "user", "content": call.text}]
                usage = client.messages.create(**body).usage
                rows.append({"at": clock.now, "body": body, "usage": usage.model_dump()})
            used = [(shipped().find(b.model), Usage(b.fresh, b.read, b.write_short, b.write_long, b.output))
                    for b in upstream.bills]  # fmt: skip
            billed[lever] = sum(float(cost(usage, model, TODAY) or 0) for model, usage in used)
            upstream.bills.clear()
            upstream.forget()
            return rows

        logged = send("uncached", plain, lambda _: TOP.id)
        send("caching", wrap(plain, alone), lambda _: "auto")
        send("routing", plain, lambda text: router.decide(text).model)
        send("together", wrap(plain, router), lambda _: "auto")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bot.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in logged))
        found = audit(sources.read_logs([path]), router, today=TODAY)
    return {lever: found.levers[lever].usd / usd - 1 for lever, usd in billed.items()}


def sessions(path: Path) -> dict[str, dict[str, float]]:
    """The audit's USD over the replay's with both levers, and the log's own bill replayed over itself, less one."""
    trace = read_trace(path)
    needed = draw(trace, (70, 20, 10), "turn", 0)
    truly = replay.ours(trace, Router.load(config=Settings()), needed, "turn", (1.0,) * 3, range(len(trace))).usd.sum()
    found = {}
    for name, ttl in (("logged with 5 minutes", Ttl.SHORT), ("logged with 1 hour", Ttl.LONG)):
        cache = replay._Cache(trace, 1, (1.0,))
        calls = [
            Call(
                1.795e9 + float(trace.at_s[i]),
                TOP.id,
                cache.use(i, 0, TOP, ttl, ttl, float(trace.at_s[i])),
                str(trace.conversations[i]),
                "client",
                None if trace.new_turn is None else bool(trace.new_turn[i]),
            )
            for i in range(len(trace))
        ]
        tiers = [list(Tier)[number] for number in needed]
        router = Router.load(config=Settings())
        made = group(TOP, calls, router, tiers, today=TODAY, effort_output=1.0, progress=lambda _, items: iter(items))
        found[name] = {
            "together": float(made.costs["together"].sum() / truly - 1),
            "own bill": float(made.costs["replayed"].sum() / made.usd.sum() - 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--trace", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"bots_day": {"n_calls": arguments.calls, **bots_day(arguments.calls)}}
    if arguments.trace is not None:
        found["sessions"] = sessions(arguments.trace)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
