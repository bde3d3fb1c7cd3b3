"""complete(): one call in one neutral form over a fleet whose models may be anybody's.

The neutral form is Anthropic's Messages. The plan says it in the chosen model's format; that model's own client is
found and asked, and its answer is told in Messages form.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any

import msgspec

from router.catalog import PROVIDERS, Model
from router.decide.rules import Context
from router.engine import AUTO, Router
from router.errors import ClientError
from router.formats import interpreter
from router.formats import usage as usages
from router.send.attempts import Attempts
from router.send.streams import sleep_async
from router.types import Api, Plan, Reach, Record, Usage

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
    call = _Call(router, clients or {}, max_retries, is_async=False)
    call.begin(_body(messages, system, tools, max_tokens, model, options))
    while True:
        try:
            reply = call.client().post(**call.arguments())
            break
        except Exception as error:
            wait_s = call.attempts.again(error)
            if wait_s is None:
                raise
            time.sleep(wait_s)
    return call.completion(reply)


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
    call = _Call(router, clients or {}, max_retries, is_async=True)
    call.begin(_body(messages, system, tools, max_tokens, model, options))
    while True:
        try:
            reply = await call.client().post(**call.arguments())
            break
        except Exception as error:
            wait_s = call.attempts.again(error)
            if wait_s is None:
                raise
            await sleep_async(wait_s)
    return call.completion(reply)


class _Call:
    """One call: what is sent to whom, attempt after attempt, and what comes of the reply."""

    attempts: Attempts

    def __init__(self, router: Router, clients: Mapping[str, Any], max_retries: int, *, is_async: bool) -> None:
        self._router = router
        self._clients = clients
        self._max_retries = max_retries
        self._is_async = is_async

    def begin(self, body: dict[str, Any]) -> None:
        """Plan. Raises ClientError when a model that may be asked cannot be reached for want of a key."""
        named = self._router.catalog.find(body["model"])
        models = list(self._router.fleet.models.values()) if named is None else [named]
        given = {model.id: self._given(model) for model in models}
        missing = {env: m.id for m in models if given[m.id] is None and (env := _missing_key(m))}
        if missing:
            which = ", ".join(f"{env} for {model}" for env, model in missing.items())
            raise ClientError(f"no API key: set {', '.join(missing)} in the environment, or pass clients= ({which})")
        versions = (getattr(client, "default_headers", {}).get("anthropic-version") for client in given.values())
        version = next(filter(None, versions), None)
        context = Context({} if version is None else {"anthropic-version": version})
        plan = self._router.plan(body, Api.MESSAGES, context, reach=Reach.NEUTRAL)
        self.attempts = Attempts(self._router, body, plan, self._max_retries, context, Reach.NEUTRAL)

    def client(self) -> Any:
        """The SDK client of the planned model: one of the caller's, or one of our own."""
        name = self._plan.decision.model
        model = self._router.catalog.find(name)
        if model is None:
            raise ClientError(f"cannot tell who serves the model {name!r}; add [models.{name!r}]")
        return self._given(model) or _client(*_address(model), self._is_async)

    def arguments(self) -> dict[str, Any]:
        """Those of the client's `post`."""
        plan = self._plan
        options = {"max_retries": 0}
        return {"path": plan.api.value, "body": plan.body, "cast_to": _reply_type(plan.api), "options": options}

    def completion(self, reply: Any) -> Completion:
        """The answer, accounted for. Raises TierwiseError for a reply that says it failed, which is billed as well."""
        self.attempts.answered()
        usage = usages.located(usages.read_usage(reply, self._plan.api), str(self.client().base_url))
        record = self.attempts.record(usage, reply_chars=0 if usage.reported else usages.n_chars(reply))
        keep = partial(self._router.keep_state, self._plan)
        given = reply.to_dict(mode="json")
        message = interpreter.reply(given, self._plan.api, Api.MESSAGES, self._plan.telling, keep)
        content = message["content"]
        return Completion(
            text="".join(block["text"] for block in content if block["type"] == "text"),
            tool_calls=tuple(ToolCall(b["id"], b["name"], b["input"]) for b in content if b["type"] == "tool_use"),
            usage=record.usage if record else usage,
            cost_usd=record.cost_usd if record else None,
            record=record,
            message=message,
            raw=reply,
        )

    @property
    def _plan(self) -> Plan:
        return self.attempts.plan

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


def _missing_key(model: Model) -> str | None:
    """The variable to set before a model can be asked; None when it is set, or none is needed."""
    name = model.api_key_env or PROVIDERS[model.provider].key_env
    has_token = model.provider == "anthropic" and os.environ.get("ANTHROPIC_AUTH_TOKEN")
    return None if name is None or has_token or os.environ.get(name) else name


def _address(model: Model) -> tuple[str, str | None, str | None]:
    """(SDK, base URL, key) for a model; None is the SDK's own default, from the environment."""
    provider = PROVIDERS[model.provider]
    own_url = os.environ.get(f"{provider.sdk.upper()}_BASE_URL") if model.provider == provider.sdk else provider.url
    name = model.api_key_env or provider.key_env
    key = os.environ.get(name) if name else None
    return provider.sdk, model.base_url or own_url, key if provider.sdk == "anthropic" else key or "unused"


@lru_cache(maxsize=32)
def _client(sdk: str, base_url: str | None, key: str | None, is_async: bool) -> Any:
    """A client for an address, made once: importing an SDK takes a second, and its connections are worth keeping."""
    if sdk == "anthropic":
        import anthropic

        return (anthropic.AsyncAnthropic if is_async else anthropic.Anthropic)(base_url=base_url, api_key=key)
    import openai

    return (openai.AsyncOpenAI if is_async else openai.OpenAI)(base_url=base_url, api_key=key)
