"""Anthropic's wire format: Messages and their stream, count_tokens, the list of models."""

from __future__ import annotations

import json
from typing import Any

from router.offline import prompt, replies, validation
from router.offline.account import Account, Answer, Call
from router.offline.failures import Rejected
from router.offline.models import Claude, claude
from router.offline.prefixcache import Use
from router.offline.replies import Reply

EFFORTS = ("low", "medium", "high", "xhigh", "max")
FROM_THE_START = "1970-01-01T00:00:00Z"  # the API's word for a release date that it does not know


def messages(account: Account, body: dict[str, Any], call: Call) -> Answer:
    """Answer POST /v1/messages. Raises Rejected."""
    priced = _find(account, body)
    model = claude(priced.id)
    validation.check(body, model, call)
    read = replies.readable(body, priced.id, model, call.headers.get("anthropic-beta", ""))
    positions = prompt.anthropic_positions(read, model)
    total = positions[-1].tokens
    validation.check_length(total, priced.context_tokens)
    use = account.cache.use_anthropic(priced.id, model.cache_min_tokens, positions, account.clock())
    reply = account.answer(body, priced.id) if body["max_tokens"] else Reply()
    content, stop = _content(account, reply, read, priced.id, model)
    n_thought = prompt.count_tokens(reply.thinking)
    n_called = sum(prompt.count_tokens(json.dumps(b["input"])) for b in content if b["type"] == "tool_use")
    n_said = sum(prompt.count_tokens(b["text"]) for b in content if b["type"] == "text")
    output = min(n_thought + n_called + n_said, body["max_tokens"])
    if output > priced.context_tokens - total:
        output, stop = priced.context_tokens - total, ("model_context_window_exceeded", None)
    message = {
        "id": account.new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": priced.id,
        "content": content,
        "stop_reason": stop[0],
        "stop_sequence": stop[1],
        "usage": _usage(use, output, n_thought, call) if reply.has_usage else None,
    }
    frames = [_frame(event) for event in _events(message)] if body.get("stream") else None
    return Answer(message, lambda: account.begin(priced, use, output, call), frames)


def count_tokens(account: Account, body: dict[str, Any], call: Call) -> Answer:
    """Answer POST /v1/messages/count_tokens: free, and nothing is cached. Raises Rejected."""
    priced = _find(account, body)
    model = claude(priced.id)
    validation.check_prompt(body, model)
    read = replies.readable(body, priced.id, model, call.headers.get("anthropic-beta", ""))
    return Answer({"input_tokens": prompt.anthropic_positions(read, model)[-1].tokens})


def models(account: Account) -> list[dict[str, Any]]:
    """What GET /v1/models lists, with capabilities."""
    known = {m.id: m for m in account.models.models.values() if m.provider == "anthropic"}
    return [
        {
            "type": "model",
            "id": model.id,
            "display_name": model.id.replace("-", " ").title(),
            "created_at": FROM_THE_START,
            "lifecycle": "active",
            "line": claude(model.id).family,
            "max_input_tokens": model.context_tokens,
            "max_tokens": None,
            "capabilities": _capabilities(claude(model.id), model.vision),
        }
        for model in known.values()
    ]


def _find(account: Account, body: dict[str, Any]) -> Any:
    model = account.find(body)
    if model.provider != "anthropic":
        raise Rejected(f"model: {body.get('model')}", 404, "not_found_error")
    return model


def _content(
    account: Account, reply: Reply, body: dict[str, Any], model_id: str, model: Claude
) -> tuple[list[dict[str, Any]], tuple[str, str | None]]:
    """The reply's blocks, and (stop_reason, stop_sequence): text ends at a stop sequence or at max_tokens."""
    content: list[dict[str, Any]] = []
    if reply.thinking:
        shown = (body.get("thinking") or {}).get("display") or ("omitted" if model.omits_thinking else "summarized")
        thinking = reply.thinking if shown == "summarized" else ""
        signature = replies.sign(model_id, replies.prefix(body), thinking)
        content.append({"type": "thinking", "thinking": thinking, "signature": signature})
    left = body["max_tokens"] - prompt.count_tokens(reply.thinking)
    stops = [(reply.text.find(stop), stop) for stop in body.get("stop_sequences") or () if stop in reply.text]
    at, stop = min(stops, default=(len(reply.text), None))
    text = prompt.cut(reply.text[:at], left)
    if text:
        content.append({"type": "text", "text": text})
    if len(text) < at or not body["max_tokens"]:
        return content, ("max_tokens", None)
    if stop is not None:
        return content, ("stop_sequence", stop)
    content += [
        {"type": "tool_use", "id": account.new_id("toolu"), "name": tool.name, "input": dict(tool.arguments)}
        for tool in reply.tool_calls
    ]
    return content, ("tool_use" if reply.tool_calls else "end_turn", None)


def _usage(use: Use, output: int, n_thought: int, call: Call) -> dict[str, Any]:
    return {
        "input_tokens": use.fresh,
        "cache_creation_input_tokens": use.write_short + use.write_long,
        "cache_read_input_tokens": use.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": use.write_short,
            "ephemeral_1h_input_tokens": use.write_long,
        },
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": min(n_thought, output)},
        "service_tier": "batch" if call.is_batch else "standard",
    }


def _frame(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


def _events(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The stream of a message: start, its blocks with a ping after the first begins, delta, stop."""
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = usage and {**usage, "output_tokens": 1, "output_tokens_details": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        empty, deltas = _deltas(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            events.append({"type": "ping"})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    cumulative = usage and {n: usage[n] for n in (*names, "output_tokens", "output_tokens_details")}
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    return [*events, {"type": "message_delta", "delta": stop, "usage": cumulative}, {"type": "message_stop"}]


def _deltas(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it starts, and what then fills it."""
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in replies.pieces(block["text"])]
        return {**block, "text": ""}, deltas
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in replies.pieces(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*deltas, signed]
    arguments = ["", *replies.pieces(json.dumps(block["input"]))]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]


def _capabilities(model: Claude, vision: bool) -> dict[str, Any]:
    def supported(is_supported: bool) -> dict[str, bool]:
        return {"supported": is_supported}

    return {
        "batch": supported(True),
        "citations": supported(True),
        "code_execution": supported(False),
        "context_management": supported(False),
        "effort": {**supported(bool(model.efforts)), **{e: supported(e in model.efforts) for e in EFFORTS}},
        "image_input": supported(vision),
        "pdf_input": supported(False),
        "server_tools": {**supported(False), "code_execution": supported(False), "web_search": supported(False)},
        "structured_outputs": supported(False),
        "thinking": {
            **supported(True),
            "types": {kind: supported(is_taken) for kind, is_taken in model.thinking_types.items()},
        },
    }
