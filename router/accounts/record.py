"""What a reply cost, and what it would have cost: usage, prices and the baseline into a Record."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import msgspec

from router.accounts.baseline import Baseline
from router.accounts.bill import bill
from router.accounts.ledger import Ledger
from router.cache import breakpoints
from router.cache.placement import Placement
from router.catalog import COMPATIBLE, Catalog, Fleet, Model
from router.prices import Dimension, is_plain
from router.redaction import redacted
from router.types import Api, Plan, Reason, Record, Ttl, Usage

ESTIMATED = "usage estimated: the reply reported none"
"""The note in a record whose counts and cost are estimates."""

CUT = "output estimated: the stream was left before its end"
"""The note in a record whose output is an estimate, for a stream reports it last."""

_WITHOUT_ASK = (Reason.HELD, Reason.SIDE_CALL, Reason.EXPLICIT_MODEL, Reason.EMPTY_TASK)
"""Reasons of calls that ask nothing new: within a turn, on the side, or not ours to decide."""

_ASKED_BY: dict[Api, tuple[tuple[Dimension, str], ...]] = {
    Api.MESSAGES: (("speed", "speed"), ("geo", "inference_geo")),
    Api.CHAT: (("service_tier", "service_tier"),),
    Api.RESPONSES: (("service_tier", "service_tier"),),
}
"""The fields of a request that ask for another price."""


class Accounts:
    """The accounts of one fleet. Thread-safe. `placement` learns from each reply, `store` keeps the records, if any."""

    def __init__(
        self, catalog: Catalog, fleet: Fleet, placement: Placement, store: Ledger | None, *, keeps_prompts: bool = False
    ) -> None:
        """`keeps_prompts`: records hold what users asked, redacted."""
        self.catalog = catalog
        self.fleet = fleet
        self.placement = placement
        self.store = store
        self.keeps_prompts = keeps_prompts
        self.baseline = Baseline(fleet.top)

    def record(
        self,
        plan: Plan,
        usage: Usage,
        notes: tuple[str, ...] = (),
        *,
        reply_chars: int = 0,
        is_cut: bool = False,
    ) -> Record:
        """`Router.record`."""
        record = self._record(plan, usage, notes, reply_chars, is_cut)
        if plan.shadow is not None:
            record = self._with_shadow(record, plan.shadow)
        if self.keeps_prompts:
            record = msgspec.structs.replace(record, prompt=_asked_in(plan))
        if self.store is not None:
            self.store.write(record)
        return record

    def _with_shadow(self, record: Record, shadow: Plan) -> Record:
        """The record of what was sent, with what the decision would have cost, whose caches are remembered."""
        decision, usage = shadow.decision, record.usage
        model = self.catalog.find(decision.model)
        cost = None
        if usage.is_known and model is not None:
            cost = self._record(shadow, shadow_usage(usage, shadow, model)).cost_usd
        return msgspec.structs.replace(
            record,
            p_suffices=decision.p_suffices,
            artifact=decision.artifact,
            conversation=decision.conversation,
            shadow_model=decision.model,
            shadow_cost_usd=cost,
            traffic_class=_class_of(shadow),
        )

    def _record(
        self, plan: Plan, usage: Usage, notes: tuple[str, ...] = (), reply_chars: int = 0, is_cut: bool = False
    ) -> Record:
        decision = plan.decision
        model = self.catalog.find(decision.model)
        if not usage.reported and (reply_chars or is_cut):
            usage, notes = self._estimated(plan, reply_chars, usage), (*notes, ESTIMATED)
        elif is_cut and reply_chars and model is not None:
            n_output = round(reply_chars / model.chars_per_token)
            if n_output > usage.output_tokens:
                usage, notes = msgspec.structs.replace(usage, output_tokens=n_output), (*notes, CUT)
        if usage.is_known:
            usage = _as_asked(usage, plan, model)
        at = dt.datetime.fromtimestamp(plan.planned_at, dt.UTC)
        billed = bill(usage, model, at.date(), self.catalog.find)
        usd = billed.usd
        baseline_usd = None
        if decision.reason is not Reason.EXPLICIT_MODEL and plan.shadow is None:
            baseline_usd = self._baseline(plan, usage, model)
            self.placement.remember(plan, usage)
        return Record(
            at=at,
            tier=decision.tier,
            model=decision.model,
            reason=decision.reason,
            p_suffices=decision.p_suffices,
            usage=usage,
            cost_usd=usd,
            baseline_model=None if decision.reason is Reason.EXPLICIT_MODEL else self.fleet.top.id,
            baseline_cost_usd=baseline_usd,
            saved_usd=None if usd is None or baseline_usd is None else baseline_usd - usd,
            notes=(*decision.notes, *notes, *billed.notes),
            artifact=decision.artifact,
            conversation=decision.conversation,
            effort=decision.effort,
            traffic_class=_class_of(plan),
            mode=plan.mode,
            propensity=plan.propensity,
        )

    def _estimated(self, plan: Plan, reply_chars: int, usage: Usage) -> Usage:
        """Usage by the length of body and reply; all input as fresh, for nothing says that any was read from a cache.

        What cannot be seen is not in it: images, and reasoning that the provider keeps to itself.
        """
        model = self.catalog.find(plan.decision.model)
        if model is None:
            return usage
        prefix = plan.route.prefix if plan.route else breakpoints.read_prefix(plan.body, plan.api)
        rate = self.placement.tokens_per_unit(model, prefix)
        n_input, n_output = round(prefix.size * rate), max(round(reply_chars * rate), 1)
        return msgspec.structs.replace(usage, fresh_tokens=n_input, output_tokens=n_output)

    def _baseline(self, plan: Plan, usage: Usage, answered: Model | None) -> Decimal | None:
        """What the call adds to the baseline: the shares of its prompt that could be cached, in the tokens billed."""
        if (route := plan.route) is None or not route.prefix.size:
            return self.baseline.cost(
                usage,
                plan.cache.prefix_key,
                plan.cache.prefix_tokens,
                plan.planned_at,
                answered=answered,
                find=self.catalog.find,
            )
        prefix, total = route.prefix, usage.input_tokens
        known = prefix.units[route.n_known - 1] if route.n_known else 0
        return self.baseline.cost(
            usage,
            prefix.head_key,
            int(total * prefix.head_units / prefix.size),
            plan.planned_at,
            conversation=route.conversation,
            known_tokens=int(total * known / prefix.size),
            answered=answered,
            find=self.catalog.find,
        )


def _asked_in(plan: Plan) -> str:
    """What the user asked, redacted: of the calls that open a turn, as far as their reason tells."""
    return "" if (plan.shadow or plan).decision.reason in _WITHOUT_ASK else redacted(plan.ask)


def _class_of(plan: Plan) -> str:
    return plan.route.classes[0] if plan.route is not None and plan.route.classes else ""


def shadow_usage(usage: Usage, shadow: Plan, model: Model) -> Usage:
    """What a reply's usage would have been if `shadow` had been sent: as much to read and to write, and cached as it
    says, with what was believed warm. An estimate: tokens count the same on each model, and each writes as much."""
    route, total = shadow.route, usage.input_tokens
    plain = Usage(fresh_tokens=total, output_tokens=usage.output_tokens)
    if route is None or not route.prefix.size:
        return plain
    prefix, rate = route.prefix, total / route.prefix.size
    head = int(prefix.head_units * rate) if route.head else 0
    end = total if route.tail else head
    if end < model.cache_min_tokens:
        return plain
    read = min(int(route.expected_units * rate), end)
    if model.prices[0].cache_write_short is None:
        return msgspec.structs.replace(plain, fresh_tokens=total - read, cache_read_tokens=read)
    in_head = max(head - read, 0)
    written = {Ttl.SHORT: 0, Ttl.LONG: 0}
    if in_head:
        written[route.head] += in_head
    if route.tail:
        written[route.tail] += end - max(read, head)
    return msgspec.structs.replace(
        plain,
        fresh_tokens=total - end,
        cache_read_tokens=read,
        cache_write_short_tokens=written[Ttl.SHORT],
        cache_write_long_tokens=written[Ttl.LONG],
    )


def _as_asked(usage: Usage, plan: Plan, model: Model | None) -> Usage:
    """Usage with the tier, speed and place that were asked for, where the reply does not say which it was given.

    OpenAI and Anthropic do say. A server of the user's own that does not has not heard of it, unless its settings have.
    """
    given: dict[str, str] = {}
    remarks = []
    for dimension, field in _ASKED_BY[plan.api]:
        asked = plan.body.get(field)
        if not isinstance(asked, str) or is_plain(dimension, asked) or getattr(usage, dimension):
            continue
        own = model is not None and model.provider == COMPATIBLE and model.modifiers.find(dimension, asked) is None
        if not own:
            given[dimension] = asked
        how = "left out" if own else "as asked"
        remarks.append(f"{dimension} {asked} {how}: the reply does not say")
    return msgspec.structs.replace(usage, **given, remarks=(*usage.remarks, *remarks)) if remarks else usage
