"""The process: uvicorn around the application, its signals, its log."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Literal

import uvicorn
from pythonjsonlogger.json import JsonFormatter

from router.errors import SettingsError
from router.gateway.app import Application
from router.gateway.connections import Connection, Connections, most_connections, raise_descriptor_limit
from router.gateway.gateway import Gateway
from router.gateway.serving import Serving

_logger = logging.getLogger("tierwise")


class Server(uvicorn.Server):
    """Serves one gateway until SIGTERM or Ctrl-C, then finishes what runs; a second signal ends it at once.

    SIGHUP reads settings and artifact again.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        settings = gateway.serving.gateway
        shared = Connections(settings.max_connections or most_connections(), settings.head_timeout_s)
        super().__init__(
            uvicorn.Config(
                Application(gateway),
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=partial(Connection, shared=shared),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=round(settings.shutdown_timeout_s),
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Finish what runs and say on /readyz that no more should come; the second signal ends it at once.

        Unlike uvicorn's own, it does not raise the signal again at the end: being stopped is no failure.
        """
        self.force_exit = self.should_exit
        self.should_exit = self.gateway.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take SIGHUP, then listen."""
        with suppress(ValueError, NotImplementedError, RuntimeError):  # not in the main thread: a test
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        await super().startup(sockets)
        if not self.started:
            return
        gc.collect()
        gc.freeze()  # the classifier's vocabulary and the catalog stay: no need to look at them again
        gc.set_threshold(10_000, 10, 20)
        settings = self.gateway.serving.gateway
        for listener in self.servers[0].sockets if self.servers else ():
            host, port = listener.getsockname()[:2]
            _logger.warning("listening on http://%s:%d, access %s", host, port, settings.access)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; after a second signal, too, what runs leaves its records and the journal is closed."""
        await super().shutdown(sockets)
        if self.force_exit:
            if tasks := list(self.server_state.tasks):
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=1)
            await self.lifespan.shutdown()

    def _reload(self) -> None:
        self._reloading = asyncio.ensure_future(self.gateway.reload())


def log_to_stderr(form: Literal["text", "json"]) -> None:
    """One line an event. Only Tierwise's own lines and uvicorn's warnings: no request, no header, no body."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(("levelname", "message"), rename_fields={"levelname": "level"}, timestamp=True)
        if form == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tierwise").setLevel(logging.INFO)


def serve(load: Callable[[], Serving]) -> None:
    """Run until stopped. Raises SettingsError when the address cannot be listened on."""
    log_to_stderr("text")  # what goes wrong before the settings are read
    raise_descriptor_limit()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server takes it: what it asks for is being read
    gateway = Gateway(load)
    settings = gateway.serving.gateway
    log_to_stderr(settings.log_format)
    server = Server(gateway)
    try:
        listener = server.config.bind_socket()
    except SystemExit as exc:  # uvicorn has logged the reason
        gateway.journal.close()
        raise SettingsError(f"cannot listen on {settings.host}:{settings.port}; is it in use? choose --port") from exc
    with listener:
        server.run([listener])
