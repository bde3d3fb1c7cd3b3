"""The record of a reply, found by the reply itself.

`client.last_record` is that of whichever call finished last: with threads or tasks, that may be another one's.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

from router.errors import RequestError
from router.types import Record

_known: dict[int, tuple[weakref.ref[Any], Record]] = {}
"""By id, for the SDKs' replies compare by content and so have no hash; each goes when its reply does."""


def keep(reply: Any, record: Record) -> None:
    """Let `record_of` find the record for as long as somebody holds the reply; of a plain dict nobody can tell when."""
    key = id(reply)
    with suppress(TypeError):
        _known[key] = weakref.ref(reply, lambda _: _known.pop(key, None)), record


def record_of(reply: Any) -> Record:
    """The record of a reply from a wrapped client or from `complete`: of a stream, once it has ended or was closed.

    A reply is what a call returned: a message, a completion, a raw response, a stream, or what an SDK's helper gives
    (`client.messages.stream`). Raises RequestError for anything else, and for a stream that still runs.

    >>> reply = client.messages.create(model="auto", ...)  # doctest: +SKIP
    >>> record_of(reply).cost_usd  # doctest: +SKIP
    """
    if isinstance(found := getattr(reply, "record", None), Record):
        return found
    reference, record = _known.get(id(reply), (None, None))
    if reference is not None and record is not None and reference() is reply:
        return record
    stream = reply if hasattr(type(reply), "_call") else getattr(reply, "_raw_stream", None)
    call = getattr(stream, "_call", None)
    if call is None:
        kind = type(reply).__name__
        raise RequestError(f"no record of a {kind}; expected a reply of a wrapped client or of complete()")
    if call.record is None:
        raise RequestError("this stream has not ended; read it to its end, or close it, before asking for its record")
    ended: Record = call.record
    return ended
