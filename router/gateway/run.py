"""The command run: a program with a gateway of its own, and what its calls cost and saved at the end."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from router import settings as settings_module
from router.accounts.ledger import Totals
from router.errors import SettingsError
from router.gateway.gateway import Gateway
from router.gateway.server import Server
from router.gateway.serving import Serving
from router.gateway.stores import open_store, state_dir
from router.options_cli import config_option
from router.settings import Settings

_START_TIMEOUT_S = 30.0


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--as-named", is_flag=True, help="Send each call to the model that it names, and only account for it.")
@click.option("--shadow", is_flag=True, help="The same, and say what routing would have saved.")
@config_option
def run(command: tuple[str, ...], as_named: bool, shadow: bool, config: str | None) -> None:
    """Run COMMAND with a gateway of its own, and say at the end what its calls cost and saved.

    ANTHROPIC_BASE_URL and OPENAI_BASE_URL point to the gateway. Whatever model the program names is decided anew, but
    where `[gateway.models]` of the settings says otherwise, or with --as-named or --shadow. Where no key of a provider
    is set here, the program's own is passed on. The gateway's log is run.log in its state folder.

    \b
    Examples:
      tierwise run -- claude
      tierwise run --shadow -- python app.py
    """
    settings = settings_module.load(config)
    if shadow:
        settings = msgspec.structs.replace(settings, mode="shadow")
    chosen = _chosen(settings, as_named=as_named)
    log = state_dir(chosen.gateway) / "run.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    logging.basicConfig(filename=log, format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    started = dt.datetime.now(dt.UTC)
    gateway = Gateway(lambda: Serving.load(chosen))
    server, listener = Server(gateway), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        _wait_for(server, thread, log)
        status = _ran(command, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(_START_TIMEOUT_S)
    _told(chosen, started)
    sys.exit(status)


def _chosen(settings: Settings, *, as_named: bool) -> Settings:
    """The user's settings on a free port of this machine."""
    changed: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "access": "open"}
    if not as_named and not settings.gateway.models:
        changed["models"] = {"*": "auto"}
    gateway = msgspec.structs.replace(settings.gateway, **changed)
    serving = Serving.load(msgspec.structs.replace(settings, gateway=gateway))
    if all(upstream.key is None for upstream in serving.upstreams.values()):
        gateway = msgspec.structs.replace(gateway, access="pass-through")
    return msgspec.structs.replace(settings, gateway=gateway)


def _wait_for(server: Server, thread: threading.Thread, log: Path) -> None:
    until_s = time.monotonic() + _START_TIMEOUT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until_s:
            raise SettingsError(f"the gateway did not start; {log} says why")
        time.sleep(0.01)


def _ran(command: tuple[str, ...], url: str) -> int:
    """The program's exit status. Ctrl-C is for it alone; SIGTERM is passed on."""
    environ = {**os.environ, "ANTHROPIC_BASE_URL": url, "OPENAI_BASE_URL": f"{url}/v1"}
    try:
        running = subprocess.Popen(command, env=environ)
    except OSError as exc:
        raise SettingsError(f"{command[0]!r} cannot be run: {exc.strerror}") from exc
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, lambda *_: running.terminate())
    try:
        status = running.wait()
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _told(settings: Settings, started: dt.datetime) -> None:
    store = open_store(settings)
    try:
        rows = store.report("model", started)
    finally:
        store.close()
    total = Totals.of(rows)
    where = ", ".join(f"{row.name} {row.n_requests}" for row in rows)
    click.echo(f"tierwise: {total.n_requests} calls ({where or 'none'}), ${total.cost_usd:.4f}", err=True, nl=False)
    if total.baseline_usd:
        click.echo(
            f"; saved ${total.saved_usd:.4f}, {total.saved_share:.0%} of the strongest model's with caching",
            err=True,
            nl=False,
        )
    if total.shadowed_usd:
        saved = total.shadowed_usd - total.shadow_usd
        click.echo(f"; routed it would have cost ${total.shadow_usd:.4f}, {saved / total.shadowed_usd:.0%} less",
                   err=True, nl=False)  # fmt: skip
    unknown = f"; {total.n_unpriced} of unknown cost" if total.n_unpriced else ""
    click.echo(unknown, err=True)
