"""Tools and system prompt -> who they are of, and what a provider's cache holds of them: two digests.

The first leaves out what changes in each request (times, ids, counters: router/volatile.py), so that a conversation,
a class of traffic and a cache key stay the same. The second is of what is sent, for a cache reads bytes; only a line
for the provider's own books does not count, for the provider takes it out of the prompt by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from xxhash import xxh3_64, xxh3_64_intdigest

from router import volatile
from router.cache.encoding import MARKS, encoded
from router.cache.items import texts

_MAX_KNOWN = 4096


class Head(msgspec.Struct, frozen=True):
    """Digests: `lasting` of what identifies it, `sent` of what is sent; the same where nothing changes."""

    lasting: int
    sent: int


_heads: dict[int, Head] = {}
_parts: dict[int, Head] = {}
_NONE = 0
"""The digest of a part of which nothing is left."""


def read_head(tools: Sequence[Any], system: Any, digest: int) -> Head:
    """The head whose bytes have that digest; kept, for nearly every request brings one that was seen before."""
    if (found := _heads.get(digest)) is None:
        found = _read(tools, system, digest)
        _keep(_heads, digest, found)
    return found


def _read(tools: Sequence[Any], system: Any, digest: int) -> Head:
    lasting, sent, changes = xxh3_64(), xxh3_64(), False
    for parts in (tools, [system] if isinstance(system, str) else system):
        for part in parts:
            name = xxh3_64_intdigest(encoded(part)[0])
            found = _parts.get(name) or _read_part(part, name)
            changes = changes or found != Head(name, name)
            lasting.update(_bytes(found.lasting))
            sent.update(_bytes(found.sent))
        lasting.update(b"|")
        sent.update(b"|")
    return Head(lasting.intdigest(), sent.intdigest()) if changes else Head(digest, digest)


def _bytes(digest: int) -> bytes:
    return b"" if digest == _NONE else digest.to_bytes(8, "little")


def _read_part(part: Any, name: int) -> Head:
    """The same of a tool, a block or a message; `name` is the digest of all of it."""
    given = [text for _, text in texts(part, without=MARKS)]
    stable = [volatile.stable(text) for text in given]
    found = Head(name, name)
    if stable != given:
        sent = [volatile.without_header(text) for text in given]
        found = Head(_digest(stable), name if sent == given else _digest(sent))
    _keep(_parts, name, found)
    return found


def _digest(given: Sequence[str]) -> int:
    """Of texts, of which the first of a block is its type; nothing but white space left in the others is nothing."""
    if not any(text.strip() for text in given if text != "text"):
        return _NONE
    return xxh3_64_intdigest("\0".join(given).encode("utf-8", "surrogatepass"))


def _keep(known: dict[int, Any], name: int, value: Any) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known[name] = value
