"""What a request leaves behind: its record, its metrics, its line in the log, the headers that say where it went."""

from __future__ import annotations

import logging
import time
from decimal import Decimal

import msgspec

from router.formats.usage import located
from router.gateway import charges
from router.gateway.admission import Admitted, Endpoint
from router.gateway.gateway import Gateway
from router.gateway.store import JournalEntry
from router.gateway.wire import RawHeaders
from router.types import Usage

_logger = logging.getLogger("tierwise")


class Settlement:
    """Of one request. `admitted` is set once it is; `is_recorded` says that its record has been kept or given up."""

    def __init__(self, gateway: Gateway, endpoint: Endpoint, request_id: str, path: str) -> None:
        self.request_id = request_id
        self.admitted: Admitted | None = None
        self.is_recorded = False
        self.spent_usd = Decimal(0)
        self._gateway = gateway
        self._endpoint = endpoint
        self._path = path
        self._logs = gateway.serving.gateway.log_requests
        self._started_s = time.perf_counter()
        self._first_byte_ms: float | None = None

    def headers(self) -> RawHeaders:
        """Tier, model, reason and, last, the request id; a name that no header may hold is left out."""
        if self.admitted is None:
            return []
        plan = self.admitted.attempts.plan
        decision, shadow = plan.decision, plan.shadow
        values = {
            b"x-tierwise-tier": decision.tier or "",
            b"x-tierwise-model": decision.model,
            b"x-tierwise-reason": decision.reason,
            b"x-tierwise-shadow-model": shadow.decision.model if shadow is not None else "",
            b"x-tierwise-request-id": self.request_id,
        }
        return [(n, v.encode()) for n, v in values.items() if v and v.isascii() and v.isprintable()]

    def record(
        self, usage: Usage, notes: tuple[str, ...] = (), reply_chars: int = 0, *, is_cut: bool = False
    ) -> str | None:
        """Account for the reply and keep the record; the cost in USD as text, None where it is unknown.

        `is_cut`: it did not come to its end, so that what it reported may be too little.
        """
        self.is_recorded = True
        if self._endpoint.counts_only or self.admitted is None:
            return None
        key, attempts = self.admitted.key, self.admitted.attempts
        whose = () if key is None else (f"key {key.name}",)
        try:
            record = self.admitted.router.record(
                attempts.plan,
                located(usage, self.admitted.serving.upstream_of(attempts.plan).url),
                (*attempts.notes, *notes, f"request {self.request_id}", *whose),
                reply_chars=reply_chars,
                is_cut=is_cut,
            )
            record = msgspec.structs.replace(
                record, first_byte_ms=self._first_byte_ms, total_ms=(time.perf_counter() - self._started_s) * 1e3
            )
            charged = None
            if key is not None and key.has_budget:
                charged = charges.instead(record, attempts.plan, self.admitted.router.catalog, reply_chars)
            self.spent_usd = record.cost_usd or charged or Decimal(0)
            self._gateway.keep(JournalEntry(self.request_id, record, None if key is None else key.id, charged))
        except Exception as exc:  # the provider has answered and will bill: the reply must reach the caller
            self._gateway.journal.n_lost += 1
            _logger.error("no record of request %s: %s", self.request_id, type(exc).__name__)
            return None
        self._gateway.metrics.recorded(record, self.label(record.model))
        return None if record.cost_usd is None else f"{record.cost_usd:f}"

    def first_byte(self) -> None:
        """The provider has begun to answer."""
        elapsed_s = time.perf_counter() - self._started_s
        self._first_byte_ms = elapsed_s * 1e3
        self._gateway.metrics.first_byte(self._endpoint.api, elapsed_s)

    def count(self, status: int) -> None:
        """The reply has been sent."""
        model, tier, reason = "", "", ""
        if self.admitted is not None:
            decision = self.admitted.attempts.plan.decision
            model, tier, reason = self.label(decision.model), decision.tier or "", decision.reason
        elapsed_s = time.perf_counter() - self._started_s
        self._gateway.metrics.answered(self._endpoint.api, tier, model, reason, status, elapsed_s)
        if self._logs:
            told = {
                "request_id": self.request_id,
                "path": self._path,
                "status": status,
                "tier": tier or "-",
                "model": model or "-",
                "reason": reason or "-",
                "total_ms": round(elapsed_s * 1e3, 1),
            }
            _logger.info("%s %s %d %s %s %s %.1f ms", *told.values(), extra=told)

    def label(self, model: str) -> str:
        """A model as a metric's label and in logs: callers can name anything, labels must stay few."""
        known = self.admitted is not None and self.admitted.router.catalog.find(model) is not None
        return model if known else "other"
