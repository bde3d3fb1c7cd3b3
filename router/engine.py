"""Router: the whole main path on one screen. `decide` -> `plan` -> (somebody sends) -> `record`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from router import catalog, settings
from router.accounts.ledger import Ledger
from router.accounts.record import Accounts
from router.cache import breakpoints
from router.cache.memory import Memory, open_memory
from router.cache.placement import Placement, Signal
from router.catalog import Catalog, Fleet, Model
from router.classifier import artifact, canary, pointer
from router.classifier.artifact import Manifest
from router.classifier.canary import Canary, Loaded
from router.classifier.model import Classifier
from router.classifier.pointer import Verdict
from router.decide.able import able_tiers
from router.decide.breaker import Breaker
from router.decide.options import CallOptions, unasked
from router.decide.rules import Context, Rules
from router.decide.task import read_task
from router.decide.tiers import Policy, bounded
from router.errors import ClientError, RequestError
from router.formats import accepts
from router.types import Api, Body, Decision, Plan, Prefix, Reason, Record, Route, Task, TurnState, Usage

AUTO = "auto"
"""The model name that asks for a decision: "auto", or "auto:quality" for another operating point."""


class Router:
    """Decides, plans and accounts for one fleet. Sends nothing itself. Thread-safe."""

    def __init__(
        self,
        classifier: Classifier,
        manifest: Manifest,
        models: Catalog,
        fleet: Fleet,
        *,
        operating_point: str = "balanced",
        store: Ledger | None = None,
        clock: Callable[[], float] = time.time,
        fleet_is_default: bool = False,
        breaker: Breaker | None = None,
        rules: Rules | None = None,
        state: Memory | None = None,
        artifact_name: str | None = None,
        canary: Canary | None = None,
    ) -> None:
        """Use `Router.load`. `clock` returns seconds since the epoch; a simulation passes its own."""
        champion = Loaded(artifact_name or artifact.name_of(manifest), classifier, manifest)
        self.catalog = models
        self.fleet = fleet
        self.policy = Policy(fleet, champion, canary, breaker or Breaker())
        self.accounts = Accounts(models, fleet, Placement(fleet, state), store)
        self.operating_point = self.policy.known_point(operating_point)
        self.clock = clock
        self.fleet_is_default = fleet_is_default
        self.rules = rules or Rules()
        self._heard: Ledger | None = None

    @property
    def classifier(self) -> Classifier:
        """What reads texts for the champion."""
        return self.policy.champion.classifier

    @property
    def manifest(self) -> Manifest:
        """The champion's."""
        return self.policy.champion.manifest

    @property
    def artifact_name(self) -> str:
        """The champion's, as records name it."""
        return self.policy.champion.name

    @property
    def canary(self) -> Canary | None:
        """What serves a share of the conversations beside the champion, if anything does."""
        return self.policy.canary

    @property
    def store(self) -> Ledger | None:
        """Where records are written, if anywhere."""
        return self.accounts.store

    @property
    def affinity(self) -> Placement:
        """What is remembered of conversations and caches."""
        return self.accounts.affinity

    @property
    def breaker(self) -> Breaker:
        """The models that rest after failing."""
        return self.policy.breaker

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
        if store is None and chosen.ledger is not None:
            store = Ledger(chosen.ledger)
        return cls(
            champion.classifier,
            champion.manifest,
            models,
            models.fleet(fleet_name or catalog.DEFAULT_FLEETS["anthropic"]),
            operating_point=operating_point or chosen.operating_point,
            store=store,
            clock=clock,
            fleet_is_default=fleet_name is None,
            rules=Rules(chosen.rules),
            state=open_memory(chosen.state),
            artifact_name=champion.name,
            canary=beside,
        )

    def with_fleet(self, name: str, *, store: Ledger | None = None, clock: Callable[[], float] | None = None) -> Router:
        """The same decisions for another fleet; store and clock are this router's unless given."""
        return Router(
            self.classifier,
            self.manifest,
            self.catalog,
            self.catalog.fleet(name),
            operating_point=self.operating_point,
            store=store or self.store,
            clock=clock or self.clock,
            breaker=self.breaker,
            rules=self.rules,
            state=self.affinity.state,
            artifact_name=self.artifact_name,
            canary=self.canary,
        )

    def take_over(self, before: Router) -> None:
        """Go on with what another router of the same fleet knows: conversations, warm caches, baseline, faults."""
        self.policy.breaker = before.policy.breaker
        self.accounts.affinity, self.accounts.baseline = before.accounts.affinity, before.accounts.baseline

    def serving(self, provider: str) -> Router:
        """This router if its fleet suits a client of that provider, else one like it with the provider's default fleet.

        A fleet that the caller chose suits every client of the same SDK (Gemini behind an OpenAI-compatible proxy).
        Raises ClientError when the caller chose a fleet that needs the other SDK.
        """
        if len({catalog.SDK[p] for p in self.fleet.providers}) > 1:
            raise ClientError(
                f"the fleet {self.fleet.name!r} mixes {' and '.join(self.fleet.providers)}, which no client serves; "
                "call router.complete(router, messages) instead"
            )
        same_sdk = catalog.SDK[self.fleet.provider] == catalog.SDK[provider]
        if self.fleet.provider == provider or (same_sdk and not self.fleet_is_default):
            return self
        if not self.fleet_is_default:
            raise ClientError(
                f"the fleet {self.fleet.name!r} is {self.fleet.provider}'s, the client is {provider}'s; "
                f"choose Router.load(fleet={catalog.DEFAULT_FLEETS[provider]!r}) or wrap the other client"
            )
        return self.with_fleet(catalog.DEFAULT_FLEETS[provider])

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
        point = operating_point or options.operating_point or self.operating_point
        key = conversation_key(options.conversation_id)
        served = self.policy.served(key, point)
        rule = self.rules.match(task, context or Context(), self.clock())
        decision = self.policy.decide(task, point, served, options, rule)
        return msgspec.structs.replace(decision, artifact=served.name, conversation=key)

    def plan(self, body: Body, api: Api, context: Context | None = None, *, counts_only: bool = False) -> Plan:
        """The decision for a body, and the body to send: model filled in and cache breakpoints set for "auto".

        `context` holds the request's headers (lower case) and the name of the caller's key. `counts_only`: the body's
        tokens will be counted and nothing answered, so the conversation is not moved and nothing is learned.

        A body that names a model is left exactly as it is, but for its `router` field (`CallOptions`). Raises
        RequestError if the body cannot be read.
        """
        planned_at = self.clock()
        name = body.get("model")
        if not isinstance(name, str):
            raise RequestError(f"`model` is {name!r}, expected a string such as {AUTO!r}")
        if name != AUTO and not name.startswith(f"{AUTO}:"):
            decision = Decision(self.fleet.tier_of(name), name, {}, Reason.EXPLICIT_MODEL, self.operating_point)
            model = self.catalog.find(name)
            return Plan(decision, unasked(body), api, breakpoints.plan(body, api, model), planned_at)
        policy, context, options = self.policy, context or Context(), CallOptions.of(body)
        prefix = breakpoints.read_prefix(body, api)
        task = read_task(body, context.headers, prefix)
        named = options.conversation_id or (f"{task.session}/{prefix.head_key}" if task.session else "")
        hold = None if counts_only else self.affinity.recall(named, prefix)
        point = name.partition(":")[2] or options.operating_point or self.operating_point
        able, notes = able_tiers(self.fleet, task, body, api)
        rule = self.rules.match(task, context, planned_at)
        allowed = bounded(able, options, rule)
        key = conversation_key(named, prefix)
        served = policy.served(key, point)
        decision = policy.held(task, hold, allowed, point) or policy.decide(
            task, point, served, options, rule, (able, notes)
        )
        decision = msgspec.structs.replace(decision, artifact=served.name, conversation=key)
        if hold is not None and task.in_trouble and decision.reason is not Reason.RULE:
            decision = policy.out_of_trouble(decision, hold, allowed)
        if policy.breaker.rests(decision.model):
            decision = policy.above(decision, allowed, f"{decision.model} rests after failing") or decision
        route = None
        if not counts_only and decision.tier is not None:
            tiers = policy.open_to(decision, hold, allowed, body)
            new_turn = task.turn is not TurnState.TOOL_LOOP
            label = options.traffic_class or ""
            tier, route = self.affinity.route(
                prefix, hold, decision.tier, tiers, planned_at, name=named, label=label, new_turn=new_turn
            )
            if hold is not None and decision.reason is Reason.HELD:
                route = msgspec.structs.replace(route, required=hold.required)
            decision = policy.moved(
                decision, tier, Reason.WARM, f"{decision.tier} would do, {tier} holds the prefix warm"
            )
        if options.dry_run and decision.tier is not None and allowed:
            note = f"dry run: would have gone to {decision.model} ({decision.reason})"
            decision = policy.moved(decision, list(self.fleet.models)[-1], Reason.DRY_RUN, note)
        return self._planned(decision, body, api, planned_at, route, prefix, context)

    def move_up(
        self, plan: Plan, body: Body, why: str, context: Context | None = None, *, elsewhere: bool = False
    ) -> Plan | None:
        """The plan for the next stronger tier after a call of `plan` failed; None when there is none.

        The bounds of the call, and the ceiling of the rule that matches it, hold. `elsewhere`: only a model at another
        address than the failed one's will do.
        """
        context = context or Context()
        if plan.decision.reason is Reason.EXPLICIT_MODEL:
            return None
        task = read_task(body, context.headers)
        able, _ = able_tiers(self.fleet, task, body, plan.api)
        allowed = bounded(able, CallOptions.of(body), self.rules.match(task, context, plan.planned_at))
        if elsewhere:
            failed = self.catalog.find(plan.decision.model)
            allowed = [tier for tier in allowed if _address(self.fleet.models[tier]) != _address(failed)]
        decision = self.policy.above(plan.decision, allowed, why)
        if decision is None or decision.tier is None:
            return None
        route = plan.route and self.affinity.on(plan.route, decision.tier, plan.planned_at)
        return self._planned(decision, body, plan.api, plan.planned_at, route, None, context)

    def _planned(
        self,
        decision: Decision,
        body: Body,
        api: Api,
        planned_at: float,
        route: Route | None,
        prefix: Prefix | None,
        context: Context,
    ) -> Plan:
        model = self.catalog.find(decision.model)
        fitted, changes = accepts.adapt(unasked(body), api, model, context.headers.get("anthropic-version"))
        prefix = prefix or (route.prefix if route else breakpoints.read_prefix(body, api))
        if model is None or route is None:
            cache = breakpoints.plan(fitted, api, model, prefix=prefix)
        else:
            cache = breakpoints.plan(
                fitted,
                api,
                model,
                head=route.head,
                tail=route.tail,
                prefix=prefix,
                tokens_per_unit=self.affinity.tokens_per_unit(model, prefix),
                n_known=route.n_known,
            )
        sent = {**breakpoints.apply(fitted, cache, api), "model": decision.model}
        if changes:
            decision = msgspec.structs.replace(decision, notes=(*decision.notes, *changes))
        return Plan(decision, sent, api, cache, planned_at, route)

    def record(self, plan: Plan, usage: Usage, notes: tuple[str, ...] = (), *, reply_chars: int = 0) -> Record:
        """Account for a reply: its cost and the baseline's at the day's prices, written to the store, if any.

        `reply_chars` is how much the model wrote, 0 where that is not known: where no usage was reported it is
        estimated from it and the body, with a note, and nothing is learned from that.
        """
        return self.accounts.record(plan, usage, notes, reply_chars=reply_chars)

    def signals(self) -> list[Signal]:
        """Cache use so far, by class of traffic and model: the hit rate in [0, 1], the misses by cause, and an `alert`.

        `alert` is a sentence with the commonest cause where less than half of the input was read from cache in 20
        requests or more, else None. They are of this process since it began; estimated usage does not count.

        >>> [signal.alert for signal in Router.load().signals()]
        []
        """
        return self.affinity.signals()

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
            self._heard = self.store or Ledger()
        self._heard.keep_feedback(name, key, good=good)
        if self.canary is None:
            return Verdict.HOLD
        return self.canary.review(self._heard.feedback(self.canary.pointer.since))


def _address(model: Model | None) -> tuple[str, str | None] | None:
    """What models have in common that cannot be reached together."""
    return None if model is None else (model.provider, model.base_url)


def conversation_key(name: str | None, prefix: Prefix | None = None) -> str:
    """What stands for a conversation in decisions and feedback: by its name, else by its first message and what comes
    before that; "" for one of which neither is known.
    """
    if name:
        return pointer.key_of(f"c:{name}")
    if prefix is None:
        return ""
    return pointer.key_of(f"k:{prefix.keys[0]:x}" if len(prefix.keys) else f"p:{prefix.head_key}")
