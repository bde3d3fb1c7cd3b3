"""What OpenAI's API rejects, model by model, in its words where they are documented.

Sources (2026-11-22): https://developers.openai.com/api/docs/guides/latest-model,
https://developers.openai.com/api/docs/guides/prompt-caching and the SDK's types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.offline.failures import Rejected
from router.offline.models import Gpt
from router.offline.prompt import blocks

SAMPLING = ("temperature", "top_p", "top_logprobs")
TTLS = {"messages": ("30m",), "input": ("30m", "12h")}
"""prompt_cache_options.ttl in Chat Completions and in Responses; a part's own breakpoint may say either in both."""

Body = Mapping[str, Any]


def check(body: Body, field: str, model_id: str, model: Gpt) -> None:
    """Raises Rejected for what the API answers with 400. `field` is messages (Chat) or input (Responses)."""
    if not body.get(field):
        raise Rejected(f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter")
    for i, item in enumerate(body[field] if isinstance(body[field], list) else ()):
        if not isinstance(item, dict):
            raise Rejected(f"Invalid type for '{field}[{i}]': expected an object.", param=f"{field}[{i}]")
    if body.get("previous_response_id"):
        raise Rejected(
            f"Previous response with id '{body['previous_response_id']}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if body.get("max_tokens") is not None and model.needs_completion_tokens:
        raise _unsupported("max_tokens", " Use 'max_completion_tokens' instead.")
    _check_effort(body, field, model_id, model)
    _check_output(body, field, model)
    retention = body.get("prompt_cache_retention")
    if retention not in (None, "24h") and model.retains_a_day_only:
        raise _unsupported_value("prompt_cache_retention", retention, model_id)
    _check_cache_options(body, field, model_id, model)
    if field == "messages":
        _check_tool_messages(body["messages"])
    elif isinstance(body["input"], list):
        _check_tool_items(body["input"])


def check_length(tokens: int, context_tokens: int, field: str) -> None:
    """Raises Rejected when the prompt does not fit the context window."""
    if tokens <= context_tokens:
        return
    message = "Your input exceeds the context window of this model. Please adjust your input and try again."
    if field == "messages":
        message = (
            f"This model's maximum context length is {context_tokens} tokens. However, your messages resulted in "
            f"{tokens} tokens. Please reduce the length of the messages."
        )
    raise Rejected(message, param=field, code="context_length_exceeded")


def _check_effort(body: Body, field: str, model_id: str, model: Gpt) -> None:
    name = "reasoning_effort" if field == "messages" else "reasoning.effort"
    effort = body.get("reasoning_effort") if field == "messages" else (body.get("reasoning") or {}).get("effort")
    if effort is not None and model.efforts is not None and effort not in model.efforts:
        raise _unsupported_value(name, effort, model_id) if model.efforts else _unsupported(name)
    if field == "messages" and body.get("tools") and model.calls_tools_in_chat_without_effort_only and effort != "none":
        raise Rejected(
            f"Function tools with reasoning_effort are not supported for {model_id} in /v1/chat/completions. "
            "Please use /v1/responses or set reasoning_effort to 'none'.",
            param="reasoning_effort",
        )
    given = [parameter for parameter in SAMPLING if body.get(parameter) is not None]
    if given and model.samples_without_effort_only and effort != "none":
        raise _unsupported(given[0])


def _check_output(body: Body, field: str, model: Gpt) -> None:
    names = ("max_completion_tokens", "max_tokens") if field == "messages" else ("max_output_tokens",)
    for name in names:
        if model.max_output_tokens is not None and (body.get(name) or 0) > model.max_output_tokens:
            raise Rejected(
                f"{name} is too large: {body[name]}. This model supports at most {model.max_output_tokens} completion "
                f"tokens, whereas you provided {body[name]}.",
                param=name,
                code="invalid_value",
            )


def _check_cache_options(body: Body, field: str, model_id: str, model: Gpt) -> None:
    items = body[field] if isinstance(body[field], list) else []
    parts = [part for item in items for part in blocks(item.get("content", item.get("output")))]
    marks = [part["prompt_cache_breakpoint"] for part in parts if part.get("prompt_cache_breakpoint")]
    options = body.get("prompt_cache_options") or {}
    if (options or marks) and not model.has_breakpoints:
        raise _unsupported("prompt_cache_options" if options else "prompt_cache_breakpoint")
    if options.get("mode", "implicit") not in ("implicit", "explicit"):
        raise _unsupported_value("prompt_cache_options.mode", options["mode"], model_id)
    if options.get("ttl", "30m") not in TTLS[field]:
        raise _unsupported_value("prompt_cache_options.ttl", options["ttl"], model_id)
    for mark in marks:
        if mark.get("mode") != "explicit":
            raise _unsupported_value("prompt_cache_breakpoint.mode", mark.get("mode"), model_id)
        if mark.get("ttl", "30m") not in TTLS["input"]:
            raise _unsupported_value("prompt_cache_breakpoint.ttl", mark["ttl"], model_id)
    for item in items:
        is_marked = any(part.get("prompt_cache_breakpoint") for part in blocks(item.get("content")))
        if is_marked and item.get("role") == "assistant":
            raise _unsupported("prompt_cache_breakpoint", " It is not accepted on assistant content.")


def _check_tool_messages(messages: list[Body]) -> None:
    """Chat: an assistant's tool calls are answered at once, by tool messages, and those answer nothing else."""
    waiting: list[str] = []
    called: list[str] = []
    for message in [*messages, {"role": "end"}]:
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in called:
                raise Rejected(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                    "'tool_calls'.",
                    param="messages",
                )
            waiting = [name for name in waiting if name != message["tool_call_id"]]
            continue
        if waiting:
            raise Rejected(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}",
                param="messages",
            )
        called = [str(tool.get("id")) for tool in message.get("tool_calls") or ()]
        waiting = list(called)


def _check_tool_items(items: list[Body]) -> None:
    """Responses: each function call has its output later on, and each output its call before."""
    called: dict[str, bool] = {}
    for item in items:
        name = str(item.get("call_id"))
        if item.get("type") == "function_call":
            called[name] = False
        elif item.get("type") == "function_call_output":
            if name not in called:
                raise Rejected(f"No tool call found for function call output with call_id {name}.", param="input")
            called[name] = True
    if missing := [name for name, is_answered in called.items() if not is_answered]:
        raise Rejected(f"No tool output found for function call {missing[0]}.", param="input")


def _unsupported(name: str, remedy: str = "") -> Rejected:
    message = f"Unsupported parameter: '{name}' is not supported with this model.{remedy}"
    return Rejected(message, param=name, code="unsupported_parameter")


def _unsupported_value(name: str, value: object, model_id: str) -> Rejected:
    message = f"Unsupported value: '{name}' does not support '{value}' with the '{model_id}' model."
    return Rejected(message, param=name, code="unsupported_value")
