"""Body + model -> where the prompt cache breakpoints go; pure.

Anthropic: behind the tools, behind the system prompt, and at the end of the conversation (the automatic breakpoint,
which leaves every message as it is); one more inside a turn so long that the last breakpoint's 20 positions of
look-back would not reach the one before. OpenAI from gpt-5.6 on: an explicit breakpoint behind the system prompt beside
the implicit one at the end; older models cache on their own. Where writing cannot pay there is none. A body that
already carries cache fields is left exactly as it is.

Sources: https://platform.claude.com/docs/en/build-with-claude/prompt-caching and
https://developers.openai.com/api/docs/guides/prompt-caching (2026-11-22).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xxhash import xxh3_64, xxh3_64_intdigest

from router import media
from router.cache import heads
from router.cache.encoding import MARKS, UNENCODABLE, encode_into, encoded
from router.catalog import Model
from router.errors import RequestError
from router.types import Api, Body, CachePlan, Prefix, Ttl

Breakpoint = tuple[str, int, int | None, Ttl]

LOOK_BACK = 20
"""Positions that a breakpoint looks back over for an earlier one, itself counted."""

_SYSTEM_ROLES = ("system", "developer")
_CALLER_KEYS = ("cache_control", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
_UNCACHEABLE = ("thinking", "redacted_thinking")
_IMAGES = ("image", "image_url", "input_image")  # tuples: a caller's type may be one that has no hash
_NOTHING = (False, False, False)


MAX_MESSAGES = 50_000
"""No context window holds more; their number bounds the work for a body."""


def read_prefix(body: Body, api: Api, scope: str = "") -> Prefix:
    """The prefix of a body. Cache fields do not count: they are no part of what a cache is keyed by.

    What changes in each request is no part of its identity: `head_key`, and the keys that begin with it, leave it out.
    Equal messages of another `scope`, which is the caller's key, are another conversation. Raises RequestError for more
    than MAX_MESSAGES messages.
    """
    tools, system, messages = _blocks(body.get("tools")), _system(body, api), _messages(body, api)
    if len(messages) > MAX_MESSAGES:
        raise RequestError(f"the body has {len(messages):,} messages, expected at most {MAX_MESSAGES:,}")
    owned = any(body.get(key) is not None for key in _CALLER_KEYS)
    sent, units, marked = xxh3_64(), 0, False
    for part in (tools, system):
        data, has_marks = encoded(part)
        marked |= has_marks
        sent.update(data + b"\0")
        units += len(data) if part else 0
        if part is tools:
            tools_units = units
    head = heads.read_head(tools, system, sent.intdigest())
    seed = xxh3_64_intdigest(scope.encode("utf-8", "replace")) if scope else 0
    keys, sizes, has_marks, has_images = _chained(messages, head.lasting ^ seed, units)
    head_key = f"{head.lasting:016x}" if tools or system else ""
    opening = xxh3_64_intdigest(encoded(messages[0])[0]) ^ seed if messages else 0
    owned = owned or marked or has_marks
    return Prefix(tools_units, head_key, units, keys, sizes, owned, has_images, head_bytes=head.sent, opening=opening)


def plan(
    body: Body,
    api: Api,
    model: Model | None,
    *,
    head: Ttl = Ttl.SHORT,
    tail: Ttl = Ttl.NONE,
    prefix: Prefix | None = None,
    tokens_per_unit: float | None = None,
    n_known: int = 0,
) -> CachePlan:
    """Where breakpoints go in `body` for `model`; nothing for a model that the catalog does not know.

    `head` and `tail` are the TTLs for tools and system, and for the conversation; below the model's minimum neither is
    cached. `tokens_per_unit` corrects the model's own estimate; `n_known` messages were in the conversation's last
    request.
    """
    prefix = read_prefix(body, api) if prefix is None else prefix
    if model is None:
        return CachePlan((), prefix.head_key, 0)
    rate = 1 / model.chars_per_token if tokens_per_unit is None else tokens_per_unit
    head_tokens, minimum = int(prefix.head_units * rate), model.cache_min_tokens
    if prefix.owned:
        return CachePlan((), prefix.head_key, head_tokens, None, True)
    has_tail = bool(tail) and prefix.size * rate >= minimum
    if api is Api.MESSAGES and not any(cacheable for _, _, cacheable in _positions(body, 0)):
        has_tail = False  # the automatic breakpoint would fall on the system prompt, which has its own
    head_ttl = max(head, tail) if has_tail and tail is Ttl.LONG else head
    has_head = bool(head_ttl) and head_tokens >= minimum
    if api is Api.MESSAGES:
        points: list[Breakpoint] = list(
            _anthropic_points(body, prefix, minimum / rate, head_ttl if has_head else Ttl.NONE)
        )
        if has_tail:
            points += _bridge(body, tail, n_known, len(points))
        return CachePlan(tuple(points), prefix.head_key, head_tokens, None, False, tail if has_tail else Ttl.NONE)
    if model.provider != "openai" or prefix.size * rate < minimum:
        return CachePlan((), prefix.head_key, head_tokens)
    explicit, end = "breakpoints" in model.dialect.cache, _system_end(body, api) if has_head else None
    return CachePlan(
        ((*end, Ttl.SHORT),) if explicit and end else (),
        prefix.head_key,
        head_tokens,
        f"tierwise-{prefix.head_key}" if prefix.head_key else None,
        tail=Ttl.SHORT if has_tail else Ttl.NONE,
        explicit_only=explicit and not has_tail,
    )


def apply(body: Body, cache: CachePlan, api: Api = Api.MESSAGES) -> dict[str, Any]:
    """A copy of `body` with the planned cache fields and nothing else changed; the caller's objects stay intact."""
    planned = dict(body)
    if cache.cache_key is not None:
        planned["prompt_cache_key"] = cache.cache_key
    if cache.explicit_only:
        planned["prompt_cache_options"] = {"mode": "explicit"}
    for part, index, block, ttl in cache.breakpoints:
        mark = _control(ttl) if api is Api.MESSAGES else {"mode": "explicit"}
        name = MARKS[0] if api is Api.MESSAGES else MARKS[1]
        if block is None:
            planned[part] = _marked_block(planned[part], index, name, mark, "text")
        else:
            messages = list(planned[part])
            kind = "input_text" if api is Api.RESPONSES else "text"
            message = messages[index]
            messages[index] = {**message, "content": _marked_block(message["content"], block, name, mark, kind)}
            planned[part] = messages
    if cache.tail and api is Api.MESSAGES:
        planned["cache_control"] = _control(cache.tail)
    return planned


def _control(ttl: Ttl) -> dict[str, str]:
    return {"type": "ephemeral", "ttl": "1h"} if ttl is Ttl.LONG else {"type": "ephemeral"}


def _marked_block(blocks: Any, index: int, name: str, mark: Mapping[str, str], kind: str) -> list[Any]:
    marked: list[Any] = [{"type": kind, "text": blocks}] if isinstance(blocks, str) else list(blocks)
    marked[index] = {**marked[index], name: mark}
    return marked


def _anthropic_points(body: Body, prefix: Prefix, minimum: float, ttl: Ttl) -> Iterator[Breakpoint]:
    """Behind the tools, if they alone reach the minimum, and behind the system prompt (or the tools without one)."""
    if not ttl:
        return
    last = _last_cacheable(_system(body, Api.MESSAGES))
    tools = _blocks(body.get("tools"))
    if tools and (prefix.tools_units >= minimum or last is None):
        yield "tools", len(tools) - 1, None, ttl
    if last is not None:
        yield "system", last, None, ttl


def _bridge(body: Body, tail: Ttl, n_known: int, n_points: int) -> list[Breakpoint]:
    """Breakpoints that keep the last request's within reach: every LOOK_BACK - 1 positions of what is new since."""
    free = 3 - n_points  # the automatic one at the end takes the fourth
    positions = list(_positions(body, n_known))
    if not n_known or len(positions) < LOOK_BACK or free <= 0:
        return []
    found: list[Breakpoint] = []
    for start in range(LOOK_BACK - 2, len(positions) - 1, LOOK_BACK - 1):
        at = next((i for i in range(start, -1, -1) if positions[i][2]), None)
        if at is not None:
            found.append(("messages", positions[at][0], positions[at][1], tail))
    return found[:free]


def _positions(body: Body, first: int) -> Iterator[tuple[int, int, bool]]:
    """(message, block, cacheable) of each position from message `first` on."""
    for number, message in enumerate(_blocks(body.get("messages"))[first:], start=first):
        content = message.get("content")
        if isinstance(content, str):
            yield number, 0, bool(content)
        else:
            for index, block in enumerate(_blocks(content)):
                yield number, index, _cacheable(block)


def _cacheable(block: Mapping[str, Any]) -> bool:
    return block.get("type") not in _UNCACHEABLE and not (block.get("type") == "text" and not block.get("text"))


def _system_end(body: Body, api: Api) -> tuple[str, int, int] | None:
    """The last part of the leading system messages; `instructions` cannot carry a breakpoint."""
    part = "messages" if api is Api.CHAT else "input"
    messages = _blocks(body.get(part))
    n_system = next((i for i, m in enumerate(messages) if m.get("role") not in _SYSTEM_ROLES), len(messages))
    if not n_system:
        return None
    content = messages[n_system - 1].get("content")
    if isinstance(content, str):
        return (part, n_system - 1, 0) if content else None
    blocks = _blocks(content)
    return (part, n_system - 1, len(blocks) - 1) if blocks else None


def _system(body: Body, api: Api) -> Any:
    if api is Api.MESSAGES:
        given = body.get("system")
        return given if isinstance(given, str) else _blocks(given)
    leading = list[Any]()
    if api is Api.RESPONSES and body.get("instructions"):
        leading.append(body["instructions"])
    for message in _blocks(body.get("messages" if api is Api.CHAT else "input")):
        if message.get("role") not in _SYSTEM_ROLES:
            break
        leading.append(message)
    return leading


def _messages(body: Body, api: Api) -> Sequence[Any]:
    """The conversation: what comes after the system prompt."""
    given = body.get("input" if api is Api.RESPONSES else "messages")
    if isinstance(given, str):
        return [given]
    items = _blocks(given)
    if api is Api.MESSAGES:
        return items
    return items[next((i for i, m in enumerate(items) if m.get("role") not in _SYSTEM_ROLES), len(items)) :]


def _blocks(value: Any) -> Sequence[Mapping[str, Any]]:
    """The value if it is a list of objects; a malformed one is the provider's to reject, so it counts as none."""
    if not isinstance(value, list | tuple):
        return ()
    kinds = set(map(type, value))  # most often dict alone: asking each item takes three times as long
    return value if kinds <= {dict} or all(issubclass(kind, Mapping) for kind in kinds) else ()


def _last_cacheable(system: Any) -> int | None:
    """Index of the last system block that is not empty (an empty text block cannot be cached)."""
    if isinstance(system, str):
        return 0 if system else None
    return next((i for i in reversed(range(len(system))) if system[i].get("text")), None)


def _chained(messages: Sequence[Any], end: int, size: int) -> tuple[list[int], list[int], bool, bool]:
    """(keys, sizes) from a beginning with that key and size on, whether any carried cache fields, has images.

    One buffer, which stays in the processor's cache: 55 us for 200 KB, where a new one for each takes 80.
    """
    keys, sizes, marked, has_images, buffer = list[int](), list[int](), False, False, bytearray()
    for message in messages:
        looked = _NOTHING
        if isinstance(message, dict):
            if type(parts := message.get("content", message.get("output"))) is list:
                looked = _looked_into(parts)
            if len(message) > 2 and (MARKS[0] in message or MARKS[1] in message):
                looked = (True, *looked[1:])
        try:
            encode_into(message, buffer)
        except UNENCODABLE:
            buffer[:] = encoded(message)[0]
        if looked is not _NOTHING:
            has_images = has_images or looked[1]
            if looked[0]:
                marked, buffer[:] = True, encoded(message)[0]
            if looked[2]:
                size -= media.excess_chars(message)
        size += len(buffer)
        end = xxh3_64_intdigest(buffer, end)
        keys.append(end)
        sizes.append(size)
    return keys, sizes, marked, has_images


def _looked_into(parts: Sequence[Any]) -> tuple[bool, bool, bool]:
    """Whether parts carry cache fields, images, payloads; tool results are looked into as well."""
    looked = _NOTHING
    for part in parts:
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind == "text" and len(part) == 2:
            continue
        marked, images, payloads = looked
        marked = marked or part.get(MARKS[0]) is not None or part.get(MARKS[1]) is not None
        if kind in media.KINDS:
            images, payloads = images or kind in _IMAGES, True
        elif kind == "tool_result" and isinstance(part.get("content"), list):
            inner = _looked_into(part["content"])
            marked, images, payloads = marked or inner[0], images or inner[1], payloads or inner[2]
        if marked or payloads:
            looked = marked, images, payloads
    return looked
