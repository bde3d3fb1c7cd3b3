"""The whole bill over the wire: the same sum through the gateway, a wrapped client and complete()."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai

from router import Api, Ledger, Router, Usage
from router.send.complete import complete
from router.send.wrap import wrap
from tests.gateway.conftest import Exact, Serve

USAGE = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "speed": "fast",
    "server_tool_use": {"web_search_requests": 5},
    "iterations": [{"type": "compaction", "input_tokens": 2000, "output_tokens": 10}],
    "quantum_tokens": 7,
}
USD = Decimal("0.0855")  # (.0075 + .01025) at fast mode's double, and five searches
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5",
    "content": [{"type": "text", "text": "ok"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
}
ASK: Any = {"model": "claude-opus-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def http(body: bytes, kind: str = "application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        kind.encode(),
        len(body),
        body,
    )


def sse(*events: dict[str, Any]) -> bytes:
    frames = (b"event: %b\ndata: %b\n\n" % (e["type"].encode(), msgspec.json.encode(e)) for e in events)
    return http(b"".join(frames), "text/event-stream")


WHOLE = http(msgspec.json.encode({**MESSAGE, "usage": USAGE}))
START = {"input_tokens": 1000, "output_tokens": 1, "speed": "fast"}
STREAM = sse(
    {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": START}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {**USAGE, "input_tokens": 0, "speed": None},
    },
    {"type": "message_stop"},
)


def test_the_gateway_records_it_streamed_and_not(serve: Serve) -> None:
    with Exact([WHOLE]) as whole, Exact([STREAM]) as streamed:
        for upstream, ask in ((whole, ASK), (streamed, {**ASK, "stream": True})):
            gateway = serve(upstream.url)
            reply = gateway.post("/v1/messages", ask)
            assert reply.status_code == 200
            (row,) = gateway.records(1)
            assert Decimal(row["cost_picousd"]) / 10**12 == USD
            assert json.loads(row["modifiers"]) == {
                "speed": "fast",
                "calls": {"web_search": 5},
                "parts": [{"kind": "compaction", "model": "", "fresh_tokens": 2000, "output_tokens": 10}],
                "unknown_fields": ["quantum_tokens"],
            }
            assert "unknown usage field quantum_tokens: in no price" in json.loads(row["notes"])
            assert 'tierwise_unknown_usage_total{model="claude-opus-5"} 1.0' in gateway.metrics()


def test_a_wrapped_client_and_complete_account_for_the_same(shipped: Router) -> None:
    router = shipped.with_fleet("claude")
    with (
        Exact([WHOLE]) as whole,
        Exact([STREAM]) as streamed,
        anthropic.Anthropic(base_url=whole.url, api_key="x", max_retries=0) as client,
        anthropic.Anthropic(base_url=streamed.url, api_key="x", max_retries=0) as streaming,
    ):
        wrapped, reading = wrap(client, router), wrap(streaming, router)
        wrapped.messages.create(**ASK)
        assert [event.type for event in reading.messages.create(**ASK, stream=True)][-1] == "message_stop"
        answer = complete(router, "hi", model="claude-opus-5", clients={"anthropic": client})
        for record in (wrapped.last_record, reading.last_record, answer.record):  # type: ignore[attr-defined]
            assert record is not None
            assert record.cost_usd == USD
            assert record.usage.calls == (("web_search", 5),)


def test_what_openai_says_beside_its_usage(serve: Serve, shipped: Router) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    chat = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5.4", "service_tier": "flex"}
    body = http(msgspec.json.encode({**chat, "choices": [choice], "usage": usage}))
    ask: Any = {"model": "gpt-5.4", "messages": [{"role": "user", "content": "hi"}], "service_tier": "flex"}
    with Exact([body]) as upstream, openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="x", max_retries=0) as client:
        gateway = serve(upstream.url)
        gateway.post("/v1/chat/completions", ask)
        (row,) = gateway.records(1)
        assert row["cost_picousd"] == 2_000_000_000
        assert json.loads(row["modifiers"]) == {"service_tier": "flex"}
        wrapped = wrap(client, shipped.with_fleet("gpt"))
        wrapped.chat.completions.create(**ask)
        assert wrapped.last_record.cost_usd == Decimal("0.002")  # type: ignore[attr-defined]


def test_a_price_of_the_settings_is_what_the_gateway_bills(serve: Serve) -> None:
    own = {"models": {"claude-opus-5": {"discount": 0.5}}}
    with Exact([WHOLE]) as upstream:
        gateway = serve(upstream.url, general=own)
        gateway.post("/v1/messages", ASK)
        (row,) = gateway.records(1)
        assert Decimal(row["cost_picousd"]) / 10**12 == USD / 2


def test_a_deployment_of_your_own_is_asked_with_the_providers_key(serve: Serve) -> None:
    with Exact([WHOLE]) as elsewhere:
        own = {"our-opus": {"like": "claude-opus-5", "discount": 0, "base_url": elsewhere.url}}
        gateway = serve("http://127.0.0.1:9", general={"models": own})
        assert gateway.post("/v1/messages", {**ASK, "model": "our-opus"}).status_code == 200
        assert elsewhere.headers["x-api-key"] == "sk-canary-anthropic"
        (row,) = gateway.records(1)
        assert Decimal(row["cost_picousd"]) / 10**12 == USD


def test_a_database_of_the_version_before_gets_the_column(tmp_path: Path, shipped: Router) -> None:
    path = tmp_path / "records.db"
    record = shipped.with_fleet("claude").record(shipped.plan(ASK, Api.MESSAGES), Usage(5, calls=(("web_search", 1),)))
    with Ledger(path) as store:
        store.write(record)
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE records DROP COLUMN modifiers")
        db.commit()
    with Ledger(path) as store:
        store.write(record)
    with closing(sqlite3.connect(path)) as db:
        rows = [row[0] for row in db.execute("SELECT modifiers FROM records ORDER BY id")]
    assert rows == ["{}", '{"calls": {"web_search": 1}}']
