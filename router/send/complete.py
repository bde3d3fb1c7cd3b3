"""complete(): one call in one neutral form over a fleet whose models may be anybody's.

The neutral form is Anthropic's Messages. A switchboard stands where an SDK's client would: it is given a planned body,
finds the chosen model's own client, translates where that speaks OpenAI's formats, and answers in Messages form. It is
wrapped as any client is (`router.clients`), so that retries, moving up, the breaker and the record are the same code.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import msgspec

from router.catalog import COMPATIBLE, Model
from router.engine import AUTO, Router
from router.errors import ClientError
from router.formats import interpreter
from router.formats import usage as usages
from router.send.wrap import instrument
from router.types import Api, Record, Ttl, Usage

KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY", "gemini": "GEMINI_API_KEY"}
"""Where a provider's key is looked for; a model of the user's own names its variable itself."""

GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta/openai/"
_MAX_RETRIES = 2


class ToolCall(msgspec.Struct, frozen=True):
    """A tool that the model wants called; answer with a `tool_result` block of the same id."""

    id: str
    name: str
    arguments: dict[str, Any]


class Completion(msgspec.Struct, frozen=True):
    """One answer. `text` is "" where the model only calls tools; `cost_usd` is None where it is not known.

    `message` is the answer as a Messages reply, whoever gave it: append it to the conversation as
    `{"role": "assistant", "content": completion.message["content"]}`. `raw` is the provider's SDK object.
    """

    text: str
    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    cost_usd: Decimal | None
    record: Record | None
    message: dict[str, Any]
    raw: Any


def complete(
    router: Router,
    messages: str | Sequence[Mapping[str, Any]],
    /,
    *,
    system: str | Sequence[Mapping[str, Any]] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    max_tokens: int = 1024,
    model: str = AUTO,
    clients: Mapping[str, Any] | None = None,
    max_retries: int = _MAX_RETRIES,
    **options: Any,
) -> Completion:
    """Ask the cheapest model of the router's fleet that suffices, whoever serves it, and account for the answer.

    `messages` are Anthropic's (a string is one user message), as are `system`, `tools` (name, description,
    input_schema) and `options`: any further field of a Messages body, and `router={...}` (`CallOptions`). `clients`
    are SDK clients to use, by provider or model id; for others one is made from the environment and kept.

    Raises ClientError, naming the missing key, before anything is sent; RequestError for what a model's format cannot
    say; and the SDK's own exceptions.

    >>> complete(Router.load(fleet="mine"), "What is the capital of Peru?").text  # doctest: +SKIP
    """
    board = _Switchboard(router, clients or {}, max_retries, is_async=False)
    body = _body(messages, system, tools, max_tokens, model, options)
    board.check(model)
    answer = instrument(board, router).post(Api.MESSAGES.value, body=body)
    return _completion(board, answer)


async def complete_async(
    router: Router,
    messages: str | Sequence[Mapping[str, Any]],
    /,
    *,
    system: str | Sequence[Mapping[str, Any]] | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    max_tokens: int = 1024,
    model: str = AUTO,
    clients: Mapping[str, Any] | None = None,
    max_retries: int = _MAX_RETRIES,
    **options: Any,
) -> Completion:
    """`complete` for a running event loop: `clients` are the SDKs' async ones."""
    board = _AsyncSwitchboard(router, clients or {}, max_retries, is_async=True)
    body = _body(messages, system, tools, max_tokens, model, options)
    board.check(model)
    answer = await instrument(board, router).post(Api.MESSAGES.value, body=body)
    return _completion(board, answer)


class _Answer(msgspec.Struct, frozen=True):
    """A reply in Messages form. `usage` and `content` are where the accounting looks for them."""

    message: dict[str, Any]
    raw: Any
    notes: tuple[str, ...]

    @property
    def usage(self) -> Any:
        return self.message.get("usage")

    @property
    def content(self) -> Any:
        return self.message.get("content")


class _Board:
    """What both switchboards share: from a planned body to a request, from a reply to an answer."""

    last_record: Record | None
    has_one_address = False
    copy: Any = None  # an SDK client has one; nobody copies a switchboard

    def __init__(self, router: Router, clients: Mapping[str, Any], max_retries: int, *, is_async: bool) -> None:
        self.max_retries = max_retries
        self._router = router
        self._clients = clients
        self._is_async = is_async

    def check(self, model_name: str) -> None:
        """Raises ClientError when a model that may be asked cannot be reached for want of a key."""
        named = self._router.catalog.find(model_name)
        models = self._router.fleet.models.values() if named is None else [named]
        missing = {env: m.id for m in models if self._given(m) is None and (env := _missing_key(m))}
        if missing:
            which = ", ".join(f"{env} for {model}" for env, model in missing.items())
            raise ClientError(f"no API key: set {', '.join(missing)} in the environment, or pass clients= ({which})")

    def _request(self, body: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Api, tuple[str, ...]]:
        """(client, arguments of its `post`, the format that is sent, notes)."""
        model = self._router.catalog.find(body["model"])
        if model is None:
            raise ClientError(f"cannot tell who serves the model {body['model']!r}; add [models.{body['model']!r}]")
        client = self._given(model) or _client(*_address(model), self._is_async)
        version = client.default_headers.get("anthropic-version") if model.provider == "anthropic" else None
        tail = Ttl.SHORT if body.get("cache_control") else Ttl.NONE
        said = interpreter.interpret(body, Api.MESSAGES, model, tail=tail, version=version)
        options = {"max_retries": 0}
        arguments = {"path": said.api.value, "body": said.body, "cast_to": _reply_type(said.api), "options": options}
        return client, arguments, said.api, said.notes

    def _answer(self, raw: Any, api: Api, notes: tuple[str, ...]) -> _Answer:
        return _Answer(interpreter.reply(raw.to_dict(mode="json"), api, Api.MESSAGES), raw, notes)

    def _given(self, model: Model) -> Any:
        client = self._clients.get(model.id, self._clients.get(model.provider))
        if client is None:
            return None
        if isinstance(getattr(client, "router", None), Router):
            raise ClientError("a wrapped client in clients=; pass the SDK's own, for the call is wrapped here")
        if inspect.iscoroutinefunction(getattr(client, "post", None)) != self._is_async:
            wanted = "an async client (complete_async)" if self._is_async else "a sync client (complete)"
            raise ClientError(f"clients= has {type(client).__qualname__} for {model.id}, expected {wanted}")
        return client


class _Switchboard(_Board):
    def post(self, path: str, *, body: Mapping[str, Any], **_: Any) -> Any:  # noqa: ARG002
        """One attempt: to the model that the body names, and back."""
        client, arguments, api, notes = self._request(body)
        return self._answer(client.post(**arguments), api, notes)


class _AsyncSwitchboard(_Board):
    async def post(self, path: str, *, body: Mapping[str, Any], **_: Any) -> Any:  # noqa: ARG002
        """One attempt: to the model that the body names, and back."""
        client, arguments, api, notes = self._request(body)
        return self._answer(await client.post(**arguments), api, notes)


def _reply_type(api: Api) -> type:
    """The SDK's type of a reply: importing an SDK takes a second."""
    if api is Api.MESSAGES:
        from anthropic.types import Message

        return Message
    if api is Api.RESPONSES:
        from openai.types.responses import Response

        return Response
    from openai.types.chat import ChatCompletion

    return ChatCompletion


def _body(messages: Any, system: Any, tools: Any, max_tokens: int, model: str, options: dict[str, Any]) -> Any:
    asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    fields = {"system": system, "tools": tools and list(tools), **options}
    given = {name: value for name, value in fields.items() if value is not None}
    return {"model": model, "max_tokens": max_tokens, "messages": asked, **given}


def _completion(board: _Board, answer: _Answer) -> Completion:
    content = answer.message["content"]
    record = board.last_record
    if record is not None and answer.notes:
        record = msgspec.structs.replace(record, notes=(*record.notes, *answer.notes))
    return Completion(
        text="".join(block["text"] for block in content if block["type"] == "text"),
        tool_calls=tuple(ToolCall(b["id"], b["name"], b["input"]) for b in content if b["type"] == "tool_use"),
        usage=record.usage if record else usages.read_usage(answer, Api.MESSAGES),
        cost_usd=record.cost_usd if record else None,
        record=record,
        message=answer.message,
        raw=answer.raw,
    )


def _missing_key(model: Model) -> str | None:
    """The variable to set before a model can be asked; None when it is set, or none is needed."""
    name = model.api_key_env or (None if model.provider == COMPATIBLE else KEYS[model.provider])
    has_token = model.provider == "anthropic" and os.environ.get("ANTHROPIC_AUTH_TOKEN")
    return None if name is None or has_token or os.environ.get(name) else name


def _address(model: Model) -> tuple[str, str | None, str | None]:
    """(SDK, base URL, key) for a model; None is the SDK's own default, from the environment."""
    if model.provider == "anthropic":
        return "anthropic", model.base_url or os.environ.get("ANTHROPIC_BASE_URL"), os.environ.get(KEYS["anthropic"])
    name = model.api_key_env or KEYS.get(model.provider)
    url = {"gemini": GEMINI_URL, "openai": os.environ.get("OPENAI_BASE_URL")}.get(model.provider)
    return "openai", model.base_url or url, (os.environ.get(name) if name else None) or "unused"


@lru_cache(maxsize=32)
def _client(sdk: str, base_url: str | None, key: str | None, is_async: bool) -> Any:
    """A client for an address, made once: importing an SDK takes a second, and its connections are worth keeping."""
    if sdk == "anthropic":
        import anthropic

        return (anthropic.AsyncAnthropic if is_async else anthropic.Anthropic)(base_url=base_url, api_key=key)
    import openai

    return (openai.AsyncOpenAI if is_async else openai.OpenAI)(base_url=base_url, api_key=key)
