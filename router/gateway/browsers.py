"""Keeps web pages out of a gateway that asks nobody for a key.

Any page that a user of this machine opens can send requests to loopback. A plain POST needs no permission, and a name
that is made to point at 127.0.0.1 (DNS rebinding) even lets the page read the reply. So the name under which the
gateway is asked must be its own, and a page must be from this machine
(https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site, 2026-11-26).
"""

from __future__ import annotations

from ipaddress import ip_address

from router.gateway.wire import RawHeaders, Refusal
from router.settings import GatewaySettings

_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


def check(headers: RawHeaders, settings: GatewaySettings) -> None:
    """Raises Refusal for what a foreign web page sent: 403, or 421 for a foreign name. With keys nothing is checked."""
    if settings.access != "open":
        return
    for name, value in headers:
        if name == b"host" and not _is_own(_host(value), settings):
            why = f"this gateway is not {_shown(value)}; ask it at 127.0.0.1, or add the name to gateway.hosts"
            raise Refusal(421, "invalid_request_error", why, final=True)
        if name == b"origin" and not _is_own(_host(value.partition(b"://")[2]), settings):
            why = f"web pages of {_shown(value)} may not call this gateway; for an application of your own add its host"
            raise Refusal(403, "permission_error", f"{why} to gateway.hosts", final=True)
        if name == b"sec-fetch-site" and value == b"cross-site":
            raise Refusal(403, "permission_error", "other sites' web pages may not call this gateway", final=True)


def check_content_type(headers: RawHeaders) -> None:
    """Raises Refusal (415) for a body that does not say that it is JSON: a page could send any other unasked."""
    given = next((value for name, value in headers if name == b"content-type"), b"")
    kind = given.partition(b";")[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        said = f"content-type is {_shown(given)}" if given else "there is no content-type"
        raise Refusal(415, "invalid_request_error", f"{said}, expected application/json", final=True)


def _host(value: bytes) -> str:
    """The host of host[:port], in lower case, without brackets and a last dot."""
    text = value.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _is_own(host: str, settings: GatewaySettings) -> bool:
    if host in _LOCAL_NAMES or host == settings.host.lower() or host in settings.hosts:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))
