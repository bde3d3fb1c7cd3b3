"""Router: the whole main path. `decide` or `plan` -> (somebody sends) -> `record`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from router import catalog, plans, settings
from router.accounts.ledger import Ledger
from router.accounts.record import Accounts
from router.cache.breakpoints import read_prefix
from router.cache.memory import Memory, open_memory
from router.cache.placement import Placement, Signal
from router.catalog import Catalog, Fleet
from router.classifier import canary
from router.classifier.canary import Canary, Loaded
from router.classifier.pointer import Verdict, conversation_key, scoped
from router.decide.able import able_tiers
from router.decide.breaker import Breaker
from router.decide.mode import ON, Trial
from router.decide.options import CallOptions, unasked
from router.decide.rules import Context, Rules
from router.decide.task import read_task
from router.decide.tiers import Policy, bounded
from router.errors import RequestError
from router.formats import accepts, states
from router.formats.states import State, StateStore
from router.formats.translations import Translations
from router.plans import Asked
from router.types import (
    Api,
    Body,
    Decision,
    Hold,
    Plan,
    Prefix,
    Reach,
    Reason,
    Record,
    Route,
    SideCall,
    Task,
    Tier,
    TurnState,
    Usage,
)

AUTO = "auto"
"""The model name that asks for a decision: "auto", or "auto:quality" for another operating point."""


class Router:
    """Decides, plans and accounts for one fleet. Sends nothing itself. Thread-safe.

    `policy` holds what decides, `accounts` what was spent and what is remembered of conversations and caches.
    """

    def __init__(
        self,
        champion: Loaded,
        models: Catalog,
        fleet: Fleet,
        *,
        canary: Canary | None = None,
        operating_point: str = "balanced",
        rules: Rules | None = None,
        store: Ledger | None = None,
        memory: Memory | None = None,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.time,
        fleet_is_default: bool = False,
        trial: Trial = ON,
        points: Mapping[str, str] | None = None,
        keeps_prompts: bool = False,
    ) -> None:
        """Use `Router.load`. `clock` returns seconds since the epoch; a simulation passes its own."""
        self.catalog = models
        self.fleet = fleet
        self.policy = Policy(fleet, champion, canary, breaker or Breaker(), points)
        self.accounts = Accounts(models, fleet, Placement(fleet, memory), store, keeps_prompts=keeps_prompts)
        self.states = StateStore(memory if memory is not None and memory.keeps_reasoning else None)
        self.operating_point = self.policy.known_point(operating_point)
        self.rules = rules or Rules()
        self.clock = clock
        self.fleet_is_default = fleet_is_default
        self.trial = trial
        self._heard: Ledger | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | Path | None = None,
        *,
        fleet: str | None = None,
        operating_point: str | None = None,
        store: Ledger | None = None,
        clock: Callable[[], float] = time.time,
        config: settings.Settings | None = None,
    ) -> Router:
        """A router with the shipped artifact, or another by name or path; arguments win over the settings.

        A folder with a pointer (`tierwise models promote`) gives its champion and, while there is one, its canary.
        Raises ArtifactError, CatalogError, SettingsError or RequestError, each naming the value and the remedy.
        """
        chosen = settings.load() if config is None else config
        champion, beside = canary.load(
            name_or_path or chosen.artifact, chosen.operating_points, may_promote=chosen.promote_canary
        )
        models = catalog.configured(chosen.fleets, chosen.models)
        fleet_name = fleet or chosen.fleet
        store = store or chosen.open_ledger()
        return cls(
            champion,
            models,
            models.fleet(fleet_name or catalog.DEFAULT_FLEET),
            canary=beside,
            operating_point=operating_point or chosen.operating_point,
            rules=Rules(chosen.rules),
            store=store,
            memory=open_memory(chosen.state, keeps_reasoning=chosen.state_keeps_reasoning),
            clock=clock,
            fleet_is_default=fleet_name is None,
            trial=Trial(chosen.mode, chosen.mode_share),
            points=chosen.classes,
            keeps_prompts=chosen.store_prompts,
        )

    def with_fleet(self, name: str, *, store: Ledger | None = None, clock: Callable[[], float] | None = None) -> Router:
        """The same decisions for another fleet; store and clock are this router's unless given."""
        return Router(
            self.policy.champion,
            self.catalog,
            self.catalog.fleet(name),
            canary=self.policy.canary,
            operating_point=self.operating_point,
            rules=self.rules,
            store=store or self.accounts.store,
            memory=self.accounts.placement.memory,
            breaker=self.policy.breaker,
            clock=clock or self.clock,
            trial=self.trial,
            points=self.policy.points,
            keeps_prompts=self.accounts.keeps_prompts,
        )

    def take_over(self, before: Router) -> None:
        """Go on with what another router of the same fleet knows: conversations, warm caches, baseline, faults."""
        self.accounts.placement, self.accounts.baseline = before.accounts.placement, before.accounts.baseline
        self.policy.breaker, self.states = before.policy.breaker, before.states

    def decide(
        self,
        request: str | Body | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        operating_point: str | None = None,
        context: Context | None = None,
    ) -> Decision:
        """Which tier and model a request needs: a text, `messages=[...]`, or a provider-shaped body.

        `context` is what rules may ask beside the request: headers and the name of the caller's key.

        Raises RequestError for anything else, or an unknown operating point.
        """
        if isinstance(request, str) and messages is None:
            task = Task(request, TurnState.USER_TURN, len(request), has_images=False, has_tools=False)
        elif isinstance(request, Mapping) and messages is None:
            task = read_task(request)
        elif request is None and messages is not None:
            task = read_task({"messages": messages})
        else:
            raise RequestError(
                f"cannot read a request of type {type(request).__name__}"
                f"{' together with messages=' if messages is not None else ''}; "
                "expected one of: a text, messages=[...], or a body with `messages` or `input`"
            )
        options = CallOptions.of(request) if isinstance(request, Mapping) else CallOptions()
        context = context or Context()
        point = operating_point or self.policy.point_for(options, context.key, self.operating_point)
        key = conversation_key(scoped(options.conversation_id or "", context.key))
        served = self.policy.served(key, point)
        rule = self.rules.match(task, context, self.clock())
        decision = self.policy.decide(task, point, served, options, rule, classes=(context.key,))
        return msgspec.structs.replace(decision, artifact=served.name, conversation=key)

    def plan(
        self,
        body: Body,
        api: Api,
        context: Context | None = None,
        *,
        reach: Reach = Reach.ANY,
        counts_only: bool = False,
    ) -> Plan:
        """The decision for a body, and the body as it is sent for it: in the model's format, with cache breakpoints.

        `context` holds the request's headers (lower case) and the name of the caller's key. `reach` is how far the
        caller can send. `counts_only`: the body's tokens will be counted and nothing answered, so the conversation is
        not moved, nothing is cached or learned, and the body stays in the caller's format.

        Raises RequestError if the body cannot be read, or where a named model's format cannot say it.
        """
        at_s, context = self.clock(), context or Context()
        name = body.get("model")
        if not isinstance(name, str) or len(name) > 300:  # a longer name is no model's
            raise RequestError(f"`model` is {repr(name)[:100]}, expected a string such as {AUTO!r}")
        asked = self._asked(body, api, at_s, reach, context)
        if name != AUTO and not name.startswith(f"{AUTO}:"):
            decision = Decision(self.fleet.tier_of(name), name, {}, Reason.EXPLICIT_MODEL, self.operating_point)
            return plans.named(decision, self.catalog.find(name), asked, counts_only=counts_only)
        policy, options = self.policy, CallOptions.of(body)
        prefix = read_prefix(body, api, context.key)
        task = read_task(body, context.headers, prefix)
        if accepts.is_paused(body, api):
            task = msgspec.structs.replace(task, turn=TurnState.TOOL_LOOP)
        own = task.session and f"{task.session}/{prefix.head_key}"
        named = scoped(options.conversation_id or own, context.key)
        point = name.partition(":")[2] or policy.point_for(options, context.key, self.operating_point)
        takers = able_tiers(self.fleet, task, asked.said)
        rule = self.rules.match(task, context, at_s)
        allowed = bounded(takers[0], options, rule)
        key = conversation_key(named, prefix)
        served = policy.served(key, point)

        def decide() -> Decision:
            return policy.decide(task, point, served, options, rule, takers, (prefix.head_key, context.key))

        if counts_only:
            decision = policy.awake(decide(), allowed)
            decision = msgspec.structs.replace(decision, artifact=served.name, conversation=key)
            return plans.counted(decision, self.catalog.find(decision.model), asked)
        label, stays = scoped(options.traffic_class or "", ""), accepts.stays_on_model(body)
        decision, route = self.place(
            task, prefix, allowed, decide, at_s, name=named, label=label, point=point, stays=stays
        )
        decision = msgspec.structs.replace(decision, artifact=served.name, conversation=key)
        routed = self._routed(decision, asked, prefix, route)
        if decision.tier is None or not allowed or (self.trial.routes(key) and not options.dry_run):
            return plans.tried(routed, self.trial, task.text)
        note = f"dry run: would have gone to {decision.model} ({decision.reason})"
        top = policy.moved(decision, list(self.fleet.models)[-1], Reason.DRY_RUN, note)
        return plans.tried(self._routed(top, asked, prefix, route), self.trial, task.text, shadow=routed)

    def place(
        self,
        task: Task,
        prefix: Prefix,
        allowed: Sequence[Tier],
        decide: Callable[[], Decision],
        at_s: float,
        *,
        name: str,
        label: str,
        point: str,
        stays: bool = False,
    ) -> tuple[Decision, Route | None]:
        """Where a request goes that `decide` says what it needs of: held in its turn, out of trouble, past what rests,
        or where its prefix is warm; and how it is cached there.

        `allowed` are the tiers that it may go to, cheap to strong; `name` is its conversation's, "" for one known by
        its prefix; `label` its class of traffic; `stays` says that it cannot leave the model that it is on.
        """
        policy, placement = self.policy, self.accounts.placement
        hold = placement.recall(name, prefix)
        if task.side_call is not None:
            return self._aside(task, prefix, hold, allowed, decide, at_s, name=name, label=label, point=point)
        decision = policy.held(task, hold, allowed, point) or decide()
        if hold is not None and task.in_trouble and decision.reason is not Reason.RULE:
            decision = policy.out_of_trouble(decision, hold, allowed)
        decision = policy.awake(decision, allowed)
        if decision.tier is None:
            return decision, None
        tiers = policy.open_to(decision, hold, allowed, stays=stays)
        new_turn = task.turn is not TurnState.TOOL_LOOP
        tier, route = placement.route(
            prefix, hold, decision.tier, tiers, at_s, name=name, label=label, new_turn=new_turn
        )
        if hold is not None and decision.reason is Reason.HELD:
            route = msgspec.structs.replace(route, required=hold.required)
        why = f"{decision.tier} would do, {tier} holds the prefix warm"
        return policy.moved(decision, tier, Reason.WARM, why), route

    def _aside(
        self,
        task: Task,
        prefix: Prefix,
        hold: Hold | None,
        allowed: Sequence[Tier],
        decide: Callable[[], Decision],
        at_s: float,
        *,
        name: str,
        label: str,
        point: str,
    ) -> tuple[Decision, Route | None]:
        """Where a request on the side goes: it reads what is warm, and the conversation does not remember it."""
        placement = self.accounts.placement
        known = hold or (placement.recall_opening(prefix) if task.side_call is SideCall.COMPACTION else None)
        found = self.policy.stays_for(task, known, allowed, point)
        decision = self.policy.awake(found or decide(), allowed)
        if found is None or hold is None or decision.tier is None:
            return decision, None
        _, route = placement.route(
            prefix, hold, decision.tier, [decision.tier], at_s, name=name, label=label, new_turn=False
        )
        return decision, msgspec.structs.replace(route, is_aside=True)

    def move_up(
        self,
        plan: Plan,
        body: Body,
        why: str,
        context: Context | None = None,
        *,
        reach: Reach = Reach.ANY,
        elsewhere: bool = False,
        larger: bool = False,
    ) -> Plan | None:
        """The plan for the next stronger tier after a call of `plan` failed; None when there is none.

        `body`, `context` and `reach` are those that `plan` was made with. The bounds of the call, and the ceiling of
        the rule that matches it, hold. `elsewhere`: only a model at another address than the failed one's will do;
        `larger`: only one with a larger context window.
        """
        context = context or Context()
        if plan.decision.reason is Reason.EXPLICIT_MODEL:
            return None
        asked = self._asked(body, plan.asked, plan.planned_at, reach, context)
        task = read_task(body, context.headers, read_prefix(body, plan.asked))
        able, _ = able_tiers(self.fleet, task, asked.said)
        allowed = bounded(able, CallOptions.of(body), self.rules.match(task, context, plan.planned_at))
        failed = self.catalog.find(plan.decision.model)
        allowed = [tier for tier in allowed if failed is None or self.fleet.models[tier].id != failed.id]
        if elsewhere:
            allowed = [t for t in allowed if failed is None or self.fleet.models[t].address != failed.address]
        if larger:
            window = 0 if failed is None else failed.context_tokens
            allowed = [tier for tier in allowed if self.fleet.models[tier].context_tokens > window]
        decision = self.policy.above(plan.decision, allowed, why)
        if decision is None or decision.tier is None:
            return None
        route = plan.route and self.accounts.placement.on(plan.route, decision.tier, plan.planned_at)
        prefix = route.prefix if route else read_prefix(body, plan.asked)
        return self._routed(decision, asked, prefix, route)

    def _asked(self, body: Body, api: Api, at_s: float, reach: Reach, context: Context) -> Asked:
        version = context.headers.get("anthropic-version")
        return Asked(Translations(unasked(body), api), at_s, reach, version, context.key, self.states.recall)

    def keep_state(self, plan: Plan, call_id: str, name: str, state: State) -> None:
        """Keep what the model of `plan` wants back of its reply, whose first tool call is `name`."""
        if plan.telling.within:
            self.states.keep(states.key(plan.telling.within, call_id, name, plan.telling.n_calling), state)

    def _routed(self, decision: Decision, asked: Asked, prefix: Prefix, route: Route | None) -> Plan:
        model = self.catalog.find(decision.model)
        rate = 0.0 if model is None else self.accounts.placement.tokens_per_unit(model, prefix)
        return plans.routed(decision, model, asked, prefix, route, rate)

    def record(
        self, plan: Plan, usage: Usage, notes: tuple[str, ...] = (), *, reply_chars: int = 0, is_cut: bool = False
    ) -> Record:
        """Account for a reply: its cost and the baseline's at the day's prices, written to the store, if any.

        `reply_chars` is how much the model wrote, 0 where that is not known: where no usage was reported, or the reply
        `is_cut` before it was, it is estimated from that and the body, with a note.
        """
        return self.accounts.record(plan, usage, notes, reply_chars=reply_chars, is_cut=is_cut)

    def signals(self) -> list[Signal]:
        """Cache use so far, by class of traffic and model: the hit rate in [0, 1], the misses by cause, and an `alert`.

        `alert` is a sentence with the commonest cause where less than half of the input was read from cache in 20
        requests or more, else None. They are of this process since it began; estimated usage does not count.
        """
        return self.accounts.placement.signals()

    def feedback(self, about: Record | str, *, good: bool) -> Verdict:
        """Take in what a user said of a reply (its record), or of a conversation (its `conversation_id`).

        A conversation counts once for the artifact that served it, as bad after one bad word. It is kept in the store,
        without one in memory. A canary that is worse for sure is rolled back here and now. Raises RequestError for a
        record of a model that the caller named, where nothing was decided.
        """
        if isinstance(about, str):
            key = conversation_key(about)
            name = self.policy.served(key, self.operating_point).name
        else:
            key, name = about.conversation, about.artifact
        if not key:
            raise RequestError(f"feedback on {about!r}: no artifact decided; expected a routed call's record or its id")
        if self._heard is None:
            self._heard = self.accounts.store or Ledger()
        self._heard.keep_feedback(name, key, good=good)
        beside = self.policy.canary
        return Verdict.HOLD if beside is None else beside.review(self._heard.feedback(beside.pointer.since))
