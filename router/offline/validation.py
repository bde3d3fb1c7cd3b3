"""What Anthropic's Messages API rejects, model by model, in its words where they are documented.

Sources (2026-11-22): https://platform.claude.com/docs/en/api/errors,
https://platform.claude.com/docs/en/build-with-claude/prompt-caching and the SDK's types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from router.offline import values
from router.offline.account import Call
from router.offline.failures import Rejected
from router.offline.models import Claude
from router.offline.prompt import blocks, is_cacheable, last_cacheable

MAX_BREAKPOINTS = 4
STRICT_VERSION = "2026-10-21"
SAMPLING_DEFAULTS = {"temperature": 1, "top_p": 1, "top_k": None}
MIN_THINKING_TOKENS = 1024

Body = Mapping[str, Any]
Marked = list[tuple[str, Body]]


def check(body: Body, model: Claude, call: Call) -> None:
    """Raises Rejected for what the Messages API answers with 400."""
    if type(body.get("max_tokens")) is not int or body["max_tokens"] < 0:
        raise Rejected("max_tokens: Field required")
    if body["max_tokens"] > model.max_output_tokens:
        raise Rejected(
            f"max_tokens: {body['max_tokens']} > {model.max_output_tokens}, which is the maximum allowed number of "
            f"output tokens for {body.get('model')}"
        )
    check_prompt(body, model)
    _check_sampling(body, model, call)
    _check_thinking(body, model)
    kind = (body.get("thinking") or {}).get("type")
    values.check_edits(body, thinks=kind in ("enabled", "adaptive") or (kind is None and model.thinks_by_default))
    effort = (body.get("output_config") or {}).get("effort")
    if effort is not None and effort not in model.efforts:
        what = f"effort '{effort}'" if model.efforts else "the effort parameter"
        raise Rejected(f"output_config.effort: This model does not support {what}.")
    choice = (body.get("tool_choice") or {}).get("type")
    if choice in ("any", "tool") and not model.takes_forced_tools:
        raise Rejected(f"tool_choice.type: '{choice}' is not supported for this model. Use 'auto' or 'none'.")
    if body["messages"][-1].get("role") == "assistant" and not model.takes_prefill and not _is_paused(body):
        raise Rejected(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    if body["max_tokens"] == 0:
        _check_prewarm(body, call)
    if call.is_batch and body.get("stream"):
        raise Rejected("stream: Streaming is not supported in batches")


def check_prompt(body: Body, model: Claude) -> None:
    """Raises Rejected for a prompt that is malformed: roles, content, breakpoints, tool results."""
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Rejected("messages: at least one message is required")
    for i, message in enumerate(body["messages"]):
        _check_message(message, f"messages.{i}", model, is_last=i == len(body["messages"]) - 1)
    _check_breakpoints(body)
    values.check_anthropic(body)
    _check_tool_results(body["messages"])


def _is_paused(body: Body) -> bool:
    """Whether the last turn is one that the provider's own tools have paused."""
    kinds = [str(block.get("type")) for block in blocks(body["messages"][-1].get("content"))]
    return any(kind.endswith(("_tool_use", "_tool_result")) for kind in kinds)


def check_length(tokens: int, context_tokens: int) -> None:
    """Raises Rejected when the prompt does not fit the context window."""
    if tokens > context_tokens:
        raise Rejected(f"prompt is too long: {tokens} tokens > {context_tokens} maximum")


def _check_message(message: Any, path: str, model: Claude, *, is_last: bool) -> None:
    role = message.get("role") if isinstance(message, dict) else None
    if role == "system" and not model.takes_system_messages:
        raise Rejected(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.'
        )
    if role not in ("user", "assistant", "system"):
        raise Rejected(f"{path}.role: Input should be 'user' or 'assistant'")
    content = message.get("content")
    if not isinstance(content, str | list):
        raise Rejected(f"{path}.content: Field required")
    if not content and not (is_last and role == "assistant"):
        raise Rejected(
            f"{path}: all messages must have non-empty content except for the optional final assistant message"
        )


def _check_breakpoints(body: Body) -> None:
    every = list(_blocks(body))
    marked = [(path, block) for path, block in every if block.get("cache_control")]
    for path, block in marked:
        if is_cacheable(block):
            continue
        if block.get("type") == "text":
            raise Rejected(f"{path}.text: cache_control cannot be set for empty text blocks")
        raise Rejected(f"{path}.{block.get('type')}.cache_control: Extra inputs are not permitted")
    automatic = body.get("cache_control")
    if automatic:
        marked = _with_automatic(body, every, marked)
    if len(marked) > MAX_BREAKPOINTS:
        raise Rejected(
            f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(marked)}."
        )
    _check_lifetimes(marked)


def _with_automatic(body: Body, every: Marked, marked: Marked) -> Marked:
    """The breakpoints with the automatic one, which is no other if the last cacheable block has the same TTL."""
    automatic = body["cache_control"]
    if len(marked) == MAX_BREAKPOINTS:
        raise Rejected(
            f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(marked) + 1}."
        )
    last = last_cacheable(body)
    own = every[last][1].get("cache_control") if last is not None else None
    if not own:
        return [*marked, ("", {"cache_control": automatic})]
    if own.get("ttl", "5m") != automatic.get("ttl", "5m"):
        raise Rejected(
            "cache_control: the last cacheable block already has a cache_control with a different ttl; "
            "automatic caching cannot set another."
        )
    return marked


def _check_lifetimes(marked: Marked) -> None:
    is_short_seen = False
    for path, block in marked:
        mark, at = block["cache_control"], f"{path}.cache_control".removeprefix(".")
        if not isinstance(mark, dict) or mark.get("type") != "ephemeral":
            raise Rejected(f"{at}: Input tag 'type' does not match any of the expected tags: 'ephemeral'")
        ttl = mark.get("ttl", "5m")
        if ttl not in ("5m", "1h"):
            raise Rejected(f"{at}.ephemeral.ttl: Input should be '5m' or '1h'")
        if ttl == "1h" and is_short_seen:
            raise Rejected(
                f"{at}.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
                "Note that blocks are processed in the following order: tools, system, messages."
            )
        is_short_seen = is_short_seen or ttl == "5m"


def _check_tool_results(messages: list[Body]) -> None:
    """Each tool_use is answered at the head of the next user turn, and nothing else is. Like turns are one turn."""
    turns: list[tuple[str, int, list[Any]]] = []
    for i, message in enumerate(messages):
        role = str(message["role"])
        if role == "system":
            continue
        if turns and turns[-1][0] == role:
            turns[-1][2].extend(blocks(message["content"]))
        else:
            turns.append((role, i, blocks(message["content"])))
    called: list[str] = []
    asked_at = 0
    for role, i, content in [*turns, ("user", len(messages), [])]:
        results = [str(block.get("tool_use_id")) for block in content if block.get("type") == "tool_result"]
        head = results if all(b.get("type") == "tool_result" for b in content[: len(results)]) else []
        missing = [name for name in called if name not in head] if role == "user" else []
        if missing:
            raise Rejected(
                f"messages.{asked_at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        if unknown := [name for name in results if name not in called]:
            raise Rejected(
                f"messages.{i}: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(unknown)}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        called = [str(b.get("id")) for b in content if b.get("type") == "tool_use"] if role == "assistant" else []
        asked_at = i


def _check_sampling(body: Body, model: Claude, call: Call) -> None:
    given = [name for name in SAMPLING_DEFAULTS if name in body]
    if given and call.version >= STRICT_VERSION:
        raise Rejected(f"{given[0]}: Extra inputs are not permitted")
    for name in given:
        if not model.takes_sampling and body[name] not in (None, SAMPLING_DEFAULTS[name]):
            raise Rejected(f"`{name}` is deprecated for this model.")
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        if body.get("temperature") not in (None, 1):
            raise Rejected("`temperature` may only be set to 1 when thinking is enabled.")
        if body.get("top_k") is not None:
            raise Rejected("`top_k` must be unset when thinking is enabled.")
    if not model.takes_temperature_with_top_p and {"temperature", "top_p"} <= set(given):
        raise Rejected("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")


def _check_thinking(body: Body, model: Claude) -> None:
    thinking = body.get("thinking") or {}
    kind = thinking.get("type")
    if kind is None:
        return
    if not model.thinking_types.get(kind, False):
        instead = {"enabled": " Use 'adaptive' and `output_config.effort`.", "disabled": ""}.get(kind, "")
        raise Rejected(f"thinking.type: '{kind}' is not supported for this model.{instead}")
    effort = (body.get("output_config") or {}).get("effort")
    if kind == "disabled" and model.name == "opus 5.0" and effort in ("xhigh", "max"):
        raise Rejected(f"thinking.type: 'disabled' is not supported with effort '{effort}' for this model.")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if type(budget) is not int or budget < MIN_THINKING_TOKENS:
            raise Rejected(
                f"thinking.enabled.budget_tokens: Input should be greater than or equal to {MIN_THINKING_TOKENS}"
            )
        if budget >= body["max_tokens"]:
            raise Rejected("`max_tokens` must be greater than `thinking.budget_tokens`")


def _check_prewarm(body: Body, call: Call) -> None:
    """max_tokens 0 warms the cache and answers nothing; it goes with none of these."""
    barred = {
        "stream": body.get("stream"),
        "thinking": (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"),
        "output_config.format": (body.get("output_config") or {}).get("format"),
        "tool_choice": (body.get("tool_choice") or {}).get("type") in ("any", "tool"),
        "batches": call.is_batch,
    }
    if given := [name for name, is_given in barred.items() if is_given]:
        raise Rejected(f"max_tokens: 0 is not supported together with {given[0]}")


def _blocks(body: Body) -> Iterator[tuple[str, Body]]:
    """Each position's path and block: tools, system, messages."""
    for section in ("tools", "system"):
        for i, block in enumerate(blocks(body.get(section))):
            yield f"{section}.{i}", block
    for i, message in enumerate(body["messages"]):
        for j, block in enumerate(blocks(message["content"])):
            yield f"messages.{i}.content.{j}", block
