"""What the documents say of each model: its cache minimum, and what it does not accept.

Read from the model's id, so that a model new to the catalog is served by the rules of its generation. Sources
(2026-11-22): https://platform.claude.com/docs/en/build-with-claude/prompt-caching,
https://platform.claude.com/docs/en/about-claude/models/overview, https://developers.openai.com/api/docs/models and the
SDKs' types.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CLAUDE = re.compile(r"claude-(fable|mythos|haiku|sonnet|opus)-(?:(\d)(?:-(\d))?(?:-\d{8})?|preview)")
_GPT = re.compile(r"gpt-(\d+)(?:\.(\d+))?o?(?:-([a-z]+))?")
_GEMINI = re.compile(r"gemini-(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Claude:
    """A Claude model: its family, and its generation such as (4, 7)."""

    family: str
    generation: tuple[int, int]

    @property
    def name(self) -> str:
        """Family and generation as the tables below write them."""
        return f"{self.family} {self.generation[0]}.{self.generation[1]}"

    @property
    def cache_min_tokens(self) -> int:
        """Shorter prefixes are silently not cached. Not found for Fable and Mythos 5.2: presumed like the other 5.x."""
        if self.generation >= (5, 0):
            return 1024 if self.name == "sonnet 5.0" else 512
        if self.generation >= (4, 7):
            return 1024 if self.generation == (4, 8) else 2048
        return 1024 if self.family == "sonnet" else 4096

    @property
    def takes_sampling(self) -> bool:
        """Whether temperature, top_p and top_k may differ from their defaults (under anthropic-version 2023-06-01)."""
        return self.generation < (4, 7)

    @property
    def takes_temperature_with_top_p(self) -> bool:
        return self.name != "haiku 4.5"

    @property
    def thinking_types(self) -> dict[str, bool]:
        """Each thinking.type, and whether the model accepts it."""
        of_five = self.generation >= (5, 0)
        always = (of_five and self.family in ("fable", "mythos")) or self.name in ("opus 5.5", "sonnet 5.5")
        return {
            "enabled": self.generation < (4, 7),
            "adaptive": self.generation > (4, 5),
            "disabled": not always,
            "between_tools": self.name == "sonnet 5.5",
        }

    @property
    def thinks_by_default(self) -> bool:
        """Where thinking cannot be disabled, leaving it out is the same as asking for it."""
        return not self.thinking_types["disabled"]

    @property
    def omits_thinking(self) -> bool:
        """Whether thinking comes back as a signature alone unless `display` says otherwise."""
        return self.generation >= (5, 0)

    @property
    def binds_thinking(self) -> bool:
        """Whether a thinking block is bound to the exact prefix that it was made in."""
        return self.name in ("fable 5.1", "fable 5.2", "opus 5.5", "sonnet 5.5", "haiku 5.5")

    @property
    def efforts(self) -> tuple[str, ...]:
        """What output_config.effort may be; empty where the model has no such setting."""
        if self.generation < (4, 6):
            return ("low", "medium", "high") if self.name == "opus 4.5" else ()
        return ("low", "medium", "high", *(("xhigh",) if self.generation >= (4, 7) else ()), "max")

    @property
    def max_output_tokens(self) -> int:
        return 64_000 if self.generation < (4, 6) else 128_000

    @property
    def takes_prefill(self) -> bool:
        return self.generation < (4, 6)

    @property
    def takes_forced_tools(self) -> bool:
        return self.name not in ("opus 5.5", "sonnet 5.5", "fable 5.1")

    @property
    def takes_system_messages(self) -> bool:
        later_opus = self.family == "opus" and self.generation >= (4, 8)
        return later_opus or self.family == "fable" or self.name == "sonnet 5.5"


@dataclass(frozen=True)
class Gpt:
    """A model behind OpenAI's wire format; `version` is (0, 0) for the o-series and for what is not OpenAI's."""

    version: tuple[int, int]
    size: str = ""
    is_o_series: bool = False
    is_4o: bool = False
    cache_min_tokens: int = 2048

    @property
    def needs_completion_tokens(self) -> bool:
        """Whether max_tokens is refused in favour of max_completion_tokens."""
        return self.is_o_series or self.version >= (5, 0)

    @property
    def has_breakpoints(self) -> bool:
        """Whether it caches at breakpoints alone, bills cache writes and takes prompt_cache_options."""
        return self.version >= (5, 6)

    @property
    def samples_without_effort_only(self) -> bool:
        """Whether temperature, top_p and top_logprobs need reasoning effort `none`."""
        return self.version >= (6, 0)

    @property
    def takes_effort_none(self) -> bool:
        is_astra = self.version >= (6, 0) and self.size == "astra"
        return not (is_astra or self.version >= (6, 2) or (self.version, self.size) == ((6, 1), "sol"))

    @property
    def efforts(self) -> tuple[str, ...] | None:
        """What the reasoning effort may be: nothing on models that do not reason; None where that is not documented."""
        if self.is_o_series:
            return ("low", "medium", "high")
        if self.version < (5, 0):
            return () if self.version > (0, 0) else None
        if self.version < (5, 4):
            return None
        highest = ("high", "xhigh", "max") if self.version >= (6, 0) else ("high", "xhigh")
        return (*(("none",) if self.takes_effort_none else ()), "low", "medium", *highest)

    @property
    def max_output_tokens(self) -> int | None:
        """None where that is not documented."""
        if self.version >= (5, 0):
            return 128_000
        return 16_384 if self.is_4o else None

    @property
    def calls_tools_in_chat_without_effort_only(self) -> bool:
        """Whether Chat Completions takes function tools with effort `none` alone."""
        return self.version >= (5, 6)

    @property
    def retains_a_day_only(self) -> bool:
        """Whether prompt_cache_retention, if given, must be 24h."""
        return self.version >= (5, 5)


def is_signed(model_id: str) -> bool:
    """Whether a model signs its calls and wants the signatures back: Gemini from 3 on."""
    match = _GEMINI.match(model_id)
    return match is not None and int(match[1]) >= 3


def claude(model_id: str) -> Claude:
    """The rules of a Claude model. Raises ValueError for another model's id."""
    match = _CLAUDE.fullmatch(model_id)
    if match is None:
        raise ValueError(f"{model_id!r} is not a Claude model's id; expected one like claude-opus-5-5")
    family, major, minor = match.groups()
    return Claude(family, (int(major), int(minor or 0)) if major else (4, 7))


def gpt(model_id: str) -> Gpt:
    """The rules of a model behind OpenAI's wire format; one that is unknown takes everything and caches on its own."""
    if match := _GPT.match(model_id):
        version = (int(match[1]), int(match[2] or 0))
        is_4o = model_id.startswith("gpt-4o")
        return Gpt(version, match[3] or "", is_4o=is_4o, cache_min_tokens=1024 if version >= (5, 6) else 2048)
    if match := _GEMINI.match(model_id):
        return Gpt((0, 0), cache_min_tokens=2048 if int(match[1]) < 3 else 4096)
    return Gpt((0, 0), is_o_series=re.match(r"o\d", model_id) is not None)
