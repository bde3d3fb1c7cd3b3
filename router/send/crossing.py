"""A Chat Completions call of the openai SDK that is asked on Responses, and its answer in the types asked for.

The newest GPT models call tools with reasoning on Responses only. The caller keeps what Chat Completions gives:
`ChatCompletion`, `Stream[ChatCompletionChunk]`, what `parse` and `with_raw_response` make of them. The SDK is imported
when the first such call is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_origin

from router.formats import interpreter
from router.formats import usage as usages
from router.types import Api, Plan


class Crossing:
    """One attempt. `usage` is the reply's, once there is one."""

    path = Api.RESPONSES.value

    def __init__(
        self, plan: Plan, kwargs: Mapping[str, Any], parser: Callable[[Any], Any] | None, keep: interpreter.Keep
    ) -> None:
        """`kwargs` are those of the SDK's `post`, `parser` its `post_parser`; `keep` takes what is wanted back."""
        self.usage = usages.UNREPORTED
        self._reply_type, self._stream_type, self._parser = kwargs["cast_to"], kwargs.get("stream_cls"), parser
        self._telling, self._keep = plan.telling, keep
        self._events = interpreter.Events(
            plan.api, plan.asked, include_usage=not plan.hides_usage, telling=plan.telling, keep=keep
        )

    def types(self) -> dict[str, Any]:
        """The SDK's types of what will come, as arguments of `post`."""
        from openai.types.responses import Response, ResponseStreamEvent

        found: dict[str, Any] = {"cast_to": Response}
        if self._stream_type is not None:
            stream: Any = get_origin(self._stream_type)
            found["stream_cls"] = stream[ResponseStreamEvent]
        return found

    def reply(self, response: Any) -> Any:
        """The reply as the caller's type. Raises TierwiseError for one that says it failed."""
        self.usage = usages.read_usage(response, Api.RESPONSES)
        given = response.to_dict(mode="json")
        told = interpreter.reply(given, Api.RESPONSES, Api.CHAT, self._telling, self._keep)
        construct = getattr(self._reply_type, "construct", None)  # the client's own `post` takes any type
        completion = told if construct is None else construct(**told)
        return completion if self._parser is None else self._parser(completion)

    def feed(self, event: Any, request: Any) -> Iterator[Any]:
        """The chunks that one event amounts to. Raises the SDK's APIError where it says that the stream failed."""
        return self._chunks(self._events.feed(event.to_dict(mode="json")), request)

    def end(self, request: Any) -> Iterator[Any]:
        """The chunks that close the caller's stream."""
        return self._chunks(self._events.end(), request)

    def _chunks(self, told: list[dict[str, Any]], request: Any) -> Iterator[Any]:
        (chunk_type,) = get_args(self._stream_type)
        for chunk in told:
            if error := chunk.get("error"):
                from openai import APIError

                raise APIError(error.get("message") or "An error occurred during streaming", request, body=error)
            yield chunk_type.construct(**chunk)
