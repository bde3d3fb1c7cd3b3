"""What a reply bills beside its token counts: tiers, server tools, other passes over the prompt, and what nobody knows.

Sources: types of anthropic 2.14 (types/usage.py, beta/beta_usage.py and the iterations' types) and openai 3.57
(types/completion_usage.py, responses/response_usage.py, responses/response_output_item.py);
https://platform.claude.com/docs/en/build-with-claude/compaction and .../agents-and-tools/tool-use/advisor-tool: what is
billed is the sum of `iterations`; https://developers.openai.com/api/docs/guides/tools-web-search: only searches cost.
2026-11-26.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from router.types import Api, Part, Usage

_MAX_UNKNOWN = 8  # fields of one reply that are named

_DETAILS = dict.fromkeys(
    (
        *("text_tokens", "image_tokens", "audio_tokens", "video_tokens", "reasoning_tokens", "cached_tokens"),
        *("accepted_prediction_tokens", "rejected_prediction_tokens", "cache_write_tokens", "cache_creation_tokens"),
    )
)
_PROMPT_DETAILS = {**_DETAILS, "cache_write_tokens_details": dict.fromkeys(("ttl_30m_tokens", "ttl_12h_tokens"))}
_TOTALS = dict.fromkeys(("input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "total_tokens"))
# What servers in OpenAI's format put beside its own fields: DeepSeek, Moonshot, LiteLLM, xAI.
_CACHE_NAMES = dict.fromkeys(
    (
        *("prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "cached_tokens", "reasoning_tokens"),
        *("cache_read_input_tokens", "cache_creation_input_tokens"),
    )
)
_CLAUDE_COUNTS = {
    "input_tokens": None,
    "output_tokens": None,
    "cache_read_input_tokens": None,
    "cache_creation_input_tokens": None,
    "cache_creation": dict.fromkeys(("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")),
    "output_tokens_details": dict.fromkeys(("thinking_tokens",)),
}
_OPENAI = {
    **_TOTALS,
    **_CACHE_NAMES,
    **dict.fromkeys(("prompt_tokens_details", "input_tokens_details"), _PROMPT_DETAILS),
    **dict.fromkeys(("completion_tokens_details", "output_tokens_details"), _DETAILS),
}
_KNOWN: Mapping[Api, Mapping[str, Any]] = {
    Api.MESSAGES: {
        **_TOTALS,
        **_CLAUDE_COUNTS,
        **dict.fromkeys(("service_tier", "speed", "inference_geo", "server_tool_use", "iterations", "fallback_credit")),
    },
    Api.CHAT: _OPENAI,
    Api.RESPONSES: _OPENAI,
}
"""The fields of each format's usage whose meaning is known here; a nested table for those that hold others."""

_UNBILLED_SUFFIXES = ("_time", "_duration", "_latency", "_ms")  # Groq and others time themselves in there

_MAX_LEVELS = 16
"""No provider nests usage deeper than 3; what does is no usage, and must not exhaust the stack."""

# Output items of Responses by how they are billed, other than by tokens.
_TOOL_ITEMS = {"file_search_call": "file_search"}
_UNCOUNTED_ITEMS = frozenset({"code_interpreter_call", "image_generation_call"})


def fields(value: Any) -> Mapping[str, Any]:
    """The fields of a dict or of an SDK's object, with those that its type does not have; empty for anything else."""
    if isinstance(value, Mapping):
        return value
    if value is None or isinstance(value, str | int | float | list | tuple):
        return {}
    found = getattr(value, "__dict__", {})
    more = getattr(value, "__pydantic_extra__", None)
    return {**found, **more} if more else found


def plain(value: Any, levels: int = _MAX_LEVELS) -> Any:
    """A field's value as dicts, lists and scalars; None for what lies more than `levels` deep."""
    if value is None or isinstance(value, str | int | float):
        return value
    if not levels:
        return None
    if isinstance(value, list | tuple):
        return [plain(item, levels - 1) for item in value]
    return {name: plain(inner, levels - 1) for name, inner in fields(value).items()}


def merged(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Usage as a later event of a stream completes it: nothing, and a 0, never replace a number that was there."""
    result = dict(before)
    for name, value in after.items():
        old = result.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[name] = merged(old, value)
        elif value is None or (not value and old):
            continue
        else:
            result[name] = value
    return result


def unknown_fields(usage: Mapping[str, Any], api: Api) -> tuple[str, ...]:
    """Paths of what holds a number that is not 0 and is not known, the first few."""
    found = _unknown(usage, _KNOWN[api], "")
    return tuple(path for path, _ in zip(found, range(_MAX_UNKNOWN), strict=False))


def _unknown(values: Mapping[str, Any], known: Mapping[str, Any], at: str) -> Iterator[str]:
    for name, value in values.items():
        if name not in known:
            if not name.endswith(_UNBILLED_SUFFIXES) and _has_number(value):
                yield f"{at}{name}"
        elif name == "iterations" and isinstance(value, list):
            entry = {**_CLAUDE_COUNTS, "type": None, "model": None}
            for inner in value:
                yield from _unknown(fields(inner), entry, "iterations.")
        elif known[name] is not None:
            yield from _unknown(fields(value), known[name], f"{at}{name}.")


def _has_number(value: Any) -> bool:
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, int | float):
            if value and not isinstance(value, bool):
                return True
        elif isinstance(value, list | tuple):
            pending += value
        else:
            pending += fields(value).values()
    return False


def server_tools(usage: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """(tool, times) of Anthropic's `server_tool_use`: the tools that ran at least once."""
    counts = fields(usage.get("server_tool_use"))
    return tuple(
        (name.removesuffix("_requests"), times)
        for name, times in counts.items()
        if isinstance(times, int) and not isinstance(times, bool) and times > 0
    )


def beside(reply: Any, api: Api) -> dict[str, Any]:
    """Fields of `Usage` that a whole reply says outside its usage."""
    if api is Api.MESSAGES:
        return {"remarks": (CONTAINER,)} if fields(reply).get("container") else {}
    said = fields(reply)
    tier = said.get("service_tier")
    found: dict[str, Any] = {"service_tier": tier} if isinstance(tier, str) else {}
    if api is Api.CHAT:
        return found | ({"unpriced": (SEARCHES,)} if cites_the_web(reply) else {})
    calls, uncounted = _items(said)
    return found | ({"calls": tuple(calls.items())} if calls else {}) | ({"unpriced": uncounted} if uncounted else {})


CONTAINER = "code execution: time in a container, in no price (1,550 hours a month are free)"
"""https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool, 2026-11-26."""

SEARCHES = "web searches, which Chat Completions does not count"


def usage_elsewhere(chunk: Any) -> Any:
    """Usage in a chunk of Chat Completions where OpenAI has none: in a choice (Moonshot) or in `x_groq` (Groq)."""
    said = fields(chunk)
    choices = said.get("choices")
    for place in (said.get("x_groq"), *(choices if isinstance(choices, list) else ())):
        if usage := fields(place).get("usage"):
            return usage
    return None


def cites_the_web(chunk_or_reply: Any) -> bool:
    """Whether a Chat Completions reply, or a chunk of one, cites pages: then somebody searched for them."""
    choices = fields(chunk_or_reply).get("choices")
    for choice in choices if isinstance(choices, list) else ():
        told = fields(choice)
        notes = fields(told.get("message") or told.get("delta")).get("annotations")
        if isinstance(notes, list) and any(fields(note).get("type") == "url_citation" for note in notes):
            return True
    return False


def _items(response: Mapping[str, Any]) -> tuple[Counter[str], tuple[str, ...]]:
    """The calls of OpenAI's own tools in a Responses reply, and those that are billed by something it does not tell."""
    output, tools = response.get("output"), response.get("tools")
    names = [str(fields(tool).get("type")) for tool in tools] if isinstance(tools, list) else []
    is_preview = any(n.startswith("web_search_preview") for n in names) and "web_search" not in names
    calls: Counter[str] = Counter()
    uncounted: list[str] = []
    for item in output if isinstance(output, list) else ():
        said = fields(item)
        kind = str(said.get("type"))  # an unhashable one is nothing that is known
        if kind == "web_search_call":
            action = fields(said.get("action")).get("type", "search")
            if action == "search" and said.get("status") != "failed":
                calls["web_search_preview" if is_preview else "web_search"] += 1
        elif kind in _TOOL_ITEMS:
            calls[_TOOL_ITEMS[kind]] += 1
        elif kind in _UNCOUNTED_ITEMS:
            uncounted.append(str(kind).removesuffix("_call"))
        elif kind == "shell_call" and fields(said.get("environment")).get("type") == "container_reference":
            uncounted.append("shell in a container")
    return calls, tuple(dict.fromkeys(uncounted))


def parts(usage: Mapping[str, Any], answer: Usage, read_counts: Any) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """What Anthropic's `iterations` bill beside the top-level counts of `answer`, and what of them has no known price.

    The top level leaves out compactions and advisors, and of the inputs of several passes it may have the first alone.
    """
    entries = usage.get("iterations")
    if not isinstance(entries, list):
        return (), ()
    found: list[Part] = []
    unpriced: list[str] = []
    passes: list[Usage] = []
    for entry in map(fields, entries):
        kind = str(entry.get("type") or "message")
        counts = read_counts(entry)
        if kind == "fallback_message":
            unpriced.append(f"iterations: {kind} of {entry.get('model')}, which may be credited")
        elif kind == "message":
            passes.append(counts)
        elif counts.is_known and counts.input_tokens + counts.output_tokens:
            found.append(Part(kind, counts, str(entry.get("model") or "")))
    rest = _more_than(answer, passes)
    if not unpriced and rest.input_tokens + rest.output_tokens:
        found.append(Part("message", rest))
    return tuple(found), tuple(unpriced)


def _more_than(answer: Usage, passes: list[Usage]) -> Usage:
    """By how much the passes exceed the answer's own counts, kind by kind."""
    names = (
        "fresh_tokens",
        "cache_read_tokens",
        "cache_write_short_tokens",
        "cache_write_long_tokens",
        "output_tokens",
    )
    return Usage(**{n: max(sum(getattr(each, n) for each in passes) - getattr(answer, n), 0) for n in names})
