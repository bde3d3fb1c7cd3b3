"""One customer's account at both providers: models, caches, what to answer, and what was asked and billed."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from router import catalog
from router.catalog import Model
from router.offline import replies
from router.offline.failures import Failure, Rejected
from router.offline.models import gpt
from router.offline.prefixcache import PrefixCache, Use
from router.offline.replies import Reply

LONG_WRITE_FACTOR = Decimal("2.5")  # OpenAI's 12 h writes, times input: https://openai.com/api/pricing, 2026-11-22


@dataclass(frozen=True)
class Bill:
    """One billed request: tokens by kind, USD, and the model. `tag` is the request's x-demo-tag header."""

    model: str
    fresh: int
    read: int
    write_short: int
    write_long: int
    output: int
    usd: Decimal
    tag: str
    request_id: str = ""
    is_batch: bool = False


@dataclass(frozen=True)
class Exchange:
    """One request as it came: the keys in its headers (lower-case names) are left out."""

    request_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Call:
    """What an answer depends on besides the body."""

    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)
    is_batch: bool = False

    @property
    def version(self) -> str:
        return self.headers.get("anthropic-version", "")


@dataclass
class Answer:
    """A reply's body, and the frames of its stream if it was asked for. `begin` bills it and warms the caches."""

    body: dict[str, Any]
    begin: Callable[[], None] = lambda: None
    frames: list[str] | None = None


@dataclass
class Account:
    """`clock` gives seconds; a simulation passes its own, and caches and batches go by it.

    `requests` keeps each parsed body and `log` each request. Each of `failures` happens once and each of `scripts` is
    answered once, in order; else `reply`, if given, answers: called with the body and the model's id.
    Chat Completions models in `wants_reasoning` refuse calls of theirs that come back without their thinking.
    Batches end `batch_delay_s` after they were made; rows whose custom_id is in `batch_errors` fail.
    """

    clock: Callable[[], float] = time.time
    models: catalog.Catalog = field(default_factory=catalog.shipped)
    bills: list[Bill] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    scripts: list[Reply] = field(default_factory=list)
    reply: Callable[[dict[str, Any], str], str | Reply] | None = None
    wants_reasoning: set[str] = field(default_factory=set)
    batch_delay_s: float = 0.0
    batch_errors: set[str] = field(default_factory=set)
    is_batch_out_of_order: bool = False
    log: list[Exchange] = field(default_factory=list)
    cache: PrefixCache = field(default_factory=PrefixCache)
    files: dict[str, Any] = field(default_factory=dict)
    batches: dict[str, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def forget(self) -> None:
        """Empty every cache, as on another account."""
        self.cache.clear()

    def new_id(self, kind: str) -> str:
        """An identifier that no other thing of this account has, such as msg_00000007."""
        return f"{kind}_{next(self._numbers):08d}"

    def find(self, body: Mapping[str, Any]) -> Model:
        """The model that a request names. Raises Rejected when there is none."""
        model = self.models.find(str(body.get("model")))
        if model is None:
            raise Rejected(f"model: {body.get('model')}", 404, "not_found_error")
        return model

    def next_failure(self, model: object) -> Failure | None:
        """The first failure that this model is to meet, taken off the list."""
        with self.lock:
            at = next((i for i, f in enumerate(self.failures) if f.model in (None, model)), None)
            return None if at is None else self.failures.pop(at)

    def answer(self, body: dict[str, Any], model_id: str) -> Reply:
        """What the model says: what is scripted, else what `reply` says, else simulated text."""
        with self.lock:
            at = next((i for i, script in enumerate(self.scripts) if script.model in (None, model_id)), None)
            if at is not None:
                return self.scripts.pop(at)
        if self.reply is None:
            return replies.simulate(body, model_id)
        said = self.reply(body, model_id)
        return said if isinstance(said, Reply) else Reply(said)

    def begin(self, model: Model, use: Use, output: int, call: Call) -> None:
        """The response begins: bill it, at half the price in a batch, and let others read what it wrote."""
        on = dt.datetime.fromtimestamp(self.clock(), dt.UTC).date()
        price, zero = model.price(on, use.total), Decimal(0)
        long = price.cache_write_long
        if long is None and gpt(model.id).has_breakpoints:
            long = (price.input or zero) * LONG_WRITE_FACTOR
        usd = (
            use.fresh * (price.input or zero)
            + use.read * (price.cache_read or zero)
            + use.write_short * (price.cache_write_short or zero)
            + use.write_long * (long or zero)
            + output * (price.output or zero)
        ) / 1_000_000
        tokens = (use.fresh, use.read, use.write_short, use.write_long, output)
        tag = call.headers.get("x-demo-tag", "")
        with self.lock:
            usd = usd / 2 if call.is_batch else usd
            self.bills.append(Bill(model.id, *tokens, usd, tag, call.request_id, call.is_batch))
        self.cache.begin(use)
