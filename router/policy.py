"""Probabilities + operating point + constraints -> tier and reason; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from router.catalog import Fleet, Model
from router.types import Reason, Task, Tier


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


def able(fleet: Fleet, task: Task) -> tuple[list[Tier], tuple[str, ...]]:
    """The tiers whose model can take the request, and a note for each that cannot.

    When none can, the top one stays: the provider's own error is clearer than a guess.
    """
    tiers, notes = [], []
    for tier, model in fleet.models.items():
        obstacle = _obstacle(model, task)
        if obstacle is None:
            tiers.append(tier)
        else:
            notes.append(f"{tier.value} cannot take it: {obstacle}")
    return tiers or list(fleet.models)[-1:], tuple(notes)


def _obstacle(model: Model, task: Task) -> str | None:
    n_tokens = model.estimate_tokens(task.n_chars)
    if n_tokens > model.context_tokens:
        return f"about {n_tokens} tokens, {model.id} holds {model.context_tokens}"
    if task.has_images and not model.vision:
        return f"images, {model.id} reads none"
    if task.has_tools and not model.tools:
        return f"tools, {model.id} calls none"
    return None
