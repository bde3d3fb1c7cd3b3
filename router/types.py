"""The values that cross modules: frozen, typed, without behaviour of their own.

They are msgspec structs rather than dataclasses because a decision makes four of them: 0.2 us each instead of 0.9.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

Body = Mapping[str, Any]
"""A request body as a provider takes it: Anthropic Messages, OpenAI Chat Completions or Responses."""


class Tier(StrEnum):
    """How capable a model a request needs, cheap to strong; `list(Tier)` is that order."""

    SIMPLE = "simple"
    MODERATE = "moderate"
    COMPLEX = "complex"


class Api(StrEnum):
    """The wire format of a request; the value is the path that it is posted to."""

    MESSAGES = "/v1/messages"
    CHAT = "/chat/completions"
    RESPONSES = "/responses"


class Reason(StrEnum):
    """Why a request went where it went. Only `SUFFICES`, `RULE` and `EXPLICIT_MODEL` can lead down."""

    SUFFICES = "suffices"
    """The cheapest tier whose probability reaches the operating point's threshold."""
    BELOW_THRESHOLD = "below_threshold"
    """No cheaper tier reached its threshold: the top tier of the fleet."""
    CONSTRAINT = "constraint"
    """A cheaper tier would have sufficed, but it cannot take the request (context window, images, tools)."""
    EMPTY_TASK = "empty_task"
    """There is no text to judge: the top tier."""
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    """The text is unlike anything the classifier can read: the top tier."""
    CLASSIFIER_ERROR = "classifier_error"
    """The classifier failed on this text: the top tier."""
    PROVIDER_FAULT = "provider_fault"
    """The chosen tier's model failed, or rests after failing: a stronger one of the fleet."""
    RULE = "rule"
    """A rule of the settings named this tier, or a bound that changed it; the notes name the rule."""
    EXPLICIT_MODEL = "explicit_model"
    """The caller named a model: sent as it is, only accounted."""


class TurnState(StrEnum):
    """Where in a conversation a request stands."""

    USER_TURN = "user_turn"
    """A new ask of the user's."""
    TOOL_LOOP = "tool_loop"
    """Tools have answered: the turn goes on."""
    RETRY = "retry"
    """The ask before it once more."""
    SUB_AGENT = "sub_agent"
    """An agent's request on behalf of another agent."""


class Decision(msgspec.Struct, frozen=True):
    """Which tier and model a request goes to, and why.

    `p_suffices` maps each tier to q = P(its answer is as good as the top tier's), in [0, 1], non-decreasing from
    simple to complex, 1.0 for the last. It is empty when nothing was judged (`EXPLICIT_MODEL`, `EMPTY_TASK`,
    `CLASSIFIER_ERROR`, a `RULE` that names a tier). `tier` is None only for an explicit model that is not in the fleet.
    """

    tier: Tier | None
    model: str
    p_suffices: Mapping[Tier, float]
    reason: Reason
    operating_point: str
    notes: tuple[str, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """What is being asked, as read from a request.

    `n_chars` counts all text of the request (system, tools, history), the measure of the context it needs. `session`
    is the harness's own name for the conversation, "" when it has none; `in_trouble` says that tool calls keep failing
    or that the user called the last answer wrong.
    """

    text: str
    turn: TurnState
    n_chars: int
    has_images: bool
    has_tools: bool
    session: str = ""
    in_trouble: bool = False


class CachePlan(msgspec.Struct, frozen=True):
    """Where cache breakpoints go in one body for one model.

    `breakpoints` are paths into the body, e.g. ("system", 0); `prefix_key` identifies the content of the stable
    prefix (tools, then system) and is "" when there is none; `prefix_tokens` estimates its size.
    `owned_by_caller` says that the body already carried cache fields, so nothing was added.
    """

    breakpoints: tuple[tuple[str, int], ...]
    prefix_key: str
    prefix_tokens: int
    cache_key: str | None = None
    owned_by_caller: bool = False


class Plan(msgspec.Struct, frozen=True):
    """A decision and the body to send for it. `planned_at` is in seconds of the router's clock."""

    decision: Decision
    body: dict[str, Any]
    api: Api
    cache: CachePlan
    planned_at: float


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one reply by the way each is billed; the parts add up, none is counted twice.

    `reported` is False when the provider's reply held no usage: the counts are then 0 and mean nothing.
    """

    fresh_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_short_tokens: int = 0
    cache_write_long_tokens: int = 0
    output_tokens: int = 0
    reported: bool = True

    @property
    def input_tokens(self) -> int:
        """All input tokens, however billed."""
        return self.fresh_tokens + self.cache_read_tokens + self.cache_write_short_tokens + self.cache_write_long_tokens


class Record(msgspec.Struct, frozen=True):
    """What became of one request. Money is in USD; None means unknown, never zero.

    `baseline_cost_usd` is what the same call adds on the fleet's top model WITH prompt caching at its better TTL;
    `saved_usd` is baseline minus cost and may be negative. Both are None for an explicit model, which Tierwise
    did not choose.
    """

    at: dt.datetime
    tier: Tier | None
    model: str
    reason: Reason
    p_suffices: Mapping[Tier, float]
    usage: Usage
    cost_usd: Decimal | None
    baseline_model: str | None
    baseline_cost_usd: Decimal | None
    saved_usd: Decimal | None
    notes: tuple[str, ...] = ()
