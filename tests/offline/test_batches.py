"""Batches of both providers through their SDKs: half the price, on the upstream's clock, rows that fail."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from router.offline import Reply, Upstream

SONNET, LUNA = "claude-sonnet-4-6", "gpt-6-luna"


def params(text: str, **more: Any) -> Any:
    return {"model": SONNET, "max_tokens": 50, "messages": [{"role": "user", "content": text}]} | more


def row(name: str, text: str, url: str = "/v1/chat/completions", **more: Any) -> dict[str, Any]:
    field = "input" if url == "/v1/responses" else "messages"
    prompt = text if field == "input" else [{"role": "user", "content": text}]
    return {"custom_id": name, "method": "POST", "url": url, "body": {"model": LUNA, field: prompt} | more}


def upload(client: openai.OpenAI, rows: list[dict[str, Any]]) -> Any:
    content = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()
    return client.files.create(file=("rows.jsonl", content), purpose="batch")


def start(client: openai.OpenAI, rows: list[dict[str, Any]], endpoint: Any = "/v1/chat/completions") -> Any:
    file = upload(client, rows)
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"a": "b"})


def lines(client: openai.OpenAI, file_id: str | None) -> list[Any]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


class TestAnthropic:
    def test_from_creation_to_results(self, claude: anthropic.Anthropic, upstream: Upstream, clock: Any) -> None:
        upstream.batch_delay_s, upstream.reply = 600, lambda body, _: body["messages"][0]["content"].upper()
        batch = claude.messages.batches.create(
            requests=[{"custom_id": f"r{n}", "params": params(f"word {n}")} for n in range(3)]
        )
        clock.now += 599
        early = claude.messages.batches.retrieve(batch.id)
        assert (early.processing_status, early.request_counts.processing, early.results_url) == ("in_progress", 3, None)
        assert upstream.bills == []
        clock.now += 1
        ended = claude.messages.batches.retrieve(batch.id)
        assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 3)
        results = {r.custom_id: r.result for r in claude.messages.batches.results(batch.id)}
        texts = {name: result.message.content[0].text for name, result in results.items()}  # type: ignore[union-attr]
        assert texts == {"r0": "WORD 0", "r1": "WORD 1", "r2": "WORD 2"}
        assert results["r0"].message.usage.service_tier == "batch"  # type: ignore[union-attr]
        assert len(upstream.bills) == 3  # looking twice bills once

    def test_half_the_price(self, claude: anthropic.Anthropic, upstream: Upstream) -> None:
        upstream.reply = lambda *_: "fine"
        claude.messages.create(**params("hi"))
        batch = claude.messages.batches.create(requests=[{"custom_id": "a", "params": params("hi")}])
        claude.messages.batches.retrieve(batch.id)
        whole, half = upstream.bills
        assert (half.is_batch, half.fresh, half.output) == (True, whole.fresh, whole.output)
        assert half.usd * 2 == whole.usd > 0
        assert half.request_id not in ("", whole.request_id)

    def test_rows_fail_each_for_itself_and_come_out_of_order(
        self, claude: anthropic.Anthropic, upstream: Upstream
    ) -> None:
        upstream.batch_errors, upstream.is_batch_out_of_order = {"lost"}, True
        rows: Any = [
            {"custom_id": "good", "params": params("hi")},
            {"custom_id": "bad", "params": params("hi", temperature=3, model="claude-none")},
            {"custom_id": "streamed", "params": params("hi", stream=True)},
            {"custom_id": "lost", "params": params("hi")},
        ]
        batch = claude.messages.batches.create(requests=rows)
        ended = claude.messages.batches.retrieve(batch.id)
        assert (ended.request_counts.succeeded, ended.request_counts.errored) == (1, 3)
        results = list(claude.messages.batches.results(batch.id))
        assert [r.custom_id for r in results] == ["lost", "streamed", "bad", "good"]
        kinds = [r.result.error.error.type for r in results if r.result.type == "errored"]
        assert kinds == ["api_error", "invalid_request_error", "not_found_error"]
        assert len(upstream.bills) == 1

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "at least 1 item"),
            ([{"custom_id": "a b", "params": {}}], "requests.0.custom_id: String should match pattern"),
            ([{"custom_id": "a", "params": {}}] * 2, "requests.1.custom_id: must be unique"),
        ],
    )
    def test_rejected(self, claude: anthropic.Anthropic, rows: Any, message: str) -> None:
        with pytest.raises(anthropic.BadRequestError, match=message):
            claude.messages.batches.create(requests=rows)

    def test_unknown(self, claude: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.NotFoundError, match="msgbatch_none"):
            claude.messages.batches.retrieve("msgbatch_none")


class TestOpenAI:
    @pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
    def test_from_upload_to_results(self, gpt: openai.OpenAI, upstream: Upstream, clock: Any, endpoint: str) -> None:
        upstream.batch_delay_s, upstream.reply = 600, lambda *_: Reply("Blåbær")
        batch = start(gpt, [row(f"r{n}", f"ærlig --talt {n}", endpoint) for n in range(3)], endpoint)
        assert (batch.status, batch.metadata) == ("in_progress", {"a": "b"})
        clock.now += 599
        assert gpt.batches.retrieve(batch.id).output_file_id is None
        clock.now += 1
        done = gpt.batches.retrieve(batch.id)
        assert (done.status, done.error_file_id, done.request_counts.completed) == ("completed", None, 3)
        found = lines(gpt, done.output_file_id)
        assert [r["custom_id"] for r in found] == ["r0", "r1", "r2"]
        assert all(r["response"]["status_code"] == 200 and "Blåbær" in str(r["response"]["body"]) for r in found)
        sent = upstream.files[batch.input_file_id].content.decode()
        assert "ærlig --talt 2" in sent
        assert gpt.batches.retrieve(batch.id).output_file_id == done.output_file_id
        assert len(upstream.bills) == 3

    def test_half_the_price(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.reply = lambda *_: "fine"
        gpt.chat.completions.create(model=LUNA, messages=[{"role": "user", "content": "hi"}])
        gpt.batches.retrieve(start(gpt, [row("a", "hi")]).id)
        whole, half = upstream.bills
        assert half.usd * 2 == whole.usd > 0

    def test_failed_rows_have_a_file_of_their_own(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        upstream.batch_errors, upstream.is_batch_out_of_order = {"lost"}, True
        rows = [row("a", "hi"), row("bad", "hi", max_tokens=5), row("lost", "hi"), row("b", "hi")]
        done = gpt.batches.retrieve(start(gpt, rows).id)
        assert (done.request_counts.completed, done.request_counts.failed) == (2, 2)
        assert [r["custom_id"] for r in lines(gpt, done.output_file_id)] == ["b", "a"]
        failed = {r["custom_id"]: r["response"] for r in lines(gpt, done.error_file_id)}
        assert {name: response["status_code"] for name, response in failed.items()} == {"bad": 400, "lost": 500}
        assert failed["bad"]["body"]["error"]["code"] == "unsupported_parameter"

    def test_a_file_that_cannot_be_read_fails_the_batch(self, gpt: openai.OpenAI, upstream: Upstream) -> None:
        rows = [row("a", "hi"), row("a", "hi"), row("b", "hi", "/v1/responses"), {"custom_id": "c"}]
        batch = gpt.batches.retrieve(start(gpt, rows).id)
        assert batch.status == "failed"
        assert [(e.line, e.code) for e in batch.errors.data] == [
            (2, "duplicate_custom_id"), (3, "mismatched_endpoint"), (4, "invalid_json_line")]  # fmt: skip
        assert upstream.bills == []

    def test_files(self, gpt: openai.OpenAI) -> None:
        file = upload(gpt, [row("a", "hi")])
        assert (file.purpose, file.filename) == ("batch", "rows.jsonl")
        assert gpt.files.retrieve(file.id).bytes == len(gpt.files.content(file.id).content)
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            gpt.files.content("file_none")

    def test_rejected(self, gpt: openai.OpenAI) -> None:
        file = gpt.files.create(file=("x", b"{}"), purpose="user_data")
        options: dict[str, Any] = {"endpoint": "/v1/responses", "completion_window": "24h", "input_file_id": file.id}
        for changes, message in (
            ({}, "purpose 'batch'"),
            ({"endpoint": "/v1/embeddings"}, "Invalid value: '/v1/embeddings'"),
            ({"completion_window": "1h"}, "completion_window"),
        ):
            with pytest.raises(openai.BadRequestError, match=message):
                gpt.batches.create(**options | changes)
