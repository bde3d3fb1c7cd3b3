"""Router: the whole main path on one screen. `decide` -> `plan` -> (somebody sends) -> `record`."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from router import artifact, caching, canary, catalog, conversation, dialect, ledger, policy, rollout, settings
from router.affinity import Affinity, Signal
from router.artifact import Manifest
from router.canary import Canary, Loaded
from router.catalog import Catalog, Fleet, Model
from router.classifier import Classifier
from router.errors import ClientError, RequestError
from router.faults import Breaker
from router.ledger import Baseline, Ledger
from router.options import CallOptions, unasked
from router.rollout import Verdict
from router.rules import Context, Rule, Rules
from router.state import State, open_state
from router.types import (
    Api,
    Body,
    Decision,
    Hold,
    Plan,
    Prefix,
    Reason,
    Record,
    Route,
    Task,
    Tier,
    TurnState,
    Usage,
)

if TYPE_CHECKING:
    from router.completion import Completion

AUTO = "auto"
"""The model name that asks for a decision: "auto", or "auto:quality" for another operating point."""


ESTIMATED = "usage estimated: the reply reported none"
"""The note in a record whose counts and cost are estimates."""

_TIERS = tuple(Tier)


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
        state: State | None = None,
        artifact_name: str | None = None,
        canary: Canary | None = None,
    ) -> None:
        """Use `Router.load`. `clock` returns seconds since the epoch; a simulation passes its own."""
        self.classifier = classifier
        self.manifest = manifest
        self.artifact_name = artifact_name or artifact.name_of(manifest)
        self.canary = canary
        self.catalog = models
        self.fleet = fleet
        self.operating_point = self._known_point(operating_point)
        self.store = store
        self.clock = clock
        self.fleet_is_default = fleet_is_default
        self.baseline = Baseline(fleet.top)
        self.breaker = breaker or Breaker()
        self.rules = rules or Rules()
        self.affinity = Affinity(fleet, state)
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
        champion, beside = canary.load(name_or_path or chosen.artifact, chosen)
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
            state=open_state(chosen.state),
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
        self.affinity, self.baseline, self.breaker = before.affinity, before.baseline, before.breaker

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
            task = conversation.read(request)
        elif request is None and messages is not None:
            task = conversation.read({"messages": messages})
        else:
            raise RequestError(
                f"cannot read a request of type {type(request).__name__}"
                f"{' together with messages=' if messages is not None else ''}; "
                "expected one of: a text, messages=[...], or a body with `messages` or `input`"
            )
        options = CallOptions.of(request) if isinstance(request, Mapping) else CallOptions()
        point = operating_point or options.operating_point or self.operating_point
        key = conversation_key(options.conversation_id)
        served = self._classifier_for(key, point)
        rule = self.rules.match(task, context or Context(), self.clock())
        decision = self._decide(task, point, served, options, rule)
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
            return Plan(decision, unasked(body), api, caching.plan(body, api, model), planned_at)
        context, options = context or Context(), CallOptions.of(body)
        prefix = caching.read(body, api)
        task = conversation.read(body, context.headers, prefix)
        named = options.conversation_id or (f"{task.session}/{prefix.head_key}" if task.session else "")
        hold = None if counts_only else self.affinity.recall(named, prefix)
        point = name.partition(":")[2] or options.operating_point or self.operating_point
        able, notes = policy.able(self.fleet, task, body, api)
        rule = self.rules.match(task, context, planned_at)
        allowed = _bounded(able, options, rule)
        key = conversation_key(named, prefix)
        served = self._classifier_for(key, point)
        decision = self._held(task, hold, allowed, point) or self._decide(
            task, point, served, options, rule, (able, notes)
        )
        decision = msgspec.structs.replace(decision, artifact=served.name, conversation=key)
        if hold is not None and task.in_trouble and decision.reason is not Reason.RULE:
            decision = self._out_of_trouble(decision, hold, allowed)
        if self.breaker.rests(decision.model):
            decision = self._above(decision, allowed, f"{decision.model} rests after failing") or decision
        route = None
        if not counts_only and decision.tier is not None:
            tiers = self._open_to(decision, hold, allowed, body)
            new_turn = task.turn is not TurnState.TOOL_LOOP
            label = options.traffic_class or ""
            tier, route = self.affinity.route(
                prefix, hold, decision.tier, tiers, planned_at, name=named, label=label, new_turn=new_turn
            )
            if hold is not None and decision.reason is Reason.HELD:
                route = msgspec.structs.replace(route, required=hold.required)
            decision = self._moved(
                decision, tier, Reason.WARM, f"{decision.tier} would do, {tier} holds the prefix warm"
            )
        if options.dry_run and decision.tier is not None and allowed:
            note = f"dry run: would have gone to {decision.model} ({decision.reason})"
            decision = self._moved(decision, list(self.fleet.models)[-1], Reason.DRY_RUN, note)
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
        task = conversation.read(body, context.headers)
        able, _ = policy.able(self.fleet, task, body, plan.api)
        allowed = _bounded(able, CallOptions.of(body), self.rules.match(task, context, plan.planned_at))
        if elsewhere:
            failed = self.catalog.find(plan.decision.model)
            allowed = [tier for tier in allowed if _address(self.fleet.models[tier]) != _address(failed)]
        decision = self._above(plan.decision, allowed, why)
        if decision is None or decision.tier is None:
            return None
        route = plan.route and self.affinity.on(plan.route, decision.tier, plan.planned_at)
        return self._planned(decision, body, plan.api, plan.planned_at, route, None, context)

    def _held(self, task: Task, hold: Hold | None, allowed: Sequence[Tier], point: str) -> Decision | None:
        """Inside a tool loop the turn goes on where it began, unless it is in trouble or cannot be taken there."""
        if task.turn is not TurnState.TOOL_LOOP or hold is None or hold.tier not in allowed:
            return None
        self._known_point(point)
        p = {Tier(tier): q for tier, q in hold.p_suffices.items()}
        return Decision(hold.tier, self.fleet.models[hold.tier].id, p, Reason.HELD, point)

    def _out_of_trouble(self, decision: Decision, hold: Hold, allowed: Sequence[Tier]) -> Decision:
        """At least a tier above the one that is not up to it."""
        higher = [tier for tier in allowed if _TIERS.index(tier) > _TIERS.index(hold.tier)]
        if not higher or decision.tier is None or _TIERS.index(decision.tier) >= _TIERS.index(higher[0]):
            return decision
        return self._moved(decision, higher[0], Reason.TROUBLE, f"{hold.tier} seems not to be up to it")

    def _open_to(self, decision: Decision, hold: Hold | None, allowed: Sequence[Tier], body: Body) -> list[Tier]:
        """The tiers that the economy may choose from: never below the decided one, that one where it is held."""
        required = decision.tier or list(self.fleet.models)[-1]
        if decision.reason in (Reason.HELD, Reason.RULE, Reason.PROVIDER_FAULT):
            return [required]
        enough = [tier for tier in allowed if _TIERS.index(tier) >= _TIERS.index(required)]
        if hold is not None and hold.tier in enough and dialect.stays_on_model(body):
            return [hold.tier]
        awake = [tier for tier in enough if not self.breaker.rests(self.fleet.models[tier].id)]
        return awake if required in awake else [required]

    def _moved(self, decision: Decision, tier: Tier, reason: Reason, note: str) -> Decision:
        if tier is decision.tier:
            return decision
        model, notes = self.fleet.models[tier].id, (*decision.notes, note)
        return msgspec.structs.replace(decision, tier=tier, model=model, reason=reason, notes=notes)

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
        fitted, changes = dialect.adapt(unasked(body), api, model, context.headers.get("anthropic-version"))
        prefix = prefix or (route.prefix if route else caching.read(body, api))
        if model is None or route is None:
            cache = caching.plan(fitted, api, model, prefix=prefix)
        else:
            cache = caching.plan(
                fitted,
                api,
                model,
                head=route.head,
                tail=route.tail,
                prefix=prefix,
                tokens_per_unit=self.affinity.tokens_per_unit(model, prefix),
                n_known=route.n_known,
            )
        sent = {**caching.apply(fitted, cache, api), "model": decision.model}
        if changes:
            decision = msgspec.structs.replace(decision, notes=(*decision.notes, *changes))
        return Plan(decision, sent, api, cache, planned_at, route)

    def _above(self, decision: Decision, allowed: Sequence[Tier], why: str) -> Decision | None:
        """The next stronger of the allowed tiers that does not rest; if all rest, the strongest."""
        if decision.tier is None:
            return None
        higher = [tier for tier in allowed if _TIERS.index(tier) > _TIERS.index(decision.tier)]
        if not higher:
            return None
        awake = [tier for tier in higher if not self.breaker.rests(self.fleet.models[tier].id)]
        return self._moved(decision, awake[0] if awake else higher[-1], Reason.PROVIDER_FAULT, why)

    def complete(self, messages: str | Sequence[Mapping[str, Any]], /, **options: Any) -> Completion:
        """One call in one form over a fleet that may mix providers, sent and accounted for: see `router.complete`."""
        from router import completion  # it stands above; this is only where one looks for it

        return completion.complete(self, messages, **options)

    async def complete_async(self, messages: str | Sequence[Mapping[str, Any]], /, **options: Any) -> Completion:
        """`complete` for a running event loop."""
        from router import completion

        return await completion.complete_async(self, messages, **options)

    def record(self, plan: Plan, usage: Usage, notes: tuple[str, ...] = (), *, reply_chars: int = 0) -> Record:
        """Account for a reply: its cost and the baseline's at the day's prices, written to the store, if any.

        `reply_chars` is how much the model wrote, 0 where that is not known: where no usage was reported it is
        estimated from it and the body, with a note, and nothing is learned from that.
        """
        decision = plan.decision
        if not usage.reported and reply_chars:
            usage, notes = self._estimated(plan, reply_chars, usage.is_batch), (*notes, ESTIMATED)
        if usage.is_batch:
            notes = (*notes, "batch: half the price")
        at = dt.datetime.fromtimestamp(plan.planned_at, dt.UTC)
        usd = ledger.cost(usage, self.catalog.find(decision.model), at.date())
        baseline_usd = None
        if decision.reason is not Reason.EXPLICIT_MODEL:
            baseline_usd = self._baseline(plan, usage)
            self.affinity.remember(plan, usage)
        record = Record(
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
            notes=decision.notes + notes,
            artifact=decision.artifact,
            conversation=decision.conversation,
        )
        if self.store is not None:
            self.store.write(record)
        return record

    def signals(self) -> list[Signal]:
        """Cache use so far, by class of traffic and model: the hit rate in [0, 1], the misses by cause, and an `alert`.

        `alert` is a sentence with the commonest cause where less than half of the input was read from cache in 20
        requests or more, else None. They are of this process since it began; estimated usage does not count.

        >>> [signal.alert for signal in Router.load().signals()]
        []
        """
        return self.affinity.signals()

    def _estimated(self, plan: Plan, reply_chars: int, is_batch: bool) -> Usage:
        """Usage by the length of body and reply; all input as fresh, for nothing says that any was read from a cache.

        What cannot be seen is not in it: images, and reasoning that the provider keeps to itself.
        """
        model = self.catalog.find(plan.decision.model)
        if model is None:
            return Usage(reported=False, is_batch=is_batch)
        prefix = plan.route.prefix if plan.route else caching.read(plan.body, plan.api)
        rate = self.affinity.tokens_per_unit(model, prefix)
        n_input, n_output = round(prefix.size * rate), max(round(reply_chars * rate), 1)
        return Usage(fresh_tokens=n_input, output_tokens=n_output, reported=False, is_batch=is_batch)

    def feedback(self, about: Record | str, *, good: bool) -> Verdict:
        """Take in what a user said of a reply (its record), or of a conversation (its `conversation_id`).

        A conversation counts once for the artifact that served it, as bad after one bad word. It is kept in the store,
        without one in memory. A canary that is worse for sure is rolled back here and now. Raises RequestError for a
        record of a model that the caller named, where nothing was decided.
        """
        if isinstance(about, str):
            key = conversation_key(about)
            name = self._classifier_for(key, self.operating_point).name
        else:
            key, name = about.conversation, about.artifact
        if not key:
            raise RequestError(f"feedback on {about!r}: no artifact decided; expected a routed call's record or its id")
        if self._heard is None:
            self._heard = self.store or Ledger()
        self._heard.keep_feedback(name, key, good=good)
        if self.canary is None:
            return Verdict.HOLD
        return self.canary.judge(self._heard.feedback(self.canary.pointer.since))

    def _baseline(self, plan: Plan, usage: Usage) -> Decimal | None:
        """What the call adds to the baseline: the shares of its prompt that could be cached, in the tokens billed."""
        if (route := plan.route) is None or not route.prefix.size:
            return self.baseline.cost(usage, plan.cache.prefix_key, plan.cache.prefix_tokens, plan.planned_at)
        prefix, total = route.prefix, usage.input_tokens
        known = prefix.units[route.n_known - 1] if route.n_known else 0
        return self.baseline.cost(
            usage,
            prefix.head_key,
            int(total * prefix.head_units / prefix.size),
            plan.planned_at,
            conversation=route.conversation,
            known_tokens=int(total * known / prefix.size),
        )

    def _decide(
        self,
        task: Task,
        point: str,
        served: Loaded,
        options: CallOptions,
        rule: Rule | None,
        takers: tuple[list[Tier], tuple[str, ...]] | None = None,
    ) -> Decision:
        self._known_point(point)
        able, notes = takers or policy.able(self.fleet, task)
        allowed = list(filter(options.allow, able))
        if not allowed:
            raise RequestError(
                f"no tier from {options.min_tier or 'the lowest'} to {options.max_tier or 'the highest'} can take the "
                f"request; the fleet {self.fleet.name!r} could send it to {', '.join(able)}; widen the bounds"
            )
        unruled = allowed
        if rule is not None:
            allowed, notes = rule.narrow(allowed), (*notes, f"rule {rule.name!r}")
            if rule.tier is not None:
                return self._up(allowed, {}, Reason.RULE, point, notes)
        if not task.text or task.text.isspace():
            return self._up(allowed, {}, Reason.EMPTY_TASK, point, (*notes, "no text from a user to judge"))
        try:
            prediction = served.classifier.predict(task.text)
            p_suffices = dict(zip(_TIERS, prediction.p_suffices, strict=True))
        except Exception as exc:  # whatever breaks in there, the request goes up and says so
            why = f"{type(exc).__name__}: {exc}"
            return self._up(allowed, {}, Reason.CLASSIFIER_ERROR, point, (*notes, why))
        if prediction.novelty > served.manifest.max_novelty:
            why = f"unlike anything the model was fitted on (novelty {prediction.novelty:.2f})"
            return self._up(allowed, p_suffices, Reason.OUT_OF_DISTRIBUTION, point, (*notes, why))
        thresholds = served.manifest.operating_points[point].thresholds
        tier, reason = policy.decide(p_suffices, thresholds, self.fleet, allowed)
        if rule is not None and tier is not policy.decide(p_suffices, thresholds, self.fleet, unruled)[0]:
            reason = Reason.RULE
        return Decision(tier, self.fleet.models[tier].id, p_suffices, reason, point, notes)

    def _up(
        self, allowed: Sequence[Tier], p: Mapping[Tier, float], reason: Reason, point: str, notes: tuple[str, ...]
    ) -> Decision:
        """The strongest tier that can take the request: where everything doubtful goes."""
        return Decision(allowed[-1], self.fleet.models[allowed[-1]].id, p, reason, point, notes)

    def _classifier_for(self, key: str, point: str) -> Loaded:
        """What serves a conversation: the champion, or the canary where it is the canary's and knows the point."""
        found = self.canary.serves(key) if self.canary is not None else None
        if found is not None and point in found.manifest.operating_points:
            return found
        return Loaded(self.artifact_name, self.classifier, self.manifest)

    def _known_point(self, name: str) -> str:
        if name not in self.manifest.operating_points:
            raise RequestError(
                f"unknown operating point {name!r}; the artifact has: {', '.join(self.manifest.operating_points)}"
            )
        return name


def _bounded(able: Sequence[Tier], options: CallOptions, rule: Rule | None) -> list[Tier]:
    """The tiers that a call may ever go to. Of a rule only its ceiling is such a bound: the rest is where to start."""
    allowed = [tier for tier in able if options.allow(tier)]
    return rule.narrow(allowed) if rule is not None and rule.max_tier is not None and allowed else allowed


def _address(model: Model | None) -> tuple[str, str | None] | None:
    """What models have in common that cannot be reached together."""
    return None if model is None else (model.provider, model.base_url)


def conversation_key(name: str | None, prefix: Prefix | None = None) -> str:
    """What stands for a conversation in decisions and feedback: by its name, else by its first message and what comes
    before that; "" for one of which neither is known.
    """
    if name:
        return rollout.key_of(f"c:{name}")
    if prefix is None:
        return ""
    return rollout.key_of(f"k:{prefix.keys[0]:x}" if len(prefix.keys) else f"p:{prefix.head_key}")
