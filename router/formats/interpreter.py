"""A model's answer in the format that the caller asked in: replies, errors, streams; pure.

Between Messages, Chat Completions and Responses. Messages are in the middle: an answer becomes one, and what the caller
asked for is made of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from router.formats import chat_on_responses, messages_chat_replies, responses_on_chat
from router.types import Api


def reply(answer: Mapping[str, Any], spoken: Api, asked: Api) -> dict[str, Any]:
    """A complete reply in the caller's format. Raises TierwiseError for a Responses reply that says it failed."""
    if spoken is asked:
        return dict(answer)
    message = dict(answer)
    if spoken is not Api.MESSAGES:
        message = (
            chat_on_responses.to_message(answer)
            if spoken is Api.RESPONSES
            else messages_chat_replies.to_message(answer)
        )
    if asked is Api.MESSAGES:
        return message
    now = int(time.time())
    return (
        messages_chat_replies.to_completion(message, now)
        if asked is Api.CHAT
        else responses_on_chat.to_response(message, now)
    )


def error(body: Any, status: int, asked: Api, request_id: str) -> dict[str, Any]:
    """The body of an error, of a provider or none, in the caller's format; the provider's words stay."""
    given = body if isinstance(body, Mapping) else {}
    given = given if isinstance(given.get("error"), Mapping) else {}
    if asked is Api.MESSAGES:
        return {**messages_chat_replies.to_messages_error(given, status), "request_id": request_id}
    return messages_chat_replies.to_chat_error(given)


class Events:
    """A model's stream as the caller's: `feed` each event's data, then `end` once the model has said that it is done.

    `include_usage` is what a Chat Completions request asked for in its `stream_options`.
    """

    def __init__(self, spoken: Api, asked: Api, *, include_usage: bool = False) -> None:
        now = int(time.time())
        self._spoken = spoken
        self._messages = messages_chat_replies.MessageEvents()
        self._failed = False
        self._told: messages_chat_replies.CompletionChunks | responses_on_chat.ResponseEvents | None = None
        if asked is Api.CHAT:
            self._told = messages_chat_replies.CompletionChunks(now, include_usage=include_usage)
        elif asked is Api.RESPONSES:
            self._told = responses_on_chat.ResponseEvents(now)

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events that one amounts to, often none."""
        if self._spoken is Api.MESSAGES:
            return self._as_asked([dict(event)])
        chunk = chat_on_responses.to_chunk(event) if self._spoken is Api.RESPONSES else event
        if chunk is None:
            return []
        self._failed = self._failed or bool(chunk.get("error"))
        return self._as_asked(self._messages.feed(chunk))

    def end(self) -> list[dict[str, Any]]:
        """The events that close the caller's stream; none after an error, which has closed it."""
        return [] if self._spoken is Api.MESSAGES or self._failed else self._as_asked(self._messages.end())

    def _as_asked(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return events if self._told is None else [told for event in events for told in self._told.feed(event)]
