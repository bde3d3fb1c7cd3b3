"""Which tier a request goes to, and which it may: the classifier's answer within every bound there is.

Nothing here goes below what was decided; whatever is broken, unreadable or unlike anything known goes up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import msgspec

from router.catalog import Fleet
from router.classifier.canary import Canary, Loaded
from router.classifier.model import Prediction
from router.decide.able import able_tiers
from router.decide.breaker import Breaker
from router.decide.options import CallOptions
from router.decide.rules import Rule
from router.errors import RequestError
from router.types import Decision, Hold, Reason, SideCall, Task, Tier, TurnState

_TIERS = tuple(Tier)


class Policy:
    """Decides for one fleet. Thread-safe. `champion` serves but where a conversation is the canary's."""

    def __init__(
        self,
        fleet: Fleet,
        champion: Loaded,
        canary: Canary | None,
        breaker: Breaker,
        points: Mapping[str, str] | None = None,
    ) -> None:
        """`points` are operating points by class of traffic or key. Raises RequestError for an unknown one."""
        self.fleet = fleet
        self.champion = champion
        self.canary = canary
        self.breaker = breaker
        self.points = {name: self.known_point(point) for name, point in (points or {}).items()}

    def point_for(self, options: CallOptions, key: str, usual: str) -> str:
        """The operating point that a call asks for, else its class's, else its key's, else the usual one."""
        of_class = self.points.get(options.traffic_class or "") or self.points.get(key)
        return options.operating_point or of_class or usual

    def known_point(self, name: str) -> str:
        """The operating point of that name. Raises RequestError, with those there are, for another."""
        if name not in self.champion.manifest.operating_points:
            known = ", ".join(self.champion.manifest.operating_points)
            raise RequestError(f"unknown operating point {name!r}; the artifact has: {known}")
        return name

    def served(self, key: str, point: str) -> Loaded:
        """What serves a conversation: the champion, or the canary where it is the canary's and knows the point."""
        found = self.canary.serves(key) if self.canary is not None else None
        if found is not None and point in found.manifest.operating_points:
            return found
        return self.champion

    def decide(
        self,
        task: Task,
        point: str,
        served: Loaded,
        options: CallOptions,
        rule: Rule | None,
        takers: tuple[list[Tier], tuple[str, ...]] | None = None,
        classes: tuple[str, ...] = (),
    ) -> Decision:
        """The cheapest tier that suffices, of those that can take the request and that the call and the rule allow.

        `takers` is `able_tiers`'s answer, if it has been asked; `classes` are names of the request's class of traffic
        where the call gives none, the best first. Raises RequestError where the call allows no tier, or
        for an unknown operating point.
        """
        self.known_point(point)
        able, notes = takers or able_tiers(self.fleet, task)
        allowed = list(filter(options.allow, able))
        if not allowed:
            raise RequestError(
                f"no tier from {options.min_tier or 'the lowest'} to {options.max_tier or 'the highest'} can take the "
                f"request; the fleet {self.fleet.name!r} could send it to {', '.join(able)}; widen the bounds"
            )
        unruled = allowed
        if task.side_call is not None and (rule is None or rule.tier is None):
            return self._aside(task.side_call, rule.narrow(allowed) if rule is not None else allowed, point, notes)
        if rule is not None:
            allowed, notes = rule.narrow(allowed), (*notes, f"rule {rule.name!r}")
            if rule.tier is not None:
                doubt = self._doubt(task, allowed[-1], served, options.traffic_class, classes)
                return self._up(allowed, {}, Reason.RULE, point, (*notes, *doubt))
        if not task.text or task.text.isspace():
            return self._up(allowed, {}, Reason.EMPTY_TASK, point, (*notes, "no text from a user to judge"))
        try:
            prediction, of_class = _predict(task.text, served, options.traffic_class, classes)
            notes = (*notes, f"class {of_class!r}") if of_class else notes
            p_suffices = dict(zip(_TIERS, prediction.p_suffices, strict=True))
        except Exception as exc:  # whatever breaks in there, the request goes up and says so
            why = f"{type(exc).__name__}: {exc}"
            return self._up(allowed, {}, Reason.CLASSIFIER_ERROR, point, (*notes, why))
        if prediction.novelty > served.manifest.max_novelty:
            why = f"unlike anything the model was fitted on (novelty {prediction.novelty:.2f})"
            return self._up(allowed, p_suffices, Reason.OUT_OF_DISTRIBUTION, point, (*notes, why))
        thresholds = served.manifest.operating_points[point].thresholds
        tier, reason = choose(p_suffices, thresholds, self.fleet, allowed)
        if rule is not None and tier is not choose(p_suffices, thresholds, self.fleet, unruled)[0]:
            reason, notes = Reason.RULE, (*notes, *_too_low(tier, p_suffices, served))
        return self._to(tier, p_suffices, reason, point, notes)

    def _doubt(
        self, task: Task, tier: Tier, served: Loaded, traffic_class: str | None, classes: tuple[str, ...]
    ) -> tuple[str, ...]:
        """What the classifier has against the tier that a rule named: a note, which changes nothing, or none."""
        if tier is list(self.fleet.models)[-1] or task.side_call is not None or not task.text.strip():
            return ()
        try:
            prediction, _ = _predict(task.text, served, traffic_class, classes)
        except Exception:  # a rule needs no model, so none that works either
            return ()
        if prediction.novelty > served.manifest.max_novelty:
            return ()
        return _too_low(tier, dict(zip(_TIERS, prediction.p_suffices, strict=True)), served)

    def _aside(self, side_call: SideCall, allowed: Sequence[Tier], point: str, notes: tuple[str, ...]) -> Decision:
        """The cheapest tier that can do it: any for a probe or a chore, not the lowest for a conversation's summary."""
        least = _TIERS[1] if side_call is SideCall.COMPACTION else _TIERS[0]
        tier = next((tier for tier in allowed if tier.at_least(least)), allowed[-1])
        return self._to(tier, {}, Reason.SIDE_CALL, point, (*notes, f"a {side_call}"))

    def stays_for(self, task: Task, hold: Hold | None, allowed: Sequence[Tier], point: str) -> Decision | None:
        """The summary of a conversation is made where the conversation is, if it can be taken there."""
        if task.side_call is not SideCall.COMPACTION or hold is None or hold.tier not in allowed:
            return None
        note = "a compaction: on the conversation's model"
        return self._to(hold.tier, {}, Reason.SIDE_CALL, point, (note,))

    def _up(
        self, allowed: Sequence[Tier], p: Mapping[Tier, float], reason: Reason, point: str, notes: tuple[str, ...]
    ) -> Decision:
        """The strongest tier that can take the request: where everything doubtful goes."""
        return self._to(allowed[-1], p, reason, point, notes)

    def _to(
        self, tier: Tier, p: Mapping[Tier, float], reason: Reason, point: str, notes: tuple[str, ...] = ()
    ) -> Decision:
        model, effort = self.fleet.models[tier].id, self.fleet.effort(tier)
        return Decision(tier, model, p, reason, point, notes, effort=effort)

    def held(self, task: Task, hold: Hold | None, allowed: Sequence[Tier], point: str) -> Decision | None:
        """Inside a tool loop the turn goes on where it began, unless it is in trouble or cannot be taken there."""
        if task.turn is not TurnState.TOOL_LOOP or hold is None or hold.tier not in allowed:
            return None
        self.known_point(point)
        p = {Tier(tier): q for tier, q in hold.p_suffices.items()}
        return self._to(hold.tier, p, Reason.HELD, point)

    def out_of_trouble(self, decision: Decision, hold: Hold, allowed: Sequence[Tier]) -> Decision:
        """At least a tier above the one that is not up to it."""
        higher = [tier for tier in allowed if tier.rank > hold.tier.rank]
        if not higher or decision.tier is None or decision.tier.at_least(higher[0]):
            return decision
        return self.moved(decision, higher[0], Reason.TROUBLE, f"{hold.tier} seems not to be up to it")

    def awake(self, decision: Decision, allowed: Sequence[Tier]) -> Decision:
        """The decision, or a stronger tier where its model rests after failing."""
        if not self.breaker.rests(decision.model):
            return decision
        return self.above(decision, allowed, f"{decision.model} rests after failing") or decision

    def open_to(
        self, decision: Decision, hold: Hold | None, allowed: Sequence[Tier], *, stays: bool = False
    ) -> list[Tier]:
        """The tiers that placement may choose from: never below the decided one, that one where it is held.

        `stays`: the conversation cannot leave the model that it is on.
        """
        required = decision.tier or list(self.fleet.models)[-1]
        if decision.reason in (Reason.HELD, Reason.RULE, Reason.PROVIDER_FAULT):
            return [required]
        enough = [tier for tier in allowed if tier.at_least(required)]
        if stays and hold is not None and hold.tier in enough:
            return [hold.tier]
        awake = [tier for tier in enough if not self.breaker.rests(self.fleet.models[tier].id)]
        return awake if required in awake else [required]

    def above(self, decision: Decision, allowed: Sequence[Tier], why: str) -> Decision | None:
        """The next stronger of the allowed tiers that does not rest; if all rest, the strongest."""
        if decision.tier is None:
            return None
        higher = [tier for tier in allowed if tier.rank > decision.tier.rank]
        if not higher:
            return None
        awake = [tier for tier in higher if not self.breaker.rests(self.fleet.models[tier].id)]
        return self.moved(decision, awake[0] if awake else higher[-1], Reason.PROVIDER_FAULT, why)

    def moved(self, decision: Decision, tier: Tier, reason: Reason, note: str) -> Decision:
        """The decision with another tier and why; as it is, if the tier is no other."""
        if tier is decision.tier:
            return decision
        model, effort, notes = self.fleet.models[tier].id, self.fleet.effort(tier), (*decision.notes, note)
        return msgspec.structs.replace(decision, tier=tier, model=model, effort=effort, reason=reason, notes=notes)


def _predict(text: str, served: Loaded, traffic_class: str | None, classes: tuple[str, ...]) -> tuple[Prediction, str]:
    """What the classifier says of a text, and the class of traffic that it knows it by, or ""."""
    known = served.classifier.classes
    of_class = known.first_known((traffic_class,) if traffic_class else classes) if known is not None else ""
    return served.classifier.predict(text, of_class), of_class


def _too_low(tier: Tier, p_suffices: Mapping[Tier, float], served: Loaded) -> tuple[str, ...]:
    """A note where the classifier is strongly against a tier: not even the cheapest operating point would take it.

    Measured on data/queries.jsonl out of fold, requests of up to 12 words, as rules on length send them down: below
    `economy`'s 0.742 are 18 % of them, and 93 % of those need more than the simple tier (of all, 54 %); of the requests
    that the simple tier suffices for it doubts 2.6 %. From `balanced`'s 0.808 on it would doubt 31 % of them.
    """
    points = served.manifest.operating_points.values()
    least = min((point.thresholds[tier] for point in points if tier in point.thresholds), default=0.0)
    q = p_suffices.get(tier, 1.0)
    if q >= least:
        return ()
    return (
        f"the classifier disagrees: P({tier} suffices) is {q:.3f}, and no operating point takes less than {least:g}",
    )


def choose(
    p_suffices: Mapping[Tier, float],
    thresholds: Mapping[Tier, float],
    fleet: Fleet,
    allowed: Sequence[Tier],
) -> tuple[Tier, Reason]:
    """The cheapest allowed tier of the fleet whose P(suffices) reaches its threshold, else the top tier.

    `p_suffices` goes from cheap to strong. `allowed` are the fleet's tiers that can take the request, cheap
    to strong; it is not empty (`able_tiers` sees to that). A NaN reaches no threshold, so a broken graph goes up.
    """
    constrained = False
    for tier, q in p_suffices.items():
        if tier in fleet.models and q >= thresholds.get(tier, inf):
            if tier in allowed:
                return tier, Reason.CONSTRAINT if constrained else Reason.SUFFICES
            constrained = True
    return allowed[-1], Reason.CONSTRAINT if constrained else Reason.BELOW_THRESHOLD


def bounded(able: Sequence[Tier], options: CallOptions, rule: Rule | None) -> list[Tier]:
    """The tiers that a call may ever go to. Of a rule only its ceiling is such a bound: the rest is where to start."""
    allowed = [tier for tier in able if options.allow(tier)]
    return rule.narrow(allowed) if rule is not None and rule.max_tier is not None and allowed else allowed
