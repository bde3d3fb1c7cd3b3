"""Provider replies and stream events -> Usage.

Anthropic's `input_tokens` EXCLUDES cache reads and writes; OpenAI's `prompt_tokens` / `input_tokens` INCLUDE them, but
some servers in OpenAI's format leave them out. Sources: the types of anthropic 2.14 (types/usage.py,
message_delta_usage.py) and openai 3.57 (types/completion_usage.py, responses/response_usage.py), 2026-11-26.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.formats import extras
from router.prices import region_of
from router.types import Api, Usage

UNREPORTED = Usage(reported=False)

_MOST_TOKENS = 10**12

_SAID = (
    *("choices", "message", "content", "output", "summary", "tool_calls", "function"),
    *("text", "thinking", "refusal", "reasoning_content", "name", "input", "arguments"),
)
"""The fields of a reply, in all three formats, that hold what the model wrote, or hold those."""

_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def read_usage(reply: Any, api: Api, *, is_batch: bool = False) -> Usage:
    """Usage of a complete reply: an SDK object or a dict. `UNREPORTED` when the reply holds none.

    Anthropic's usage says itself that it is a batch's (`service_tier`), OpenAI's does not.
    """
    return _whole(extras.fields(_get(reply, "usage")), api, extras.beside(reply, api), is_batch=is_batch)


def located(usage: Usage, url: str) -> Usage:
    """The same usage with the place that the provider's address stands for, where the reply names none."""
    region = "" if usage.geo else region_of(url)
    return msgspec.structs.replace(usage, geo=region) if region else usage


def read_batch_usage(row: Any) -> Usage:
    """Usage of one result of a batch: Anthropic's (an SDK object or a dict), or a line of OpenAI's output, parsed.

    A row that failed, expired or was cancelled is not billed, so its usage is 0. Rows come in any order: `custom_id`
    says whose each is. Sources: types/messages/message_batch_result.py of anthropic 2.12 and
    https://developers.openai.com/api/docs/guides/batch, 2026-11-25.
    """
    if (result := _get(row, "result")) is not None:
        reply, api = _get(result, "message"), Api.MESSAGES
    else:
        response = _get(row, "response")
        reply = _get(response, "body") if _get(response, "status_code") == 200 else None
        api = Api.RESPONSES if _get(reply, "object") == "response" else Api.CHAT
    return Usage(is_batch=True) if reply is None else read_usage(reply, api, is_batch=True)


def n_chars(reply: Any) -> int:
    """Characters that the model wrote in a complete reply, tool calls included: where no usage says how long it is."""
    return sum(_said(_get(reply, name)) for name in ("content", "choices", "output"))


class Meter:
    """Collects the usage of one stream, event by event; reading it early gives what has been reported so far.

    `n_chars` counts the characters that the model wrote, for usage may be missing, or the stream left before its end.
    """

    def __init__(self, api: Api) -> None:
        self.n_chars = 0
        self._api = api
        self._usage: dict[str, Any] = {}
        self._beside: dict[str, Any] = {}

    def add(self, event: Any) -> None:
        """Take in one event, an SDK object or a dict; events without usage change nothing."""
        if self._api is Api.RESPONSES:
            if (response := _get(event, "response")) is not None and (usage := _get(response, "usage")) is not None:
                self._take(usage, extras.beside(response, self._api))
        elif self._api is Api.CHAT:
            self._take(_get(event, "usage") or extras.usage_elsewhere(event), {})
            self._chunk(event)
        elif (kind := _get(event, "type")) == "message_start":
            self._take(_get(_get(event, "message"), "usage"), {})
        elif kind == "message_delta":  # other events lack it, and asking an SDK's object for what it lacks takes 4 us
            self._take(_get(event, "usage"), extras.beside(_get(event, "delta"), self._api))
        if self._api is not Api.MESSAGES or not self._usage or kind == "content_block_delta":
            self.n_chars += _streamed(event, self._api)

    def usage(self) -> Usage:
        """The stream's usage. Events are cumulative, and a later one may leave out or set to 0 what an earlier said."""
        return _whole(self._usage, self._api, self._beside)

    def _take(self, usage: Any, beside: dict[str, Any]) -> None:
        said = extras.fields(usage)
        if said:
            self._usage = extras.merged(self._usage, extras.plain(said))
        self._beside.update(beside)

    def _chunk(self, chunk: Any) -> None:
        """What a chunk of Chat Completions says outside its usage."""
        if isinstance(tier := _get(chunk, "service_tier"), str):
            self._beside["service_tier"] = tier
        if "unpriced" not in self._beside and extras.cites_the_web(chunk):
            self._beside["unpriced"] = (extras.SEARCHES,)


def _whole(usage: Mapping[str, Any], api: Api, beside: dict[str, Any], *, is_batch: bool = False) -> Usage:
    """Usage from a provider's, and from what the reply says beside it."""
    if not usage:
        return msgspec.structs.replace(UNREPORTED, is_batch=is_batch, **beside) if is_batch or beside else UNREPORTED
    try:
        found = _claude(usage) if api is Api.MESSAGES else _openai(usage, api)
        unknown = extras.unknown_fields(usage, api)
    except (ArithmeticError, TypeError, ValueError, RecursionError):  # what it says are no counts
        return msgspec.structs.replace(UNREPORTED, is_batch=is_batch, **beside) if is_batch or beside else UNREPORTED
    if not (beside or unknown or is_batch):
        return found
    return msgspec.structs.replace(
        found,
        is_batch=is_batch or found.is_batch,
        service_tier=beside.get("service_tier", found.service_tier),
        calls=beside.get("calls", found.calls),
        unpriced=(*found.unpriced, *beside.get("unpriced", ())),
        remarks=(*found.remarks, *beside.get("remarks", ())),
        unknown_fields=unknown,
    )


def _openai(usage: Mapping[str, Any], api: Api) -> Usage:
    """Chat Completions' and Responses' usage, and what servers like them say under other names."""
    prompt_name, answer_name = (
        ("prompt_tokens", "completion_tokens") if api is Api.CHAT else ("input_tokens", "output_tokens")
    )
    details = extras.fields(usage.get(f"{prompt_name}_details"))
    answer_details = extras.fields(usage.get(f"{answer_name}_details"))
    prompt, output = _count(usage, prompt_name), _count(usage, answer_name)
    lifetimes = extras.fields(details.get("cache_write_tokens_details"))
    long = _count(lifetimes, "ttl_12h_tokens")
    cached = (
        _count(details, "cached_tokens")
        or _count(usage, "cache_read_input_tokens")
        or _count(usage, "prompt_cache_hit_tokens")
        or _count(usage, "cached_tokens")
    )
    written = max(
        _count(details, "cache_write_tokens")
        or _count(details, "cache_creation_tokens")
        or _count(usage, "cache_creation_input_tokens"),
        long + _count(lifetimes, "ttl_30m_tokens"),
    )
    fresh, surplus, remarks = _fresh(prompt, cached, written, output, _total(usage))
    if surplus:
        output += surplus
        remarks += (f"{surplus} tokens are in the total alone: priced as output, as reasoning is",)
    heard = ((details, "audio_tokens", "audio input"), (answer_details, "audio_tokens", "audio output"))
    told = (*heard, (answer_details, "image_tokens", "image output"))
    return Usage(
        fresh_tokens=fresh,
        cache_read_tokens=cached,
        cache_write_short_tokens=written - min(long, written),
        cache_write_long_tokens=min(long, written),
        output_tokens=output,
        unpriced=tuple(what for where, name, what in told if _count(where, name)),
        remarks=remarks,
    )


def _fresh(prompt: int, cached: int, written: int, output: int, total: int) -> tuple[int, int, tuple[str, ...]]:
    """(fresh tokens, tokens that are in the total alone, remarks) of counts in OpenAI's format.

    The prompt includes what the cache gave and took, unless it cannot, or the total says otherwise.
    """
    kept = cached + written
    is_apart = kept > 0 and (
        max(cached, written) > prompt
        or (kept > prompt and total != prompt + output)
        or (total == prompt + kept + output and total != prompt + output)
    )
    if is_apart:
        return prompt, max(total - prompt - kept - output, 0), ("the prompt's count leaves out what was cached",)
    return max(prompt - kept, 0), max(total - prompt - output, 0), ()


def _total(usage: Mapping[str, Any]) -> int:
    """`total_tokens`, 0 where it is no count: nothing depends on it alone."""
    total = usage.get("total_tokens")
    return total if isinstance(total, int) and 0 <= total < _MOST_TOKENS else 0


def _claude(usage: Mapping[str, Any]) -> Usage:
    """A message's usage with all that Anthropic bills beside the counts."""
    answer = _claude_counts(usage)
    beside, unpriced = extras.parts(usage, answer, _claude_counts)
    credit = extras.fields(extras.fields(usage.get("fallback_credit")).get("status")).get("type")
    if credit == "redeemed":
        unpriced = (*unpriced, "a fallback credit, which moves writes to the price of reads")
    tier, speed, geo = (_word(usage, name) for name in ("service_tier", "speed", "inference_geo"))
    calls = extras.server_tools(usage)
    if not (beside or unpriced or tier or speed or geo or calls):
        return answer
    return msgspec.structs.replace(
        answer,
        is_batch=tier == "batch",
        service_tier="" if tier == "batch" else tier,
        speed=speed,
        geo=geo,
        calls=calls,
        parts=beside,
        unpriced=unpriced,
    )


def _claude_counts(usage: Mapping[str, Any]) -> Usage:
    """The five counts of a message or of one pass of it."""
    split = extras.fields(usage.get("cache_creation"))
    long = _count(split, "ephemeral_1h_input_tokens")
    written = max(_count(usage, "cache_creation_input_tokens"), long + _count(split, "ephemeral_5m_input_tokens"))
    return Usage(
        fresh_tokens=_count(usage, "input_tokens"),
        cache_read_tokens=_count(usage, "cache_read_input_tokens"),
        cache_write_short_tokens=written - long,
        cache_write_long_tokens=long,
        output_tokens=_count(usage, "output_tokens"),
    )


def _word(usage: Mapping[str, Any], name: str) -> str:
    word = usage.get(name)
    return word if isinstance(word, str) else ""


def _streamed(event: Any, api: Api) -> int:
    """Characters that the model wrote in one event. Only fields that are there are asked for: others take 1 us each."""
    if api is not Api.CHAT:
        delta = _get(event, "delta")
        return _length(delta if api is Api.RESPONSES else _get(delta, _DELTAS.get(str(_get(delta, "type")), "")))
    n_chars, choices = 0, _get(event, "choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = _get(choice, "delta")
        said, calls = _get(delta, "content") or _get(delta, "reasoning_content"), _get(delta, "tool_calls")
        n_chars += _length(said) + (_said(calls) if calls else 0)
    return n_chars


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


def _said(value: Any) -> int:
    n_chars, pending = 0, [value]
    while pending:  # a loop, so that no nesting is too deep
        value = pending.pop()
        if isinstance(value, str):
            n_chars += len(value)
        elif isinstance(value, list):
            pending += value
        elif value is not None and not isinstance(value, int | float):
            for name in _SAID:
                inner = _get(value, name)
                pending.append(str(inner) if name == "input" and inner is not None else inner)
    return n_chars


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _count(value: Mapping[str, Any], name: str) -> int:
    count = int(value.get(name) or 0)
    if not 0 <= count < _MOST_TOKENS:
        raise ValueError(f"{name} is {count}")
    return count
