"""A request's prompt as a chain of positions: what the caches match, and what the tokens are counted over.

Tokens are counted by a rule of thumb, which no document states: a piece for every five letters, 1,500 for an image or
a document. Key order inside a block's values counts, as it does where the prompt is rendered from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from router.offline.models import Claude

MEDIA_TOKENS = 1500
MEDIA = ("image", "document", "image_url", "file", "input_audio", "audio")
_PIECE = re.compile(r"\w{1,5}|[^\w\s]")
_COUNTS_KEPT = 1 << 16
_counts: dict[bytes, int] = {}

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Position:
    """One place of the prompt: the hash of everything up to it, the tokens up to it, and its breakpoint's TTL.

    `ends_message`: a message ends here that OpenAI may place a breakpoint on, which is none of the assistant's.
    """

    key: str
    tokens: int
    kind: str
    ttl: str | None = None
    ends_message: bool = True


class Chain:
    """The hash chain, grown block by block."""

    def __init__(self, seed: str = "") -> None:
        self.key, self.tokens = seed, 0

    def add(self, label: str, value: object) -> None:
        """Append `value`, as JSON, under `label` (its section or role)."""
        content = json.dumps(value).encode()  # ASCII: no lone surrogate can fail to encode
        digest = hashlib.blake2b(content, digest_size=16).digest()
        self.key = hashlib.blake2b(self.key.encode() + label.encode() + digest, digest_size=16).hexdigest()
        count = _counts.get(digest)
        if count is None:
            if len(_counts) >= _COUNTS_KEPT:
                _counts.clear()
            count = _counts[digest] = _count(value, content.decode())
        self.tokens += count


def count_tokens(text: str) -> int:
    """Tokens of a text, by the rule of thumb."""
    return len(_PIECE.findall(text))


def cut(text: str, max_tokens: int) -> str:
    """The beginning of `text` that has at most `max_tokens` tokens."""
    ends = [match.end() for match in _PIECE.finditer(text)]
    return text if len(ends) <= max_tokens else text[: ends[max_tokens - 1]] if max_tokens > 0 else ""


def blocks(content: object) -> list[dict[str, Any]]:
    """Message or system content as blocks: a string is short for one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for block in content if isinstance(block, dict)] if isinstance(content, Iterable) else []


def without(block: Body, *names: str) -> dict[str, Any]:
    """A block's fields in one order, but for `names`."""
    return {name: block[name] for name in sorted(block) if name not in names}


def anthropic_positions(body: Body, model: Claude) -> list[Position]:
    """Tools, system, message blocks, with the breakpoints that the request sets or has set automatically.

    `speed` and citations are part of what system depends on, tool_choice, images, thinking and effort of what messages
    depend on: changing one misses from there on. A default that is spelt out is the same as one left out.
    """
    chain, found = Chain(), []
    for tool in body.get("tools") or ():
        chain.add("tools", without(tool, "cache_control"))
        found.append(_position(chain, "tool", tool))
    messages = [(str(m.get("role")), block) for m in body["messages"] for block in blocks(m.get("content"))]
    _depend(chain, {"speed": _unless(body.get("speed"), "standard"), "citations": _cites(messages)})
    for block in blocks(body.get("system")):
        if not is_attribution(block):
            chain.add("system", without(block, "cache_control"))
        found.append(_position(chain, "text", block))
    _depend(chain, _messages_depend_on(body, model, messages))
    for role, block in messages:
        chain.add(role, without(block, "cache_control"))
        found.append(_position(chain, str(block.get("type")), block))
    automatic = body.get("cache_control")
    last = last_cacheable(body)
    if automatic and last is not None:
        found[last] = replace(found[last], ttl=found[last].ttl or automatic.get("ttl") or "5m")
    return found


def is_attribution(block: Body) -> bool:
    """Whether a system block is Claude Code's billing header, which Anthropic leaves out of what it caches by.

    Nobody else does (https://code.claude.com/docs/en/llm-gateway-protocol, 2026-11-25).
    """
    return str(block.get("text")).startswith("x-anthropic-billing-header:")


def last_cacheable(body: Body) -> int | None:
    """The index, among all positions, of the last block that can carry a breakpoint; None if none can."""
    every = [*(body.get("tools") or ()), *blocks(body.get("system"))]
    every += [block for message in body["messages"] for block in blocks(message.get("content"))]
    return next((i for i in range(len(every) - 1, -1, -1) if is_cacheable(every[i])), None)


def is_cacheable(block: Body) -> bool:
    """Whether a block may carry cache_control: thinking and empty text may not."""
    kind = block.get("type")
    return kind not in ("thinking", "redacted_thinking") and not (kind == "text" and not block.get("text"))


def openai_positions(body: Body, prompt: str) -> list[Position]:
    """Tools, instructions, and the parts of each message or item of body[prompt]; caches are apart by prompt_cache_key.

    And by reasoning effort, as a strict reading has it: that a change of effort costs the cache is only said by others
    (https://docs.rs/lean-ctx/3.9.5/lean_ctx/proxy/effort, 2026-11-26).
    A breakpoint without a TTL takes that of prompt_cache_options, else 30m.
    """
    default = (body.get("prompt_cache_options") or {}).get("ttl") or "30m"
    effort = body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort")
    chain, found = Chain(f"{body.get('prompt_cache_key')} {effort}"), []
    for tool in body.get("tools") or ():
        chain.add("tools", without(tool))
        found.append(Position(chain.key, chain.tokens, "tool", ends_message=False))
    if body.get("instructions"):
        chain.add("instructions", body["instructions"])
        found.append(Position(chain.key, chain.tokens, "instructions"))
    given = body[prompt]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for item in items:
        chain.add("item", without(item, "content", "output", "id", "status"))
        parts = blocks(item.get("content", item.get("output")))
        by_model = item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning")
        for number, part in enumerate(parts):
            mark = part.get("prompt_cache_breakpoint")
            kind = str(part.get("type")).removeprefix("input_").removeprefix("output_")
            plain = without(part, "prompt_cache_breakpoint", "annotations", "logprobs")
            chain.add("part", {**plain, "type": kind})
            ttl = (mark.get("ttl") or default) if mark else None
            found.append(Position(chain.key, chain.tokens, kind, ttl, number == len(parts) - 1 and not by_model))
        if not parts:
            found.append(Position(chain.key, chain.tokens, "item", ends_message=not by_model))
    return found


def _position(chain: Chain, kind: str, block: Body) -> Position:
    mark = block.get("cache_control")
    return Position(chain.key, chain.tokens, kind, (mark.get("ttl") or "5m") if mark else None)


def _depend(chain: Chain, settings: dict[str, object]) -> None:
    """Make what follows depend on settings that are no text: they cost no tokens."""
    before = chain.tokens
    chain.add("settings", {name: value for name, value in settings.items() if value})
    chain.tokens = before


def _messages_depend_on(body: Body, model: Claude, messages: list[tuple[str, dict[str, Any]]]) -> dict[str, object]:
    choice = body.get("tool_choice") or {}
    default = "adaptive" if model.thinks_by_default else "disabled"
    thinking = without(body.get("thinking") or {"type": default})
    return {
        "tool_choice": _unless(without(choice, "disable_parallel_tool_use"), {"type": "auto"}),
        "disable_parallel_tool_use": choice.get("disable_parallel_tool_use"),
        "thinking": _unless(thinking, {"type": default}),
        "effort": _unless((body.get("output_config") or {}).get("effort"), "high"),
        "images": any(_has_image(block) for _, block in messages),
    }


def _has_image(block: Body) -> bool:
    """Whether a block is an image, or a tool result with one."""
    inner = block.get("content")
    return block.get("type") == "image" or (isinstance(inner, list) and any(_has_image(b) for b in blocks(inner)))


def _cites(messages: list[tuple[str, dict[str, Any]]]) -> bool:
    given = [block["citations"] for _, block in messages if isinstance(block.get("citations"), dict)]
    return any(citations.get("enabled") for citations in given)


def _unless(value: object, default: object) -> object:
    return None if value == default else value


def _count(value: object, content: str) -> int:
    media: list[object] = []
    text = _without_media(value, media)
    return count_tokens(json.dumps(text) if media else content) + MEDIA_TOKENS * len(media)


def _without_media(value: object, media: list[object]) -> object:
    """The value with each image and document left out and put into `media`."""
    if isinstance(value, list):
        return [_without_media(inner, media) for inner in value]
    if not isinstance(value, dict):
        return value
    source = value.get("source")
    is_text = isinstance(source, dict) and source.get("type") in ("text", "content")
    if value.get("type") in MEDIA and not is_text:
        media.append(value)
        return None
    return {name: _without_media(inner, media) for name, inner in value.items()}
