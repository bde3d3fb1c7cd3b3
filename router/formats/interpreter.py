"""A model's answer in the format that the caller asked in: replies, errors, streams; pure.

Between Messages, Chat Completions and Responses. Messages are in the middle: an answer becomes one, and what the caller
asked for is made of it. What the model wants back on the conversation's next request (formats/states.py) goes with it
where the caller's format has a place for it, and to `keep`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from router.errors import TierwiseError
from router.formats import chat_on_responses, messages_chat_replies, responses_on_chat, states
from router.formats.call_ids import callers_id
from router.formats.chat_events import MessageEvents
from router.formats.states import State
from router.types import Api, Telling

AS_IT_IS = Telling()
"""Names as they are, thinking left out, nothing kept."""

Keep = Callable[[str, str, State], None]
"""Takes the id and the name of a message's first tool call, and what its model wants back of the message."""

_UNREADABLE = (TierwiseError, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)
_THINKING = ("thinking", "redacted_thinking")
_HOLD_NAMES = ("choices", "message", "delta", "tool_calls", "function", "content", "content_block", "output", "item",
               "response")  # fmt: skip


def reply(
    answer: Mapping[str, Any], spoken: Api, asked: Api, telling: Telling = AS_IT_IS, keep: Keep | None = None
) -> dict[str, Any]:
    """A complete reply in the caller's format. Raises TierwiseError for a Responses reply that says it failed."""
    if spoken is asked:
        remember(answer, spoken, telling, keep)
        told = dict(answer)
        rename(told, telling.names)
        return told
    message = _message(answer, spoken, telling)
    _keep(message, keep)
    message["content"] = [_shown(block, n, message, asked, telling) for n, block in _visible(message, telling)]
    if asked is Api.MESSAGES:
        return message
    now = int(time.time())
    return (
        messages_chat_replies.to_completion(message, now)
        if asked is Api.CHAT
        else responses_on_chat.to_response(message, now)
    )


def remember(answer: Mapping[str, Any], spoken: Api, telling: Telling, keep: Keep | None) -> None:
    """Give to `keep` what a reply's model wants back, where its caller may not bring it; nothing of an odd shape."""
    if keep is not None and telling.within:
        with suppress(*_UNREADABLE):
            _keep(_message(answer, spoken, telling), keep)


def rename(value: Any, names: Mapping[str, str]) -> None:
    """Call the tools in a reply or an event, an SDK's object or a dict, by the caller's names, in place."""
    if not names:
        return
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            if isinstance(name := value.get("name"), str) and name in names:
                value["name"] = names[name]
            pending.extend(value[field] for field in _HOLD_NAMES if field in value)
        elif hasattr(value, "__dict__"):
            if isinstance(name := getattr(value, "name", None), str) and name in names:
                value.name = names[name]
            pending.extend(getattr(value, field, None) for field in _HOLD_NAMES)


def _message(answer: Mapping[str, Any], spoken: Api, telling: Telling) -> dict[str, Any]:
    if spoken is Api.RESPONSES:
        return chat_on_responses.to_message(answer, telling.model)
    if spoken is Api.CHAT:
        return messages_chat_replies.to_message(answer, telling.model)
    content = [
        _sealed(block, place, telling.model) if block.get("type") in _THINKING else block
        for place, block in enumerate(answer["content"])
    ]
    return {**answer, "content": content}


def _sealed(block: Mapping[str, Any], place: int, model: str) -> dict[str, Any]:
    """One of Anthropic's thinking blocks for a caller of another format."""
    signature = states.seal(State(model, blocks=[(place, dict(block))]))
    return {"type": "thinking", "thinking": block.get("thinking") or "", "signature": signature}


def _keep(message: Mapping[str, Any], keep: Keep | None) -> None:
    call = next((block for block in message["content"] if block["type"] == "tool_use"), None)
    if keep is None or call is None:
        return
    found = [states.unseal(b["signature"], b["thinking"]) for b in message["content"] if b["type"] == "thinking"]
    if (state := states.merged([each for each in found if each is not None])) is not None:
        keep(str(call.get("id") or ""), str(call.get("name") or ""), state)


def _visible(message: Mapping[str, Any], telling: Telling) -> list[tuple[int, dict[str, Any]]]:
    return [(n, b) for n, b in enumerate(message["content"]) if telling.shows_thinking or b["type"] != "thinking"]


def _shown(
    block: dict[str, Any], place: int, message: Mapping[str, Any], asked: Api, telling: Telling
) -> dict[str, Any]:
    if block["type"] != "tool_use":
        return block
    call_id = callers_id(block.get("id"), asked, f"call_{message.get('id')}_{place}")
    return {**block, "id": call_id, "name": telling.names.get(block["name"], block["name"])}


def error(body: Any, status: int, asked: Api, request_id: str) -> dict[str, Any]:
    """The body of an error, of a provider or none, in the caller's format; the provider's words stay."""
    body = body[0] if isinstance(body, list) and body else body  # Gemini's come in a list
    given = body if isinstance(body, Mapping) else {}
    given = given if isinstance(given.get("error"), Mapping) else {}
    if asked is Api.MESSAGES:
        return {**messages_chat_replies.to_messages_error(given, status), "request_id": request_id}
    return messages_chat_replies.to_chat_error(given)


class Events:
    """A model's stream as the caller's: `feed` each event's data, then `end` once the model has said that it is done.

    `include_usage` is what a Chat Completions request asked for in its `stream_options`.
    """

    def __init__(
        self,
        spoken: Api,
        asked: Api,
        *,
        include_usage: bool = False,
        telling: Telling = AS_IT_IS,
        keep: Keep | None = None,
    ) -> None:
        now = int(time.time())
        self._spoken, self._asked, self._telling, self._keep = spoken, asked, telling, keep
        self._messages = MessageEvents(telling.model, shows=telling.shows_thinking)
        self._thoughts = _Thoughts(telling)
        self._failed = False
        self._told: messages_chat_replies.CompletionChunks | responses_on_chat.ResponseEvents | None = None
        if asked is Api.CHAT:
            self._told = messages_chat_replies.CompletionChunks(now, include_usage=include_usage)
        elif asked is Api.RESPONSES:
            self._told = responses_on_chat.ResponseEvents(now)

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events that one amounts to, often none."""
        if self._spoken is Api.MESSAGES:
            if event.get("type") == "message_stop":
                self._kept(self._thoughts.found, self._thoughts.first_call)
            return self._as_asked(self._thoughts.feed(event))
        chunk = chat_on_responses.to_chunk(event) if self._spoken is Api.RESPONSES else event
        if chunk is None:
            return []
        self._failed = self._failed or bool(chunk.get("error"))
        return self._as_asked(self._messages.feed(chunk))

    @property
    def has_finished(self) -> bool:
        """Whether a Chat Completions stream has said why it ends, which is not yet its last word."""
        return self._messages.has_finished and not self._failed

    def end(self) -> list[dict[str, Any]]:
        """The events that close the caller's stream; none after an error, which has closed it."""
        if self._spoken is Api.MESSAGES or self._failed:
            return []
        events = self._messages.end()
        self._kept(self._messages.states, self._messages.first_call)
        return self._as_asked(events)

    def _kept(self, found: list[State], call: tuple[str, str] | None) -> None:
        state = states.merged(found)
        if self._keep is not None and state is not None and call is not None:
            self._keep(*call, state)

    def _as_asked(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for event in events:
            block = event.get("content_block")
            if block is not None and block["type"] == "tool_use":
                names = self._telling.names
                call_id = callers_id(block["id"], self._asked, f"call_{event['index']}")
                event["content_block"] = {**block, "id": call_id, "name": names.get(block["name"], block["name"])}
        return events if self._told is None else [told for event in events for told in self._told.feed(event)]


class Listener:
    """A Chat Completions stream whose caller gets it as it is: what its model wants back is kept, as of `remember`."""

    def __init__(self, telling: Telling, keep: Keep) -> None:
        self._events = Events(Api.CHAT, Api.MESSAGES, telling=telling, keep=keep)

    def feed(self, chunk: Mapping[str, Any]) -> None:
        """Take in a chunk; one of an odd shape says nothing."""
        with suppress(*_UNREADABLE):
            self._events.feed(chunk)

    def end(self) -> None:
        """The stream is over."""
        self._events.end()


class _Thoughts:
    """A stream of Anthropic's for a caller of another format: its thinking blocks are sealed as they end.

    `found` is what its model wants back, `first_call` the (id, name) of the first tool call.
    """

    def __init__(self, telling: Telling) -> None:
        self.found: list[State] = []
        self.first_call: tuple[str, str] | None = None
        self._telling = telling
        self._open: dict[str, Any] | None = None

    def feed(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        kind, block = event.get("type"), event.get("content_block")
        if kind == "content_block_start" and block and block["type"] in _THINKING:
            self._open = dict(block)
            shown = {"type": "thinking", "thinking": "", "signature": ""}
            return self._shown({**event, "content_block": shown})
        if kind == "content_block_start" and block and block["type"] == "tool_use":
            self.first_call = self.first_call or (block["id"], block["name"])
        if self._open is None:
            return [dict(event)]
        if kind == "content_block_delta":
            return self._more(event)
        if kind == "content_block_stop":
            block, self._open = self._open, None
            state = State(self._telling.model, blocks=[(event["index"], block)])
            self.found.append(state)
            delta = {"type": "signature_delta", "signature": states.seal(state)}
            sealed = {"type": "content_block_delta", "index": event["index"], "delta": delta}
            return self._shown(sealed, dict(event))
        return [dict(event)]

    def _more(self, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        assert self._open is not None
        delta = event["delta"]
        if delta["type"] == "signature_delta":
            self._open["signature"] = delta["signature"]
            return []
        if delta["type"] == "thinking_delta":
            self._open["thinking"] = self._open.get("thinking", "") + delta["thinking"]
        return self._shown(dict(event))

    def _shown(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        return list(events) if self._telling.shows_thinking else []
