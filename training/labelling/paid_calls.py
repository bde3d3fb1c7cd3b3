"""Paid calls that are kept: each request is journalled by its hash, so that none is paid for twice.

Through the anthropic or the openai SDK, one by one, or as a batch at half the price
(https://platform.claude.com/docs/en/build-with-claude/batch-processing,
https://developers.openai.com/api/docs/guides/batch, and the SDKs' types, 2026-11-25).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from router.accounts.baseline import BATCH_FACTOR, cost
from router.accounts.ledger import PICO, picousd
from router.catalog import PROVIDERS, Fleet, Model
from router.errors import TierwiseError
from router.formats import usage
from router.types import Api

CONCURRENT = 8
"""Calls at once: as many replies may be lost, and paid again, when the process is killed outright."""

BATCH_SIZE = 10_000
PROMPT_OVERHEAD_TOKENS = 50
THINKING_TOKENS = 1024
"""Room for a model that cannot answer without thinking, at its lowest effort: what it thinks counts as output."""


class OverBudget(TierwiseError):
    """The next call could pass the budget; everything paid for so far is kept."""


class CallsFailed(TierwiseError):
    """The provider refused calls or a whole batch."""


@dataclass(frozen=True)
class Request:
    """One prompt for one model; at most `max_tokens` of an answer, with as little thinking as the model can do.

    `most_prompt_tokens`, where more is known of them than the prompt's length in bytes.
    """

    model: Model
    prompt: str
    max_tokens: int
    most_prompt_tokens: int | None = None

    @property
    def key(self) -> str:
        """Identifies the request: 64 hex digits, also its custom_id in a batch."""
        body = json.dumps([self.model.id, self.prompt, self.max_tokens])
        return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def api(self) -> Api:
        """The API that serves it."""
        return Api.MESSAGES if self.model.provider == "anthropic" else Api.CHAT

    def body(self) -> dict[str, Any]:
        """As the provider takes it."""
        limit = "max_tokens" if self.api is Api.MESSAGES else "max_completion_tokens"
        message = {"role": "user", "content": self.prompt}
        body = {"model": self.model.id, limit: self._output_tokens, "messages": [message]}
        efforts = self.model.dialect.efforts
        if efforts and self.api is Api.CHAT:
            body["reasoning_effort"] = efforts[0]
        elif efforts and self._thinks:
            body["output_config"] = {"effort": efforts[0]}
        return body

    def most_usd(self, is_batch: bool) -> Decimal:
        """What it costs at most: all of its output, and a token for every byte of the prompt, for none holds less.

        Raises CallsFailed for a model without prices.
        """
        n_tokens = (self.most_prompt_tokens or n_bytes(self.prompt)) + PROMPT_OVERHEAD_TOKENS
        price = self.model.price(dt.datetime.now(dt.UTC).date(), n_tokens)
        if price.input is None or price.output is None:
            raise CallsFailed(f"no price of {self.model.id} is known, so its calls have no upper bound; choose another")
        usd = (n_tokens * price.input + self._output_tokens * price.output) / 1_000_000
        return usd * BATCH_FACTOR if is_batch else usd

    @property
    def _thinks(self) -> bool:
        """Whether thinking cannot be left out."""
        dialect = self.model.dialect
        if self.api is Api.MESSAGES:
            return bool(dialect.thinking) and "disabled" not in dialect.thinking
        return bool(dialect.efforts) and dialect.efforts[0] != "none"

    @property
    def _output_tokens(self) -> int:
        return self.max_tokens + (THINKING_TOKENS if self._thinks else 0)


def n_bytes(text: str) -> int:
    """Of the text in UTF-8: no tokenizer makes more tokens of it."""
    return len(text.encode("utf-8", "surrogatepass"))


_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, picousd INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS batches (
  nonce TEXT PRIMARY KEY, id TEXT, opened_at TEXT NOT NULL, keys TEXT NOT NULL, is_done INTEGER NOT NULL
) STRICT;
"""


class Journal:
    """Replies by request, and batches under way, in an SQLite file. It holds the answers' texts."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous = FULL")  # what is paid for must not get lost
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._db.close()

    def reply(self, request: Request) -> str | None:
        """The reply's text, if it has come."""
        row = self._db.execute("SELECT text FROM replies WHERE key = ?", (request.key,)).fetchone()
        return None if row is None else str(row[0])

    def keep(self, key: str, model: Model, text: str, reported: Any, api: Api, is_batch: bool) -> None:
        """Store a reply with its cost at the day's prices."""
        spent = usage.read_usage({"usage": reported}, api, is_batch=is_batch)
        usd = cost(spent, model, dt.datetime.now(dt.UTC).date())
        self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", (key, model.id, text, picousd(usd)))

    @property
    def spent_usd(self) -> Decimal:
        """All that the replies cost."""
        return Decimal(self._db.execute("SELECT TOTAL(picousd) FROM replies").fetchone()[0]) / PICO

    def open_batch(self, keys: list[str]) -> str:
        """Note, before it is sent, that a batch with these requests is about to be."""
        nonce = uuid.uuid4().hex
        now = dt.datetime.now(dt.UTC).isoformat()
        self._db.execute("INSERT INTO batches VALUES (?, NULL, ?, ?, 0)", (nonce, now, json.dumps(keys)))
        return nonce

    def name_batch(self, nonce: str, batch_id: str) -> None:
        """The provider took it under this id."""
        self._db.execute("UPDATE batches SET id = ? WHERE nonce = ?", (batch_id, nonce))

    def end_batch(self, nonce: str) -> None:
        """Its results are kept, or it never came to be."""
        self._db.execute("UPDATE batches SET is_done = 1 WHERE nonce = ?", (nonce,))

    def batches(self) -> list[tuple[str, str | None, dt.datetime, list[str]]]:
        """(nonce, id or None, when, keys) of each batch that has not ended."""
        rows = self._db.execute("SELECT nonce, id, opened_at, keys FROM batches WHERE NOT is_done").fetchall()
        return [(nonce, name, dt.datetime.fromisoformat(at), json.loads(keys)) for nonce, name, at, keys in rows]

    def known_batches(self) -> set[str]:
        """The ids of all batches."""
        return {name for (name,) in self._db.execute("SELECT id FROM batches WHERE id IS NOT NULL")}


class Caller:
    """Answers requests from the journal, and the rest through the provider's SDK."""

    def __init__(
        self,
        client: Any,
        journal: Journal,
        *,
        is_batch: bool = False,
        budget_usd: Decimal | None = None,
        poll_s: float = 20.0,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`budget_usd` bounds all that the journal has ever paid for; `progress(n)`: n more replies are there.

        `failures`: what the provider said of the calls that failed.
        """
        self.failures: list[str] = []
        self._client, self._journal = client, journal
        self._is_batch, self._budget_usd, self._poll_s, self._progress = is_batch, budget_usd, poll_s, progress

    def missing(self, requests: Iterable[Request]) -> list[Request]:
        """Those that are not answered yet, each once."""
        distinct = {request.key: request for request in requests}
        return [request for request in distinct.values() if self._journal.reply(request) is None]

    def answer(self, requests: list[Request]) -> list[str | None]:
        """The reply to each; None where the provider gave an error for that one. Raises OverBudget or CallsFailed."""
        failures: list[str] = []
        self._finish_batches({request.key: request for request in requests}, failures)
        missing = self.missing(requests)
        self._progress(len(requests) - len(missing))
        if missing and self._is_batch:
            self._send_batches(missing, failures)
            self._progress(len(missing))
        elif missing:
            self._send(missing, failures)
        self.failures += failures
        if failures and len(failures) == len(missing):
            raise CallsFailed(f"all {len(failures)} calls failed; the first: {failures[0]}")
        return [self._journal.reply(request) for request in requests]

    def _check_budget(self, requests: Iterable[Request]) -> None:
        if self._budget_usd is None:
            return
        most = sum((request.most_usd(self._is_batch) for request in requests), self._journal.spent_usd)
        if most > self._budget_usd:
            raise OverBudget(
                f"${self._journal.spent_usd:.4f} are spent, and the next calls could bring it to ${most:.4f}, above "
                f"the budget of ${self._budget_usd:.4f}; what is paid for is kept: raise --budget-usd and run it again"
            )

    def _send(self, missing: list[Request], failures: list[str]) -> None:
        """One by one, CONCURRENT at a time. Whatever stops it, the replies to what was sent are waited for and kept."""
        pending: dict[Future[Any], Request] = {}
        with ThreadPoolExecutor(CONCURRENT) as pool:
            try:
                for request in missing:
                    if len(pending) >= CONCURRENT:
                        self._collect(pending, failures)
                    self._check_budget([request, *pending.values()])
                    pending[pool.submit(self._call, request)] = request
            finally:
                while pending:
                    self._collect(pending, failures)

    def _collect(self, pending: dict[Future[Any], Request], failures: list[str]) -> None:
        """Wait for the next replies and keep them; only this thread writes the journal."""
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            request = pending.pop(future)
            if error := future.exception():
                if not hasattr(error, "request"):  # the SDKs' errors have it; anything else is a bug
                    raise error
                failures.append(f"{request.model.id}: {error}")
            else:
                self._keep(request, future.result(), is_batch=False)
            self._progress(1)

    def _call(self, request: Request) -> Any:
        if request.api is Api.MESSAGES:
            return self._client.messages.create(**request.body())
        return self._client.chat.completions.create(**request.body())

    def _keep(self, request: Request, reply: Any, is_batch: bool) -> None:
        message = reply if isinstance(reply, dict) else reply.to_dict()
        self._journal.keep(request.key, request.model, _text(message), message.get("usage"), request.api, is_batch)

    def _send_batches(self, missing: list[Request], failures: list[str]) -> None:
        self._check_budget(missing)
        by_model: dict[str, list[Request]] = {}
        for request in missing:  # a model a batch, as OpenAI asks for
            by_model.setdefault(request.model.id, []).append(request)
        for requests in by_model.values():
            for start in range(0, len(requests), BATCH_SIZE):
                part = requests[start : start + BATCH_SIZE]
                nonce = self._journal.open_batch([request.key for request in part])
                self._journal.name_batch(nonce, _create_batch(self._client, part, nonce))
        self._finish_batches({request.key: request for request in missing}, failures)

    def _finish_batches(self, known: dict[str, Request], failures: list[str]) -> None:
        """Wait for every batch under way and keep its results; a batch whose id was never noted is looked for."""
        for nonce, noted_id, opened_at, keys in self._journal.batches():
            if not set(keys) & set(known):
                continue
            batch_id = noted_id or self._lost(nonce, opened_at, keys)
            if batch_id is None:
                self._journal.end_batch(nonce)
                continue
            while not _has_ended(self._client, known[next(k for k in keys if k in known)].api, batch_id):
                time.sleep(self._poll_s)
            for key, message, error in _results(self._client, known, batch_id, keys):
                if message is None:
                    failures.append(error)
                elif key in known:
                    self._keep(known[key], message, is_batch=True)
            self._journal.end_batch(nonce)

    def _lost(self, nonce: str, opened_at: dt.datetime, keys: list[str]) -> str | None:
        """The id of a batch that was sent, perhaps, before its id could be noted: found by its mark or its rows."""
        known = self._journal.known_batches()
        is_anthropic = hasattr(self._client, "messages")
        service = self._client.messages.batches if is_anthropic else self._client.batches
        for batch in service.list(limit=100):
            created = batch.created_at
            at = created if isinstance(created, dt.datetime) else dt.datetime.fromtimestamp(created, dt.UTC)
            if at < opened_at - dt.timedelta(minutes=5):
                return None
            if batch.id in known:
                continue
            if not is_anthropic:
                if (batch.metadata or {}).get("tierwise") == nonce:
                    return str(batch.id)
                continue
            while not _has_ended(self._client, Api.MESSAGES, batch.id):
                time.sleep(self._poll_s)
            first = next(iter(self._client.messages.batches.results(batch.id)), None)
            if first is not None and first.custom_id in keys:
                return str(batch.id)
        return None


def client_for(fleet: Fleet, *, is_batch: bool = False) -> Any:
    """The SDK client of a fleet's provider, with its key from the environment. Raises CallsFailed, before anything is
    sent, where there is no key or no way.
    """
    provider, key_env = fleet.provider, PROVIDERS[fleet.provider].key_env
    if len(fleet.providers) > 1 or key_env is None:
        known = ", ".join(name for name, each in PROVIDERS.items() if each.key_env is not None)
        raise CallsFailed(
            f"the fleet {fleet.name!r} is of {', '.join(fleet.providers)}, labels come from one of {known}; "
            "choose another with --fleet"
        )
    if is_batch and provider == "gemini":
        raise CallsFailed("Gemini's batches have no OpenAI-compatible files; leave --batch out, at the full price")
    key = os.environ.get(key_env)
    if not key:
        raise CallsFailed(f"no API key: set {key_env} in the environment")
    if provider == "anthropic":
        import anthropic

        return anthropic.Anthropic()
    import openai

    return openai.OpenAI(api_key=key, base_url=PROVIDERS[provider].url if provider == "gemini" else None)


def _text(message: dict[str, Any]) -> str:
    if "choices" in message:
        return message["choices"][0]["message"].get("content") or ""
    return "".join(block.get("text", "") for block in message["content"] if block["type"] == "text")


def _create_batch(client: Any, requests: list[Request], nonce: str) -> str:
    if requests[0].api is Api.MESSAGES:
        rows = [{"custom_id": request.key, "params": request.body()} for request in requests]
        return str(client.messages.batches.create(requests=rows).id)
    lines = [
        {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": request.body()}
        for request in requests
    ]
    content = b"\n".join(map(msgspec.json.encode, lines))
    file = client.files.create(file=("tierwise.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"tierwise": nonce}
    )
    return str(batch.id)


def _has_ended(client: Any, api: Api, batch_id: str) -> bool:
    if api is Api.MESSAGES:
        return bool(client.messages.batches.retrieve(batch_id).processing_status == "ended")
    return client.batches.retrieve(batch_id).status in ("completed", "failed", "expired", "cancelled")


def _results(
    client: Any, known: dict[str, Request], batch_id: str, keys: list[str]
) -> Iterator[tuple[str, dict[str, Any] | None, str]]:
    """(key, message or None, error) of each row of an ended batch."""
    if known[next(key for key in keys if key in known)].api is Api.MESSAGES:
        for row in client.messages.batches.results(batch_id):
            message = row.result.message.to_dict() if row.result.type == "succeeded" else None
            yield row.custom_id, message, "" if message else f"batch {batch_id}: {row.result.to_dict()}"
        return
    batch = client.batches.retrieve(batch_id)
    if batch.status == "failed":
        problems = [error.message for error in (batch.errors.data if batch.errors else None) or []]
        raise CallsFailed(f"batch {batch_id} failed: {'; '.join(map(str, problems[:3])) or 'no reason given'}")
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        for line in client.files.content(file_id).text.splitlines():
            row = json.loads(line)
            response = row.get("response") or {}
            message = response.get("body") if response.get("status_code") == 200 else None
            yield row["custom_id"], message, "" if message else f"batch {batch_id}: {row.get('error') or response}"
