"""wrap(client): the user's own anthropic or openai client, with model="auto".

The wrapped client IS an SDK client (`client.copy()`, same class, same connection pool, same errors); only its `post`,
through which every typed method goes, first plans the body, then tries again or moves up a tier when the provider
fails, and then reads the reply's usage. That is one place for create, stream, parse, beta and raw responses, sync and
async. Neither SDK is imported here.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from router.catalog import PROVIDERS
from router.decide.options import unasked
from router.decide.rules import Context
from router.engine import Router
from router.errors import ClientError
from router.formats import interpreter
from router.formats import usage as usages
from router.send import records
from router.send.attempts import Attempts
from router.send.crossing import Crossing
from router.send.streams import recorded, sleep_async
from router.types import Api, Plan, Reach, Record, Usage

ClientT = TypeVar("ClientT")

_COUNT_TOKENS = {
    "/v1/messages/count_tokens": Api.MESSAGES,
    "/responses/input_tokens": Api.RESPONSES,
}
_APIS = {api.value: api for api in Api} | _COUNT_TOKENS
_NOT_GIVEN = frozenset({"Omit", "NotGiven"})  # the SDKs' sentinels, still in the body when it reaches `post`
_RAW_RESPONSE_HEADER = "x-stainless-raw-response"


def wrap(client: ClientT, router: Router | None = None) -> ClientT:
    """A copy of an anthropic or openai client (sync or async) that routes `model="auto"` and accounts for every call.

    `record_of(reply)` gives the Record of a reply. `client.last_record` is that of the call that finished last, on any
    thread, None before it; `client.router` is the router.
    Everything else is the SDK's own: types, streaming, exceptions, `with_options`. A call that names a model is sent
    untouched and only accounted. A stream is accounted when it ends or is closed.

    Raises ClientError for anything that is not such a client, or when the router's fleet is another provider's.
    """
    serving = router_for(router or Router.load(), _provider(client))
    copied: ClientT = _instrument(client.copy(), serving)  # type: ignore[attr-defined]
    return copied


def router_for(router: Router, provider: str) -> Router:
    """The router if its fleet suits a client of that provider, else one like it with the provider's default fleet.

    A fleet that the caller chose suits every client of the same SDK (Gemini behind an OpenAI-compatible proxy). Raises
    ClientError when the caller chose a fleet that needs the other SDK.
    """
    fleet, sdk, default = router.fleet, PROVIDERS[provider].sdk, PROVIDERS[provider].fleet or ""
    sdks = {PROVIDERS[name].sdk for name in fleet.providers}
    if len(sdks) > 1:
        raise ClientError(
            f"the fleet {fleet.name!r} mixes {' and '.join(fleet.providers)}, which no client serves; "
            "call router.complete(r, messages) instead"
        )
    if fleet.provider == provider or (sdks == {sdk} and not router.fleet_is_default):
        return router
    if not router.fleet_is_default:
        raise ClientError(
            f"the fleet {fleet.name!r} is {fleet.provider}'s, the client is {provider}'s; "
            f"choose Router.load(fleet={default!r}) or wrap the other client"
        )
    return router.with_fleet(default)


def _provider(client: Any) -> str:
    if isinstance(getattr(client, "router", None), Router):
        raise ClientError("this client is wrapped already; wrap the SDK's own client, or use this one as it is")
    packages = {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
    is_client = callable(getattr(client, "copy", None)) and callable(getattr(client, "post", None))
    if is_client and "anthropic" in packages:
        return "anthropic"
    if is_client and "openai" in packages:
        return "gemini" if str(client.base_url).startswith(PROVIDERS["gemini"].url or "") else "openai"
    raise ClientError(
        f"cannot wrap {type(client).__module__}.{type(client).__qualname__}; expected an instance of "
        "anthropic.Anthropic, anthropic.AsyncAnthropic, openai.OpenAI or openai.AsyncOpenAI"
    )


def _instrument(client: Any, router: Router) -> Any:
    """Make an SDK's client route, in place."""
    original_post, original_copy = client.post, client.copy
    routed_post = _post_async if inspect.iscoroutinefunction(original_post) else _post
    client.router = router
    client.last_record = None
    client.post = partial(routed_post, client, original_post)

    def copy(**options: Any) -> Any:
        return _instrument(original_copy(**options), router)

    client.copy = client.with_options = copy
    return client


def _post(client: Any, post: Callable[..., Any], path: str, **kwargs: Any) -> Any:
    call = _WrappedCall.begin(client, path, kwargs)
    if call is None:
        return post(path, **kwargs)
    call.post = post
    while True:
        try:
            reply = post(call.path, **call.kwargs)
            break
        except Exception as error:
            wait_s = call.again(error)
            if wait_s is None:
                raise
            time.sleep(wait_s)
    call.answered()
    if call.needs_reading:
        call.finish(reply.parse() if call.raw else reply)
        call.known_by(reply)
    return reply


async def _post_async(client: Any, post: Callable[..., Any], path: str, **kwargs: Any) -> Any:
    call = _WrappedCall.begin(client, path, kwargs)
    if call is None:
        return await post(path, **kwargs)
    call.post = post
    while True:
        try:
            reply = await post(call.path, **call.kwargs)
            break
        except Exception as error:
            wait_s = call.again(error)
            if wait_s is None:
                raise
            await sleep_async(wait_s)
    call.answered()
    if call.needs_reading:
        parsed = reply.parse() if call.raw else reply
        call.finish(await parsed if inspect.isawaitable(parsed) else parsed)
        call.known_by(reply)
    return reply


class _WrappedCall:
    """One request on its way: the arguments to send, its attempts, and the accounting when its reply has been read.

    The SDK's own retries are off: only here is it known that a stronger model may be asked instead. `post` is the
    SDK's.
    """

    post: Callable[..., Any]

    def __init__(
        self, client: Any, attempts: Attempts, path: str, kwargs: dict[str, Any], *, counts_only: bool
    ) -> None:
        options = dict(kwargs.get("options") or {})
        if "extra_json" in options:
            options["extra_json"] = unasked(options["extra_json"])
        self.path, self._given_path = path, path
        self._client = client
        self._counts_only = counts_only
        self._parser = options.get("post_parser")
        self._attempts = attempts
        self._finished = False
        self.record: Record | None = None
        self._error = ""
        self._meter = usages.Meter(attempts.plan.api)
        self._crossing: Crossing | None = None
        self.raw = _header(options, _RAW_RESPONSE_HEADER)
        self._given, self.kwargs = kwargs, {**kwargs, "options": {**options, "max_retries": 0}}
        self.needs_reading = not counts_only and not kwargs.get("stream") and self.raw != "stream"
        self._use()

    @property
    def _plan(self) -> Plan:
        return self._attempts.plan

    @classmethod
    def begin(cls, client: Any, path: str, kwargs: Mapping[str, Any]) -> _WrappedCall | None:
        """Plan a request; None where there is nothing to route or account (another path, or no model named)."""
        plain_path = path.partition("?")[0]
        api, body = _APIS.get(plain_path), kwargs.get("body")
        if api is None or not isinstance(body, Mapping):
            return None
        body = _settled(body)
        merged = {**body, **((kwargs.get("options") or {}).get("extra_json") or {})}
        if not isinstance(merged.get("model"), str):
            return None
        options = kwargs.get("options") or {}
        counts_only, context = plain_path in _COUNT_TOKENS, _context(client, options)
        plan = client.router.plan(merged, api, context, reach=Reach.SDK, counts_only=counts_only)
        retries = int(options.get("max_retries", client.max_retries))
        attempts = Attempts(client.router, merged, plan, retries, context, Reach.SDK)
        return cls(client, attempts, path, {**kwargs, "body": body}, counts_only=counts_only)

    def again(self, error: Exception) -> float | None:
        """Seconds until another attempt, on the same model or the next stronger one; None when there is to be none."""
        before = self._plan
        wait_s = self._attempts.again(error)
        if self._plan is not before:
            self._use()
        return wait_s

    def repeat(self) -> Any:
        """The stream once more, for one that broke off before its caller was told anything; awaitable if async."""
        self._use()
        return self.post(self.path, **self.kwargs)

    def answered(self) -> None:
        """The provider has answered: the model works, and a body that the caller reads alone is recorded as unread."""
        self._attempts.answered()
        if self.raw == "stream" and not self._counts_only and not self.kwargs.get("stream"):
            self._record(usages.UNREPORTED, ("with_streaming_response: the reply was not read, usage unknown",))

    def _use(self) -> None:
        """Send by the attempts' plan from now on: on its own path, or on that of another format."""
        plan, options = self._plan, self.kwargs["options"]
        keep = partial(self._client.router.keep_state, plan)
        self._crossing = Crossing(plan, self._given, self._parser, keep) if plan.api is not plan.asked else None
        listens = plan.api is plan.asked is Api.CHAT and plan.telling.within
        self._beside = interpreter.Listener(plan.telling, keep) if listens else None
        self.path = self._given_path if self._crossing is None else self._crossing.path
        self._meter = usages.Meter(plan.api)
        if not plan.is_untouched:
            options.pop("extra_json", None)
            self.kwargs["body"] = plan.body
        self.kwargs |= {name: self._given[name] for name in ("cast_to", "stream_cls") if name in self._given}
        if self._crossing is not None:
            self.kwargs |= self._crossing.types()
        streams = self.kwargs.get("stream") and not self._counts_only
        options.pop("post_parser", None)
        if (parser := self._crossed if self._crossing is not None and not streams else self._parser) is not None:
            options["post_parser"] = parser
        if streams:
            # A class for each call: with_raw_response makes the stream later, and only the class gets there.
            seen = recorded(self.kwargs["stream_cls"])
            self.kwargs["stream_cls"] = type("RecordedStream", (seen,), {"_call": self})

    def _crossed(self, response: Any) -> Any:
        """The SDK's `post_parser`: a Responses reply as the caller's."""
        assert self._crossing is not None
        try:
            return self._crossing.reply(response)
        except Exception:  # it is billed all the same
            self._record(self._crossing.usage, ("the reply failed or could not be parsed",))
            raise

    def finish(self, reply: Any) -> None:
        """Account for a complete reply."""
        plan = self._plan
        usage = usages.read_usage(reply, plan.api) if self._crossing is None else self._crossing.usage
        if self._crossing is None:
            interpreter.rename(reply, plan.telling.names)
            if self._beside is not None:
                keep = partial(self._client.router.keep_state, plan)
                interpreter.remember(reply.to_dict(mode="json"), plan.api, plan.telling, keep)
        self._record(usage, reply_chars=0 if usage.reported else usages.n_chars(reply))
        self.known_by(reply)

    def told(self, event: Any, request: Any) -> Iterator[Any]:
        """What the caller sees of one stream event, which is taken in; not the usage that they did not ask for."""
        self._meter.add(event)
        if self._crossing is not None:
            yield from self._crossing.feed(event, request)
            return
        interpreter.rename(event, self._plan.telling.names)
        if self._beside is not None:
            self._beside.feed(event.to_dict(mode="json"))
        if getattr(event, "type", None) == "error":  # Responses: the SDK raises nothing, it is the caller's to see
            self._error = str(getattr(event, "code", None) or getattr(event, "message", None))
        if not (self._plan.hides_usage and getattr(event, "usage", None) and not event.choices):
            yield event

    def rest(self, request: Any) -> Iterator[Any]:
        """What the caller sees at the end of a stream."""
        if self._beside is not None:
            self._beside.end()
        return iter(()) if self._crossing is None else self._crossing.end(request)

    def end_stream(self, complete: bool) -> None:
        """Account for a stream that has ended, or was left early. Only the first call counts."""
        if not self._finished:
            notes = () if complete else ("the stream ended early",)
            if self._error:
                notes = (f"the provider broke the stream off: {self._error}", *notes)
            self._record(self._meter.usage(), notes, self._meter.n_chars, is_cut=not complete)

    def _record(self, usage: Usage, notes: tuple[str, ...] = (), reply_chars: int = 0, *, is_cut: bool = False) -> None:
        self._finished = True
        located = usages.located(usage, str(self._client.base_url))
        record = self._attempts.record(located, notes, reply_chars, is_cut=is_cut)
        self.record = record
        self._client.last_record = record or self._client.last_record

    def known_by(self, reply: Any) -> None:
        """Let `record_of` find the record by what the caller holds."""
        if self.record is not None:
            records.keep(reply, self.record)


def _settled(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the SDK's "not given" marks; iterators, which reading would use up, become lists."""
    return {
        name: list(value) if isinstance(value, Iterator) else value
        for name, value in body.items()
        if type(value).__name__ not in _NOT_GIVEN
    }


def _context(client: Any, options: Any) -> Context:
    """The headers that decide something: the caller's own, and the version of the API that the client asks for."""
    given = {
        key.lower(): value for key, value in ((options or {}).get("headers") or {}).items() if isinstance(value, str)
    }
    if "anthropic-version" not in given and (version := _version(client)):
        given["anthropic-version"] = version
    given.pop("authorization", None)
    given.pop("x-api-key", None)
    return Context(headers=given)


def _version(client: Any) -> str | None:
    known = client.__dict__.get("_tierwise_version", False)
    if known is False:  # the SDK puts its default headers together anew each time: 30 us
        found = getattr(client, "default_headers", {}).get("anthropic-version")
        known = client.__dict__["_tierwise_version"] = found if isinstance(found, str) else None
    return known if isinstance(known, str) else None


def _header(options: Any, name: str) -> str | None:
    headers = (options or {}).get("headers") or {}
    return next((value for key, value in headers.items() if key.lower() == name), None)
