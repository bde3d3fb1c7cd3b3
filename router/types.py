"""The values that cross modules: frozen, typed, without behaviour of their own.

They are msgspec structs rather than dataclasses because a decision makes four of them: 0.2 us each instead of 0.9.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import msgspec

Body = Mapping[str, Any]
"""A request body as a provider takes it: Anthropic Messages, OpenAI Chat Completions or Responses."""


class Tier(StrEnum):
    """How capable a model a request needs, cheap to strong; `list(Tier)` is that order."""

    SIMPLE = "simple"
    MODERATE = "moderate"
    COMPLEX = "complex"

    @property
    def rank(self) -> int:
        """0 for the cheapest."""
        return _RANKS[self]

    def at_least(self, other: Tier) -> bool:
        """Whether this tier is `other` or a stronger one."""
        return _RANKS[self] >= _RANKS[other]


_RANKS = {tier: rank for rank, tier in enumerate(Tier)}


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
    HELD = "held"
    """Tools have answered: the turn goes on where it began."""
    TROUBLE = "trouble"
    """Tool calls keep failing, or the user called the answer wrong: a tier above the one that gave it."""
    WARM = "warm"
    """A stronger model holds the prefix warm, and staying costs less than writing it again elsewhere."""
    DRY_RUN = "dry_run"
    """The caller asked for a rehearsal: the top tier, as without routing; the notes say what was decided."""
    SIDE_CALL = "side_call"
    """Asked on the side by a harness: the cheapest tier that can do it; the compaction of a conversation, its model."""
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


class SideCall(StrEnum):
    """What a request is for that is none of the conversation's own."""

    PROBE = "probe"
    """One token: is there quota, is the connection warm?"""
    CHORE = "chore"
    """A small thing about the conversation, which any model can do: a title, a topic, a commit message."""
    COMPACTION = "compaction"
    """A summary that takes the conversation's place."""


class Decision(msgspec.Struct, frozen=True):
    """Which tier and model a request goes to, and why.

    `p_suffices` maps each tier to q = P(its answer is as good as the top tier's), in [0, 1], non-decreasing from
    simple to complex, 1.0 for the last. It is empty when nothing was judged (`EXPLICIT_MODEL`, `EMPTY_TASK`,
    `CLASSIFIER_ERROR`, a `RULE` that names a tier). `tier` is None only for an explicit model that is not in the fleet.
    `artifact` serves the `conversation`, whose key (router/classifier/pointer.py) is "" where none is known; both are
    "" for an explicit model. `effort` is the reasoning effort that the fleet sends the tier with, or "".
    """

    tier: Tier | None
    model: str
    p_suffices: Mapping[Tier, float]
    reason: Reason
    operating_point: str
    notes: tuple[str, ...] = ()
    artifact: str = ""
    conversation: str = ""
    effort: str = ""


class Task(msgspec.Struct, frozen=True):
    """What is being asked, as read from a request.

    `n_chars` counts all text of the request (system, tools, history), the measure of the context it needs. `session`
    is the harness's own name for the conversation, "" when it has none; `in_trouble` says that tool calls keep failing
    or that the user called the last answer wrong; `side_call` what a request is for that a harness makes on the side.
    """

    text: str
    turn: TurnState
    n_chars: int
    has_images: bool
    has_tools: bool
    session: str = ""
    in_trouble: bool = False
    side_call: SideCall | None = None


class Ttl(IntEnum):
    """How long a prefix is cached for: not at all, or the model's short or long time to live."""

    NONE = 0
    SHORT = 1
    LONG = 2


class Prefix(msgspec.Struct, frozen=True):
    """A prompt by the places where it can be cut: after the tools, after the system prompt, after each message.

    `keys[i]` identifies everything up to and including message i, `units[i]` is its size: characters of a body, or
    tokens of a trace. `head_key` and `head_units` are those of tools and system prompt together ("" and 0 when there
    are none). `owned` says that the body carries cache fields of the caller's, `in_tokens` that a unit is a token.
    `head_bytes` is of tools and system prompt as they are sent, what changes in each request included; `opening`
    identifies the first message, whatever comes before it (0 for neither).
    """

    tools_units: int
    head_key: str
    head_units: int
    keys: Sequence[int]
    units: Sequence[int]
    owned: bool = False
    has_images: bool = False
    in_tokens: bool = False
    head_bytes: int = 0
    opening: int = 0

    @property
    def size(self) -> int:
        """Units of the whole prompt."""
        return self.units[-1] if len(self.units) else self.head_units

    def shares(self, keys: Sequence[int]) -> int:
        """How many leading messages this prompt has in common with one that had `keys`."""
        n = min(len(self.keys), len(keys))
        if self.keys[:n] == keys[:n]:
            return n
        return next(i for i in range(n) if self.keys[i] != keys[i])


class CacheEntry(msgspec.Struct, frozen=True, array_like=True):
    """What a model's cache is believed to hold of a conversation: its first `n_messages`, so many units, until when."""

    n_messages: int
    units: float
    expires_at_s: float
    is_long: bool


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a conversation between its requests: where it went, and what is warm for it where.

    `required` is the tier that its task needs, `tier` the one that it went to. `keys` and `head_bytes` are those of its
    last prefix.
    """

    conversation: str
    required: Tier
    tier: Tier
    p_suffices: dict[str, float]
    at_s: float
    keys: list[int]
    warm: dict[str, list[CacheEntry]] = {}
    head_bytes: int = 0


class CachePlan(msgspec.Struct, frozen=True):
    """Where cache breakpoints go in one body for one model.

    `breakpoints` are (part of the body, index, index of the block inside that message or None, TTL), for example
    ("system", 0, None, Ttl.SHORT); `tail` is the TTL of the breakpoint at the end of the conversation. `prefix_key`
    identifies tools and system prompt ("" when there are none), `prefix_tokens` estimates their size.
    `owned_by_caller` says that the body already carried cache fields, so nothing was added; `explicit_only`, that
    OpenAI is told to write at the breakpoints alone.
    """

    breakpoints: tuple[tuple[str, int, int | None, Ttl], ...]
    prefix_key: str
    prefix_tokens: int
    cache_key: str | None = None
    owned_by_caller: bool = False
    tail: Ttl = Ttl.NONE
    explicit_only: bool = False


class Route(msgspec.Struct, frozen=True):
    """How a request was placed: what accounting for it and the conversation's next request need.

    `required` is the tier that its task needs; `n_known` messages were in the conversation's last request. `warm` is
    what was believed warm before, by model, for the conversation and for the head; `expected_units` of the prompt
    should be read from cache, and `miss` says why when none should. `is_aside`: it was asked on the side, and the
    conversation does not remember it.
    """

    conversation: str
    prefix: Prefix
    required: Tier
    head: Ttl
    tail: Ttl
    n_known: int = 0
    warm: Mapping[str, Sequence[CacheEntry]] = {}
    head_warm: Mapping[str, Sequence[CacheEntry]] = {}
    expected_units: float = 0.0
    miss: str = ""
    classes: tuple[str, ...] = ()
    is_aside: bool = False


class Reach(StrEnum):
    """What a dispatcher can send, and so how far a plan may go from the caller's format."""

    ANY = "any"
    """Every model in its own format; a named model that speaks the caller's gets the body as it came."""
    SDK = "sdk"
    """One client of one SDK asks for all: only Chat Completions may become Responses, a named model's body nothing."""
    NEUTRAL = "neutral"
    """As ANY, and the caller does not know who is asked: a named model's body is adapted to it as well."""


class Telling(msgspec.Struct, frozen=True):
    """How an answer is told to its caller, and what of it is kept for the conversation's next request.

    `names` are those of tools as they were sent, to what the caller calls them; `shows_thinking`: the caller asked for
    thinking. `within` and `n_calling` are where in a conversation it stands (formats/states.py), "" and 0 where nothing
    is kept.
    """

    model: str = ""
    names: Mapping[str, str] = {}
    shows_thinking: bool = False
    within: str = ""
    n_calling: int = 0


class Plan(msgspec.Struct, frozen=True):
    """A decision, and the body as it is sent for it. `planned_at` is in seconds of the router's clock.

    `api` is the format of `body`, `asked` the caller's, in which they get the answer. `is_untouched`: `body` is the
    caller's, but for its `router` field. `hides_usage`: the stream says what it cost, and the caller did not ask it to.
    `ask` is the text that was judged.
    `shadow` is what would have been sent if the decision had been acted on; None where it was. `mode` and `propensity`
    say how it came to that (router/decide/mode.py).
    """

    decision: Decision
    body: dict[str, Any]
    api: Api
    asked: Api
    cache: CachePlan
    planned_at: float
    route: Route | None = None
    is_untouched: bool = False
    hides_usage: bool = False
    telling: Telling = Telling()
    ask: str = ""
    shadow: Plan | None = None
    mode: str = "on"
    propensity: float = 1.0


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one reply by the way each is billed; the parts add up, none is counted twice.

    `reported` is False when the provider's reply held no usage: the counts are then estimated, or all 0 and mean
    nothing (`is_known`). `is_batch`: it came in a batch, at half the price.

    What else a bill holds: `service_tier`, `speed` and `geo` as the provider names them, "" where it does not say;
    `calls` are (server tool, times); `parts` are billed beside the counts here, which are those of the answer.
    `unpriced` names what has a price that no count tells, so that the sum is unknown; `remarks` say how odd counts were
    read; `unknown_fields` are fields of the provider's usage that hold a number and that nobody here knows.
    """

    fresh_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_short_tokens: int = 0
    cache_write_long_tokens: int = 0
    output_tokens: int = 0
    reported: bool = True
    is_batch: bool = False
    service_tier: str = ""
    speed: str = ""
    geo: str = ""
    calls: tuple[tuple[str, int], ...] = ()
    parts: tuple[Part, ...] = ()
    unpriced: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    unknown_fields: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the counts mean something: they were reported, or estimated."""
        return self.reported or self.input_tokens + self.output_tokens > 0

    @property
    def input_tokens(self) -> int:
        """All input tokens, however billed."""
        return self.fresh_tokens + self.cache_read_tokens + self.cache_write_short_tokens + self.cache_write_long_tokens


class Part(msgspec.Struct, frozen=True):
    """Tokens of one reply that are billed beside its own: a compaction of the context, an advisor's answer.

    `kind` is the provider's word for it; `model` bills it, "" for the one that answers.
    """

    kind: str
    usage: Usage
    model: str = ""


class Record(msgspec.Struct, frozen=True):
    """What became of one request. Money is in USD; None means unknown, never zero.

    `baseline_cost_usd` is what the same call adds on the fleet's top model WITH prompt caching at its better TTL;
    `saved_usd` is baseline minus cost and may be negative. Both are None for an explicit model, which Tierwise
    did not choose. `artifact` and `conversation` are the decision's: what feedback counts for. So
    is `effort`. `traffic_class` is a label of the caller's, or stands for tools and system prompt.

    Where a decision was not acted on (`mode`), `shadow_model` is what it chose and `shadow_cost_usd` an estimate of
    what that would have cost; `propensity` is the probability, in [0, 1], of coming to be treated so. `first_byte_ms`
    and `total_ms` are the gateway's, in milliseconds from the request's arrival; None elsewhere. `prompt` is what the
    user asked, redacted, where the settings say that it is kept and a turn began here; else "".
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
    artifact: str = ""
    conversation: str = ""
    effort: str = ""
    traffic_class: str = ""
    mode: str = "on"
    propensity: float = 1.0
    shadow_model: str = ""
    shadow_cost_usd: Decimal | None = None
    first_byte_ms: float | None = None
    total_ms: float | None = None
    prompt: str = ""
