"""The upstream's socket: HTTP requests to the account and back, with the failures that a test asks for."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from router.offline import anthropic, batches, openai
from router.offline.account import Account, Answer, Call, Exchange
from router.offline.failures import Failure, Rejected

_KEYS = ("authorization", "x-api-key")
_REPLIES: dict[str, Callable[[Account, dict[str, Any], Call], Answer]] = {
    "/v1/messages": anthropic.messages,
    "/v1/messages/count_tokens": anthropic.count_tokens,
    "/v1/chat/completions": openai.chat,
    "/v1/responses": openai.responses,
}
_CREATIONS: dict[str, Callable[[Account, dict[str, Any], Call], dict[str, Any]]] = {
    "/v1/messages/batches": batches.create_anthropic,
    "/v1/batches": batches.create_openai,
}


@dataclass
class Upstream(Account):
    """Serves until closed: `with Upstream() as upstream: Anthropic(base_url=upstream.url, api_key="offline")`."""

    port: int = 0

    def __enter__(self) -> Upstream:
        upstream = self

        class Handler(_Handler):
            serves = upstream

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The base URL for the Anthropic SDK; the OpenAI SDK's ends in /v1."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that did not wait for the answer, or left in the middle of it."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    serves: Upstream
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered: an answer's headers and body go out together

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr."""

    def do_GET(self) -> None:
        """Look something up: models, batches, files."""
        self._guarded(self._get, b"")

    def do_POST(self) -> None:
        """Answer one request, or reject it in the provider's own words."""
        self._guarded(self._post, self.rfile.read(int(self.headers.get("content-length", 0))))

    def _guarded(self, serve: Callable[[bytes], None], raw: bytes) -> None:
        self._path = self.path.partition("?")[0]
        self._request_id = self.serves.new_id("req_offline")
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in _KEYS}
        self._call = Call(self._request_id, headers)
        try:
            self._check_key()
            serve(raw)
        except Rejected as rejected:
            self._error(rejected)

    def _check_key(self) -> None:
        key = self.headers.get("authorization", self.headers.get("x-api-key", ""))
        if key.removeprefix("Bearer ") in ("", "invalid"):
            raise Rejected("invalid x-api-key", 401, "authentication_error")

    def _post(self, raw: bytes) -> None:
        upstream, path = self.serves, self._path
        if path == "/v1/files":
            self._log(None)
            return self._json(batches.create_file(upstream, self.headers.get("content-type", ""), raw))
        if path not in _REPLIES and path not in _CREATIONS:
            raise Rejected(f"Not found: {path}", 404, "not_found_error")
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Rejected("The request body is not valid JSON")
        self._log(body)
        failure = upstream.next_failure(body.get("model"))
        if failure and not failure.answers:
            time.sleep(failure.delay_s)
            if failure.is_reset:
                return self._reset()
            raise Rejected("simulated failure", failure.status, failure.kind, failure=failure)
        if path in _CREATIONS:
            return self._json(_CREATIONS[path](upstream, body, self._call))
        try:
            answer = _REPLIES[path](upstream, body, self._call)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as exc:
            raise Rejected("The request body has a shape that this API does not know") from exc
        if failure and failure.delay_s:
            time.sleep(failure.delay_s)
            if self._is_client_gone():
                self.close_connection = True
                return None
        answer.begin()
        return self._json(answer.body) if answer.frames is None else self._stream(answer.frames, failure)

    def _get(self, _: bytes) -> None:
        upstream, path = self.serves, self._path
        if path == "/v1/messages/batches":
            return self._json(batches.list_anthropic(upstream))
        if path == "/v1/batches":
            return self._json(batches.list_openai(upstream))
        if match := re.fullmatch(r"/v1/messages/batches/([^/]+)(/results)?", path):
            if match[2]:
                return self._send(batches.anthropic_results(upstream, match[1]), "application/x-jsonl")
            return self._json(batches.get_anthropic(upstream, match[1], upstream.url))
        if match := re.fullmatch(r"/v1/batches/([^/]+)", path):
            return self._json(batches.get_openai(upstream, match[1]))
        if match := re.fullmatch(r"/v1/files/([^/]+)(/content)?", path):
            file = batches.get_file(upstream, match[1])
            return self._send(file.content, "application/jsonl") if match[2] else self._json(file.described())
        if match := re.fullmatch(r"/v1/models(?:/([^/]+))?", path):
            return self._models(match[1])
        raise Rejected(f"Not found: {path}", 404, "not_found_error")

    def _models(self, model_id: str | None) -> None:
        of_anthropic = self._is_anthropic()
        listed = anthropic.models(self.serves) if of_anthropic else openai.models(self.serves)
        if model_id is not None:
            found = next((model for model in listed if model["id"] == model_id), None)
            if found is None:
                raise Rejected(f"model: {model_id}", 404, "not_found_error")
            return self._json(found)
        if not of_anthropic:
            return self._json({"object": "list", "data": listed})
        ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}
        return self._json({"data": listed, "has_more": False, **ends})

    def _log(self, body: dict[str, Any] | None) -> None:
        upstream = self.serves
        with upstream.lock:
            upstream.log.append(Exchange(self._request_id, self.command, self.path, self._call.headers, body))
            if body is not None:
                upstream.requests.append(body)

    def _is_anthropic(self) -> bool:
        return self._path.startswith("/v1/messages") or "anthropic-version" in self.headers

    def _is_client_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _reset(self) -> None:
        """Close without an answer, and without the orderly end of a connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _json(self, value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), "application/json", status, headers)

    def _send(
        self, payload: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._begin(status, content_type, {"content-length": str(len(payload)), **(headers or {})})
        self.wfile.write(payload)

    def _begin(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("request-id" if self._is_anthropic() else "x-request-id", self._request_id)
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()

    def _stream(self, frames: list[str], failure: Failure | None) -> None:
        self._begin(200, "text/event-stream; charset=utf-8", {"transfer-encoding": "chunked"})
        failure = failure or Failure()
        for number, frame in enumerate(frames):
            if number == failure.cut_after:
                self.close_connection = True
                return  # no last chunk: the client sees the connection break
            if number == failure.malformed_after:
                self._chunk(re.sub("data: .*", 'data: {"type": "content_', frame))
            if number == failure.error_after:
                self._chunk(self._error_frame(failure, number))
                break
            self._chunk(frame)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, frame: str) -> None:
        data = frame.encode(errors="replace")
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _error_frame(self, failure: Failure, number: int) -> str:
        said = {"message": "simulated failure", "param": None, "code": failure.kind}
        if self._path == "/v1/responses":
            return f"event: error\ndata: {json.dumps({'type': 'error', **said, 'sequence_number': number})}\n\n"
        if self._path == "/v1/chat/completions":
            return f"data: {json.dumps({'error': {**said, 'type': failure.kind}})}\n\n"
        error = {"type": failure.kind, "message": said["message"]}
        return f"event: error\ndata: {json.dumps({'type': 'error', 'error': error})}\n\n"

    def _error(self, rejected: Rejected) -> None:
        detail: dict[str, Any] = {"type": rejected.kind, "message": rejected.message}
        if self._is_anthropic():
            if rejected.details:
                detail["details"] = rejected.details
            body = {"type": "error", "error": detail, "request_id": self._request_id}
        elif rejected.kind.isupper():  # Gemini's
            error = {"code": rejected.status, "message": rejected.message, "status": rejected.kind}
            payload = json.dumps([{"error": error}]).encode()
            self._send(payload, "application/json", rejected.status, rejected.headers)
            return
        else:
            code = rejected.code or (rejected.details or {}).get("error_code")
            body = {"error": {**detail, "param": rejected.param, "code": code}}
        self._json(body, rejected.status, rejected.headers)
