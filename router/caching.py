"""Body + model -> where the prompt cache breakpoints go; pure.

Anthropic: up to two breakpoints, behind the tools and behind the system prompt, where the prefix up to there reaches
the model's minimum (below it a breakpoint is silently ignored). OpenAI caches on its own; `prompt_cache_key` keeps
requests with the same prefix together, and from gpt-5.6 on a breakpoint goes behind the system messages, for those
models read a prefix only where a breakpoint ended it. A body that already carries cache fields is left as it is.

Sources: https://platform.claude.com/docs/en/build-with-claude/prompt-caching and
https://developers.openai.com/api/docs/guides/prompt-caching (2026-11-22).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import msgspec

from router.catalog import Model
from router.types import Api, Body, CachePlan

_SYSTEM_ROLES = ("system", "developer")
_CALLER_KEYS = ("cache_control", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")


def plan(body: Body, api: Api, model: Model | None) -> CachePlan:
    """Where breakpoints go in `body` for `model`; nothing for a model that the catalog does not know."""
    tools, system = _blocks(body.get("tools")), _system(body, api)
    tools_bytes, system_bytes = _encoded(tools), _encoded(system)
    prefix_key = ""
    if tools or system:
        prefix_key = hashlib.blake2b(tools_bytes + b"\0" + system_bytes, digest_size=16).hexdigest()
    if model is None:
        return CachePlan((), prefix_key, 0)
    tools_tokens = model.estimate_tokens(len(tools_bytes) if tools else 0)
    prefix_tokens = tools_tokens + model.estimate_tokens(len(system_bytes) if system else 0)
    owned = any(_caller_fields(body))
    breakpoints: list[tuple[str, int]] = []
    cache_key = None
    if api is Api.MESSAGES and not owned:
        if tools_tokens >= model.cache_min_tokens:
            breakpoints.append(("tools", len(tools) - 1))
        last = _last_cacheable(system)
        if last is not None and prefix_tokens >= model.cache_min_tokens:
            breakpoints.append(("system", last))
    elif model.provider == "openai" and not owned and prefix_tokens >= model.cache_min_tokens:
        cache_key = f"tierwise-{prefix_key}"
        end = _system_end(body, api)
        if end is not None and "breakpoints" in model.dialect.cache:
            breakpoints.append(end)
    return CachePlan(tuple(breakpoints), prefix_key, prefix_tokens, cache_key, owned)


def apply(body: Body, cache: CachePlan) -> dict[str, Any]:
    """A copy of `body` with the planned cache fields and nothing else changed; the caller's objects stay intact."""
    planned = dict(body)
    if cache.cache_key is not None:
        planned["prompt_cache_key"] = cache.cache_key
    for part, index in cache.breakpoints:
        if part in ("messages", "input"):  # OpenAI's, behind the last part of the system prompt's last message
            messages = list(planned[part])
            messages[index] = _ended(messages[index], "text" if part == "messages" else "input_text")
            planned[part] = messages
            continue
        blocks = planned[part]
        blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else list(blocks)
        blocks[index] = {**blocks[index], "cache_control": {"type": "ephemeral"}}
        planned[part] = blocks
    return planned


def _ended(message: Mapping[str, Any], kind: str) -> dict[str, Any]:
    content = message["content"]
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else list(content)
    parts[-1] = {**parts[-1], "prompt_cache_breakpoint": {"mode": "explicit"}}
    return {**message, "content": parts}


def _system_end(body: Body, api: Api) -> tuple[str, int] | None:
    """The last of the leading system messages; `instructions` cannot carry a breakpoint."""
    part = "messages" if api is Api.CHAT else "input"
    leading = list(takewhile(lambda message: message.get("role") in _SYSTEM_ROLES, _blocks(body.get(part))))
    content = leading[-1].get("content") if leading else None
    return (part, len(leading) - 1) if content and isinstance(content, str | list) else None


def _system(body: Body, api: Api) -> Any:
    if api is Api.CHAT:
        messages = _blocks(body.get("messages"))
        return list(takewhile(lambda message: message.get("role") in _SYSTEM_ROLES, messages))
    given = body.get("system" if api is Api.MESSAGES else "instructions")
    return given if isinstance(given, str) else _blocks(given)


def _blocks(value: Any) -> Sequence[Mapping[str, Any]]:
    """The value if it is a list of objects; a malformed one is the provider's to reject, so it counts as none."""
    is_list = isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)
    return value if is_list else ()


def _last_cacheable(system: Any) -> int | None:
    """Index of the last system block that is not empty (an empty text block cannot be cached)."""
    if isinstance(system, str):
        return 0 if system else None
    return next((i for i in reversed(range(len(system))) if system[i].get("text")), None)


def _caller_fields(body: Body) -> Iterator[bool]:
    yield any(body.get(key) is not None for key in _CALLER_KEYS)
    for part in (body.get("tools"), body.get("system"), body.get("messages"), body.get("input")):
        for item in part if isinstance(part, list | tuple) else ():
            yield _marked(item)
            content = item.get("content") if isinstance(item, Mapping) else None
            yield isinstance(content, list | tuple) and any(map(_marked, content))


def _marked(block: Any) -> bool:
    return isinstance(block, Mapping) and (
        block.get("cache_control") is not None or block.get("prompt_cache_breakpoint") is not None
    )


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        # Prompts may hold SDK objects (pydantic models, bytes); their repr is as good as any for size and identity.
        return msgspec.json.encode(value, enc_hook=repr)
    except UnicodeEncodeError:  # a lone surrogate
        return repr(value).encode("utf-8", "backslashreplace")
