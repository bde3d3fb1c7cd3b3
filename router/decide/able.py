"""Which tiers of a fleet can take a request at all: context window, images, tools, format; pure."""

from __future__ import annotations

from router.catalog import Fleet
from router.formats import accepts
from router.formats.translations import Translations
from router.types import Task, Tier


def able_tiers(fleet: Fleet, task: Task, said: Translations | None = None) -> tuple[list[Tier], tuple[str, ...]]:
    """The tiers whose model can take the request, and a note for each that cannot; `said` is its body, if there is one.

    The top one stays even so: what has to be changed is noted, and the provider's own error is clearer than an answer
    from a tier that is not enough. Only a begun answer goes to a model that goes on with it, if there is one: any other
    would not do what was asked.
    """
    tiers, notes = list[Tier](), list[str]()
    for tier, model in fleet.models.items():
        obstacle = accepts.obstacle(model, task, said)
        begun = said is not None and accepts.refuses_prefill(model, said)
        if obstacle is None or (model is fleet.top and not (begun and tiers)):
            tiers.append(tier)
        if obstacle is not None:
            notes.append(f"{tier.value} cannot take it: {obstacle}")
    return tiers, tuple(notes)
