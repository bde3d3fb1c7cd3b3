"""Providers, and what a model's API accepts: formats, efforts, thinking, cache controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from router.types import Api

COMPATIBLE = "openai-compatible"
"""The provider of a model behind a base URL of the user's own: vLLM, Ollama, a LiteLLM proxy."""


class Provider(msgspec.Struct, frozen=True):
    """How a provider is spoken to. `formats` are those that it takes, the usual one first.

    `url` is its address without an endpoint's path, `key_env` the variable that holds its key; both are None where
    each model has its own. `fleet` is the one that serves a client of the provider's when the caller names none.
    """

    sdk: Literal["anthropic", "openai"]
    formats: tuple[Api, ...]
    url: str | None = None
    key_env: str | None = None
    fleet: str | None = None


# The SDKs' defaults (anthropic 2.12 and openai 3.54, `_client.py`), and https://ai.google.dev/gemini-api/docs/openai,
# which has no Responses; 2026-11-22. OpenAI's is the one with /v1 in it.
PROVIDERS: Mapping[str, Provider] = {
    "anthropic": Provider(
        "anthropic", (Api.MESSAGES,), "https://api.anthropic.com", "ANTHROPIC_API_KEY", fleet="claude"
    ),
    "openai": Provider("openai", (Api.CHAT, Api.RESPONSES), "https://api.openai.com/v1", "OPENAI_API_KEY", fleet="gpt"),
    "gemini": Provider(
        "openai",
        (Api.CHAT,),
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        fleet="gemini",
    ),
    COMPATIBLE: Provider("openai", (Api.CHAT, Api.RESPONSES)),
}

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Reasoning efforts from none to most: OpenAI's names; Anthropic has low to max of them."""

REPLY_LENGTH: Mapping[str, float] = {
    "none": 0.2,
    "minimal": 0.3,
    "low": 0.4,
    "medium": 0.6,
    "high": 1.0,
    "xhigh": 1.4,
    "max": 2.0,
}
"""How long a reply should be at an effort, thinking included, beside one at `high`: an estimate to place requests by,
never a bill. Published is medium against high for one model, .46 of the tokens on SWE-bench Verified
(https://www.anthropic.com/news/claude-opus-4-5, 2025-11-24)."""


class Dialect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model's API accepts; the defaults are a plain OpenAI-compatible server's. formats/accepts.py acts on it.

    - `sampling`: temperature, top_p and the like: any; one of temperature and top_p; only at their default; only with
      reasoning effort none; not at all. Whatever it says, Anthropic takes none under version 2026-10-21.
    - `thinking`: the `thinking.type` values taken (Anthropic); `disabled` only up to the effort `disabled_up_to`.
    - `prefill`: messages may end with the assistant's. `forced_tool_choice`: `any` / `required` / one tool.
    - `system_in_messages`: messages of role "system" after the first (Anthropic: at all).
    - `binds_thinking`: thinking blocks are refused once the history before them was edited.
    - `max_tokens_names`: how Chat Completions calls the longest output, the preferred name first.
    - `efforts`: reasoning efforts taken, in the order of EFFORTS; none at all where it is empty.
    - `default_effort`: what applies when a request names none; None where that is not documented.
    - `chat_tools`: function tools on Chat Completions: always; only with effort none; only on Responses.
    - `cache`: OpenAI's explicit cache controls that it knows; implicit caching needs none of them.
    """

    sampling: Literal["any", "one", "default", "effort_none", "none"] = "any"
    thinking: tuple[Literal["enabled", "adaptive", "disabled", "between_tools"], ...] = ()
    disabled_up_to: Effort = "max"
    prefill: bool = True
    forced_tool_choice: bool = True
    system_in_messages: bool = True
    binds_thinking: bool = False
    max_tokens_names: tuple[Literal["max_tokens", "max_completion_tokens"], ...] = ("max_tokens",)
    efforts: tuple[Effort, ...] = ()
    default_effort: Effort | None = None
    chat_tools: Literal["any", "effort_none", "responses"] = "any"
    cache: tuple[Literal["breakpoints", "ttl_12h", "retention_in_memory", "retention_24h"], ...] = ()
