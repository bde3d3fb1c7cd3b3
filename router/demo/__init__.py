"""`tierwise demo`: a support bot's day through the real dispatcher and the real SDKs, priced against three baselines.

The bot (a 5,000-token system prompt, 10,000 calls a day) is invented; its 120 customer messages carry the tier that
they need, and the classifier was never trained on them. Offline, replies are simulated by router.offline.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from router.accounts.ledger import Ledger
from router.engine import AUTO, Router
from router.errors import ClientError
from router.offline import Bill, Upstream
from router.send.wrap import wrap
from router.types import Record, Tier

CALLS_A_DAY = 10_000
BUSY_HOUR, QUIET_HOUR = 14, 3
LIVE_CALLS = 10
_FOLDER = Path(__file__).parent

Progress = Callable[[str, Iterable["CustomerMessage"]], Iterable["CustomerMessage"]]


@dataclass(frozen=True)
class CustomerMessage:
    """One customer message: seconds since midnight, text, and the tier that it needs."""

    at_s: float
    text: str
    required: Tier


class _Clock:
    """The clock that router and upstream share, so that a day's gaps and cache lifetimes pass in seconds."""

    def __init__(self) -> None:
        self.midnight = time.time()
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.midnight + self.at_s


def workload(n_calls: int) -> list[CustomerMessage]:
    """Two unbroken stretches of the day, so that gaps are real: two thirds from 14:00 on, one third from 03:00 on."""
    messages = [json.loads(line) for line in (_FOLDER / "messages.jsonl").read_text("utf-8").splitlines()]
    chance = random.Random(7)
    calls: list[CustomerMessage] = []
    for hour, share in ((QUIET_HOUR, 1 / 3), (BUSY_HOUR, 2 / 3)):
        at_s = hour * 3600.0
        for _ in range(max(round(n_calls * share), 1)):
            at_s += chance.expovariate(_calls_per_s(at_s))
            message = chance.choice(messages)
            calls.append(CustomerMessage(at_s, message["text"], Tier(message["tier"])))
    return calls


@cache
def system_prompt() -> str:
    """The bot's system prompt, about 5,000 tokens."""
    return (_FOLDER / "system_prompt.md").read_text("utf-8")


def offline(router: Router, n_calls: int, progress: Progress) -> dict[str, Any]:
    """Send the sample through the wrapped SDKs and through plain SDK clients for the baselines; a report as a dict."""
    import anthropic
    import openai

    clock = _Clock()
    calls = workload(n_calls)
    with Upstream(clock=clock) as upstream, Ledger() as store:
        claude = router.with_fleet("claude", store=store, clock=clock)
        with anthropic.Anthropic(base_url=upstream.url, api_key="offline", max_retries=0) as plain:
            routed = wrap(plain, claude)
            records = [_ask_claude(routed, clock, call) for call in progress("routed", calls)]
            routed_bills = _drain(upstream)
            baselines = {
                name: _baseline(plain, upstream, clock, model, ttl, progress(name, calls))
                for name, model, ttl in (
                    ("all Sonnet, uncached", "claude-sonnet-4-6", None),
                    ("all Sonnet, cached 5m", "claude-sonnet-4-6", "5m"),
                    ("all Opus, cached 5m", "claude-opus-4-7", "5m"),
                    ("all Opus, cached 1h", "claude-opus-4-7", "1h"),
                )
            }
        with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline", max_retries=0) as plain_openai:
            gpt = wrap(plain_openai, router.with_fleet("gpt", clock=clock))
            openai_calls = calls[-max(n_calls // 4, 1) :]
            openai_records = [_ask_gpt(gpt, clock, call) for call in progress("routed, OpenAI SDK", openai_calls)]
            openai_bills = _drain(upstream)
        by_model = store.by_model()
    return {
        "simulated": True,
        "n_calls": len(calls),
        "operating_point": router.operating_point,
        "by_model": by_model,
        "routed": _routed_summary(calls, records, routed_bills),
        "baselines_usd": baselines,
        "openai": _routed_summary(openai_calls, openai_records, openai_bills),
    }


def live(router: Router, progress: Progress) -> dict[str, Any]:
    """Send a few calls to the real provider whose key is set. Raises ClientError when none is."""
    calls = workload(LIVE_CALLS)
    clock = _Clock()
    if os.environ.get("ANTHROPIC_API_KEY"):
        import anthropic

        client: Any = wrap(anthropic.Anthropic(), router)
        records = [_ask_claude(client, clock, call) for call in progress("live, Anthropic", calls)]
    elif os.environ.get("OPENAI_API_KEY"):
        import openai

        client = wrap(openai.OpenAI(), router)
        records = [_ask_gpt(client, clock, call) for call in progress("live, OpenAI", calls)]
    else:
        raise ClientError("--live needs ANTHROPIC_API_KEY or OPENAI_API_KEY in the environment; neither is set")
    return {"simulated": False, "n_calls": len(calls), "routed": _routed_summary(calls, records, [])}


def _ask_claude(client: Any, clock: _Clock, call: CustomerMessage) -> Record:
    clock.at_s = call.at_s
    messages = [{"role": "user", "content": call.text}]
    client.messages.create(model=AUTO, max_tokens=512, system=system_prompt(), messages=messages)
    record: Record = client.last_record
    return record


def _ask_gpt(client: Any, clock: _Clock, call: CustomerMessage) -> Record:
    clock.at_s = call.at_s
    messages = [{"role": "system", "content": system_prompt()}, {"role": "user", "content": call.text}]
    client.chat.completions.create(model=AUTO, max_completion_tokens=512, messages=messages)
    record: Record = client.last_record
    return record


def _baseline(
    client: Any, upstream: Upstream, clock: _Clock, model: str, ttl: str | None, calls: Iterable[CustomerMessage]
) -> Decimal:
    """What the upstream bills when every call goes to one model, through the plain SDK."""
    block: dict[str, Any] = {"type": "text", "text": system_prompt()}
    if ttl is not None:
        block["cache_control"] = {"type": "ephemeral", "ttl": ttl}
    for call in calls:
        clock.at_s = call.at_s
        messages = [{"role": "user", "content": call.text}]
        client.messages.create(model=model, max_tokens=512, system=[block], messages=messages)
    return sum((bill.usd for bill in _drain(upstream)), Decimal(0))


def _drain(upstream: Upstream) -> list[Bill]:
    """The bills since the last time; the next run starts with cold caches."""
    bills = list(upstream.bills)
    upstream.bills.clear()
    upstream.forget()
    return bills


def _routed_summary(calls: list[CustomerMessage], records: list[Record], bills: list[Bill]) -> dict[str, Any]:
    sent = [r.tier.rank - c.required.rank for r, c in zip(records, calls, strict=True) if r.tier]
    usages = [record.usage for record in records]
    read, total = sum(u.cache_read_tokens for u in usages), sum(u.input_tokens for u in usages)
    cost = sum((r.cost_usd or Decimal(0) for r in records), Decimal(0))
    billed = sum((bill.usd for bill in bills), Decimal(0)) if bills else None
    return {
        "n_calls": len(records),
        "cost_usd": cost,
        "billed_by_upstream_usd": billed,
        "records_match_bill": None if billed is None else billed == cost,
        "cache_read_share": read / total if total else 0.0,
        "below_required_share": sum(d < 0 for d in sent) / len(records),
        "above_required_share": sum(d > 0 for d in sent) / len(records),
        "saved_by_records_usd": sum((r.saved_usd or Decimal(0) for r in records), Decimal(0)),
        "n_by_tier": {tier.value: sum(r.tier is tier for r in records) for tier in Tier},
    }


def _calls_per_s(at_s: float) -> float:
    """10,000 a day on average; at 15:00 1.9 times that, at 03:00 a tenth."""
    return CALLS_A_DAY / 86400 * (1 + 0.9 * math.cos((at_s / 3600 - 15) / 24 * 2 * math.pi))
