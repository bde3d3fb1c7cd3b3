"""The values that the providers refuse in tools, ids, texts and histories, in their words as users report them.

Sources, 2026-11-26: https://platform.claude.com/docs/en/api/errors, https://ai.google.dev/gemini-api/docs/thought-signatures,
https://developers.openai.com/api/docs/guides/function-calling, https://api-docs.deepseek.com/guides/thinking_mode, and
the 400s quoted in public issues of the gateways and agents that met them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from router.offline import replies
from router.offline.failures import Rejected
from router.offline.models import is_signed
from router.offline.prompt import blocks

Body = Mapping[str, Any]

_PLAIN = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_TOOL_USE_FIELDS = {"type", "id", "name", "input", "cache_control", "caller"}
_MESSAGE_FIELDS = {
    *("role", "content", "name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call", "annotations"),
}
_CALL_FIELDS = {"id", "type", "function", "custom", "index"}
_BARRED = ("oneOf", "anyOf", "allOf", "enum", "const", "not")
UNCHECKED = "skip_thought_signature_validator"
"""What Gemini takes for a signature in a history that another model wrote."""


# ---- Anthropic


def check_anthropic(body: Body) -> None:
    """Raises Rejected for tools, ids, texts and media that the Messages API refuses."""
    _check_tools(body.get("tools") or ())
    seen: set[str] = set()
    for path, block in _content(body):
        kind, at = block.get("type"), f"{path}.{block.get('type')}"
        if kind == "tool_use":
            _must_match(f"{at}.id", block.get("id"))
            if block["id"] in seen:
                raise Rejected(f"{path}: `tool_use` ids must be unique")
            seen.add(block["id"])
            if unknown := sorted(set(block) - _TOOL_USE_FIELDS):
                raise Rejected(f"{at}.{unknown[0]}: Extra inputs are not permitted")
        elif kind == "tool_result":
            _must_match(f"{at}.tool_use_id", block.get("tool_use_id"))
        elif kind in ("image", "document"):
            _check_source(at, kind, block.get("source"))
    last = body["messages"][-1]
    text = next((b.get("text") for b in reversed(blocks(last.get("content"))) if b.get("type") == "text"), "")
    if last.get("role") == "assistant" and text != text.rstrip():
        raise Rejected("messages: final assistant content cannot end with trailing whitespace")


def check_edits(body: Body, *, thinks: bool) -> None:
    """Raises Rejected for context edits, and for a loop of tools, that do not go with the thinking."""
    edits = (body.get("context_management") or {}).get("edits") or ()
    if not thinks and any(edit.get("type") == "clear_thinking_20251015" for edit in edits):
        raise Rejected("`clear_thinking_20251015` strategy requires `thinking` to be enabled or adaptive")
    if (body.get("thinking") or {}).get("type") != "enabled":
        return
    if not any(b.get("type") == "tool_result" for b in blocks(body["messages"][-1].get("content"))):
        return
    turns = [(i, blocks(m["content"])) for i, m in enumerate(body["messages"]) if m.get("role") == "assistant"]
    if turns and turns[-1][1] and turns[-1][1][0].get("type") not in ("thinking", "redacted_thinking"):
        at, content = turns[-1]
        raise Rejected(
            f"messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
            f"`{content[0].get('type')}`. When `thinking` is enabled, a final `assistant` message must start with a "
            "thinking block (preceding the lastmost set of `tool_use` and `tool_result` blocks)."
        )


def _check_tools(tools: Iterable[Body]) -> None:
    own = [(f"tools.{i}.custom", tool) for i, tool in enumerate(tools) if tool.get("type") in (None, "custom")]
    for at, tool in own:
        name, schema = str(tool.get("name")), tool.get("input_schema")
        if len(name) > 128:
            raise Rejected(f"{at}.name: String should have at most 128 characters")
        _must_match(f"{at}.name", name, "^[a-zA-Z0-9_-]{1,128}$")
        if not isinstance(schema, Mapping):
            raise Rejected(f"{at}.input_schema: Field required")
        if any(word in schema for word in _BARRED[:3]):
            raise Rejected(f"{at}.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level")
        if schema.get("type") != "object":
            said = "Input should be 'object'" if "type" in schema else "Field required"
            raise Rejected(f"{at}.input_schema.type: {said}")
    if len({tool.get("name") for _, tool in own}) < len(own):
        raise Rejected("tools: Tool names must be unique.")


def _content(body: Body) -> Iterator[tuple[str, Body]]:
    """Each block of the messages with its path, and those within tool results; texts are checked on the way."""
    for i, block in enumerate(blocks(body.get("system"))):
        _check_text("system", f"system.{i}", block)
    for i, message in enumerate(body["messages"]):
        for j, block in enumerate(blocks(message["content"])):
            path = f"messages.{i}.content.{j}"
            yield path, block
            _check_text("messages", path, block)
            if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
                for k, inner in enumerate(blocks(block["content"])):
                    yield f"{path}.tool_result.content.{k}", inner
                    _check_text("messages", path, inner)


def _check_text(part: str, path: str, block: Body) -> None:
    text = block.get("text") if block.get("type") == "text" else "said"
    if not isinstance(text, str):
        raise Rejected(f"{path}.text.text: Field required")
    if not text:
        raise Rejected(f"{part}: text content blocks must be non-empty")
    if text.isspace():
        raise Rejected(f"{part}: text content blocks must contain non-whitespace text")


def _check_source(at: str, kind: str, source: Any) -> None:
    if not isinstance(source, Mapping) or source.get("type") != "base64":
        return
    known = _IMAGE_TYPES if kind == "image" else ("application/pdf",)
    if source.get("media_type") not in known:
        named = [f"'{name}'" for name in known]
        said = " or ".join([", ".join(named[:-1]), named[-1]]) if named[1:] else named[0]
        raise Rejected(f"{at}.source.base64.media_type: Input should be {said}")


def _must_match(at: str, value: Any, pattern: str = "^[a-zA-Z0-9_-]+$") -> None:
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise Rejected(f"{at}: String should match pattern '{pattern}'")


# ---- OpenAI


def check_openai(body: Body, field: str, *, reasons: bool) -> None:
    """Raises Rejected for tools, ids and fields that OpenAI refuses; `field` is messages or input (Responses)."""
    _check_functions(body.get("tools") or (), field)
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not body.get("tools"):
            raise Rejected(
                f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", param=name
            )
    least = {"max_output_tokens": 16, "max_completion_tokens": 1, "max_tokens": 1}
    for name, floor in least.items():
        if body.get(name) is not None and body[name] < floor:
            said = f"integer below minimum value. Expected a value >= {floor}, but got {body[name]} instead."
            raise Rejected(f"Invalid '{name}': {said}", param=name, code="integer_below_min_value")
    for name in ("user", "safety_identifier"):
        _check_size(name, body.get(name))
    if field == "messages":
        for path, unknown in _unknown_fields(body):
            raise Rejected(
                f"Unknown parameter: '{path}.{unknown}'.", param=f"{path}.{unknown}", code="unknown_parameter"
            )
    for path, call_id in _ids(body, field):
        _check_size(path, call_id)
    if not reasons and "reasoning.encrypted_content" in (body.get("include") or ()):
        raise Rejected("Encrypted content is not supported with this model.", param="include")


def check_encrypted(body: Body, model_id: str) -> None:
    """Raises Rejected for encrypted reasoning that this model did not make."""
    items = body["input"] if isinstance(body["input"], list) else ()
    for item in items:
        content = item.get("encrypted_content")
        if item.get("type") == "reasoning" and content is not None and not replies.is_own(content, model_id):
            raise Rejected(
                f"The encrypted content for item {item.get('id')} could not be verified.",
                param="input",
                code="invalid_encrypted_content",
            )


def _check_functions(tools: Iterable[Body], field: str) -> None:
    for i, tool in enumerate(tools):
        if tool.get("type") != "function":
            continue
        path = f"tools[{i}].function" if field == "messages" else f"tools[{i}]"
        given = tool.get("function") or {} if field == "messages" else tool
        name, schema = str(given.get("name")), given.get("parameters")
        _check_size(f"{path}.name", name)
        if not _PLAIN.fullmatch(name):
            raise Rejected(
                f"Invalid '{path}.name': string does not match pattern. Expected a string that matches the pattern "
                "'^[a-zA-Z0-9_-]+$'.",
                param=f"{path}.name",
                code="invalid_value",
            )
        if schema is not None and (why := _schema_fault(schema)):
            said = f"Invalid schema for function '{name}': {why}"
            raise Rejected(said, param=f"{path}.parameters", code="invalid_function_parameters")


def _schema_fault(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    if any(word in schema for word in _BARRED):
        listed = "/".join(f"'{word}'" for word in _BARRED)
        return f"schema must have type 'object' and not have {listed} at the top level."
    return "" if "properties" in schema else "In context=(), object schema missing properties."


def _check_size(path: str, value: Any) -> None:
    if isinstance(value, str) and len(value) > 64:
        raise Rejected(
            f"Invalid '{path}': string too long. Expected a string with maximum length 64, but got a string with "
            f"length {len(value)} instead.",
            param=path,
            code="string_above_max_length",
        )


def _unknown_fields(body: Body) -> Iterator[tuple[str, str]]:
    for i, message in enumerate(body["messages"]):
        for name in sorted(set(message) - _MESSAGE_FIELDS):
            yield f"messages[{i}]", name
        for j, call in enumerate(message.get("tool_calls") or ()):
            for name in sorted(set(call) - _CALL_FIELDS):
                yield f"messages[{i}].tool_calls[{j}]", name


def _ids(body: Body, field: str) -> Iterator[tuple[str, Any]]:
    items = body[field] if isinstance(body[field], list) else ()
    for i, item in enumerate(items):
        yield f"{field}[{i}].tool_call_id", item.get("tool_call_id")
        yield f"{field}[{i}].call_id", item.get("call_id")
        for j, call in enumerate(item.get("tool_calls") or ()):
            yield f"{field}[{i}].tool_calls[{j}].id", call.get("id")


# ---- Gemini, and thinking servers


def check_gemini(body: Body, model_id: str) -> None:
    """Raises Rejected for unknown fields, media types, and unsigned calls of the turn that is going on."""
    last_ask = max((i for i, m in enumerate(body["messages"]) if m.get("role") == "user"), default=-1)
    for i, message in enumerate(body["messages"]):
        for name in ("reasoning_content", "reasoning", "tierwise_state"):
            if name in message:
                raise _invalid(
                    f"Invalid JSON payload received. Unknown name \"{name}\" at 'messages[{i}]': Cannot find field."
                )
        for part in blocks(message.get("content")):
            url = (part.get("image_url") or {}).get("url") if part.get("type") == "image_url" else None
            if isinstance(url, str) and url.lower().startswith("data:image/jpg"):
                raise _invalid("Unsupported MIME type: image/jpg")
        if is_signed(model_id) and i > last_ask and message.get("tool_calls"):
            _check_signature(message["tool_calls"][0], i, model_id)
    for tool in body.get("tools") or ():
        name = str((tool.get("function") or {}).get("name"))
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}", name):
            raise _invalid(f"Invalid function name: {name}. Must start with a letter or an underscore.")


def _check_signature(call: Body, at: int, model_id: str) -> None:
    google = (call.get("extra_content") or {}).get("google") or {}
    signature, name = google.get("thought_signature"), (call.get("function") or {}).get("name")
    if not signature:
        raise _invalid(
            "Function call is missing a thought_signature in functionCall parts. This is required for tools to work "
            f"correctly. Additional data, function call `default_api:{name}`, position {at}."
        )
    if signature not in (UNCHECKED, replies.sign(model_id, str(call.get("id")), str(name))):
        raise _invalid("Thought signature is not valid.")


def _invalid(message: str) -> Rejected:
    return Rejected(message, kind="INVALID_ARGUMENT")


def check_reasoning(body: Body) -> None:
    """Raises Rejected where a thinking server's own calls come back without what it thought."""
    for message in body["messages"]:
        if message.get("tool_calls") and not message.get("reasoning_content"):
            raise Rejected("The `reasoning_content` in the thinking mode must be passed back to the API.")
