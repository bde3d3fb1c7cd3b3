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


def _pause(call: Any, error: Exception, *, begun: bool) -> float:
    """Seconds until a stream that broke off is asked for again; raises what broke it where that cannot be."""
    wait_s: float | None = None if begun else call.again(error)
    if wait_s is None:
        raise error
    return wait_s


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
                for told in self._call.rest(self.response.request):
                    yield told
            except Exception as error:
                time.sleep(_pause(self._call, error, begun=begun))
                again = self._call.repeat()
                self.response = again.response
                yield from again
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
                for told in self._call.rest(self.response.request):
                    yield told
            except Exception as error:
                await sleep_async(_pause(self._call, error, begun=begun))
                again = await self._call.repeat()
                self.response = again.response
                async for told in again:
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
        "__del__": lambda self: self._call.end_stream(complete=False),  # never read, and billed all the same
    }
    made: Any = new_class("RecordedStream", (stream_cls,), exec_body=lambda ns: ns.update(methods))
    return made  # type: ignore[no-any-return]
