"""Ids of tool calls that every provider takes, made of ones that some refuse, and back; pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

from router.types import Api

PLAIN = re.compile(r"[a-zA-Z0-9_-]+")
"""What Anthropic takes as an id, and OpenAI as a tool's name."""

_MARK = "tw_"


def callers_id(given: Any, api: Api, fallback: str) -> str:
    """A tool call's id as a caller of `api` may send it on to their own provider; reversible. `fallback` for none."""
    pattern = PLAIN if api is Api.MESSAGES else None
    original = str(given) if given else fallback
    return original if pattern is None or pattern.fullmatch(original) else made_id(original)


def made_id(original: str) -> str:
    """A plain id that says what it was made of."""
    return _MARK + _encoded(original)


def original_id(given: str) -> str:
    """The id that `made_id` was given, or the id itself."""
    if not given.startswith(_MARK):
        return given
    text = given.removeprefix(_MARK)
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return given
    return found if _encoded(found) == text else given


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def digest(text: str, n_chars: int) -> str:
    """The first of 32 hexadecimal digits that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()[:n_chars]
