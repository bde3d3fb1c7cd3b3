"""Why a request goes where it goes: thresholds, what each word adds or takes away, and what each tier would cost."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import log
from typing import Any

import msgspec

from router.catalog import Model
from router.classifier.model import Predictor
from router.decide.rules import Context
from router.decide.task import read_task
from router.engine import Router
from router.types import Body, Decision, Tier

REPLY_TOKENS = 500
"""The length of the reply that costs are told for."""

_MAX_WORDS, _SHOWN = 300, 8
_LEAST = 1e-6


class Word(msgspec.Struct, frozen=True):
    """A word of the request; `effect` is what it adds to the logit of P(the simple tier suffices): above 0 it makes the
    request look easier, below 0 harder. It is measured by leaving the word out, so that effects need not add up.
    """

    word: str
    effect: float


class Explanation(msgspec.Struct, frozen=True):
    """A decision and what led to it. `words` has the strongest first; it is empty where nothing was judged.

    `costs` is USD by tier for this prompt and a reply of REPLY_TOKENS, nothing cached; None where no price is known.
    `thresholds` are those of the operating point; a tier is chosen from its threshold on.
    """

    decision: Decision
    thresholds: Mapping[Tier, float]
    words: tuple[Word, ...]
    costs: Mapping[Tier, Decimal | None]


def explain(
    router: Router, request: str | Body, operating_point: str | None = None, context: Context | None = None
) -> Explanation:
    """Decide and say why. It takes a prediction for each different word, the first 300 of them.

    Raises RequestError as `Router.decide`.
    """
    decision = router.decide(request, operating_point=operating_point, context=context)
    served = router.policy.champion
    text = request if isinstance(request, str) else read_task(request).text
    of_class = next((n.removeprefix("class ").strip("'") for n in decision.notes if n.startswith("class '")), "")
    words = _words(served.classifier, text, of_class) if decision.p_suffices else ()
    on = dt.datetime.fromtimestamp(router.clock(), dt.UTC).date()
    costs = {tier: _cost(model, model.estimate_tokens(len(text)), on) for tier, model in router.fleet.models.items()}
    thresholds = served.manifest.operating_points[decision.operating_point].thresholds
    return Explanation(decision, thresholds, words, costs)


def lines(found: Explanation) -> Iterator[str]:
    """What led to the decision, for a person, line by line."""
    yield f"thresholds  {'  '.join(f'{tier} {value:.3f}' for tier, value in found.thresholds.items())}"
    harder, easier = ([word for word in found.words if word.effect * sign > 0][:_SHOWN] for sign in (-1, 1))
    for name, side in (("harder", harder), ("easier", easier)):
        if side:
            yield f"{name:<12}{'  '.join(f'{word.word[:30]} {word.effect:+.2f}' for word in side)}"
    costs = "  ".join(f"{tier} {'unknown' if usd is None else f'${usd:.5f}'}" for tier, usd in found.costs.items())
    yield f"cost        {costs} (with a reply of {REPLY_TOKENS} tokens, nothing cached)"
    yield "\nEffects are on the logit of P(the simple tier suffices), each measured by leaving the word out."


def as_row(found: Explanation) -> dict[str, Any]:
    """All of it for a machine."""
    decision = found.decision
    return {
        "tier": decision.tier,
        "model": decision.model,
        "artifact": decision.artifact,
        "operating_point": decision.operating_point,
        "reason": decision.reason,
        "notes": decision.notes,
        "p_suffices": dict(decision.p_suffices),
        "thresholds": dict(found.thresholds),
        "words": [{"word": word.word, "effect": round(word.effect, 4)} for word in found.words],
        "cost_usd": {tier: None if usd is None else float(usd) for tier, usd in found.costs.items()},
    }


def _cost(model: Model, n_tokens: int, on: dt.date) -> Decimal | None:
    price = model.price(on, n_tokens)
    if price.input is None or price.output is None:
        return None
    return (n_tokens * price.input + REPLY_TOKENS * price.output) / 1_000_000


def _words(classifier: Predictor, text: str, of_class: str) -> tuple[Word, ...]:
    parts = re.split(r"(\s+)", text)  # separators stay: how a text is laid out tells as well
    different = list(dict.fromkeys(part for part in parts if part and not part.isspace()))[:_MAX_WORDS]
    whole = _logit(classifier, text, of_class)
    effects = [
        Word(word, whole - _logit(classifier, "".join(p for p in parts if p != word), of_class)) for word in different
    ]
    return tuple(sorted(effects, key=lambda each: -abs(each.effect)))


def _logit(classifier: Predictor, text: str, of_class: str) -> float:
    q = min(max(classifier.predict(text, of_class).p_suffices[0], _LEAST), 1 - _LEAST)
    return log(q / (1 - q))
