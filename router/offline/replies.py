"""What the models answer: simulated text, or what a test has scripted; and the signatures of their thinking."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.offline.failures import Rejected
from router.offline.models import Claude
from router.offline.prompt import Chain, blocks, is_attribution, without

DROP_BETA = "thinking-binding-controls-2026-08-01"
_WORDS = ("Thank", "you", "for", "your", "message;", "here", "is", "what", "we", "can", "do", "about", "it", "today.")
_KEY = b"the embedded upstream signs with this"


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model calls."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What to answer once to `model` (None: to any): text, tool calls, thinking; `has_usage` False leaves usage out."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thinking: str = ""
    has_usage: bool = True
    model: str | None = None


def simulate(body: Mapping[str, Any], model_id: str) -> Reply:
    """A reply whose length (30 to 180 words) depends on the prompt alone, so that every model answers equally long."""
    given = body.get("messages", body.get("input"))
    plain = given if isinstance(given, str) else [_plain(message) for message in given or ()]
    prompt = json.dumps(plain, sort_keys=True).encode()
    n_words = 30 + int.from_bytes(hashlib.blake2b(prompt, digest_size=2).digest()) % 151
    words = " ".join(_WORDS[i % len(_WORDS)] for i in range(n_words))
    return Reply(f"[simulated reply of {model_id}] {words}")


def pieces(text: str) -> list[str]:
    """Text as it is streamed."""
    return re.findall(r".{1,40}", text, re.DOTALL)


def sign(model_id: str, prefix: str, thinking: str) -> str:
    """The signature of a thinking block that follows the prefix of that hash."""
    seal = hashlib.blake2b(f"{model_id}|{prefix}|{thinking}".encode(), key=_KEY, digest_size=16).hexdigest()
    return base64.b64encode(f"{model_id}|{prefix}|{seal}".encode()).decode()


def encrypt(model_id: str, thinking: str) -> str:
    """Reasoning that only the model that made it reads: OpenAI's `encrypted_content`."""
    return sign(model_id, "reasoning", thinking)


def is_own(content: object, model_id: str) -> bool:
    """Whether encrypted reasoning is this model's."""
    try:
        signer, _, seal = base64.b64decode(str(content), validate=True).decode().split("|")
    except (binascii.Error, ValueError):
        return False
    return signer == model_id and len(seal) == 32


def prefix(body: Mapping[str, Any]) -> str:
    """The hash of a whole request, which its reply's thinking is bound to."""
    chain = _opening(body)
    for message in body["messages"]:
        for block in blocks(message.get("content")):
            chain.add(str(message["role"]), without(block, "cache_control"))
    return chain.key


def readable(body: dict[str, Any], model_id: str, model: Claude, betas: str) -> dict[str, Any]:
    """The request without the thinking blocks that this model cannot read.

    Those of other models are dropped, and so are not billed. Raises Rejected for a block that was not signed here, or
    that is bound to another conversation, unless the request asks to drop it.
    """
    if not any(b.get("type") == "thinking" for m in body["messages"] for b in blocks(m.get("content"))):
        return body
    binding = (body.get("thinking") or {}).get("block_binding") or {}
    drops = DROP_BETA in betas and binding.get("prefix_mismatch_behavior") == "drop_block"
    chain = _opening(body)
    messages = []
    for i, message in enumerate(body["messages"]):
        kept: list[Any] = []
        for j, block in enumerate(blocks(message.get("content"))):
            if block.get("type") == "thinking":
                signer, prefix = _read(block, f"messages.{i}.content.{j}")
                if signer != model_id:
                    continue
                if model.binds_thinking and prefix != chain.key:
                    if drops:
                        continue
                    raise Rejected(
                        f"messages.{i}.content.{j}: Invalid `signature` in `thinking` block. "
                        "The block is bound to a different conversation."
                    )
            chain.add(str(message["role"]), without(block, "cache_control"))
            kept.append(block)
        messages.append({**message, "content": kept})
    return {**body, "messages": messages}


def _opening(body: Mapping[str, Any]) -> Chain:
    chain = Chain()
    for section in ("tools", "system"):
        for block in blocks(body.get(section)):
            if not is_attribution(block):
                chain.add(section, without(block, "cache_control"))
    return chain


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without breakpoints, and a single text block as a string: how it is written changes no reply."""
    parts = [without(b, "cache_control", "prompt_cache_breakpoint") for b in blocks(message.get("content"))]
    if not parts:
        return dict(message)
    is_text = len(parts) == 1 and set(parts[0]) == {"text", "type"}
    return {**message, "content": parts[0]["text"] if is_text else parts}


def _read(block: Mapping[str, Any], path: str) -> tuple[str, str]:
    """Who signed a thinking block, after which prefix. Raises Rejected if nobody did."""
    try:
        signature = base64.b64decode(str(block.get("signature")), validate=True).decode()
        model_id, prefix, _ = signature.split("|")
    except (binascii.Error, ValueError):
        model_id = prefix = ""
    if block.get("signature") != sign(model_id, prefix, str(block.get("thinking"))):
        raise Rejected(f"{path}: Invalid `signature` in `thinking` block")
    return model_id, prefix
