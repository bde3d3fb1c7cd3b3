"""Logs as they are when something went wrong: each costs what is wrong in it, and nothing else."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sqlite3
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from router.accounts.ledger import Ledger
from router.audit import sources
from router.audit.calls import Log
from router.cli import cli
from router.engine import Router
from router.errors import RequestError
from router.types import Api, Usage
from tests.audit.test_logs import _opencode, read, reply, said, spend, written

USAGE = Usage(3, 1000, 60, 40, 7)


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def ran(*arguments: Any) -> str:
    """What the command prints; it must not fail."""
    result = CliRunner().invoke(cli, ["audit", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*at, key))


def changed(row: Any, at: tuple[Any, ...], value: Any) -> Any:
    row = deepcopy(row)
    if not at:
        return value
    holder = row
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    return row


ODD = (
    *(None, True, -1, 0.5, 1e300, 10**30, 10**12, 99_999_999_999_999_999, "", "x", "-5", "nan", [], {}, ["a", None, 3]),
    *("9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+23:59", "<b>\x1b[31m\x00", {"text": None}, [[[[["x"]]]]]),
)
_LAST = {"input_tokens": 900, "cached_input_tokens": 600, "output_tokens": 50, "cache_write_input_tokens": 5}
_COUNTED = {
    "type": "token_count",
    "info": {"total_token_usage": {"input_tokens": 900, "total_tokens": 950}, "last_token_usage": _LAST},
}
_AT = "2026-11-20T10:00:00Z"
_OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "o"}
_TOLD = {
    "cache_read_input_tokens": 600,
    "cache_creation_input_tokens": 100,
    "prompt_tokens_details": {"cached_tokens": 600},
    "cache_creation": {"ephemeral_1h_input_tokens": 5},
}
_SUM = {"model": "gpt-6.1-sol", "input_tokens": 900, "input_cached_tokens": 400, "output_tokens": 5, "batch": False}
_CREATED = {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 7}
_REPORT = {"model": "claude-opus-4-7", "uncached_input_tokens": 5, "cache_creation": _CREATED, "output_tokens": 9}
_ASKED = {"model": "claude-opus-4-7", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}]}
ROWS: list[list[Any]] = [
    [said([{"type": "text", "text": "Why?"}]), reply(1, 1), reply(2, 2, agentId="a")],
    [
        {"timestamp": _AT, "type": "session_meta", "payload": {"id": "a", "cwd": "/w", "source": {"subagent": "x"}}},
        {"timestamp": _AT, "type": "turn_context", "payload": {"model": "gpt-6.1-sol"}},
        {"timestamp": _AT, "type": "response_item", "payload": _OUTPUT},
        {"timestamp": _AT, "type": "event_msg", "payload": _COUNTED},
    ],
    [spend(1, session_id="z", metadata={"usage_object": _TOLD}), spend(2)],
    [
        {"data": [{"start_time": 1_795_000_000, "end_time": 1_795_003_600, "results": [_SUM]}]},
        {"data": [{"starting_at": _AT, "results": [_REPORT]}]},
    ],
    [{"body": _ASKED, "usage": {"input_tokens": 20, "output_tokens": 2}, "timestamp": _AT, "conversation": "c"}],
]
CHANGES = [(kind, row, at) for kind, rows in enumerate(ROWS) for row in range(len(rows)) for at in places(rows[row])]


@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(ODD)), min_size=4, max_size=4))
def test_any_value_in_any_field(tmp_path: Path, drawn: list[tuple[tuple[int, int, tuple[Any, ...]], Any]]) -> None:
    """Whatever a field holds, the audit ends in figures or in one clear line."""
    for (kind, row, at), value in drawn:
        rows = [*ROWS[kind]]
        rows[row] = changed(rows[row], at, value)
        path = written(tmp_path / "log.jsonl", rows)
        result = CliRunner().invoke(cli, ["audit", str(path), "--html", str(tmp_path / "page.html"), "--json"])
        if result.exit_code == 0:
            found = json.loads(result.stdout)
            assert 0 <= found["usd"] < 1e9
            assert all(0 <= lever["usd"] < 1e9 for lever in found["levers"].values())
        else:
            assert isinstance(result.exception, click.ClickException | RequestError | SystemExit), (row, at, value)


@pytest.mark.parametrize("value", ODD)
def test_any_value_in_a_database(tmp_path: Path, value: Any) -> None:
    for number, at in enumerate(places(_opencode())):
        path = tmp_path / f"copy-{number}.sqlite"
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE message (id, session_id, data)")
            database.execute("CREATE TABLE part (id, message_id, data)")
            rows = [("m1", "s", json.dumps(changed(_opencode(), at, value))), ("m2", None, json.dumps(_opencode()))]
            database.executemany("INSERT INTO message VALUES (?, ?, ?)", rows)
            database.execute("INSERT INTO message VALUES ('m3', 's', CAST(x'ff7b' AS TEXT))")
        database.close()
        assert Usage(10, 100, 20, 0, 7) in [call.usage for call in read(path).calls]


def test_what_writers_make_of_json(tmp_path: Path) -> None:
    """Half an emoji, NaN, null fields, texts where blocks should be, a byte order mark, and nesting without end."""
    rows = [
        said("cut \ud83d"),
        reply(1, message={"content": [{"type": "text", "text": "x\ud83d"}]}),
        reply(2, requestId=None, cwd=None, agentId=None, isSidechain=None),
        reply(3, message={"content": [{"type": "thinking", "text": None, "id": None}, "text"]}),
        reply(4, message={"content": None}),
        reply(5, score=float("nan")),
        '{"type": "user", "sessionId": "s", "message": ' + nested(100_000) + "}\n",
        reply(6, message={"usage": {"input_tokens": 0, "output_tokens": 0}}),
    ]
    path = written(tmp_path / "s.jsonl", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    log = read(path)
    assert [c.usage.cache_read_tokens for c in log.calls] == [1000, 2000, 3000, 4000, 5000]
    assert log.skipped == {"lines of an unknown kind": 1, "replies without usage": 1}
    deep = spend(1, metadata='{"usage_object": ' + nested(100_000) + "}")
    assert len(read(written(tmp_path / "spend.jsonl", [deep])).calls) == 1
    (tmp_path / "deep.json").write_text(nested(100_000))
    with pytest.raises(RequestError, match="no calls recognised"):
        sources.read_logs([tmp_path / "deep.json"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", [",", ";", "\t", "|", "lines", "list"])
def test_encodings_and_dialects(tmp_path: Path, encoding: str, form: str) -> None:
    rows = [spend(1, session_id='a;"b",c'), spend(2, prompt_tokens=500)]
    path, text = tmp_path / "spend.jsonl", lines(rows)
    if form == "list":
        path, text = tmp_path / "spend.json", json.dumps(rows, indent=1)
    elif form != "lines":
        path, out = tmp_path / "spend.csv", io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), delimiter=form)
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    path.write_bytes(text.encode(encoding))
    assert [c.usage.fresh_tokens for c in read(path).calls] == [1000, 500]
    assert read(path).calls[0].conversation == 'a;"b",c'


def test_a_long_first_line(tmp_path: Path) -> None:
    long = said([{"type": "text", "text": "word " * 200_000}, *[{"type": "text", "text": "a <b> c:\n"}] * 200_000])
    log = read(written(tmp_path / "s.jsonl", [long, reply(1)]))
    assert [c.usage for c in log.calls] == [USAGE]
    assert len(log.calls[0].text or "") <= 20_000


def test_folders_with_links_that_loop(tmp_path: Path) -> None:
    path = written(tmp_path / "a/s.jsonl", [reply(1)])
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    body = {"body": _ASKED, "usage": {"input_tokens": 20, "output_tokens": 2}}
    twin = written(tmp_path / "a/bodies.jsonl", [body])
    (tmp_path / "copy.jsonl").symlink_to(twin)
    written(tmp_path / "a/notes.jsonl", [{"a": 1}])
    written(tmp_path / "a/empty.jsonl", [])
    logs = sources.read_logs([tmp_path, path, twin])
    assert {log.kind: len(log.calls) for log in logs} == {"Claude Code": 1, "requests": 1, "other files": 0}
    assert logs[-1].skipped == {"files that are no log": 1}


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    """They are told of, and the others are read. Links to nothing and to themselves: root may open any file."""
    written(tmp_path / "s.jsonl", [reply(1)])
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.jsonl").symlink_to(tmp_path / "self.jsonl")
    logs = sources.read_logs([tmp_path])
    assert [c.usage for c in logs[0].calls] == [USAGE]
    reasons = (os.strerror(number) for number in (errno.ENOENT, errno.ELOOP))
    assert logs[1].skipped == {f"files that cannot be opened ({reason})": 1 for reason in reasons}


def test_two_logs_of_the_same_calls(tmp_path: Path) -> None:
    """An agent's sessions and the gateway's spend logs: each call counts once, with what the sessions tell of it."""
    written(tmp_path / "s.jsonl", [reply(n, n) for n in range(1, 6)])
    size = {"prompt_tokens": 2103, "completion_tokens": 7}
    rows = [
        spend(1, **size),
        spend(2, **size),
        spend(3, **{**size, "prompt_tokens": 2104}),
        spend(4, **size, startTime="2026-11-20 12:00:00"),
        spend(5, prompt_tokens=30, completion_tokens=7),
    ]
    written(tmp_path / "spend.jsonl", [{**row, "startTime": row["startTime"]} for row in rows])
    by_kind: dict[str, Log] = {log.kind: log for log in sources.read_logs([tmp_path])}
    assert len(by_kind["Claude Code"].calls) == 5
    assert len(by_kind["LiteLLM"].calls) == 4
    assert by_kind["LiteLLM"].skipped == {"calls that another log tells of too": 1}


def test_hours_of_a_day_that_is_there(tmp_path: Path) -> None:
    def bucket(start: int, end: int, n: int) -> dict[str, Any]:
        return {"start_time": start, "end_time": end, "results": [{**_SUM, "input_tokens": n}]}

    day = 1_795_046_400
    written(tmp_path / "days.json", [{"data": [bucket(day, day + 86_400, 5000)]}])
    hours = [bucket(day + h * 3600, day + (h + 1) * 3600, 100 + h) for h in range(26)]
    written(tmp_path / "hours.json", [{"data": hours}])
    log = read(tmp_path)
    assert [c.usage.input_tokens for c in log.calls] == [5000, 124, 125]
    assert log.skipped == {"sums that a longer one holds": 24}


def test_records_of_old_and_of_copies(tmp_path: Path) -> None:
    with Ledger(tmp_path / "records.db") as store:
        router = Router.load(store=store)
        plan = router.plan({"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}, Api.MESSAGES)
        router.record(plan, Usage(fresh_tokens=20, output_tokens=2))
    (tmp_path / "copy.sqlite").write_bytes((tmp_path / "records.db").read_bytes())
    log = read(tmp_path)
    assert [c.usage for c in log.calls] == [Usage(fresh_tokens=20, output_tokens=2)]
    assert log.skipped == {"records that stand in two files": 1}
    with sqlite3.connect(tmp_path / "copy.sqlite") as database:
        database.execute("DROP INDEX records_conversation")
        database.execute("ALTER TABLE records DROP COLUMN conversation")
    database.close()
    (tmp_path / "records.db").unlink()
    assert len(read(tmp_path / "copy.sqlite").calls) == 1
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE notes (a)")
    database.close()
    assert sources.kind_of(tmp_path / "other.db") is None


def test_undated_lines_are_not_of_1970(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", [{"body": _ASKED, "usage": {"input_tokens": 2000, "output_tokens": 9}}])
    assert read(path).calls[0].at_s >= path.stat().st_mtime
    assert "1970" not in ran(path)


@pytest.mark.parametrize(
    "options",
    [
        ["--mix", "nan,1,1"],
        ["--mix", "inf,1,1"],
        ["--mix", "1e308,1e308,1"],
        ["--effort-output", "nan"],
        ["--html", "/nowhere/at/all.html"],
        ["--since", "1"],
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: list[str]) -> None:
    path = written(tmp_path / "s.jsonl", [reply(1, timestamp="2020-01-01T00:00:00Z")])
    result = CliRunner().invoke(cli, ["audit", str(path), *options])
    assert result.exit_code == 2 or isinstance(result.exception, RequestError), result.output
    assert options[0] in f"{result.output}{result.exception}"


def test_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "t", "name": "Re\x1b[31mad", "input": {"file_path": "a\x07b"}}
    result = [{"type": "tool_result", "tool_use_id": "t", "content": "x" * 9000}]
    rows = [said("Read it."), reply(1, 1, message={"content": [call]}), said(result), reply(2, 2), reply(3, 3)]
    out = ran(written(tmp_path / "s.jsonl", [*rows, reply(4, 4, message={"model": "o\x1b]0;x\x07"})]))
    assert "Re?[31mad" in out and "a?b" in out and "o?]0;x?" in out
    assert "\x1b" not in out and "\x07" not in out
