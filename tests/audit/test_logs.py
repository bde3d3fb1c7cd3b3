"""Each kind of log, with what is wrong in real ones, read into calls."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.accounts.ledger import Ledger
from router.audit import claude_code, sources
from router.audit.calls import Log, Piece
from router.engine import Router
from router.errors import RequestError
from router.types import Api, Usage


def written(path: Path, rows: list[Any], tail: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows) + tail)
    return path


def read(path: Path) -> Log:
    (log,) = sources.read_logs([path])
    return log


def reply(n: int, second: int = 0, **more: Any) -> dict[str, Any]:
    """An assistant's line of Claude Code."""
    usage = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1000 * n,
        "output_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    }
    line = {
        "type": "assistant",
        "timestamp": f"2026-11-20T10:00:{second:02d}.500Z",
        "sessionId": "s",
        "cwd": "/home/me/shop",
        "isSidechain": False,
        "requestId": f"r{n}",
        "message": {"id": f"m{n}", "model": "claude-opus-4-7", "role": "assistant", "content": [], "usage": usage},
    }
    message = {**line["message"], **more.pop("message", {})}  # type: ignore[dict-item]
    return {**line, **more, "message": message}


def said(content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": content}
    return {"type": "user", "timestamp": "2026-11-20T10:00:00Z", "sessionId": "s", "message": message, **more}


def test_claude_code(tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "Read", "input": {"file_path": "src/app.py"}}
    result = [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x" * 350}]}]
    reminder = "<system-reminder>the list of todos is empty</system-reminder>"
    rows = [
        {"type": "summary", "summary": "a title", "leafUuid": "u"},
        said([{"type": "text", "text": reminder}, {"type": "text", "text": "Why does the login test fail?"}]),
        reply(1, 1, message={"content": [call], "usage": {"input_tokens": 3, "output_tokens": 1}}),
        reply(1, 2, message={"content": [call]}),
        said(result, toolUseResult={"file": {"content": "y" * 10_000}}),
        reply(2, 3),
        reply(2, 3, isSidechain=True),
        reply(9, message={"model": "<synthetic>"}),
        reply(8, message={"usage": None}),
        "{broken\n",
        {"type": "assistant", "message": 3},
    ]
    log = read(written(tmp_path / "p/s.jsonl", rows, tail='{"type":"user","mess'))
    usage = Usage(3, 1000, 60, 40, 7)
    assert [c.usage for c in log.calls] == [usage, Usage(3, 2000, 60, 40, 7)]
    assert [c.opens_turn for c in log.calls] == [True, False]
    assert [c.text for c in log.calls] == ["Why does the login test fail?"] * 2
    assert log.calls[1].pieces == (Piece("tool", 350, "Read", "src/app.py"),)
    assert log.calls[0].conversation == "s" and "/home/me/shop" in log.calls[0].head
    assert log.skipped == {
        "replies without usage": 1,
        "lines that are no JSON": 1,
        "lines of an unknown kind": 1,
        "truncated lines": 1,
        "replies that stand in two sessions": 1,
    }


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.booleans()), min_size=1, max_size=12))
def test_every_reply_counts_once(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, bool]]) -> None:
    """However many lines and files a reply stands on: in how many lines, in how many files, of a sub-agent or not."""
    folder = tmp_path_factory.mktemp("sessions")
    files: list[list[Any]] = [[], [], []]
    for number, (n_lines, n_files, is_agent) in enumerate(drawn):
        for file in range(n_files):
            more = {"agentId": "a"} if is_agent else {}
            files[file] += [reply(number, file, sessionId=f"s{file}", isSidechain=is_agent, **more)] * n_lines
    for number, rows in enumerate(files):
        written(folder / f"s{number}.jsonl", rows)
    log = claude_code.read_log(sorted(folder.glob("*.jsonl")))
    assert sorted(c.usage.cache_read_tokens for c in log.calls) == [1000 * n for n in range(len(drawn))]


def test_codex(tmp_path: Path) -> None:
    def counted(second: int, total: int, last: dict[str, int] | None) -> dict[str, Any]:
        info = last and {"total_token_usage": {"input_tokens": total, "total_tokens": total}, "last_token_usage": last}
        event = {"type": "token_count", "info": info, "rate_limits": {}}
        return {"timestamp": f"2026-11-20T10:00:{second:02d}Z", "type": "event_msg", "payload": event}

    def item(payload: dict[str, Any]) -> dict[str, Any]:
        return {"timestamp": "2026-11-20T10:00:00Z", "type": "response_item", "payload": payload}

    last = {"input_tokens": 900, "cached_input_tokens": 600, "output_tokens": 50, "reasoning_output_tokens": 40}
    meta = {"timestamp": "2026-11-20T10:00:00Z", "type": "session_meta", "payload": {"id": "a", "cwd": "/w"}}
    rows = [
        meta,
        {"timestamp": "2026-11-20T10:00:00Z", "type": "turn_context", "payload": {"model": "gpt-6.1-sol"}},
        item({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Rename the field."}]}),
        counted(1, 0, None),
        counted(2, 900, last),
        counted(3, 900, last),
        item({"type": "function_call", "name": "shell", "call_id": "c1", "arguments": "{}"}),
        item({"type": "function_call_output", "call_id": "c1", "output": "o" * 70}),
        counted(4, 2000, {**last, "cache_write_input_tokens": 100}),
    ]
    written(tmp_path / "2026/rollout-1.jsonl", rows)
    fork = {**meta, "payload": {"id": "b", "cwd": "/w", "forked_from_id": "a"}}
    written(tmp_path / "2026/rollout-2.jsonl", [fork, *rows[1:5], counted(9, 5000, last)])
    log = read(tmp_path)
    plain = Usage(300, 600, 0, 0, 50)
    assert [c.usage for c in log.calls] == [plain, Usage(200, 600, 100, 0, 50), plain]
    assert [c.conversation for c in log.calls] == ["a", "a", "b"]
    assert log.calls[0].text == "Rename the field."
    assert log.calls[1].pieces == (Piece("tool", 70, "shell"),)
    assert log.skipped == {"replies that a fork repeats": 1}


def _opencode(**tokens: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "modelID": "claude-sonnet-4-6",
        "providerID": "anthropic",
        "cost": 0.5,
        "time": {"created": 1_795_000_000_000},
        "tokens": {"input": 10, "output": 5, "reasoning": 2, "cache": {"read": 100, "write": 20}, **tokens},
    }


def test_opencode(tmp_path: Path) -> None:
    step = {"type": "step-finish", "cost": 0.25, "tokens": {"input": 1, "output": 2, "cache": {"read": 3, "write": 4}}}
    with sqlite3.connect(tmp_path / "opencode.db") as database:
        database.execute("CREATE TABLE message (id TEXT, session_id TEXT, data TEXT)")
        database.execute("CREATE TABLE part (id TEXT, message_id TEXT, data TEXT)")
        nothing = _opencode(input=0, output=0, reasoning=0, cache={})
        rows = [("m1", "s", json.dumps(_opencode())), ("m2", "s", json.dumps(nothing)), ("m3", "s", "{")]
        database.executemany("INSERT INTO message VALUES (?, ?, ?)", [*rows, ("m4", "s", json.dumps(_opencode()))])
        database.executemany(
            "INSERT INTO part VALUES (?, 'm4', ?)", [("p1", json.dumps(step)), ("p2", json.dumps(step))]
        )
    database.close()
    log = read(tmp_path / "opencode.db")
    assert [c.usage for c in log.calls] == [Usage(10, 100, 20, 0, 7), Usage(1, 3, 4, 0, 2), Usage(1, 3, 4, 0, 2)]
    assert [c.cost_usd for c in log.calls] == [Decimal("0.5"), Decimal("0.25"), Decimal("0.25")]
    assert log.skipped == {"replies without usage, a time or a model": 1, "entries that are no JSON": 1}
    written(tmp_path / "storage/message/s/m1.json", [_opencode()])
    assert [c.usage for c in read(tmp_path / "storage").calls] == [Usage(10, 100, 20, 0, 7)]


def spend(n: int, **more: Any) -> dict[str, Any]:
    row = {"request_id": f"q{n}", "model": "anthropic/claude-sonnet-4-6", "startTime": "2026-11-20 10:00:00"}
    return {**row, "prompt_tokens": 1000, "completion_tokens": 10, "spend": 0.01, "status": "success", **more}


@pytest.mark.parametrize("form", ["lines", "list", "csv"])
def test_litellm(tmp_path: Path, form: str) -> None:
    def cached(read: int, write: int, details: dict[str, int] | None = None) -> str:
        usage = {"cache_read_input_tokens": read, "cache_creation_input_tokens": write}
        return json.dumps({"usage_object": {**usage, "prompt_tokens_details": details or {}}})

    rows = [
        spend(1),
        spend(2, metadata=cached(600, 100, {"cache_creation_tokens": 100})),
        spend(3, metadata=cached(1500, 100), prompt_tokens=40),
        spend(4, metadata=cached(900, 400)),
        spend(5, cache_hit="True"),
        spend(6, status="failure", prompt_tokens=0, completion_tokens=0),
        spend(1),
        spend(7, model=""),
        spend(8, prompt_tokens=0, completion_tokens=0),
    ]
    if form == "csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        quoted = [",".join('"' + str(row.get(n, "")).replace('"', '""') + '"' for n in names) for row in rows]
        path = tmp_path / "spend.csv"
        path.write_text("\n".join([",".join(names), *quoted]))
    else:
        path = written(tmp_path / "spend.json", rows if form == "lines" else [rows])
    log = read(path)
    assert [c.usage for c in log.calls] == [
        Usage(fresh_tokens=1000, output_tokens=10),
        Usage(300, 600, 100, 0, 10),
        Usage(40, 1500, 100, 0, 10),
        Usage(100, 900, 400, 0, 10),
    ]
    assert {c.cost_usd for c in log.calls} == {Decimal("0.01")}
    assert log.skipped == {
        "answers from LiteLLM's own cache": 1,
        "calls that failed": 1,
        "rows that stand twice": 1,
        "rows without a time or a model": 1,
        "rows without usage": 1,
    }


def test_usage_exports(tmp_path: Path) -> None:
    openai = {"model": "gpt-6.1-sol", "input_tokens": 900, "input_cached_tokens": 400, "output_tokens": 50}
    row = {**openai, "num_model_requests": 12}
    whole = {"object": "page", "data": [{"object": "bucket", "start_time": 1_795_000_000, "results": [row]}]}
    twice = {"object": "page", "data": [{"start_time": 1_795_000_000, "results": [{**row, "input_tokens": 1000}]}]}
    anthropic = {
        "model": "claude-opus-4-7",
        "uncached_input_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 7},
        "cache_read_input_tokens": 8,
        "output_tokens": 9,
    }
    ungrouped = {**anthropic, "model": None}
    page = {"data": [{"starting_at": "2026-11-20T00:00:00Z", "results": [anthropic, ungrouped]}, {"results": []}]}
    written(tmp_path / "a.json", [whole])
    written(tmp_path / "b.jsonl", [twice, page])
    log = read(tmp_path)
    counts = {(c.model, c.n_requests): c.usage for c in log.calls}
    assert counts == {("gpt-6.1-sol", 12): Usage(600, 400, 0, 0, 50), ("claude-opus-4-7", None): Usage(5, 8, 6, 7, 9)}
    assert log.skipped == {"sums over all models (ask for group_by=model)": 1, "buckets without a time or results": 1}


def test_bodies(tmp_path: Path) -> None:
    body = {"model": "claude-opus-4-7", "system": "Be brief.", "messages": [{"role": "user", "content": "Say hello."}]}
    chat = {"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": "Say hello."}]}
    rows = [
        {"body": body, "usage": {"input_tokens": 20, "output_tokens": 2}, "timestamp": "2026-11-20T10:00:00Z"},
        {"request": chat, "response": {"usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}}},
        {**chat, "input": None},
        {"body": {"messages": 3}, "usage": {"input_tokens": 20, "output_tokens": 2}},
        {"note": "nothing"},
    ]
    log = read(written(tmp_path / "requests.jsonl", rows))
    assert [c.usage for c in log.calls] == [Usage(fresh_tokens=20, output_tokens=2)] * 2
    assert [c.text for c in log.calls] == ["Say hello."] * 2
    assert log.calls[1].at_s == log.calls[0].at_s + 1
    assert all(c.prefix is not None for c in log.calls)
    assert sum(log.skipped.values()) == 3


def test_own_records(tmp_path: Path) -> None:
    with Ledger(tmp_path / "records.db") as store:
        router = Router.load(store=store)
        plan = router.plan({"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}, Api.MESSAGES)
        record = router.record(plan, Usage(fresh_tokens=20, output_tokens=2))
        router.record(plan, Usage(reported=False), reply_chars=20)
    log = read(tmp_path / "records.db")
    assert [(c.model, c.usage, c.cost_usd) for c in log.calls] == [(record.model, record.usage, record.cost_usd)]
    assert log.skipped == {"records whose usage was estimated": 1}


def test_what_is_no_log(tmp_path: Path) -> None:
    written(tmp_path / "notes.jsonl", [{"a": 1}])
    with pytest.raises(RequestError, match=r"notes\.jsonl: no calls recognised in 1 files; expected sessions of"):
        sources.read_logs([tmp_path / "notes.jsonl"])
    with pytest.raises(RequestError, match="no file or folder 'nowhere'"):
        sources.read_logs([Path("nowhere")])


def test_the_usual_places(tmp_path: Path) -> None:
    written(tmp_path / ".claude/projects/p/s.jsonl", [reply(1)])
    written(tmp_path / "codex/sessions/rollout-1.jsonl", [])
    found = sources.find({"CODEX_HOME": str(tmp_path / "codex")}, tmp_path)
    assert found == [
        ("Claude Code", tmp_path / ".claude/projects"),
        ("Codex", tmp_path / "codex/sessions"),
    ]
    assert sources.find({"CLAUDE_CONFIG_DIR": "/nowhere"}, tmp_path) == []
