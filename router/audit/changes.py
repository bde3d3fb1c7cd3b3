"""What to change first: the changes that are worth most, with what to paste or to run for each."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from router.audit.audit import Audit
from router.catalog import Fleet, Model
from router.types import Tier

_LEAST = 0.01
"""A change that saves less than this share of the bill is not worth telling."""


class Change(msgspec.Struct, frozen=True):
    """One change: what it saves of the audited bill in USD, why, and the lines of tierwise.toml, or a command."""

    title: str
    usd: float
    why: str
    toml: str = ""
    command: str = ""


def changes(found: Audit, fleet: Fleet, model: Model | None) -> list[Change]:
    """The three changes worth most, the best first. `fleet` is what the replay routed to, `model` the dearest of the
    bill, None where none was replayed."""
    made = [_stable(found)]
    if model is not None:
        made += [_routing(found, fleet, model), _caching(found, model), _effort(found, model)]
    worth = [change for change in made if change is not None and change.usd > _LEAST * found.usd]
    return sorted(worth, key=lambda change: -change.usd)[:3]


def _routing(found: Audit, fleet: Fleet, model: Model) -> Change | None:
    lower = dict(list(fleet.models.items())[:-1])
    if not lower:
        return None
    enough = found.mix.get("simple", 0.0) + found.mix.get("moderate", 0.0)
    names = " or ".join(entry.id for entry in lower.values())
    why = f"{enough:.0%} of the calls need no more than {names}; the cache is planned with it."
    toml = _settings(model, {tier: f'"{entry.id}"' for tier, entry in lower.items()})
    saved = found.usd - found.levers["together"].usd
    return Change("Let each call go to the cheapest model that suffices", saved, why, toml)


def _caching(found: Audit, model: Model) -> Change:
    paused = found.weights.misses.get("pause")
    because = f" ${paused.usd:,.2f} went to prompts sent again after the cache had expired." if paused else ""
    why = f"The same models, with lifetimes that follow how soon each prefix comes again.{because}"
    saved = found.usd - found.levers["caching"].usd
    return Change("Let Tierwise plan the cache, and change no model", saved, why, _settings(model, {}))


def _effort(found: Audit, model: Model) -> Change | None:
    if "low" not in model.dialect.efforts:
        return None
    low = f'{{ model = "{model.id}", effort = "low" }}'
    why = f"Assumed: at low effort a reply is {found.effort_output:g} times as long (--effort-output). No log tells."
    toml = _settings(model, {Tier.SIMPLE: low, Tier.MODERATE: low})
    return Change("Ask for less effort where less suffices", found.usd - found.levers["effort"].usd, why, toml)


def _stable(found: Audit) -> Change | None:
    changed = found.weights.misses.get("changed")
    if changed is None:
        return None
    n = found.weights.n_misses["changed"]
    why = f"{n:,} calls came while the cache was warm and could not read it: something early in the prompt had changed."
    command = "tierwise lint-prompt one-request.json the-next-request.json"
    return Change("Keep the beginning of the prompt the same", changed.usd, why, command=command)


def _settings(model: Model, lower: Mapping[Tier, str]) -> str:
    """The lines of tierwise.toml for a fleet with `model` on top, and the tiers below it as TOML values."""
    tiers = (f"{tier} = {value}" for tier, value in {**lower, Tier.COMPLEX: f'"{model.id}"'}.items())
    mapped = ("[gateway.models]", f'"{model.id}*" = "auto"')
    return "\n".join(('fleet = "audited"', "", "[fleets.audited]", *tiers, "", *mapped))
