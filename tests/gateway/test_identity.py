"""A Claude Code session with its billing block, new in each request, through the gateway: it costs no cache."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from router.offline import Upstream
from tests.gateway.conftest import Serve

RULES = "You are a coding agent in a terminal. Keep answers short. " * 900
FLEETS = ("claude", "claude-latest", "gpt", "gpt-latest", "gemini", "mixed")
MIXED = {"simple": "gpt-6-luna", "moderate": "gemini-4-argon", "complex": "claude-opus-4-7"}


def block(number: int) -> dict[str, Any]:
    text = f"x-anthropic-billing-header: cc_version=2.1.199.{number:03x}; cc_entrypoint=cli; cch={number * 7919:05x};"
    return {"type": "text", "text": text}


def session(url: str, tier: str, *, with_block: bool) -> None:
    """Six turns, as Claude Code asks them."""
    said: list[Any] = []
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        for number in range(6):
            said.append({"role": "user", "content": f"Rename helper number {number} and say what else changes."})
            rules = {"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}
            client.messages.create(
                model=tier,
                max_tokens=40,
                messages=said,
                system=[*([block(number)] if with_block else []), rules],
                extra_headers={"x-claude-code-session-id": f"session-{with_block}"},
            )
            said.append({"role": "assistant", "content": "Done."})


@pytest.mark.parametrize("tier", ["simple", "complex"])
@pytest.mark.parametrize("fleet", FLEETS)
def test_the_billing_block_costs_no_cache_on_any_provider(fleet: str, tier: str, serve: Serve, clock: Any) -> None:
    rates, keys, firsts = [], [], []
    for with_block in (False, True):
        with Upstream(clock=clock) as upstream:
            general = {"fleets": {"mixed": MIXED}, "fleet": fleet}
            running = serve(upstream.url, environ={"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "o"}, general=general)
            session(running.url, tier, with_block=with_block)
            bills, bodies = upstream.bills, upstream.requests
            read = sum(bill.read for bill in bills)
            rates.append(read / sum(b.fresh + b.read + b.write_short + b.write_long for b in bills))
            keys.append({body.get("prompt_cache_key") for body in bodies})
            firsts.append(
                [str(body.get("system") or body.get("messages") or body.get("input"))[:200] for body in bodies]
            )
            assert len({row["conversation"] for row in running.records(6)}) == 1
    assert rates[1] >= rates[0] - 0.005, rates
    assert rates[1] > 0.6
    assert all(len(each) == 1 for each in keys)
    own = bills[0].model.startswith("claude")
    assert all(("x-anthropic-billing-header" in first) is own for first in firsts[1])
    if own:
        assert all(block(number)["text"] in first for number, first in enumerate(firsts[1]))
