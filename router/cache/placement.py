"""Where a conversation goes and what is cached for it: hold, move, and the ledger of what is warm where.

For each class of traffic (the caller's label, else the system prompt; a new class starts from what agents' or chats'
traffic has taught) `returns` learns when prefixes come back and `future_cost` prices what follows. A conversation's
`Hold` says which tier it needs and went to, and what its models should still have cached, as their replies reported.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from router.cache.future_cost import Rows, Segment, UnitCosts, cheapest
from router.cache.memory import InProcessMemory, Memory
from router.cache.sharing import Sharing, is_same_model
from router.cache.traffic_class import TrafficClass
from router.catalog import Fleet, Model, Price, day
from router.types import CacheEntry, Hold, Plan, Prefix, Route, Tier, Ttl, Usage

_OWN_AFTER = 200
"""Requests after which a class goes by its own statistics."""
_MAX_CLASSES = 256
_MAX_ENTRIES = 4
_LOOKED_UP = 12
"""How many message ends, from the newest, are looked up for the conversation's last request."""

_TOO_SHORT = "below the minimum"

_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Hold).decode


class Signal(msgspec.Struct, frozen=True):
    """Cache use of one class on one model; `misses` counts requests that read nothing, by cause."""

    traffic_class: str
    model: str
    n_requests: int
    hit_rate: float
    misses: dict[str, int]

    @property
    def alert(self) -> str | None:
        """What to look at where less than half of the input is read from cache; None where all is well."""
        if self.hit_rate >= 0.5 or self.n_requests < 20 or not self.misses:
            return None
        cause = max(self.misses, key=lambda name: self.misses[name])
        return f"{self.hit_rate:.0%} of input tokens read from cache; most misses: {cause}"


class Placement:
    """Places requests of one fleet. Thread-safe. `memory` keeps the holds, by default in memory."""

    def __init__(self, fleet: Fleet, memory: Memory | None = None) -> None:
        self.fleet = fleet
        self.memory = memory or InProcessMemory()
        self._tiers, self._models = list(fleet.models), list(fleet.models.values())
        self._sharing = Sharing(fleet)
        self._lock = threading.Lock()
        self._classes: OrderedDict[str, TrafficClass] = OrderedDict()
        self._ratios: dict[str, float] = {}
        self._known_rates: dict[tuple[str, float, float, Price], UnitCosts] = {}
        self._signals: dict[tuple[str, str], tuple[list[int], dict[str, int]]] = {}

    # ---- what is remembered

    def recall(self, name: str, prefix: Prefix) -> Hold | None:
        """The conversation's last request: by its name, else by a message end that this prefix has, too."""
        keys = [f"c:{name}"] if name else [f"k:{key:x}" for key in reversed(prefix.keys[-_LOOKED_UP:])]
        return self._hold(keys)

    def recall_opening(self, prefix: Prefix) -> Hold | None:
        """The last request of a conversation that began with the same message, whatever stands before it."""
        return self._hold([f"o:{prefix.opening:x}"] if prefix.opening else [])

    def remember(self, plan: Plan, usage: Usage) -> None:
        """Take in what a reply reported: what is warm now, how well the estimate of tokens was.

        Without a report only where the request went is remembered; what was believed warm stays so until it expires.
        """
        route, model = plan.route, plan.decision.model
        if route is None or route.is_aside or plan.decision.tier is None:
            return
        at = self._tiers.index(plan.decision.tier) if plan.decision.tier in self._tiers else None
        if at is None or (used := self._models[at]).id != model:
            return
        prefix, at_s = route.prefix, plan.planned_at
        if usage.reported:
            self._learn(route, used, usage)
        warm, head = self._after(route, at, usage, at_s) if usage.reported else (_listed(route.warm), {})
        tier, p = plan.decision.tier, {t.value: q for t, q in plan.decision.p_suffices.items()}
        hold = Hold(route.conversation, route.required, tier, p, at_s, list(prefix.keys), warm, prefix.head_bytes)
        if prefix.opening:
            self.memory.put([f"o:{prefix.opening:x}"], _encode(hold))
        if route.conversation.startswith("c:"):
            self.memory.put([route.conversation], _encode(hold))
        elif len(prefix.keys):
            self.memory.put([f"k:{prefix.keys[-1]:x}"], _encode(hold))
        if head and prefix.head_key:
            shared = Hold(prefix.head_key, route.required, plan.decision.tier, {}, at_s, [], head, prefix.head_bytes)
            self.memory.put([f"p:{prefix.head_key}"], _encode(shared))

    def _after(
        self, route: Route, at: int, usage: Usage, at_s: float
    ) -> tuple[dict[str, list[CacheEntry]], dict[str, list[CacheEntry]]]:
        """What is warm after the reply of tier number `at`, for the conversation and for the head."""
        used, names = self._models[at], self._sharing
        warm, head = _listed(route.warm), _listed(route.head_warm)
        read, written = usage.cache_read_tokens, usage.cache_write_short_tokens + usage.cache_write_long_tokens
        for table, name, cached in ((warm, names.tails[at], route.tail), (head, names.heads[at], route.head)):
            mine = [e for e in table.get(name, ()) if e.expires_at_s > at_s]
            if read:
                deepest = max((e.units for e in mine), default=0.0)
                mine = [_refreshed(e, used, at_s) if e.units == deepest else e for e in mine]
            elif route.expected_units:
                mine = []  # it was believed warm and is not
            is_tail = table is warm
            units = route.prefix.size if is_tail else route.prefix.head_units
            n_messages = len(route.prefix.keys) if is_tail else 0
            if (
                cached
                and units * self.tokens_per_unit(used, route.prefix) >= used.cache_min_tokens
                and (written or read)
            ):
                life_s = used.ttl_long_s if cached is Ttl.LONG and used.ttl_long_s else used.ttl_short_s
                entry = CacheEntry(n_messages, units, at_s + life_s, cached is Ttl.LONG)
                same = [e for e in mine if (e.units, e.n_messages, e.is_long) == (units, n_messages, entry.is_long)]
                mine = [e for e in mine if e not in same] + [entry]
            table[name] = mine[-_MAX_ENTRIES:]
        return {m: e for m, e in warm.items() if e}, {m: e for m, e in head.items() if e}

    def _learn(self, route: Route, used: Model, usage: Usage) -> None:
        units, prefix = route.prefix.size, route.prefix
        with self._lock:
            if units and not prefix.in_tokens and usage.input_tokens >= 64:
                seen = usage.input_tokens / max(units / used.chars_per_token, 1.0)
                self._ratios[used.id] = 0.9 * self._ratios.get(used.id, 1.0) + 0.1 * min(max(seen, 0.5), 3.0)
            output_units = usage.output_tokens / self.tokens_per_unit(used, prefix)
            known = [self._classes[name] for name in route.classes if name in self._classes]
            for each in known:
                each.tails.answered(output_units)
                each.heads.answered(output_units)
            for each in known:
                if each.refresh():
                    break  # one step a reply
            if len(self._signals) < 4 * _MAX_CLASSES:
                counts, misses = self._signals.setdefault((route.classes[0], used.id), ([0, 0, 0], {}))
                counts[:] = counts[0] + 1, counts[1] + usage.input_tokens, counts[2] + usage.cache_read_tokens
                if not usage.cache_read_tokens:
                    cause = route.miss or ("gone before its time" if route.expected_units else "first request")
                    misses[cause] = misses.get(cause, 0) + 1

    def signals(self) -> list[Signal]:
        """Hit rate of each class on each model, with the causes of misses."""
        with self._lock:
            return [
                Signal(name, model, n, read / tokens if tokens else 0.0, dict(misses))
                for (name, model), ((n, tokens, read), misses) in self._signals.items()
            ]

    # ---- where a request goes

    def tokens_per_unit(self, model: Model, prefix: Prefix) -> float:
        """Tokens that a unit of this prefix makes on a model: its characters a token, corrected by what it reported."""
        return 1.0 if prefix.in_tokens else self._ratios.get(model.id, 1.0) / model.chars_per_token

    def route(
        self,
        prefix: Prefix,
        hold: Hold | None,
        required: Tier,
        allowed: Iterable[Tier],
        at_s: float,
        *,
        name: str,
        label: str,
        new_turn: bool,
    ) -> tuple[Tier, Route]:
        """The tier to go to, of `allowed` (all at least `required`), and how it is cached there.

        `name` is the conversation's, "" for one known by its prefix; `label` is the class of traffic.
        """
        head_hold = self._head(prefix)
        n_known = prefix.shares(hold.keys) if hold else 0
        conversation = (
            f"c:{name}" if name else hold.conversation if hold else f"{prefix.keys[-1]:x}" if len(prefix.keys) else ""
        )
        # Where the head has changed in a byte, nothing behind it can be read: the conversation is the same, and cold.
        believed = hold.warm if hold and hold.head_bytes == prefix.head_bytes else {}
        warm = {m: [e for e in entries if e.n_messages <= n_known] for m, entries in believed.items()}
        head_warm = head_hold.warm if head_hold and head_hold.head_bytes == prefix.head_bytes else {}
        shape = "agent" if prefix.tools_units else "chat"
        classes = tuple(dict.fromkeys((label or prefix.head_key or shape, shape)))
        found = Route(conversation, prefix, required, Ttl.NONE, Ttl.NONE, n_known, warm, head_warm, 0.0, "", classes)
        on = day(at_s)
        if any(m.price(on, 1).input is None for m in self._models):
            return required, msgspec.structs.replace(found, head=Ttl.SHORT, tail=Ttl.SHORT if n_known else Ttl.NONE)
        tier = self._tiers.index(required)
        with self._lock:
            known, stages = self._arrive(found, tier, at_s, new_turn)
            if not warm and not head_warm and self._is_too_short(prefix):
                return required, msgspec.structs.replace(found, miss=_TOO_SHORT)
            depths = [self._depths(m, found, at_s) for m in range(len(self._models))]
            rates = tuple(self._rates(m, prefix, on) for m in range(len(self._models)))
            segments = self._segments(prefix, depths, known.values(rates, *stages))
            output_units = known.tails.output_share * prefix.size
            models = [self._tiers.index(t) for t in allowed]
            chosen = cheapest(segments, rates, tier, models, output_units)
        expected = depths[chosen.model][0]
        head, tail = chosen.ttls[0], chosen.ttls[-1]
        head = Ttl.LONG if tail is Ttl.LONG else head  # the longer lifetime must come first
        miss = "" if expected else self._miss(found, hold, chosen.model, at_s)
        return self._tiers[chosen.model], msgspec.structs.replace(
            found, head=head, tail=tail, expected_units=expected, miss=miss
        )

    def _is_too_short(self, prefix: Prefix) -> bool:
        """Whether no model caches so little: then there is nothing to place."""
        return all(prefix.size * self.tokens_per_unit(m, prefix) < m.cache_min_tokens for m in self._models)

    def on(self, route: Route, tier: Tier, at_s: float) -> Route:
        """The same request on another tier, after a fault: what it should read there."""
        depth = self._depths(self._tiers.index(tier), route, at_s)[0]
        return msgspec.structs.replace(route, expected_units=depth, miss="" if depth else "model switch")

    def _head(self, prefix: Prefix) -> Hold | None:
        return self._hold([f"p:{prefix.head_key}"] if prefix.head_key else [])

    def _hold(self, keys: list[str]) -> Hold | None:
        found = self.memory.first(keys) if keys else None
        try:
            return None if found is None else _decode(found)
        except msgspec.DecodeError:  # kept by another version
            return None

    def _arrive(self, route: Route, tier: int, at_s: float, new_turn: bool) -> tuple[TrafficClass, tuple[int, int]]:
        """Count the request in each of its classes; the first that knows enough, and its stages (tail, head)."""
        prefix, chosen = route.prefix, None
        for name in route.classes:
            known = self._classes.get(name)
            if known is None:
                known = self._new_class(prefix, at_s, is_last=name == route.classes[-1])
                self._classes[name] = known
                if len(self._classes) > _MAX_CLASSES:
                    self._classes.popitem(last=False)
            self._classes.move_to_end(name)
            tail = known.tails.arrive(route.conversation, at_s, tier, new_turn=new_turn, units=prefix.size)
            head = 0
            if prefix.head_key:
                head = known.heads.arrive(prefix.head_key, at_s, tier, new_turn=new_turn, units=prefix.head_units)
            if chosen is None and known.is_solved:
                chosen = known, (tail, head)
        assert chosen is not None
        return chosen

    def _new_class(self, prefix: Prefix, at_s: float, *, is_last: bool) -> TrafficClass:
        """The last of a request's classes is what the others start from, so it must be ready to be asked."""
        rates = tuple(self._rates(m, prefix, day(at_s)) for m in range(len(self._models)))
        made = TrafficClass(rates, self._sharing, first_due=0 if is_last else _OWN_AFTER)
        while is_last and made.refresh():
            pass
        return made

    def _depths(self, at: int, route: Route, at_s: float) -> tuple[float, float]:
        """Units of the prompt that are warm on tier number `at`: at all, and for long."""
        entries = [*route.warm.get(self._sharing.tails[at], ()), *route.head_warm.get(self._sharing.heads[at], ())]
        alive = [e for e in entries if e.expires_at_s > at_s]
        return max((e.units for e in alive), default=0.0), max((e.units for e in alive if e.is_long), default=0.0)

    def _segments(
        self, prefix: Prefix, depths: Sequence[tuple[float, float]], values: tuple[Rows, Rows]
    ) -> list[Segment]:
        """The head, where some model can cache it alone, and the rest: units by state. `values`: first the rest's."""
        head, size = float(prefix.head_units), float(prefix.size)
        minimums = [m.cache_min_tokens / self.tokens_per_unit(m, prefix) for m in self._models]
        if not prefix.head_key or head < min(minimums):
            head = 0.0
        cuts = sorted({0.0, head, size, *(min(depth, size) for pair in depths for depth in pair)})
        counts: tuple[dict[int, float], dict[int, float]] = {}, {}
        for low, high in pairwise(cuts):
            state = sum(3**m * (2 if long > low else 1 if short > low else 0) for m, (short, long) in enumerate(depths))
            counts[low >= head][state] = counts[low >= head].get(state, 0.0) + high - low
        # What is warm can only be read at a breakpoint: there "none" would be to pay for it all.
        every, some = (Ttl.NONE, Ttl.SHORT, Ttl.LONG), (Ttl.SHORT, Ttl.LONG)
        tails = tuple(
            (Ttl.NONE,) if size < least else some if depth[0] > head else every
            for least, depth in zip(minimums, depths, strict=True)
        )
        tail = Segment(counts[1], values[0], tails, self._sharing.tails)
        if not head:
            return [tail]
        heads = tuple(
            (Ttl.NONE,) if size < least else (Ttl.SHORT,) if depth[0] >= head else every
            for least, depth in zip(minimums, depths, strict=True)
        )
        return [Segment(counts[0], values[1], heads, self._sharing.heads, grows=False), tail]

    def _rates(self, at: int, prefix: Prefix, on: dt.date) -> UnitCosts:
        """What tier number `at` costs for a unit of a prompt this long."""
        model, length = self._models[at], self._sharing.lengths[at]
        scale = 1.0 if prefix.in_tokens else 1 / model.chars_per_token
        price = model.price(on, int(prefix.size * scale))
        key = model.id, scale, length, price
        if (known := self._known_rates.get(key)) is not None:
            return known
        usual = float(price.input or 0)
        short = usual if price.cache_write_short is None else float(price.cache_write_short)
        has_long = price.cache_write_long is not None and model.provider == "anthropic"
        long = float(price.cache_write_long or 0) if has_long else np.inf
        read = usual if price.cache_read is None else float(price.cache_read)
        self._known_rates[key] = UnitCosts(
            read * scale,
            (usual * scale, short * scale, long * scale),
            float(price.output or 0) * scale * length,
            model.ttl_short_s,
            model.ttl_long_s or model.ttl_short_s,
        )
        return self._known_rates[key]

    def _miss(self, route: Route, hold: Hold | None, at: int, at_s: float) -> str:
        """Why nothing should be read from the cache of tier number `at`."""
        model, name = self._models[at], self._sharing.tails[at]
        if route.prefix.size * self.tokens_per_unit(model, route.prefix) < model.cache_min_tokens:
            return _TOO_SHORT
        if hold is None:
            return "first request"
        before: Mapping[str, Sequence[CacheEntry]] = hold.warm
        if not before.get(name):
            same = any(is_same_model(other, model) for other in before)
            return "effort change" if same else "model switch" if before else "nothing was written"
        if all(e.expires_at_s <= at_s for e in before[name]):
            return "window too short"
        return f"prefix changes at message {route.n_known}"


def _refreshed(entry: CacheEntry, model: Model, at_s: float) -> CacheEntry:
    life_s = model.ttl_long_s if entry.is_long and model.ttl_long_s else model.ttl_short_s
    return msgspec.structs.replace(entry, expires_at_s=at_s + life_s)


def _listed(warm: Mapping[str, Sequence[CacheEntry]]) -> dict[str, list[CacheEntry]]:
    return {model: list(entries) for model, entries in warm.items()}
