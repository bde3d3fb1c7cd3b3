"""LiteLLM's spend logs: rows of the table LiteLLM_SpendLogs as JSON, JSONL or CSV.

Source: https://docs.litellm.ai/docs/proxy/spend_logs and the project's schema.prisma, 2026-11-27.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec

from router.audit.calls import Call, Log
from router.audit.files import count, decoded, encoding, lines, raw_lines, seconds
from router.types import Usage

KIND = "LiteLLM"


def read_log(paths: Iterable[Path]) -> Log:
    """The calls of spend logs. Answers from LiteLLM's own cache and failed calls cost nothing and are left out."""
    log = Log(KIND, [], [], Counter())
    seen: set[str] = set()
    for path in paths:
        log.paths.append(path)
        for row in _rows(path, log.skipped):
            name = str(row.get("request_id") or "")
            if str(row.get("cache_hit")).lower() == "true":
                log.skipped["answers from LiteLLM's own cache"] += 1
            elif name and name in seen:
                log.skipped["rows that stand twice"] += 1
            elif str(row.get("status") or "").lower() == "failure":
                log.skipped["calls that failed"] += 1
            elif (call := _call(row, log.skipped)) is not None:
                seen.add(name)
                log.calls.append(call)
    log.calls.sort(key=lambda call: call.at_s)
    return log


def _rows(path: Path, skipped: Counter[str]) -> Iterator[Mapping[str, Any]]:
    if path.suffix.lower() == ".csv":
        csv.field_size_limit(2**31 - 1)  # a row holds the request's messages
        try:
            with path.open(newline="", encoding=encoding(path), errors="replace") as file:
                header = file.readline()
                file.seek(0)
                yield from csv.DictReader(file, delimiter=max(",;\t|", key=header.count))
        except (OSError, csv.Error) as exc:
            skipped[f"files that cannot be read ({exc})"] += 1
        return
    yield from objects(path, skipped)


def objects(path: Path, skipped: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a file: one a line, or a list of them, perhaps under `data`."""
    try:
        first = next((line for line in raw_lines(path) if line.strip()), b"")
        whole = None if first.endswith(b"\n") and isinstance(decoded(first), dict) else decoded(path.read_bytes())
    except OSError:
        whole = None
    if not isinstance(whole, (dict, list)):
        yield from lines(path, msgspec.json.Decoder(dict[str, Any]), skipped)
        return
    if isinstance(whole, dict):
        whole = whole["data"] if isinstance(whole.get("data"), list) else [whole]
    yield from (row for row in whole if isinstance(row, dict))


def _call(row: Mapping[str, Any], skipped: Counter[str]) -> Call | None:
    at_s, model = seconds(row.get("startTime")), row.get("model")
    prompt, output = _number(row.get("prompt_tokens")), _number(row.get("completion_tokens"))
    if at_s is None or not isinstance(model, str) or not model:
        skipped["rows without a time or a model"] += 1
        return None
    if not prompt + output:
        skipped["rows without usage"] += 1
        return None
    conversation = row.get("session_id")
    return Call(
        at_s,
        model,
        _usage(row, prompt, output),
        conversation if isinstance(conversation, str) and conversation != row.get("request_id") else "",
        f"{KIND}\0{row.get('api_key') or ''}",
        cost_usd=_usd(row.get("spend")),
    )


def _usage(row: Mapping[str, Any], prompt: int, output: int) -> Usage:
    """The counts of a row. `prompt_tokens` holds what came from or went to the cache, or not: that differs by version.

    Where the details name the tokens that were written, it holds all; else it does where it is large enough.
    """
    metadata = _object(row.get("metadata"))
    given = _object(metadata.get("usage_object")) or _object(metadata.get("additional_usage_values"))
    details = _object(given.get("prompt_tokens_details"))
    read = _number(given.get("cache_read_input_tokens")) or _number(details.get("cached_tokens"))
    written = _number(given.get("cache_creation_input_tokens")) or _number(details.get("cache_creation_tokens"))
    parts = _object(given.get("cache_creation"))
    long = min(_number(parts.get("ephemeral_1h_input_tokens")), written)
    if "cache_creation_tokens" in details or prompt >= read + written:
        fresh = max(prompt - read - written, 0)
    elif prompt >= read:
        fresh = prompt - read
    else:
        fresh = prompt
    return Usage(
        fresh_tokens=fresh,
        cache_read_tokens=read,
        cache_write_short_tokens=written - long,
        cache_write_long_tokens=long,
        output_tokens=output,
    )


def _object(value: Any) -> Mapping[str, Any]:
    """An object, or one that is written as text."""
    if isinstance(value, str) and value.startswith("{"):
        value = decoded(value)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    """A count, as a number or, in CSV, as text."""
    try:
        return count(float(value) if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return 0


def _usd(value: Any) -> Decimal | None:
    try:
        usd = Decimal(str(value)) if value not in (None, "") else None
    except InvalidOperation:
        return None
    return usd if usd is None or usd.is_finite() else None
