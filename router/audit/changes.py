"""What to change first: the changes that are worth most, with what to paste or to run for each."""

from __future__ import annotations

import msgspec

from router.audit.audit import Audit
from router.catalog import Fleet, Model

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
    made = [_routing(found, fleet, model), *_caching(found, model), _effort(found, model), _stable(found)]
    worth = [change for change in made if change is not None and change.usd > _LEAST * found.usd]
    return sorted(worth, key=lambda change: -change.usd)[:3]


def _routing(found: Audit, fleet: Fleet, model: Model | None) -> Change | None:
    if model is None:
        return None
    saved = found.usd - found.levers["together"].usd
    enough = found.mix.get("simple", 0.0) + found.mix.get("moderate", 0.0)
    lower = list(fleet.models.values())[:-1]
    if not lower:
        return None
    lines = [f'{tier} = "{entry.id}"' for tier, entry in list(fleet.models.items())[:-1]]
    toml = "\n".join(
        ('fleet = "audited"', "", "[fleets.audited]", *lines, f'complex = "{model.id}"', "", *_mapped(model))
    )
    names = " or ".join(entry.id for entry in lower)
    why = f"{enough:.0%} of the calls need no more than {names}; the cache is planned with it."
    return Change("Let each call go to the cheapest model that suffices", saved, why, toml)


def _caching(found: Audit, model: Model | None) -> list[Change]:
    if model is None:
        return []
    saved = found.usd - found.levers["caching"].usd
    toml = "\n".join(('fleet = "audited"', "", "[fleets.audited]", f'complex = "{model.id}"', "", *_mapped(model)))
    paused = found.weights.misses.get("pause")
    because = f" ${paused.usd:,.2f} went to prompts sent again after the cache had expired." if paused else ""
    why = f"The same models, with lifetimes that follow how soon each prefix comes again.{because}"
    return [Change("Let Tierwise plan the cache, and change no model", saved, why, toml)]


def _effort(found: Audit, model: Model | None) -> Change | None:
    if model is None or "low" not in model.dialect.efforts:
        return None
    saved = found.usd - found.levers["effort"].usd
    low = f'{{ model = "{model.id}", effort = "low" }}'
    toml = "\n".join(
        (
            'fleet = "audited"',
            "",
            "[fleets.audited]",
            f"simple = {low}",
            f"moderate = {low}",
            f'complex = "{model.id}"',
            "",
            *_mapped(model),
        )
    )
    why = f"Assumed: at low effort a reply is {found.effort_output:g} times as long (--effort-output). No log tells."
    return Change("Ask for less effort where less suffices", saved, why, toml)


def _stable(found: Audit) -> Change | None:
    changed = found.weights.misses.get("changed")
    if changed is None:
        return None
    n = found.weights.n_misses["changed"]
    why = f"{n:,} calls came while the cache was warm and could not read it: something early in the prompt had changed."
    command = "tierwise lint-prompt one-request.json the-next-request.json"
    return Change("Keep the beginning of the prompt the same", changed.usd, why, command=command)


def _mapped(model: Model) -> tuple[str, str]:
    return "[gateway.models]", f'"{model.id}*" = "auto"'
