"""Usage exports of the providers: sums by hour or day, without conversations.

Sources, 2026-11-27: https://platform.openai.com/docs/api-reference/usage/completions and
https://platform.claude.com/docs/en/api/admin-api/usage-cost/get-messages-usage-report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from router.audit.calls import Call, Log
from router.audit.files import count, seconds
from router.audit.litellm import objects
from router.types import Usage

KIND = "usage export"


def read_log(paths: Iterable[Path]) -> Log:
    """The sums of exports. A bucket that was fetched twice counts as it was the second time, and one that lies within
    another (an hour of a day that is there as a whole) does not count."""
    log = Log(KIND, [], [], Counter())
    found: dict[_Key, Call] = {}
    for path in paths:
        log.paths.append(path)
        for bucket in _buckets(path, log.skipped):
            at_s = seconds(bucket.get("start_time", bucket.get("starting_at")))
            end_s = seconds(bucket.get("end_time", bucket.get("ending_at")))
            rows = bucket.get("results")
            if at_s is None or not isinstance(rows, list):
                log.skipped["buckets without a time or results"] += 1
                continue
            for row in rows:
                if isinstance(row, dict):
                    _add(row, (at_s, at_s if end_s is None else end_s), found, log.skipped)
    log.calls = sorted(_apart(found, log.skipped), key=lambda call: call.at_s)
    return log


_Key = tuple[tuple[str, ...], float, float]
"""What a sum is of, the model first, and when its bucket starts and ends."""


def _apart(found: Mapping[_Key, Call], skipped: Counter[str]) -> Iterator[Call]:
    """The sums without those whose bucket lies within another's of the same group."""
    group: tuple[str, ...] = ()
    last_s = 0.0
    for key in sorted(found, key=lambda key: (key[0], key[1], -key[2])):
        if key[0] == group and key[2] <= last_s:
            skipped["sums that a longer one holds"] += 1
            continue
        group, _, last_s = key
        yield found[key]


def _buckets(path: Path, skipped: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """The buckets of a file: a page of the API, pages one a line, or the buckets themselves."""
    for found in objects(path, skipped):
        inner = found.get("data")
        yield from (bucket for bucket in inner if isinstance(bucket, dict)) if isinstance(inner, list) else (found,)


def _add(row: Mapping[str, Any], when: tuple[float, float], found: dict[_Key, Call], skipped: Counter[str]) -> None:
    usage = _anthropic(row) if "uncached_input_tokens" in row else _openai(row)
    if not usage.input_tokens + usage.output_tokens:
        return
    model = row.get("model")
    if not isinstance(model, str) or not model:
        skipped["sums over all models (ask for group_by=model)"] += 1
        return
    names = ("project_id", "user_id", "api_key_id", "workspace_id", "batch", "service_tier", "context_window")
    group = (model, *(str(row.get(name)) for name in names))
    requests = row.get("num_model_requests")
    n = None if requests is None else count(requests)
    if n == 1:
        n = None  # a sum of one tells as little of its conversation as a sum of many
    found[group, *when] = Call(when[0], model, usage, n_requests=n)


def _openai(row: Mapping[str, Any]) -> Usage:
    read = min(count(row.get("input_cached_tokens")), count(row.get("input_tokens")))
    return Usage(
        fresh_tokens=count(row.get("input_tokens")) - read,
        cache_read_tokens=read,
        output_tokens=count(row.get("output_tokens")),
        is_batch=row.get("batch") is True,
    )


def _anthropic(row: Mapping[str, Any]) -> Usage:
    created = row.get("cache_creation")
    written: Mapping[str, Any] = created if isinstance(created, dict) else {}
    return Usage(
        fresh_tokens=count(row.get("uncached_input_tokens")),
        cache_read_tokens=count(row.get("cache_read_input_tokens")),
        cache_write_short_tokens=count(written.get("ephemeral_5m_input_tokens")),
        cache_write_long_tokens=count(written.get("ephemeral_1h_input_tokens")),
        output_tokens=count(row.get("output_tokens")),
        is_batch=row.get("service_tier") == "batch",
    )
