"""A request in one provider's format to a model that speaks another's, and its answer back; pure.

Between Messages and OpenAI's formats, both ways: bodies, replies, errors, streams. A request in the Responses format is
not translated; it goes to models that speak it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from router import caching, dialect, replies, responses, translation
from router.catalog import Model
from router.errors import RequestError
from router.types import Api, Body, Ttl


class Interpretation(msgspec.Struct, frozen=True):
    """A body as the model is sent it, the format that it is in, and what was left out or changed."""

    api: Api
    body: dict[str, Any]
    notes: tuple[str, ...]


def interpret(
    body: Body, asked: Api, model: Model, *, head: Ttl = Ttl.SHORT, tail: Ttl = Ttl.NONE, version: str | None = None
) -> Interpretation:
    """A body for `model`, adapted to it: as it is where the model speaks its format, else translated.

    A translated body is planned for caching anew: `head` and `tail` say for how long, as in `caching.plan`. `version`
    is the anthropic-version that is sent. Raises RequestError for what the model's format cannot say.
    """
    api, notes = asked, tuple[str, ...]()
    if not dialect.speaks(asked, model):
        api, body, notes = _translated(body, asked, model)
        body = caching.apply(body, caching.plan(body, api, model, head=head, tail=tail), api)
    adapted, changes = dialect.adapt(body, api, model, version)
    return Interpretation(api, adapted, notes + changes)


def reply(answer: Mapping[str, Any], spoken: Api, asked: Api) -> dict[str, Any]:
    """A complete reply in the caller's format. Raises TierwiseError for a Responses reply that says it failed."""
    if spoken is asked:
        return dict(answer)
    if asked is Api.CHAT:
        return replies.to_completion(answer, int(time.time()))
    return responses.to_message(answer) if spoken is Api.RESPONSES else replies.to_message(answer)


def error(body: Any, status: int, asked: Api, request_id: str) -> dict[str, Any]:
    """The body of an error, of a provider or none, in the caller's format; the provider's words stay."""
    given = body if isinstance(body, Mapping) else {}
    given = given if isinstance(given.get("error"), Mapping) else {}
    if asked is Api.MESSAGES:
        return {**replies.to_messages_error(given, status), "request_id": request_id}
    return replies.to_chat_error(given)


class Events:
    """A model's stream as the caller's: `feed` each event's data, then `end` once the model has said that it is done.

    `include_usage` is what a Chat Completions request asked for in its `stream_options`.
    """

    def __init__(self, spoken: Api, *, include_usage: bool = False) -> None:
        self._spoken = spoken
        self._chunks = replies.CompletionChunks(int(time.time()), include_usage=include_usage)
        self._events = replies.MessageEvents()
        self._failed = False

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events that one amounts to, often none."""
        if self._spoken is Api.MESSAGES:
            return self._chunks.feed(event)
        chunk = responses.to_chunk(event) if self._spoken is Api.RESPONSES else event
        if chunk is None:
            return []
        self._failed = self._failed or bool(chunk.get("error"))
        return self._events.feed(chunk)

    def end(self) -> list[dict[str, Any]]:
        """The events that close the caller's stream; none after an error, which has closed it."""
        return [] if self._spoken is Api.MESSAGES or self._failed else self._events.end()


def _translated(body: Body, asked: Api, model: Model) -> tuple[Api, Body, tuple[str, ...]]:
    """Responses for tools that the model does not call over Chat Completions."""
    if asked is Api.RESPONSES:
        raise RequestError(f"{model.id} is not reached through the Responses API; send Chat Completions or Messages")
    try:
        if asked is Api.CHAT:
            return Api.MESSAGES, *translation.to_messages(body)
        chat, notes = translation.to_chat(body)
        if not chat.get("tools") or model.dialect.chat_tools == "any":
            return Api.CHAT, chat, notes
        sent, left_out = responses.to_responses(chat)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise RequestError(f"the body cannot be translated for {model.id}: {type(exc).__name__}: {exc}") from exc
    if body.get("stream"):
        sent["stream"] = True
    return Api.RESPONSES, sent, notes + left_out
