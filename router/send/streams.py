"""A stream of an SDK that a call sees event by event, and that begins anew where it broke off before its first."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from types import new_class
from typing import Any, get_origin


async def sleep_async(seconds: float) -> None:
    """Sleep in whichever event loop is running."""
    import anyio  # both SDKs depend on it; it knows which event loop is running

    await anyio.sleep(seconds)


@lru_cache(maxsize=64)
def recorded(stream_cls: Any) -> type:
    """A subclass of the SDK's `Stream[X]` that shows each event to its `_call` (set on a subclass for each call)."""

    def stream(self: Any) -> Iterator[Any]:
        complete = False
        try:
            begun = False
            try:
                for event in super(made, self).__stream__():
                    for told in self._call.told(event, self.response.request):
                        begun = True
                        yield told
            except Exception as error:
                if begun or (wait_s := self._call.again(error)) is None:
                    raise
                time.sleep(wait_s)
                again = self._call.repeat()
                self.response = again.response
                yield from again
                complete = True
                return
            for told in self._call.rest(self.response.request):
                yield told
            complete = True
        finally:
            self._call.end_stream(complete)

    async def stream_async(self: Any) -> AsyncIterator[Any]:
        complete = False
        try:
            begun = False
            try:
                async for event in super(made, self).__stream__():
                    for told in self._call.told(event, self.response.request):
                        begun = True
                        yield told
            except Exception as error:
                if begun or (wait_s := self._call.again(error)) is None:
                    raise
                await sleep_async(wait_s)
                again = await self._call.repeat()
                self.response = again.response
                async for told in again:
                    yield told
                complete = True
                return
            for told in self._call.rest(self.response.request):
                yield told
            complete = True
        finally:
            self._call.end_stream(complete)

    def close(self: Any) -> None:
        super(made, self).close()
        self._call.end_stream(complete=False)

    async def close_async(self: Any) -> None:
        await super(made, self).close()
        self._call.end_stream(complete=False)

    is_async = hasattr(get_origin(stream_cls) or stream_cls, "__aiter__")
    methods = {
        "__stream__": stream_async if is_async else stream,
        "close": close_async if is_async else close,
    }
    made: Any = new_class("RecordedStream", (stream_cls,), exec_body=lambda ns: ns.update(methods))
    return made  # type: ignore[no-any-return]
