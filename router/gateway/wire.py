"""What goes over the wire: bodies to and from JSON, headers that may pass, and errors in each provider's shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from router.types import Api

LARGE_BYTES = 1_000_000
"""Bodies beyond are planned beside the event loop."""

_MOST = {"objects and lists": 300_000, "commas": 3_000_000}
_DIGITS, _LONG = bytes.maketrans(b"123456789", b"0" * 9), b"0" * 100
_MANY_ESCAPES = 1_000_000

RawHeaders = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
# Cookies and what a browser adds are not for a provider; what says whose account is billed is the gateway's to say.
_NOT_SENT_ON = _HOP_BY_HOP | frozenset(
    b"host content-length accept-encoding expect cookie origin referer http2-settings".split()
)
_NOT_SENT_BACK = _HOP_BY_HOP | frozenset(
    b"content-length content-encoding date server set-cookie alt-svc strict-transport-security".split()
)
_NOT_SENT_BACK_FAMILIES = (b"access-control-", b"x-tierwise-")
_CREDENTIALS = frozenset(b"authorization x-api-key api-key x-goog-api-key cookie".split())
_BILLING = frozenset(b"openai-organization openai-project x-goog-user-project anthropic-workspace-id".split())

_SDK_HEADERS = (b"anthropic-", b"openai-", b"x-stainless-", b"x-claude-")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Refusal(Exception):
    """The gateway's own answer instead of a provider's: an HTTP status, an error type and what to do about it."""

    def __init__(
        self, status: int, kind: str, message: str, *, retry_after_s: float | None = None, final: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.retry_after_s = retry_after_s
        self.final = final
        """Whether another attempt is pointless, which SDKs are told with x-should-retry."""


def decode(raw: bytes) -> dict[str, Any]:
    """A request body. Raises Refusal: 400 for anything but a JSON object, 413 for one of too many parts."""
    if len(raw) > LARGE_BYTES:
        _check_parts(raw)
    try:
        # Of long fractions msgspec reads 15 MB a second, the standard library 150; of all else msgspec reads more.
        body = json.loads(raw) if len(raw) > LARGE_BYTES and _has_long_numbers(raw) else _decode(raw)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        body = _decode_leniently(raw)
    if not isinstance(body, dict):
        kind = type(body).__name__
        raise Refusal(400, "invalid_request_error", f"the body is a JSON {kind}, expected an object")
    return body


def _check_parts(raw: bytes) -> None:
    """A million empty messages take half a second to read, for which nobody else is served."""
    counts = {"objects and lists": raw.count(b"{") + raw.count(b"["), "commas": raw.count(b",")}
    for what, most in _MOST.items():
        if counts[what] > most:
            message = f"the body has {counts[what]:,} {what}, expected at most {most:,}: no model holds them"
            raise Refusal(413, "request_too_large", message, final=True)


def _has_long_numbers(raw: bytes) -> bool:
    """Whether any has a hundred digits in a row. Raises Refusal where there are a million escapes besides."""
    found = _LONG in raw.translate(_DIGITS)
    if found and raw.count(b"\\u") > _MANY_ESCAPES:
        raise Refusal(413, "request_too_large", "the body has too many escapes beside long numbers", final=True)
    return found


def encode(body: Mapping[str, Any]) -> bytes:
    """JSON bytes; a lone surrogate, which UTF-8 cannot hold, stays the escape that it was."""
    try:
        return _encode(body)
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(body).encode()


def read_reply(raw: bytes) -> Any:
    """A provider's reply or event for reading its usage and error; None when it is not JSON."""
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        try:
            return json.loads(raw)  # which takes lone surrogates
        except (ValueError, RecursionError):
            return None


def headers_on(
    headers: Sequence[tuple[bytes, bytes]], *, keep_credentials: bool, crosses: bool = False
) -> list[tuple[str, str]]:
    """A request's headers as they are sent on: all but those of this hop and of browsers, and, unless they are to pass,
    credentials and those that name an account.

    `crosses`: to another provider than the caller's SDK is for, which is not sent that SDK's own headers.
    """
    left_out = _NOT_SENT_ON if keep_credentials else _NOT_SENT_ON | _CREDENTIALS | _BILLING
    nominated = _nominated(headers)
    return [
        (name.decode("latin-1"), _text(value))
        for name, value in headers
        if name not in left_out
        and name not in nominated
        and not name.startswith((b"sec-", b"x-tierwise-"))
        and not (crosses and name.startswith(_SDK_HEADERS))
    ]


def readable(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as rules see them: no credentials."""
    return {n.decode("latin-1"): v.decode("latin-1") for n, v in headers if n not in _CREDENTIALS}


def headers_back(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """A reply's headers as they are sent back: all but those of this hop, and what would let a provider set cookies or
    open this gateway to web pages. The body is passed on decoded.
    """
    lower = [(name.lower(), value) for name, value in headers]
    left_out = _NOT_SENT_BACK | _nominated(lower)
    return [(n, v) for n, v in lower if n not in left_out and not n.startswith(_NOT_SENT_BACK_FAMILIES)]


def _nominated(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that `connection` names as those of this hop, too (RFC 9110, 7.6.1)."""
    found = [value.lower() for name, value in headers if name == b"connection"]
    return frozenset(each.strip() for value in found for each in value.split(b",")) if found else frozenset()


def error_body(api: Api | None, refusal: Refusal, request_id: str) -> bytes:
    """The refusal as the caller's SDK reads errors."""
    if api is Api.MESSAGES:
        error = {"type": refusal.kind, "message": refusal.message}
        return encode({"type": "error", "error": error, "request_id": request_id})
    return encode({"error": {"message": refusal.message, "type": refusal.kind, "param": None, "code": refusal.kind}})


def error_frame(api: Api, refusal: Refusal, request_id: str) -> bytes:
    """The refusal as an event of a stream that has begun."""
    body = error_body(api, refusal, request_id)
    if api is Api.RESPONSES:
        event = {"type": "error", "code": refusal.kind, "message": refusal.message, "param": None}
        return frame("error", encode(event))
    return frame("error", body) if api is Api.MESSAGES else b"data: %b\n\n" % body


def frame(event: str, data: bytes) -> bytes:
    """A server-sent event with a name, as Messages and Responses send them."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


def refusal_headers(api: Api | None, refusal: Refusal, request_id: str) -> RawHeaders:
    """The headers of a refusal."""
    name = b"request-id" if api is Api.MESSAGES else b"x-request-id"
    headers = [(b"content-type", b"application/json"), (name, request_id.encode())]
    headers.append((b"x-tierwise-request-id", request_id.encode()))
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(refusal.retry_after_s))).encode()))
    if refusal.final:
        headers.append((b"x-should-retry", b"false"))
    return headers


def _decode_leniently(raw: bytes) -> Any:
    """With the standard library, which also takes the lone surrogates that JavaScript clients send."""
    try:
        return json.loads(raw)
    except RecursionError as exc:
        raise Refusal(400, "invalid_request_error", "the body is nested too deeply") from exc
    except ValueError as exc:
        raise Refusal(400, "invalid_request_error", f"the body is not JSON: {_where(exc)}") from exc


def _where(error: ValueError) -> str:
    """What is wrong and where, without quoting the body."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return "it is not UTF-8" if isinstance(error, UnicodeError) else type(error).__name__


def _text(value: bytes) -> str:
    """A header value such that aiohttp, which writes UTF-8, sends the same bytes where they are UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
