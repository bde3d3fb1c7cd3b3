"""What stands between this machine and a working gateway: each thing looked at once, with the remedy."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Literal

import aiohttp
import msgspec

from router import settings as settings_module
from router.errors import TierwiseError
from router.gateway.keys import KeyFile
from router.gateway.serving import Serving, Upstream
from router.gateway.store import StoreAway
from router.gateway.stores import open_store, state_dir
from router.settings import Settings

_TIMEOUT_S = 5.0
_MAX_SKEW_S = 60.0


class DoctorFinding(msgspec.Struct, frozen=True):
    """One check: whether it passed, what was seen, and what to do about it."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    seen: str
    remedy: str = ""


def examine(config: str | None = None) -> Iterator[DoctorFinding]:
    """Every check in order, with the settings of that file; the later ones need them to be readable."""
    try:
        settings = settings_module.load(config)
        yield DoctorFinding("settings", "ok", "readable, every key known")
        serving = Serving.load(settings)
    except TierwiseError as exc:
        yield DoctorFinding("settings", "fail", str(exc), "mend what is named")
        return
    yield DoctorFinding("artifact", "ok", f"{serving.router.policy.champion.name}, files as its manifest says")
    yield from _keys(serving)
    yield from _upstreams(serving)
    yield _folder(serving)
    yield _database(serving)
    if serving.gateway.redis_url is not None:
        yield _redis(serving.gateway.redis_url)
    yield _port(settings)


def _keys(serving: Serving) -> Iterator[DoctorFinding]:
    access = serving.gateway.access
    if access == "keys":
        live = [key for key in KeyFile(state_dir(serving.gateway) / "keys.json").all() if key.revoked_at is None]
        remedy = "" if live else "tierwise keys create NAME"
        yield DoctorFinding("gateway keys", "ok" if live else "fail", f"{len(live)} live", remedy)
    for upstream in serving.upstreams.values():
        if access == "pass-through":
            yield DoctorFinding(f"{upstream.provider} key", "ok", "the caller's own is passed on")
        elif upstream.key is not None:
            yield DoctorFinding(f"{upstream.provider} key", "ok", f"found in {upstream.key_source}")
        else:
            yield DoctorFinding(f"{upstream.provider} key", "warn", "none", f"set {upstream.key_source} to use it")


def _upstreams(serving: Serving) -> Iterator[DoctorFinding]:
    used = [u for u in serving.upstreams.values() if u.key is not None or serving.gateway.access == "pass-through"]
    for upstream in used:
        yield from asyncio.run(_reach(upstream))


async def _reach(upstream: Upstream) -> list[DoctorFinding]:
    """One request without a key: any answer will do. Its date tells whether this clock is right."""
    name = f"{upstream.provider} reachable"
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(upstream.url) as response:
            found = DoctorFinding(name, "ok", f"{upstream.url} answered {response.status}")
            date = response.headers.get("date")
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        return [
            DoctorFinding(
                name, "fail", f"{upstream.url}: {type(exc).__name__}", "check the address, proxy and firewall"
            )
        ]
    try:
        skew_s = time.time() - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return [found]
    verdict: Literal["ok", "warn"] = "ok" if abs(skew_s) <= _MAX_SKEW_S else "warn"
    remedy = "" if verdict == "ok" else "set the clock (NTP): budgets and prices go by the day"
    return [found, DoctorFinding("clock", verdict, f"{abs(skew_s):.0f} s from {upstream.provider}'s", remedy)]


def _folder(serving: Serving) -> DoctorFinding:
    folder = state_dir(serving.gateway)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.fsync(file.fileno())
    except OSError as exc:
        return DoctorFinding(
            "state folder", "fail", f"{folder}: {exc.strerror}", "set gateway.state_dir to one to write to"
        )
    return DoctorFinding("state folder", "ok", str(folder))


def _database(serving: Serving) -> DoctorFinding:
    what = "PostgreSQL" if serving.gateway.database_url else "SQLite"
    return _tried("database", what, lambda: _open_and_close(serving))


def _open_and_close(serving: Serving) -> None:
    store = open_store(serving.settings)
    try:
        store.position("doctor")
    finally:
        store.close()


def _redis(url: str) -> DoctorFinding:
    def ping() -> None:
        import redis

        with redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S) as client:
            client.ping()

    return _tried("redis", "answers", ping)


def _tried(name: str, seen: str, run: Callable[[], None]) -> DoctorFinding:
    try:
        run()
    except ImportError as exc:
        return DoctorFinding(name, "fail", f"{exc.name} is not installed", 'pip install "tierwise[postgres,redis]"')
    except StoreAway as exc:
        return DoctorFinding(name, "fail", str(exc), "check gateway.database_url and the server")
    except Exception as exc:  # its text may repeat the address, and with it a password
        return DoctorFinding(name, "fail", type(exc).__name__, "check its address and the server")
    return DoctorFinding(name, "ok", seen)


def _port(settings: Settings) -> DoctorFinding:
    host, port = settings.gateway.host, settings.gateway.port
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return DoctorFinding("address", "ok", f"{host}:{port} is free")
    except OSError as exc:
        return DoctorFinding(
            "address", "warn", f"{host}:{port}: {exc.strerror}", "it is in use (by the gateway?); or set gateway.port"
        )
