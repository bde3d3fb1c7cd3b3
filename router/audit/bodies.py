"""Plain JSONL: a request body and what its reply reported, one a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from router.audit.calls import Call, Log
from router.audit.files import MAX_TEXT, seconds
from router.audit.litellm import objects
from router.cache.breakpoints import read_prefix
from router.decide.task import read_task
from router.errors import RequestError
from router.formats.usage import read_usage
from router.types import Api, TurnState

KIND = "requests"
_NAMES = ("conversation", "conversation_id", "session_id")
_TIMES = ("timestamp", "at", "time", "created", "created_at")


def read_log(paths: Iterable[Path]) -> Log:
    """The calls of files whose lines hold `body` (or `request`, or are bodies themselves) and `usage` (or `response`).

    Whole prompts tell exactly what they have in common. A line without a time is taken to come a second after the last,
    the first one when the file was written.
    """
    log = Log(KIND, [], [], Counter())
    for path in paths:
        log.paths.append(path)
        last_s = path.stat().st_mtime if path.is_file() else 0.0
        for row in objects(path, log.skipped):
            last_s = next((at for name in _TIMES if (at := seconds(row.get(name))) is not None), last_s + 1.0)
            call = _call(row, last_s, log.skipped)
            if call is not None:
                log.calls.append(call)
    log.calls.sort(key=lambda call: call.at_s)
    return log


def body_of(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The request body in a line, None where there is none."""
    for found in (row.get("body"), row.get("request"), row):
        if isinstance(found, dict) and ("messages" in found or "input" in found):
            return found
    return None


def _call(row: Mapping[str, Any], at_s: float, skipped: Counter[str]) -> Call | None:
    body, reply = body_of(row), row.get("response")
    given = row if isinstance(row.get("usage"), dict) else reply if isinstance(reply, dict) else {}
    usage_of = given.get("usage")
    if body is None or not isinstance(usage_of, dict):
        skipped["lines without a body" if body is None else "lines without usage"] += 1
        return None
    api = _api(body, usage_of)
    model = next((m for m in (given.get("model"), row.get("model"), body.get("model")) if isinstance(m, str)), "")
    usage = read_usage({"usage": usage_of}, api)
    if not usage.reported or not model:
        skipped["lines without a model or usage"] += 1
        return None
    try:
        task, prefix = read_task(body), read_prefix(body, api)
    except RequestError:
        skipped["bodies that cannot be read"] += 1
        return None
    name = next((row[key] for key in _NAMES if isinstance(row.get(key), str)), "")
    conversation = name or (f"{prefix.opening:x}" if len(prefix.keys) > 1 else "")
    opens = task.turn is not TurnState.TOOL_LOOP
    return Call(at_s, model, usage, conversation, prefix.head_key, opens, task.text[:MAX_TEXT], (), prefix)


def _api(body: Mapping[str, Any], usage: Mapping[str, Any]) -> Api:
    if "messages" not in body:
        return Api.RESPONSES
    return Api.CHAT if "prompt_tokens" in usage else Api.MESSAGES
