"""Probabilities + operating point + constraints -> tier and reason; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from router import dialect
from router.catalog import Fleet, Model
from router.types import Api, Body, Reason, Task, Tier


def decide(
    p_suffices: Mapping[Tier, float],
    thresholds: Mapping[Tier, float],
    fleet: Fleet,
    allowed: Sequence[Tier],
) -> tuple[Tier, Reason]:
    """The cheapest allowed tier of the fleet whose P(suffices) reaches its threshold, else the top tier.

    `p_suffices` goes from cheap to strong. `allowed` are the fleet's tiers that can take the request, cheap
    to strong; it is not empty (`able` sees to that). A NaN reaches no threshold, so a broken graph goes up.
    """
    constrained = False
    for tier, q in p_suffices.items():
        if tier in fleet.models and q >= thresholds.get(tier, inf):
            if tier in allowed:
                return tier, Reason.CONSTRAINT if constrained else Reason.SUFFICES
            constrained = True
    return allowed[-1], Reason.CONSTRAINT if constrained else Reason.BELOW_THRESHOLD


def able(
    fleet: Fleet, task: Task, body: Body | None = None, api: Api | None = None
) -> tuple[list[Tier], tuple[str, ...]]:
    """The tiers whose model can take the request, and a note for each that cannot.

    The top one always stays: where it cannot, what has to be changed is noted and the provider's own error is clearer
    than an answer from a tier that is not enough.
    """
    tiers, notes, tried = [], [], dict[Api, str | None]()
    for tier, model in fleet.models.items():
        obstacle = dialect.obstacle(body or {"messages": ()}, api or _api(model), model, task, tried)
        if obstacle is None or model is fleet.top:
            tiers.append(tier)
        if obstacle is not None:
            notes.append(f"{tier.value} cannot take it: {obstacle}")
    return tiers, tuple(notes)


def _api(model: Model) -> Api:
    return Api.MESSAGES if model.provider == "anthropic" else Api.CHAT
