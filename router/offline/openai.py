"""OpenAI's wire format, which Gemini also answers in: Chat Completions, Responses and their streams, the models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from router.catalog import COMPATIBLE, Model
from router.offline import parameters, prompt, replies, values
from router.offline.account import Account, Answer, Call
from router.offline.failures import Rejected
from router.offline.models import Gpt, gpt, is_signed
from router.offline.prefixcache import Use
from router.offline.replies import Reply


@dataclass(frozen=True)
class _Served:
    """What both formats are made of: the reply, cut to its limit, and its tokens."""

    model: Model
    rules: Gpt
    use: Use
    reply: Reply
    text: str
    n_thought: int
    output: int
    is_cut: bool


def chat(account: Account, body: dict[str, Any], call: Call) -> Answer:
    """Answer POST /v1/chat/completions. Raises Rejected."""
    served = _serve(account, body, "messages", body.get("max_completion_tokens", body.get("max_tokens")))
    head: dict[str, Any] = {
        "id": account.new_id("chatcmpl"),
        "created": int(account.clock()),
        "model": served.model.id,
    }
    signs = False
    calls: list[dict[str, Any]] = [
        {
            "id": account.new_id("call"),
            "type": "function",
            "function": {"name": tool.name, "arguments": json.dumps(tool.arguments)},
        }
        for tool in served.reply.tool_calls
    ]
    message: dict[str, Any] = {"role": "assistant", "content": served.text or None, "refusal": None}
    if served.reply.thinking and served.model.provider == COMPATIBLE:
        message["reasoning_content"] = served.reply.thinking
    if calls:
        message["tool_calls"] = calls
        if signs := is_signed(served.model.id):
            signature = replies.sign(served.model.id, calls[0]["id"], calls[0]["function"]["name"])
            calls[0]["extra_content"] = {"google": {"thought_signature": signature}}
    finish = "length" if served.is_cut else "tool_calls" if calls and not signs else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    usage = _chat_usage(served) if served.reply.has_usage else None
    reply = {**head, "object": "chat.completion", "choices": [choice]}
    if usage:
        reply["usage"] = usage
    frames = None
    if body.get("stream"):
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        frames = _chat_frames(head, _deltas(message, whole=signs), finish, usage, asks_usage=asked)
    return Answer(reply, lambda: account.begin(served.model, served.use, served.output, call), frames)


def responses(account: Account, body: dict[str, Any], call: Call) -> Answer:
    """Answer POST /v1/responses. Raises Rejected."""
    served = _serve(account, body, "input", body.get("max_output_tokens"))
    items = _items(account, served, body)
    response = {
        "id": account.new_id("resp"),
        "object": "response",
        "created_at": int(account.clock()),
        "model": served.model.id,
        "status": "incomplete" if served.is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if served.is_cut else None,
        "error": None,
        "output": items,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "usage": _responses_usage(served) if served.reply.has_usage else None,
    }
    frames = _responses_frames(response) if body.get("stream") else None
    return Answer(response, lambda: account.begin(served.model, served.use, served.output, call), frames)


def models(account: Account) -> list[dict[str, Any]]:
    """What GET /v1/models lists."""
    known = {m.id: m for m in account.models.models.values() if m.provider != "anthropic"}
    return [{"id": m.id, "object": "model", "created": 0, "owned_by": m.provider} for m in known.values()]


def _serve(account: Account, body: dict[str, Any], field: str, limit: int | None) -> _Served:
    model = account.find(body)
    if model.provider == "anthropic":
        raise Rejected(f"model: {body.get('model')}", 404, "not_found_error")
    rules = gpt(model.id)
    parameters.check(body, field, model.id, rules)
    _check_values(account, body, field, model, rules)
    positions = prompt.openai_positions(body, field)
    parameters.check_length(positions[-1].tokens, model.context_tokens, field)
    options = body.get("prompt_cache_options") or {}
    implicit_ttl = None if options.get("mode") == "explicit" else options.get("ttl") or "30m"
    use = account.cache.use_openai(model.id, rules, positions, account.clock(), implicit_ttl)
    reply = Reply() if options.get("prewarm") else account.answer(body, model.id)
    n_thought = prompt.count_tokens(reply.thinking)
    text = reply.text if limit is None else prompt.cut(reply.text, limit - n_thought)
    n_called = sum(prompt.count_tokens(json.dumps(tool.arguments)) for tool in reply.tool_calls)
    output = n_thought + prompt.count_tokens(text) + n_called
    output = output if limit is None else min(output, limit)
    return _Served(model, rules, use, reply, text, n_thought, output, is_cut=len(text) < len(reply.text))


def _check_values(account: Account, body: dict[str, Any], field: str, model: Model, rules: Gpt) -> None:
    if model.provider == "gemini":
        values.check_gemini(body, model.id)
    elif model.provider == "openai":
        values.check_openai(body, field, reasons=rules.efforts != ())
        if field == "input":
            values.check_encrypted(body, model.id)
    if model.id in account.wants_reasoning and field == "messages":
        values.check_reasoning(body)


def _chat_usage(served: _Served) -> dict[str, Any]:
    details = {"cached_tokens": served.use.read}
    if served.model.provider == "openai":
        details["cache_write_tokens"] = served.use.write_short + served.use.write_long
    return {
        "prompt_tokens": served.use.total,
        "completion_tokens": served.output,
        "total_tokens": served.use.total + served.output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": min(served.n_thought, served.output)},
    }


def _responses_usage(served: _Served) -> dict[str, Any]:
    use = served.use
    details: dict[str, Any] = {"cached_tokens": use.read, "cache_write_tokens": use.write_short + use.write_long}
    if served.rules.has_breakpoints:
        split = {"ttl_30m_tokens": use.write_short, "ttl_12h_tokens": use.write_long}
        details["cache_write_tokens_details"] = split
    return {
        "input_tokens": use.total,
        "input_tokens_details": details,
        "output_tokens": served.output,
        "output_tokens_details": {"reasoning_tokens": min(served.n_thought, served.output)},
        "total_tokens": use.total + served.output,
    }


def _chat_frames(
    head: dict[str, Any],
    deltas: list[dict[str, Any]],
    finish: str,
    usage: dict[str, Any] | None,
    *,
    asks_usage: bool,
) -> list[str]:
    """The deltas, the finish, the usage if asked for, [DONE]."""
    choices: list[list[dict[str, Any]]] = [[{"index": 0, "delta": d, "finish_reason": None}] for d in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": finish}])
    chunks: list[dict[str, Any]] = [{**head, "object": "chat.completion.chunk", "choices": c} for c in choices]
    if asks_usage and usage:
        last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}
        chunks = [*({**chunk, "usage": None} for chunk in chunks), last]
    return [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"]


def _deltas(message: dict[str, Any], *, whole: bool) -> list[dict[str, Any]]:
    """Role, thinking, text, tool calls by index (id and name, then arguments); each call `whole` as Gemini sends it."""
    text, calls = message["content"] or "", message.get("tool_calls") or []
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "" if text or not calls else None}]
    deltas += [{"reasoning_content": piece} for piece in replies.pieces(message.get("reasoning_content", ""))]
    deltas += [{"content": piece} for piece in replies.pieces(text)]
    for index, tool in enumerate(calls):
        function = tool["function"]
        if whole:
            deltas.append({"tool_calls": [tool]})
            continue
        begun = {**tool, "index": index, "function": {"name": function["name"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        for piece in replies.pieces(function["arguments"]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    return deltas


def _items(account: Account, served: _Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The output: reasoning, a message unless there are tool calls alone, function calls."""
    items: list[dict[str, Any]] = []
    if served.reply.thinking:
        summary = [{"type": "summary_text", "text": served.reply.thinking}]
        item = {"type": "reasoning", "id": account.new_id("rs"), "summary": summary, "status": "completed"}
        if "reasoning.encrypted_content" in (body.get("include") or ()):
            item["encrypted_content"] = replies.encrypt(served.model.id, served.reply.thinking)
        items.append(item)
    if served.text or not served.reply.tool_calls:
        content = [{"type": "output_text", "text": served.text, "annotations": []}]
        status = "incomplete" if served.is_cut else "completed"
        head = {"type": "message", "id": account.new_id("msg"), "role": "assistant", "status": status}
        items.append({**head, "content": content})
    for tool in served.reply.tool_calls:
        arguments = json.dumps(tool.arguments)
        ids = {"id": account.new_id("fc"), "call_id": account.new_id("call")}
        items.append({"type": "function_call", **ids, "name": tool.name, "arguments": arguments, "status": "completed"})
    return items


def _responses_frames(response: dict[str, Any]) -> list[str]:
    begun = {**response, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(response["output"]):
        empty, inner = _item_events(item, {"item_id": item["id"], "output_index": index})
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        events += inner
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{response['status']}", "response": response})
    return [f"event: {e['type']}\ndata: {json.dumps({**e, 'sequence_number': n})}\n\n" for n, e in enumerate(events)]


def _item_events(item: dict[str, Any], at: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An item as it is added, and the events that then fill it."""
    if item["type"] == "function_call":
        name = "response.function_call_arguments"
        events: list[dict[str, Any]] = [
            {"type": f"{name}.delta", **at, "delta": piece} for piece in replies.pieces(item["arguments"])
        ]
        done = {"type": f"{name}.done", **at, "name": item["name"], "arguments": item["arguments"]}
        return {**item, "arguments": "", "status": "in_progress"}, [*events, done]
    if item["type"] == "reasoning":
        part, at = item["summary"][0], {**at, "summary_index": 0}
        name = "response.reasoning_summary"
        return {**item, "summary": [], "status": "in_progress"}, [
            {"type": f"{name}_part.added", **at, "part": {**part, "text": ""}},
            *({"type": f"{name}_text.delta", **at, "delta": piece} for piece in replies.pieces(part["text"])),
            {"type": f"{name}_text.done", **at, "text": part["text"]},
            {"type": f"{name}_part.done", **at, "part": part},
        ]
    part, at = item["content"][0], {**at, "content_index": 0}
    pieces = replies.pieces(part["text"])
    return {**item, "content": [], "status": "in_progress"}, [
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []} for piece in pieces),
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
    ]
