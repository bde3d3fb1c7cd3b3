"""Which tiers read one another's cache: those on one model, as far as their efforts let them.

Anthropic caches tools and system prompt whatever the effort, messages by it
(https://platform.claude.com/docs/en/build-with-claude/prompt-caching, what invalidates, 2026-11-22). Of the others it
is only said that a change of effort costs the cache, so nothing is taken to be shared.
"""

from __future__ import annotations

from router.catalog import REPLY_LENGTH, Fleet, Model

_AT_EFFORT = "@"


class Sharing:
    """By number of tier, cheap to strong: the cache of its conversations (`tails`), that of tools and system prompt
    (`heads`), and how long its replies are expected to be beside those at high effort (`lengths`).
    """

    def __init__(self, fleet: Fleet) -> None:
        served = [(model, fleet.effort(tier)) for tier, model in fleet.models.items()]
        self.tails = tuple(cache_name(model, effort) for model, effort in served)
        self.heads = tuple(
            model.id if model.provider == "anthropic" else cache_name(model, effort) for model, effort in served
        )
        self.lengths = tuple(REPLY_LENGTH.get(effort, 1.0) for _, effort in served)


def cache_name(model: Model, effort: str) -> str:
    """The name of a model's cache at an effort; its own effort, spelt out or not, is the model's name."""
    usual = model.dialect.default_effort or ("high" if model.provider == "anthropic" else None)
    return model.id if effort in ("", usual) else f"{model.id}{_AT_EFFORT}{effort}"


def is_same_model(name: str, model: Model) -> bool:
    """Whether a cache is this model's, at whatever effort."""
    return name.partition(_AT_EFFORT)[0] == model.id
