"""One request's body in the formats that it may be asked in, each made at most once; pure."""

from __future__ import annotations

from typing import Any

from router import volatile
from router.errors import RequestError
from router.formats import chat_on_responses, messages_chat, responses_on_chat
from router.types import Api, Body

Translation = tuple[dict[str, Any], tuple[str, ...]]
"""A body, and what was left out or changed."""


class Translations:
    """A body of the format `asked`, which is not modified, in other formats."""

    def __init__(self, body: dict[str, Any], asked: Api) -> None:
        self.body = body
        self.asked = asked
        self._made: dict[Api, Translation | RequestError] = {asked: (body, ())}

    def to(self, api: Api) -> Translation:
        """The body in a format. Raises RequestError for what cannot be read, or cannot be said in that format."""
        if api not in self._made:
            try:
                self._made[api] = _translated(self.body, self.asked, api)
            except RequestError as exc:
                self._made[api] = exc
        made = self._made[api]
        if isinstance(made, RequestError):
            raise made
        return made


def _translated(body: Body, asked: Api, api: Api) -> Translation:
    """Over Chat Completions, in which all can be said."""
    chat, notes, lost = dict(body), tuple[str, ...](), tuple[str, ...]()
    try:
        if asked is Api.MESSAGES:
            chat, notes = messages_chat.to_chat(volatile.settled(body))
        elif asked is Api.RESPONSES:
            chat, notes = responses_on_chat.to_chat(body)
        if api is Api.MESSAGES:
            chat, lost = messages_chat.to_messages(chat)
        elif api is Api.RESPONSES:
            chat, lost = chat_on_responses.to_responses(chat)
    except RequestError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise RequestError(
            f"the body cannot be read as {asked}, to say it as {api}: {type(exc).__name__}: {exc}"
        ) from exc
    return chat, notes + lost
