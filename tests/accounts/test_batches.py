"""A batch's results through both SDKs: each row's record is the upstream's bill, at half the price."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types.messages import MessageBatchIndividualResponse

from router import Api, Router, Usage
from router.accounts.baseline import cost
from router.catalog import day
from router.formats import usage
from router.offline import Reply, Upstream
from router.types import Plan

SYSTEM = "You answer questions about lighthouses, briefly and kindly, and never about anything else. " * 300
ASKS = ("hi", "Prove that sqrt(2) is irrational", "Translate 'good morning' into Dutch")


def planned(router: Router, api: Api) -> dict[str, Plan]:
    """A plan for each ask, by custom_id."""
    plans = {}
    for number, ask in enumerate(ASKS):
        body: dict[str, Any] = {
            Api.MESSAGES: {"max_tokens": 64, "system": SYSTEM, "messages": [{"role": "user", "content": ask}]},
            Api.CHAT: {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ask}]},
            Api.RESPONSES: {"instructions": SYSTEM, "input": ask},
        }[api]
        plans[f"row{number}"] = router.plan({"model": "auto", **body}, api)
    return plans


def results(upstream: Upstream, plans: dict[str, Plan], api: Api) -> list[Any]:
    """Send the plans as a batch through the SDK; its rows as they come."""
    if api is Api.MESSAGES:
        with anthropic.Anthropic(base_url=upstream.url, api_key="offline") as claude:
            requests: Any = [{"custom_id": name, "params": plan.body} for name, plan in plans.items()]
            batch = claude.messages.batches.create(requests=requests)
            claude.messages.batches.retrieve(batch.id)
            return list(claude.messages.batches.results(batch.id))
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="offline") as gpt:
        url: Any = f"/v1{api.value}"
        lines = [{"custom_id": n, "method": "POST", "url": url, "body": p.body} for n, p in plans.items()]
        file = gpt.files.create(file=("rows.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
        begun = gpt.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h")
        ended = gpt.batches.retrieve(begun.id)
        files = [name for name in (ended.output_file_id, ended.error_file_id) if name]
        return [json.loads(line) for name in files for line in gpt.files.content(name).text.splitlines()]


@pytest.mark.parametrize("fleet", ["default", "latest"])
@pytest.mark.parametrize("api", Api)
def test_each_record_is_the_bill(upstream: Upstream, router: Router, api: Api, fleet: str) -> None:
    name = "claude" if api is Api.MESSAGES else "gpt"
    router = router.with_fleet(f"{name}-latest" if fleet == "latest" else name)
    plans = planned(router, api)
    rows = results(upstream, plans, api)
    assert len(upstream.bills) == len(rows) == len(ASKS)
    for bill, row in zip(upstream.bills, rows, strict=True):
        plan = plans[row.custom_id if api is Api.MESSAGES else row["custom_id"]]
        assert bill.is_batch
        assert bill.model == plan.decision.model
        found = usage.read_batch_usage(row)
        assert (found.fresh_tokens, found.cache_read_tokens, found.output_tokens) == (
            bill.fresh,
            bill.read,
            bill.output,
        )
        if isinstance(row, MessageBatchIndividualResponse):
            assert usage.read_batch_usage(row.to_dict()) == found
        record = router.record(plan, found)
        assert record.cost_usd == bill.usd > 0
        assert "batch: half the price" in record.notes


@pytest.mark.parametrize("api", Api)
def test_rows_that_fail_cost_nothing(upstream: Upstream, router: Router, api: Api) -> None:
    router = router.with_fleet("claude" if api is Api.MESSAGES else "gpt")
    plans = planned(router, api)
    upstream.batch_errors = set(plans)
    for row in results(upstream, plans, api):
        assert usage.read_batch_usage(row) == Usage(is_batch=True)
        assert router.record(plans["row0"], usage.read_batch_usage(row)).cost_usd == 0
    assert upstream.bills == []


def test_a_row_without_usage_is_unknown_or_estimated_at_half_the_price(upstream: Upstream, router: Router) -> None:
    router = router.with_fleet("gpt")
    plans = planned(router, Api.CHAT)
    upstream.scripts += [Reply("It is the tallest. " * 40, has_usage=False)] * len(plans)
    for row, bill in zip(results(upstream, plans, Api.CHAT), upstream.bills, strict=True):
        found = usage.read_batch_usage(row)
        assert found == Usage(reported=False, is_batch=True)
        plan, body = plans[row["custom_id"]], row["response"]["body"]
        assert router.record(plan, found).cost_usd is None
        guessed = router.record(plan, found, reply_chars=usage.n_chars(body)).cost_usd
        assert guessed is not None
        seen = Usage(fresh_tokens=bill.fresh + bill.read + bill.write_short, output_tokens=bill.output, is_batch=True)
        uncached = cost(seen, router.catalog.find(bill.model), day(plan.planned_at))
        assert float(guessed) == pytest.approx(float(uncached or 0), rel=0.3)
