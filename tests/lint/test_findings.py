"""Prompts that must pass, prompts that must not, and where two requests part."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import Api, RequestError
from router.cache import items as prefix
from router.lint.findings import Finding, check, compare, lint
from router.volatile import Severity
from tests.conftest import ROOT

CLEAN = {
    "demo": (ROOT / "router/demo/system_prompt.md").read_text("utf-8"),
    "history": (
        "You are a guide at the maritime museum. The frigate was launched on 14 March 1781 and sank in 1799. "
        "On Tuesday, 3 May 1932, divers found the bell. Tours start at 10:00, 12:30 and 15:00. Never guess a "
        "year."
    ),
    "versions": (
        "You support Rigging 4.12.1 (build 2026.3). Versions before 3.0 are out of support. The API is v2; TLS "
        "1.2 or later is needed. Upgrade from 2.8.14 to 2.9.0 first. The agent listens on 127.0.0.1:8080 and "
        "10.0.0.0/8 is private."
    ),
    "contact": (
        "You answer for Fernhill Dental. Appointments: reception@fernhill.example is not read at weekends, "
        "write to help@fernhill.example or call +44 20 7946 0018. Emergencies: 24 hours a day. Never give a "
        "diagnosis."
    ),
    "format": (
        'Answer in JSON with the fields "answer" (string), "sources" (list of strings) and "confidence" (0 to '
        "1). Write dates as ISO 8601, for example 2026-01-31T09:00:00Z, and ids as UUIDs, e.g. "
        "123e4567-e89b-12d3-a456-426614174000."
    ),
    "no_date": (
        "You do not know today's date. If a question needs the current date or time, call the clock tool. Your "
        "knowledge ends in the spring of 2025."
    ),
    "no_user": (
        "The user's name is unknown unless they tell you. Ask for the customer number: ten digits. Never "
        "repeat an account number or an e-mail address. Greet the user by first name once you know it."
    ),
    "limits": (
        "Ask at most 3 questions. Use up to 5 tool calls a turn and keep answers under 120 words. Step 1 of 3 "
        "is to listen, step 2 of 3 to repeat what you heard, step 3 of 3 to propose."
    ),
    "api_docs": (
        "You explain our API. GET /orders/{id} returns one order, GET /orders/{id}/items/{item} one line of "
        "it. Rate limit: 100 requests a minute. Amounts are integers in cents; 1999 means 19.99."
    ),
    "placeholders_in_code": (
        "You review e-mail templates. A template may hold `{{first_name}}` and `${total}`; tell the author "
        "when a placeholder has no default. Leave every other character as it is."
    ),
    "german": (
        "Du berätst Mieter. Nenne Paragraphen (§ 543 BGB) und Fristen. Das Gesetz gilt seit dem 1. September "
        "2001. Heute übliche Klauseln findest du in Abschnitt 4. Antworte auf Deutsch und sage, wenn du etwas "
        "nicht weißt."
    ),
    "company": (
        "You are the assistant of Northwind Bank. You are helping Northwind Bank customers with cards and "
        "transfers. Opening hours: 08:30-17:00. The exchange desk closes at 16:30. Card limits start at 500 "
        "euro."
    ),
    "numbers": (
        "One ream is 500 sheets; a pallet holds 100,000 sheets. Article numbers have ten digits and start with "
        "40, such as 4012345678. Standard A4 weighs 80 g per square metre. Pi is 3.14159."
    ),
    "sql": (
        "You write SQL for DuckDB 1.1. Tables: orders(id, customer_id, created_at, total), customers(id, "
        "email, city). Use date_trunc('month', created_at). Never select *. Dates in filters look like DATE "
        "'2024-01-01'."
    ),
    "agent": (
        "You are a coding agent. Read before you edit. Use absolute paths. Run tests with pytest -q. Never "
        "commit; the user commits. If a command fails twice, stop and say so. Report what you changed and what "
        "you could not check."
    ),
    "few_shot": (
        "Classify the ticket as bug, question or praise.\n<examples>\n<example>\nTicket: Login fails since "
        "09:14, session expired\nLabel: bug\n</example>\n<example>\nTicket: Ann Lee says thank you!\nLabel: "
        "praise\n</example>\n</examples>"
    ),
    "japanese": (
        "あなたは図書館の案内係です。開館時間は9:00から20:00"
        "です。貸出期間は14日間です。本の場所を聞かれたら棚番号を答"
        "えてください。"
    ),
    "jokes": (
        "You tell jokes about trains. Keep it clean. The 8:05 to Ghent is a running gag. Message of the day: none."
    ),
}

DIRTY = {
    "iso": ("You help. Now: 2026-11-22T14:03:11Z. Be brief.", "time"),
    "iso_offset": ("Server time 2026-11-22 14:03:11+01:00\nYou help sailors.", "time"),
    "rfc2822": ("You help. Mon, 23 Nov 2026 09:15:02 +0000", "time"),
    "ctime": ("Started Sun Nov 22 12:00:00 UTC 2026. You are a shell helper.", "time"),
    "today": ("You are a planner. Today is Sunday, November 22, 2026.", "time"),
    "today_iso": ("Today's date: 2026-11-22\nYou plan trips.", "time"),
    "date_line": ("2026-11-22\n\nYou are a helpful assistant.", "time"),
    "date_label": ("# Context\n- **Date**: 22 November 2026\nAnswer briefly.", "time"),
    "clock": ("You are a bot. The current time is 14:03.", "time"),
    "heute": ("Heute ist der 22. November 2026. Du hilfst Mietern.", "time"),
    "aujourdhui": ("Aujourd'hui, nous sommes le 22 novembre 2026. Tu aides.", "time"),
    "hoy": ("Hoy es 22 de noviembre de 2026. Ayudas a turistas.", "time"),
    "kyou": ("今日は2026年11月22日です。あなたは案内係です。", "time"),
    "epoch": ("You help. timestamp: 1795348800", "time"),
    "epoch_ms": ("You help. ts=1795348800123", "time"),
    "uuid": ("You are Max.\nConversation 7f9c24e8-3b12-4fef-91d6-2a7f04c9d1aa follows.", "id"),
    "request_id": ("request_id: a81f-22c9\nYou write mails.", "id"),
    "session": ("You are a tutor. Session: 4f1c2a9b77.", "id"),
    "prefixed": ("You are a tutor. Trace under run_8fk2Lq09xZ if asked.", "id"),
    "ulid": ("You are a tutor (01JD8R6Z0Q5V7M3N9K2T4W6X8Y).", "id"),
    "nonce": ("nonce=93af12\nYou are a poet.", "nonce"),
    "cache_buster": ("You are a poet. cache_buster: 18237", "nonce"),
    "seed": ("random seed: 421177\nInvent a monster.", "nonce"),
    "counter": ("You are a guide. This is message 17 of 40.", "counter"),
    "remaining": ("You are a guide. You have 3 messages left.", "counter"),
    "tokens_used": ("You are an agent. tokens_used: 48211", "counter"),
    "name_mail": ("You are helping Jane Doe (jane@example.com). Be kind.", "user"),
    "name": ("You are talking to Priya Raman. She likes short answers.", "user"),
    "customer": ("Rules follow.\nCustomer name: Jan van Dijk\nBe kind.", "user"),
    "customer_number": ("Rules follow. The customer number is 88120047.", "user"),
    "account": ("Rules follow. account balance: $1,204.55", "user"),
    "user_tag": ("<user_info>\nJane, premium, Ghent\n</user_info>\nYou sell boats.", "user"),
    "user_mail": ("User email: priya.raman@mail.example. You sell boats.", "user"),
    "mustache": ("Hello {{user_name}}, you are a coach.", "placeholder"),
    "dollar": ("You coach ${user.email} today.", "placeholder"),
    "brace": ("You coach people. Context: {context}", "placeholder"),
    "erb": ("It is <%= current_time %>. You coach people.", "placeholder"),
    "bracket": ("You coach [USER NAME] at work.", "placeholder"),
    "ip": ("You watch logs. Client IP: 84.23.110.7", "place"),
    "geo": ("You find cafés. Location: 51.0543, 3.7174", "place"),
    "city": ("You find cafés. User location: Ghent, Belgium", "place"),
    "json": ('Stock:\n[{"sku": "a", "qty": 1}, {"qty": 4, "sku": "b"}]\nAnswer from it.', "json_order"),
}  # fmt: skip

LONG = "An instruction that every reply has to follow. " * 300
USER = [{"role": "user", "content": "hi"}]
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
THOUGHT = {"type": "thinking", "thinking": "hm", "cache_control": MARK}


def breaking(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings if finding.severity is Severity.BREAKS]


@pytest.mark.parametrize("name", CLEAN)
def test_clean_prompts_pass(name: str) -> None:
    assert breaking(lint(CLEAN[name])) == []


def test_clean_prompts_hold_hardly_a_doubt() -> None:
    doubtful = {name: lint(text) for name, text in CLEAN.items() if lint(text)}
    assert len(doubtful) <= 3, doubtful
    assert "demo" not in doubtful


@pytest.mark.parametrize("name", DIRTY)
def test_dirty_prompts_are_found(name: str) -> None:
    text, rule = DIRTY[name]
    findings = lint(text)
    assert rule in breaking(findings)
    found = next(f for f in findings if f.rule == rule)
    assert text[found.offset :].split()[0].startswith(found.excerpt.split()[0].rstrip("…"))
    assert found.line == text[: found.offset].count("\n") + 1
    assert found.remedy


def test_a_date_in_prose_or_code_is_doubtful_at_most() -> None:
    assert lint("Prices as of 1 March 2026.")[0].severity is Severity.MAYBE
    assert lint("Log lines look so:\n```\n2026-11-22T14:03:11Z ready\n```")[0].severity is Severity.MAYBE
    assert lint("Write to greta.holm@fernhill.example.")[0].severity is Severity.MAYBE


def test_position_is_a_path_into_the_body_and_counts_what_is_lost() -> None:
    body = {
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "x\nToday is 2026-11-22.\n" + LONG}]
    }
    (found,) = lint({**body, "messages": USER}, Api.MESSAGES)
    assert (found.path, found.line, found.offset) == ("system[1].text", 2, 2)
    assert found.lost_tokens == pytest.approx(len(LONG) / 3.8, rel=0.03)
    chat = {"messages": [{"role": "developer", "content": "Today is 2026-11-22."}, *USER]}
    assert lint(chat, Api.CHAT)[0].path == "messages[0].content"
    assert lint({"instructions": "Today is 2026-11-22.", "input": "hi"})[0].path == "instructions"


def test_messages_are_not_judged() -> None:
    assert lint({"system": "Be brief.", "messages": [{"role": "user", "content": DIRTY["name_mail"][0]}]}) == []


def test_tools_are_read_but_not_their_samples() -> None:
    tool = {"name": "a", "description": "Now 2026-11-22T14:03:11Z", "input_schema": {"type": "object"}}
    assert [f.path for f in lint({"tools": [tool]})] == ["tools[0].description"]
    schema = {"type": "object", "properties": {"at": {"type": "string", "examples": ["2026-11-22T14:03:11Z"]}}}
    assert lint({"tools": [{"name": "a", "input_schema": schema}]}) == []


def test_order_of_tools_and_keys_is_doubtful() -> None:
    found = lint({"tools": [{"name": "b", "description": "x"}, {"description": "y", "name": "a"}]})
    assert {(f.rule, f.severity) for f in found} == {("tool_order", Severity.MAYBE)}
    mixed = {
        "type": "object",
        "properties": {"a": {"type": "x", "description": "d"}, "b": {"description": "d", "type": "x"}},
    }
    (clash,) = lint({"tools": [{"name": "a", "input_schema": mixed}]})
    assert (clash.rule, clash.path) == ("json_order", "tools[0].input_schema.properties.b")


def system(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "claude-sonnet-4-6", "system": [{"type": "text", **b} for b in blocks], "messages": USER, **more}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (system({"text": LONG}, {"text": "", "cache_control": MARK}), "empty text"),
        (system({"text": LONG, "cache_control": MARK}, {"text": "b", "cache_control": HOUR}), "1h behind 5m"),
        (system({"text": LONG, "cache_control": {**MARK, "ttl": 3600}}), "ttl 3600"),
        (system(*[{"text": LONG, "cache_control": MARK}] * 5), "at most 4"),
        (system(*[{"text": LONG, "cache_control": MARK}] * 4, cache_control=MARK), "at most 4"),
        (system({"text": "short", "cache_control": MARK}), "caches from 1024"),
        (system({"text": "Today is 2026-11-22."}, {"text": LONG, "cache_control": MARK}), "never read"),
        (system({"text": LONG}, messages=[{"role": "assistant", "content": [THOUGHT]}]), "thinking"),
    ],
)  # fmt: skip
def test_misplaced_breakpoints(body: dict[str, Any], part: str) -> None:
    found = [f for f in lint(body) if f.rule == "breakpoint"]
    assert any(part in f.remedy for f in found), found
    assert all(f.path.endswith(".cache_control") for f in found)


def test_per_user_text_behind_the_shared_breakpoint_is_in_its_place() -> None:
    body = system({"text": LONG, "cache_control": MARK}, {"text": "You are helping Jane Doe (jane@example.com)."})
    assert breaking(lint(body)) == []
    body["system"][1]["text"] = "request_id: a81f-22c9"
    assert breaking(lint(body)) == ["id"]


def conversation(first: str, *rest: str, text: str = "Be brief.") -> dict[str, Any]:
    roles = ["user", "assistant"] * (len(rest) + 1)
    return {
        "system": text,
        "messages": [{"role": r, "content": c} for r, c in zip(roles, (first, *rest), strict=False)],
    }


def test_a_conversation_that_grows_differs_in_nothing() -> None:
    turns = [conversation("a"), conversation("a", "b", "c"), conversation("a", "b", "c", "d", "e")]
    assert compare(turns) == []
    turns[1]["messages"][0]["content"] = [{"type": "text", "text": "a", "cache_control": MARK}]
    turns[2]["system"] = [{"type": "text", "text": "Be brief.", "cache_control": MARK}]
    assert compare(turns) == []


def test_the_first_difference_is_exact_and_named_by_its_cause() -> None:
    texts = [f"{LONG}\nNow: 2026-11-22T14:0{n}:11Z. {LONG}" for n in (3, 4)]
    (found,) = compare([conversation("a", text=t) for t in texts])
    assert (found.rule, found.path, found.line, found.request) == ("time", "system", 2, 2)
    assert found.offset == texts[0].index("3:11Z")
    assert (found.excerpt[:5], (found.versus or "")[:5]) == ("4:11Z", "3:11Z")
    assert found.lost_tokens == pytest.approx(len(LONG) / 3.8, rel=0.03)
    assert compare(texts)[0].path == "system"


@pytest.mark.parametrize(
    ("change", "rule", "path"),
    [
        (lambda b: b["tools"].reverse(), "tool_order", "tools"),
        (lambda b: b["tools"].pop(), "length", "tools[1]"),
        (lambda b: b["tools"].__setitem__(0, dict(reversed(b["tools"][0].items()))), "key_order", "tools[0]"),
        (lambda b: b["tools"][0].update(strict=True), "fields", "tools[0]"),
        (lambda b: b["tools"][0]["input_schema"].update(minimum=2), "value", "tools[0].input_schema.minimum"),
        (lambda b: b["messages"].pop(0), "text", "messages[0].role"),
        (lambda b: b["messages"][1].update(content="B"), "text", "messages[1].content"),
    ],
)
def test_what_differs_is_named(change: Any, rule: str, path: str) -> None:
    tools = [{"name": name, "input_schema": {"type": "object", "minimum": 1}} for name in ("a", "b")]
    earlier = {"tools": tools, **conversation("a", "b", "c")}
    later = copy.deepcopy(earlier) | {"messages": [*copy.deepcopy(earlier["messages"]), *conversation("d")["messages"]]}
    assert compare([earlier, later]) == []
    change(later)
    (found,) = compare([earlier, later])
    assert (found.rule, found.path, found.severity) == (rule, path, Severity.BREAKS)


def test_another_conversation_behind_the_same_prompt_breaks_nothing() -> None:
    bodies = [conversation("how do I cook rice?", "Boil it.", "and pasta?"), conversation("name a river", "Po", "more")]
    assert breaking(compare(bodies)) == []
    assert compare([*bodies, conversation("a third")]) == []


def test_text_that_a_harness_appends_and_takes_away_again_is_found() -> None:
    first = "Find the bug in the parser of dates.\nThe clock says 14:03."
    later = conversation("Find the bug in the parser of dates.", "It is in line 3.", "fix it")
    (found,) = compare([conversation(first), later])
    assert (found.path, found.severity) == ("messages[0].content", Severity.BREAKS)


def test_of_many_requests_each_is_compared_with_the_nearest_and_other_applications_are_let_alone() -> None:
    bot, clerk = (
        "You tell jokes about trains, boats and cars.",
        "Sort invoices by supplier; reply with JSON only, nothing more.",
    )
    bodies = [conversation(f"ask {n}", text=text) for n in range(4) for text in (bot, clerk)]
    assert compare(bodies) == []
    bodies.append(conversation("ask 9", text=bot.replace("boats", "bikes")))
    (found,) = compare(bodies)
    assert (found.request, found.path, found.offset) == (9, "system", bot.index("oats"))


def test_check_says_once_what_several_have_in_one_place() -> None:
    bodies = [f"Today is 2026-11-2{n}. You plan trips." for n in range(3)]
    found = check(bodies)
    assert [(f.request, f.versus is None) for f in found] == [(1, True), (2, False), (3, False)]


@pytest.mark.parametrize("wrong", [7, None, ["a"], {}, {"prompt": "x"}])
def test_what_is_no_prompt_is_refused(wrong: Any) -> None:
    with pytest.raises(RequestError, match=r"expected one of|give a request body"):
        lint(wrong)


def test_files_are_texts_bodies_or_lines_of_bodies() -> None:
    assert prefix.parse_bodies(b"Be brief.") == ["Be brief."]
    assert prefix.parse_bodies(b'{"system": "x"}') == [{"system": "x"}]
    assert prefix.parse_bodies(b'{"system": "x"}\n\n{"body": {"system": "y"}}\n') == [{"system": "x"}, {"system": "y"}]
    assert prefix.parse_bodies(b'[{"role": "user", "content": "x"}]') == [
        {"messages": [{"role": "user", "content": "x"}]}
    ]
    assert prefix.parse_bodies(b"{{name}} is a bot") == ["{{name}} is a bot"]
    with pytest.raises(RequestError, match="line 2"):
        prefix.parse_bodies(b'{"system": "x"}\n{"system"', "a.jsonl")
    with pytest.raises(RequestError, match="UTF-8"):
        prefix.parse_bodies(b"\xff\xfe")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(st.fixed_dictionaries({"system": _json, "tools": _json, "messages": _json}))
def test_any_body_is_read_and_is_like_itself(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    assert all(isinstance(finding, Finding) and finding.lost_tokens >= 0 for finding in lint(body))
    assert compare([body, copy.deepcopy(body)]) == []
    assert body == before


@settings(deadline=None, max_examples=100)
@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_offset_of_the_first_difference_is_the_common_prefix(a: str, b: str, common: str) -> None:
    if a[0] != b[0]:
        (found,) = compare([common + a, common + b])
        assert found.offset == len(common)
