"""Batches at half the price: Anthropic's message batches; OpenAI's files and batches.

A batch is worked through when it is first looked at after its delay, one row after another.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from router.offline import anthropic, openai
from router.offline.account import Account, Answer, Call
from router.offline.failures import Rejected

EXPIRES_S = 24 * 3600
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ENDPOINTS: dict[str, Callable[[Account, dict[str, Any], Call], Answer]] = {
    "/v1/chat/completions": openai.chat,
    "/v1/responses": openai.responses,
}


@dataclass
class Batch:
    """One batch: its rows as (custom_id, body), and what came of them, as (custom_id, reply or rejection)."""

    id: str
    created_at: float
    rows: list[tuple[str, dict[str, Any]]]
    request: Mapping[str, Any]
    headers: Mapping[str, str]
    results: list[tuple[str, dict[str, Any] | Rejected]] | None = None
    ended_at: float = 0.0
    files: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def n_failed(self) -> int:
        return sum(isinstance(result, Rejected) for _, result in self.results or ())


@dataclass(frozen=True)
class File:
    """An uploaded file, or one that a batch has made."""

    id: str
    name: str
    purpose: str
    created_at: float
    content: bytes

    def described(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": int(self.created_at),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


def create_anthropic(account: Account, body: dict[str, Any], call: Call) -> dict[str, Any]:
    """POST /v1/messages/batches. Raises Rejected; what is wrong with a row is that row's result."""
    requests = body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise Rejected("requests: List should have at least 1 item")
    names = [str(request.get("custom_id")) for request in requests]
    for i, name in enumerate(names):
        if not _CUSTOM_ID.fullmatch(name):
            raise Rejected(f"requests.{i}.custom_id: String should match pattern '^{_CUSTOM_ID.pattern}$'")
        if name in names[:i]:
            raise Rejected(f"requests.{i}.custom_id: must be unique within the batch, found '{name}' twice")
    rows = [(name, dict(request.get("params") or {})) for name, request in zip(names, requests, strict=True)]
    batch = Batch(account.new_id("msgbatch"), account.clock(), rows, body, call.headers)
    account.batches[batch.id] = batch
    return _anthropic_batch(batch, "")


def get_anthropic(account: Account, batch_id: str, url: str) -> dict[str, Any]:
    """GET /v1/messages/batches/{id}; the results are under `url`. Raises Rejected."""
    batch = _find(account, batch_id)
    _work(account, batch, anthropic.messages)
    return _anthropic_batch(batch, url)


def list_anthropic(account: Account) -> dict[str, Any]:
    """GET /v1/messages/batches: all of them, newest first."""
    listed = [_anthropic_batch(b, "") for b in reversed(account.batches.values()) if b.id.startswith("msgbatch")]
    return {"data": listed, "has_more": False, **_ends(listed)}


def list_openai(account: Account) -> dict[str, Any]:
    """GET /v1/batches: all of them, newest first."""
    listed = [_openai_batch(b) for b in reversed(account.batches.values()) if not b.id.startswith("msgbatch")]
    return {"object": "list", "data": listed, "has_more": False, **_ends(listed)}


def _ends(listed: list[dict[str, Any]]) -> dict[str, Any]:
    return {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]} if listed else {}


def anthropic_results(account: Account, batch_id: str) -> bytes:
    """GET /v1/messages/batches/{id}/results, as JSON Lines. Raises Rejected while there are none."""
    batch = _find(account, batch_id)
    _work(account, batch, anthropic.messages)
    if batch.results is None:
        raise Rejected(f"Batch {batch_id} is still in progress")
    rows: list[dict[str, Any]] = []
    for name, result in batch.results:
        outcome: dict[str, Any] = {"type": "succeeded", "message": result}
        if isinstance(result, Rejected):
            error = {"type": "error", "error": {"type": result.kind, "message": result.message}, "request_id": None}
            outcome = {"type": "errored", "error": error}
        rows.append({"custom_id": name, "result": outcome})
    return _lines(rows)


def create_file(account: Account, content_type: str, raw: bytes) -> dict[str, Any]:
    """POST /v1/files: a multipart form with `purpose` and `file`. Raises Rejected."""
    form = _form(content_type, raw)
    if "file" not in form or "purpose" not in form:
        raise Rejected("Missing required parameter: 'file' and 'purpose' are needed.", param="file")
    name, content = form["file"]
    purpose = form["purpose"][1].decode()
    file = File(account.new_id("file"), name or "upload", purpose, account.clock(), content)
    account.files[file.id] = file
    return file.described()


def get_file(account: Account, file_id: str) -> File:
    """GET /v1/files/{id}. Raises Rejected."""
    if file_id not in account.files:
        raise Rejected(f"No such File object: {file_id}", 404, param="id")
    found: File = account.files[file_id]
    return found


def create_openai(account: Account, body: dict[str, Any], call: Call) -> dict[str, Any]:
    """POST /v1/batches. Raises Rejected; a file that cannot be read fails the batch."""
    endpoint = body.get("endpoint")
    if endpoint not in _ENDPOINTS:
        raise Rejected(f"Invalid value: '{endpoint}'. Supported values are: {', '.join(_ENDPOINTS)}.", param="endpoint")
    if body.get("completion_window") != "24h":
        raise Rejected("Invalid value for 'completion_window': expected '24h'.", param="completion_window")
    file = get_file(account, str(body.get("input_file_id")))
    if file.purpose != "batch":
        raise Rejected("The input file must have been uploaded with purpose 'batch'.", param="input_file_id")
    batch = Batch(account.new_id("batch"), account.clock(), [], body, call.headers)
    for number, line in enumerate(file.content.splitlines(), 1):
        try:
            row = json.loads(line)
            name, params = str(row["custom_id"]), dict(row["body"])
        except (ValueError, KeyError, TypeError):
            message = "This line is not parseable as valid JSON with custom_id and body."
            batch.errors.append({"code": "invalid_json_line", "line": number, "message": message, "param": None})
            continue
        if row.get("url") != endpoint:
            message = f"The URL provided for this request does not match the batch endpoint {endpoint}."
            batch.errors.append({"code": "mismatched_endpoint", "line": number, "message": message, "param": "url"})
        if name in dict(batch.rows):
            message = f"The custom_id '{name}' is used more than once."
            batch.errors.append({"code": "duplicate_custom_id", "line": number, "message": message, "param": None})
        batch.rows.append((name, params))
    account.batches[batch.id] = batch
    return _openai_batch(batch)


def get_openai(account: Account, batch_id: str) -> dict[str, Any]:
    """GET /v1/batches/{id}. Raises Rejected."""
    batch = _find(account, batch_id)
    with account.lock:
        if not batch.errors:
            _work(account, batch, _ENDPOINTS[batch.request["endpoint"]])
        if batch.results is not None and not batch.files:
            _file_results(account, batch)
    return _openai_batch(batch)


def _find(account: Account, batch_id: str) -> Batch:
    if batch_id not in account.batches:
        raise Rejected(f"No batch found with id '{batch_id}'.", 404, "not_found_error")
    found: Batch = account.batches[batch_id]
    return found


def _work(account: Account, batch: Batch, answer: Callable[[Account, dict[str, Any], Call], Answer]) -> None:
    """Work through the rows, once, when the batch is due."""
    with account.lock:
        if batch.results is not None or account.clock() < batch.created_at + account.batch_delay_s:
            return
        results: list[tuple[str, dict[str, Any] | Rejected]] = []
        for name, params in batch.rows:
            try:
                if name in account.batch_errors:
                    raise Rejected("Internal server error", 500, "api_error")
                answered = answer(account, params, Call(account.new_id("req"), batch.headers, is_batch=True))
                answered.begin()
                results.append((name, answered.body))
            except Rejected as rejected:
                results.append((name, rejected))
        batch.ended_at = batch.created_at + account.batch_delay_s
        batch.results = results[::-1] if account.is_batch_out_of_order else results


def _anthropic_batch(batch: Batch, url: str) -> dict[str, Any]:
    is_ended, n_failed = batch.results is not None, batch.n_failed()
    counts = {
        "processing": 0 if is_ended else len(batch.rows),
        "succeeded": len(batch.rows) - n_failed if is_ended else 0,
        "errored": n_failed,
        "canceled": 0,
        "expired": 0,
    }
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if is_ended else "in_progress",
        "request_counts": counts,
        "created_at": _date(batch.created_at),
        "expires_at": _date(batch.created_at + EXPIRES_S),
        "ended_at": _date(batch.ended_at) if is_ended else None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": f"{url}/v1/messages/batches/{batch.id}/results" if is_ended else None,
    }


def _openai_batch(batch: Batch) -> dict[str, Any]:
    is_done, n_failed = batch.results is not None, batch.n_failed()
    status = "failed" if batch.errors else "completed" if is_done else "in_progress"
    counts = {
        "total": len(batch.rows),
        "completed": len(batch.rows) - n_failed if is_done else 0,
        "failed": n_failed,
    }
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.request["endpoint"],
        "input_file_id": batch.request["input_file_id"],
        "completion_window": "24h",
        "status": status,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.created_at + EXPIRES_S),
        "completed_at": int(batch.ended_at) if is_done else None,
        "failed_at": int(batch.created_at) if batch.errors else None,
        "output_file_id": batch.files.get("output"),
        "error_file_id": batch.files.get("error"),
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "request_counts": counts,
        "metadata": batch.request.get("metadata"),
    }


def _file_results(account: Account, batch: Batch) -> None:
    """Put the rows that succeeded into one file and the others into another, as far as there are any."""
    rows: dict[str, list[dict[str, Any]]] = {"output": [], "error": []}
    for name, result in batch.results or ():
        status, body = 200, result
        if isinstance(result, Rejected):
            error = {"message": result.message, "type": result.kind, "param": result.param, "code": result.code}
            status, body = result.status, {"error": error}
        response = {"status_code": status, "request_id": account.new_id("req"), "body": body}
        row = {"id": account.new_id("batch_req"), "custom_id": name, "response": response, "error": None}
        rows["output" if status == 200 else "error"].append(row)
    for kind, found in rows.items():
        if found:
            file = File(
                account.new_id("file"), f"{batch.id}_{kind}.jsonl", "batch_output", account.clock(), _lines(found)
            )
            account.files[file.id] = file
            batch.files[kind] = file.id


def _form(content_type: str, raw: bytes) -> dict[str, tuple[str, bytes]]:
    """A multipart form: each field's file name (empty if it is none) and content."""
    match = re.search(r'boundary="?([^";]+)', content_type)
    if match is None:
        raise Rejected("Expected multipart/form-data with a boundary.")
    form = {}
    for part in raw.split(b"--" + match[1].encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        said = dict(re.findall(r'\b(name|filename)="([^"]*)"', head.decode("utf-8", "replace")))
        form[said.get("name", "")] = (said.get("filename", ""), content.removesuffix(b"\r\n"))
    return form


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _date(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat().replace("+00:00", "Z")
