"""Which tiers of a fleet can take a request at all: context window, images, tools, format; pure."""

from __future__ import annotations

from router.catalog import Fleet, Model
from router.formats import accepts
from router.types import Api, Body, Task, Tier


def able_tiers(
    fleet: Fleet, task: Task, body: Body | None = None, api: Api | None = None
) -> tuple[list[Tier], tuple[str, ...]]:
    """The tiers whose model can take the request, and a note for each that cannot.

    The top one always stays: where it cannot, what has to be changed is noted and the provider's own error is clearer
    than an answer from a tier that is not enough.
    """
    tiers, notes, tried = [], [], dict[Api, str | None]()
    for tier, model in fleet.models.items():
        obstacle = accepts.obstacle(body or {"messages": ()}, api or _api(model), model, task, tried)
        if obstacle is None or model is fleet.top:
            tiers.append(tier)
        if obstacle is not None:
            notes.append(f"{tier.value} cannot take it: {obstacle}")
    return tiers, tuple(notes)


def _api(model: Model) -> Api:
    return Api.MESSAGES if model.provider == "anthropic" else Api.CHAT
