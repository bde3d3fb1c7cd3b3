"""Prometheus metrics. Labels come from the catalog and from fixed sets, never from a caller."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from router.types import Api, Record

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_NAMES = {Api.MESSAGES: "messages", Api.CHAT: "chat", Api.RESPONSES: "responses"}


class Metrics:
    """One registry a gateway."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ["api", "tier", "model", "reason", "status"]
        self._requests = Counter("tierwise_requests", "Requests answered", labels, registry=registry)
        self._refused = Counter("tierwise_refused", "Requests the gateway refused itself", ["why"], registry=registry)
        self._faults = Counter("tierwise_faults", "Failed attempts at the provider", ["model"], registry=registry)
        self._tokens = Counter("tierwise_tokens", "Tokens billed", ["model", "kind"], registry=registry)
        self._cost = Counter("tierwise_cost_usd", "Cost of routed and named calls", ["model"], registry=registry)
        self._unpriced = Counter("tierwise_unpriced", "Replies of unknown cost", ["model"], registry=registry)
        self._unknown = Counter(
            "tierwise_unknown_usage",
            "Replies whose usage holds a number that nobody here knows",
            ["model"],
            registry=registry,
        )
        self._saved = Gauge("tierwise_saved_usd", "Baseline minus cost since start", registry=registry)
        self._first_byte = Histogram(
            "tierwise_first_byte_seconds",
            "Until the provider's first byte",
            ["api"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._duration = Histogram(
            "tierwise_duration_seconds", "Until the last byte", ["api"], buckets=_SECONDS, registry=registry
        )
        self.running = Gauge("tierwise_running", "Requests being served", registry=registry)
        self.waiting = Gauge("tierwise_waiting", "Requests in the queue", registry=registry)
        self.backlog = Gauge("tierwise_journal_backlog_bytes", "Records not in the database yet", registry=registry)
        self.lost = Gauge("tierwise_records_lost", "Records that could not be kept", registry=registry)
        self.resting = Gauge(
            "tierwise_model_resting", "1 while a model is passed over after failing", ["model"], registry=registry
        )
        self.drift = Gauge(
            "tierwise_drift_psi",
            "Population stability index of a week's scores beside the month before",
            registry=registry,
        )
        self.database_up = Gauge("tierwise_database_up", "Whether the last write succeeded", registry=registry)
        self._of_requests = lru_cache(maxsize=4096)(self._requests.labels)
        self._of_tokens = lru_cache(maxsize=4096)(self._tokens.labels)
        self._of_first_byte = {api: self._first_byte.labels(name) for api, name in _NAMES.items()}
        self._of_duration = {api: self._duration.labels(name) for api, name in _NAMES.items()}

    def answered(self, api: Api, tier: str, model: str, reason: str, status: int, elapsed_s: float) -> None:
        """One reply, whoever made it, has been sent."""
        self._of_requests(_NAMES[api], tier, model, reason, str(status)).inc()
        self._of_duration[api].observe(elapsed_s)

    def first_byte(self, api: Api, elapsed_s: float) -> None:
        """A provider began to answer."""
        self._of_first_byte[api].observe(elapsed_s)

    def refused(self, why: str) -> None:
        """The gateway turned a request away, or its caller left."""
        self._refused.labels(why).inc()

    def fault(self, model: str) -> None:
        """An attempt failed."""
        self._faults.labels(model).inc()

    def recorded(self, record: Record, model: str) -> None:
        """A reply has been accounted for."""
        usage = record.usage
        self._of_tokens(model, "fresh").inc(usage.fresh_tokens)
        self._of_tokens(model, "output").inc(usage.output_tokens)
        if usage.fresh_tokens != usage.input_tokens:
            self._of_tokens(model, "cache_read").inc(usage.cache_read_tokens)
            self._of_tokens(model, "cache_write_short").inc(usage.cache_write_short_tokens)
            self._of_tokens(model, "cache_write_long").inc(usage.cache_write_long_tokens)
        if record.cost_usd is None:
            self._unpriced.labels(model).inc()
        else:
            self._cost.labels(model).inc(float(record.cost_usd))
        if usage.unknown_fields:
            self._unknown.labels(model).inc()
        if record.saved_usd is not None:
            self._saved.inc(float(record.saved_usd))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
