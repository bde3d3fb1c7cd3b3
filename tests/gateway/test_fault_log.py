"""Failures of providers reach the log by default, named, and do not fill it."""

from __future__ import annotations

import logging

import pytest

from router.gateway.fault_log import FaultLog, is_noted
from tests.gateway.conftest import HELLO, STREAM_HEAD, Exact, Serve, whole


def test_a_fault_that_repeats_has_a_line_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    faults = FaultLog(lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            now[0] += 0.0125  # 12.5 s in all
            faults.note("other", "the provider answered 503", f"req_{number}")
        faults.note("other", "the provider answered 429", "req_x")
    assert [record.getMessage() for record in caplog.records] == [
        "the provider answered 503: model other, request req_0",
        "the provider answered 503: model other, request req_800, and 799 like it before",
        "the provider answered 429: model other, request req_x",
    ]


def test_what_the_body_earned_is_the_callers() -> None:
    assert [status for status in (400, 401, 403, 404, 408, 413, 422, 429, 500, 529) if is_noted(status)] == [
        401, 403, 408, 429, 500, 529,
    ]  # fmt: skip


ERROR = b'{"error":{"message":"secret-words"}}'


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([whole(ERROR, "503 Service Unavailable")], "the provider answered 503: model"),
        ([b""], "no answer from the provider (ServerDisconnectedError): model"),
        ([STREAM_HEAD + b'data: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n', 2.0],
         "a stream ended early (nothing came or could be sent for 0.3 s): model"),
        ([whole(ERROR, "400 Bad Request")], ""),
    ],
)  # fmt: skip
def test_the_log_names_whose_fault_it_was(
    serve: Serve, pieces: list[bytes | float], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Exact(pieces) as upstream:
        gateway = serve(upstream.url, max_retries=0, idle_timeout_s=0.3)
        body = {**HELLO, "model": "claude-opus-4-7", "stream": len(pieces) > 1}
        with caplog.at_level(logging.WARNING):
            reply = gateway.post("/v1/messages", body)
    told = [record.getMessage() for record in caplog.records if "listening" not in record.getMessage()]
    assert [line.partition(" claude")[0] for line in told] == ([said] if said else []), reply.text
    assert "secret-words" not in caplog.text
    assert all(f"request {reply.headers['x-tierwise-request-id']}" in line for line in told)
