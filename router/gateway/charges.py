"""What a request is taken to cost where its price is not known, or not yet: so that no budget is walked around."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from router.cache.breakpoints import read_prefix
from router.catalog import Catalog
from router.types import Body, Plan, Record

_USUAL_REPLY_TOKENS = 2_000
"""Of a request that sets no limit: of 24,669 requests of coding agents, 98 % are answered in less."""

_CHARS_PER_TOKEN = 3.0
"""Of a model that is not known: rather too many tokens than too few."""

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def expected(plan: Plan, catalog: Catalog) -> Decimal:
    """USD that a request is expected to cost at most: nothing read from a cache, the longest reply that it allows."""
    n_chars = plan.route.prefix.size if plan.route else read_prefix(plan.body, plan.api).size
    model = catalog.find(plan.decision.model)
    per_token = _CHARS_PER_TOKEN if model is None else model.chars_per_token
    limit = _limit(plan.body)
    n_output = _USUAL_REPLY_TOKENS if limit is None else limit
    if model is not None and model.max_output_tokens is not None:
        n_output = min(n_output, model.max_output_tokens)
    return _usd(int(n_chars / per_token), n_output, plan.decision.model, catalog, plan.planned_at)


def instead(record: Record, plan: Plan, catalog: Catalog, reply_chars: int) -> Decimal | None:
    """USD that a budget is charged for a reply of unknown cost: its tokens, or what can be seen of them, at the dearest
    price that the catalog has. None where the record has its cost.
    """
    if record.cost_usd is not None:
        return None
    usage = record.usage
    n_input, n_output = usage.input_tokens, usage.output_tokens
    if not n_input:
        n_input = int(read_prefix(plan.body, plan.api).size / _CHARS_PER_TOKEN)
    if not n_output:
        n_output = max(int(reply_chars / _CHARS_PER_TOKEN), 1)
    return _usd(n_input, n_output, "", catalog, plan.planned_at)


def _usd(n_input: int, n_output: int, model_id: str, catalog: Catalog, at_s: float) -> Decimal:
    on = dt.datetime.fromtimestamp(at_s, dt.UTC).date()
    model = catalog.find(model_id)
    models = list(catalog.models.values()) if model is None else [model]
    prices = [price for each in models if (price := each.price(on, n_input)).input is not None]
    if not prices:
        prices = [p for each in catalog.models.values() if (p := each.price(on, n_input)).input is not None]
    of_input = max((price.input or Decimal(0) for price in prices), default=Decimal(0))
    of_output = max((price.output or Decimal(0) for price in prices), default=Decimal(0))
    return (n_input * of_input + n_output * of_output) / 1_000_000


def _limit(body: Body) -> int | None:
    values: list[Any] = [body.get(name) for name in _LIMITS]
    return next((value for value in values if isinstance(value, int) and value > 0), None)
