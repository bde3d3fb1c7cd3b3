"""What a model wants back on the next request of a tool loop, carried through formats that have no place for it.

Gemini's `extra_content` of a call (its thought_signature), `reasoning_content` of thinking servers, Anthropic's
thinking blocks, Responses' reasoning items. It travels in the caller's own history where their format has a field for
it: the signature of a thinking block in Messages, `encrypted_content` of a reasoning item in Responses, each sealed, so
that it never reaches a provider that did not make it. Where there is none, or the caller drops it, it is remembered by
the tool call that it belongs to. Only the model that made it is given it back.

Sources: https://ai.google.dev/gemini-api/docs/thought-signatures (with what may stand in for a signature in a history
that another model wrote), https://api-docs.deepseek.com/guides/thinking_mode,
https://platform.claude.com/docs/en/build-with-claude/thinking and the types of openai 3.54
(responses/response_reasoning_item_param.py), 2026-11-26.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from xxhash import xxh3_128_hexdigest

from router.catalog import COMPATIBLE, Model
from router.types import Api, Body

FIELD = "tierwise_state"
"""The field of an assistant's message in which sealed states go from one format to another; no provider is sent it."""

REASONING = ("reasoning_content", "reasoning")
"""How compatible servers call the text of a model's thinking."""

_SEAL = "tierwise."
_UNSIGNED = {"google": {"thought_signature": "skip_thought_signature_validator"}}
_GEMINI = re.compile(r"gemini-(\d+)")
_OPENING_CHARS = 2000
_MAX_BYTES = 64_000_000
"""What one process keeps of states, the longest untouched are dropped beyond it."""


class State(msgspec.Struct, frozen=True):
    """What one message of a model's holds for it.

    `blocks` are Anthropic's thinking blocks with their places among the blocks, `items` Responses' reasoning items,
    `fields` those of a Chat Completions message (None: the text that the caller was shown), `calls` the `extra_content`
    of its calls by id.
    """

    model: str
    blocks: list[tuple[int, dict[str, Any]]] = []
    items: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    calls: dict[str, Any] = {}


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(State).decode


def seal(state: State) -> str:
    """A state as text that a caller can carry."""
    return _SEAL + base64.urlsafe_b64encode(_encode(state)).decode()


def is_sealed(text: Any) -> bool:
    """Whether a signature or an encrypted content was made here."""
    return isinstance(text, str) and text.startswith(_SEAL)


def unseal(text: Any, shown: str = "") -> State | None:
    """The state in a sealed text, None for anything else. `shown` is the thinking that the caller was shown with it."""
    if not is_sealed(text):
        return None
    try:
        state = _decode(base64.urlsafe_b64decode(text[len(_SEAL) :]))
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    if None in state.fields.values():
        fields = {name: shown if value is None else value for name, value in state.fields.items()}
        state = msgspec.structs.replace(state, fields=fields)
    return state


def merged(states: Sequence[State]) -> State | None:
    """The states of one message as one; None where there is none. The first one's model counts."""
    if len(states) < 2:
        return states[0] if states else None
    first = states[0]
    states = [state for state in states if state.model == first.model]
    return State(
        first.model,
        [block for state in states for block in state.blocks],
        [item for state in states for item in state.items],
        {name: value for state in states for name, value in state.fields.items()},
        {name: value for state in states for name, value in state.calls.items()},
    )


class Kept(Protocol):
    """A store of small values by key (router/cache/memory.py)."""

    def first(self, keys: Sequence[str]) -> bytes | None:
        """The value of the first key that has one."""

    def put(self, keys: Sequence[str], value: bytes) -> None:
        """Keep a value under each of the keys."""


class StateStore:
    """States by the key of their call: in this process, and in a store beside it, if there is one. Thread-safe.

    What the store does not have is not asked for again: a reply is kept before its caller can answer it.
    """

    def __init__(self, beside: Kept | None = None, max_bytes: int = _MAX_BYTES) -> None:
        self._beside = beside
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._n_bytes, self._max_bytes = 0, max_bytes
        self._lock = threading.Lock()

    def keep(self, key: str, state: State) -> None:
        """Keep a state."""
        value = _encode(state)
        self._put(key, value)
        if self._beside is not None:
            self._beside.put([key], value)

    def recall(self, key: str) -> State | None:
        """The state of a call, None where there was none, or it is forgotten."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
        if value is None:
            value = (self._beside.first([key]) if self._beside is not None else None) or b""
            self._put(key, value)
        return _decode(value) if value else None

    def _put(self, key: str, value: bytes) -> None:
        with self._lock:
            before = self._values.pop(key, None)
            self._n_bytes += len(value) + len(key) - (len(before) + len(key) if before is not None else 0)
            self._values[key] = value
            while self._n_bytes > self._max_bytes:
                dropped, old = self._values.popitem(last=False)
                self._n_bytes -= len(old) + len(dropped)


def scope(body: Body, api: Api, model: Model, whose: str) -> str:
    """What the calls of one conversation on one model have in common: who asks, and its first message.

    `whose` names the caller's key. `body` is as it is sent; cache fields do not count.
    """
    given = body.get("input" if api is Api.RESPONSES else "messages")
    messages = [{"content": given}] if isinstance(given, str) else given
    first = next((m for m in messages or () if isinstance(m, Mapping) and m.get("role", "user") == "user"), {})
    return xxh3_128_hexdigest(f"{model.id}\0{whose}\0{_text(first.get('content'))}".encode("utf-8", "surrogatepass"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content[:_OPENING_CHARS]
    texts = (part.get("text") for part in content or () if isinstance(part, Mapping))
    return "\n".join(text[:_OPENING_CHARS] for text in texts if isinstance(text, str))


def key(within: str, call_id: Any, name: Any, n_before: int) -> str:
    """The key of a message's state: its first call in the conversation `within`.

    `n_before` messages with calls came before it; it counts only where a server numbers its calls and may do so anew.
    """
    place = n_before if len(str(call_id)) < 16 or ":" in str(call_id) else 0
    return f"s:{xxh3_128_hexdigest(f'{within}/{call_id}/{name}/{place}'.encode('utf-8', 'surrogatepass'))}"


def n_calling(body: Body, api: Api) -> int:
    """How many of the assistant's turns in a body call tools."""
    return sum(1 for _ in _calling(body, api))


def wants_back(api: Api, asked: Api, model: Model) -> bool:
    """Whether states of a model must be remembered, since the caller may not bring them back.

    A caller of Messages or Responses who is answered in that format has its own fields for them.
    """
    if api is not asked:
        return api is not Api.CHAT or model.provider in ("gemini", COMPATIBLE)
    return api is Api.CHAT and model.provider in ("gemini", COMPATIBLE)


Recall = Callable[[str], State | None]


def restored(
    body: dict[str, Any], api: Api, model: Model, recall: Recall, within: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`body` as it is sent to `model`, with what that model wants back, and without what others left in the history.

    `recall` gives what is remembered of a call; `within` is the body's `scope`, "" where nothing is.
    """
    if api is Api.MESSAGES:
        return _restored_messages(body, model, recall, within)
    sent = dict(body)
    if api is Api.RESPONSES:
        if isinstance(body.get("input"), list | tuple):
            sent["input"] = list(_restored_items(body, model, recall, within))
        return sent, ()
    messages = body.get("messages")
    if isinstance(messages, list | tuple):
        found = [_restored_chat(m, n, model, recall, within) for m, n in _numbered(messages, _chat_calls)]
        if any(one is not other for one, other in zip(found, messages, strict=True)):
            sent["messages"] = found
    return sent, ()


def is_foreign(body: Body, api: Api) -> bool:
    """Whether a body of Messages or Responses carries sealed states, which no provider must be sent."""
    if api is Api.RESPONSES:
        items = body.get("input")
        return any(is_sealed(i.get("encrypted_content")) for i in _objects(items))
    if api is not Api.MESSAGES:
        return False
    return any(_is_sealed_block(b) for m in _objects(body.get("messages")) for b in _objects(m.get("content")))


def _is_sealed_block(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "thinking" and is_sealed(block.get("signature"))


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list | tuple) else iter(())


def _numbered(items: Sequence[Any], calls: Callable[[Any], Any]) -> Iterator[tuple[Any, int]]:
    """Each message with how many before it call tools."""
    n_before = 0
    for item in items:
        yield item, n_before
        n_before += bool(calls(item))


def _chat_calls(message: Any) -> Any:
    is_one = isinstance(message, Mapping) and message.get("role") == "assistant"
    return message.get("tool_calls") if is_one else None


def _block_calls(message: Any) -> list[Any]:
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return []
    return [block for block in _objects(message.get("content")) if block.get("type") == "tool_use"]


def _calling(body: Body, api: Api) -> Iterator[Any]:
    if api is Api.RESPONSES:
        before = None
        for item in _objects(body.get("input")):
            kind = item.get("type")
            if kind == "function_call" and before != "function_call":
                yield item
            before = kind
        return
    calls = _block_calls if api is Api.MESSAGES else _chat_calls
    messages = body.get("messages")
    yield from (m for m in (messages if isinstance(messages, list | tuple) else ()) if calls(m))


# ---- into a body


def _restored_messages(
    body: dict[str, Any], model: Model, recall: Recall, within: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    messages = body.get("messages")
    if not isinstance(messages, list | tuple):
        return dict(body), ()
    found = [_restored_blocks(m, n, model, recall, within) for m, n in _numbered(messages, _block_calls)]
    sent = dict(body)
    if any(one is not other for one, other in zip(found, messages, strict=True)):
        sent["messages"] = [message for message in found if message is not None]
    thinking = sent.get("thinking")
    if isinstance(thinking, Mapping) and thinking.get("type") == "enabled" and _loops_unthinking(sent["messages"]):
        del sent["thinking"]
        return sent, ("thinking dropped for this tool loop: it was begun without, by this model or another",)
    return sent, ()


def _loops_unthinking(messages: Sequence[Any]) -> bool:
    """Whether tools answer a message that does not begin with a thinking block, which a budget needs it to."""
    last = messages[-1] if messages else None
    results = [b for b in _objects(last.get("content")) if b.get("type") == "tool_result"] if last else []
    calls = next((m for m in reversed(messages) if _block_calls(m)), None)
    if not results or calls is None:
        return False
    first = next(_objects(calls.get("content")), {})
    return first.get("type") not in ("thinking", "redacted_thinking")


def _restored_blocks(message: Any, n_before: int, model: Model, recall: Recall, within: str) -> Any:
    """A message with its own model's thinking in its place; None where nothing but another's is left of it."""
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return message
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return message
    sealed = [block for block in content if isinstance(block, Mapping) and _is_sealed_block(block)]
    calls = _block_calls(message)
    if not sealed and not (calls and within):
        return message
    state = merged([s for b in sealed if (s := unseal(b.get("signature"))) is not None and s.model == model.id])
    thinks = any(isinstance(b, Mapping) and b.get("type") in ("thinking", "redacted_thinking") for b in content)
    if state is None and calls and within and (sealed or not thinks):
        state = recall(key(within, calls[0].get("id"), calls[0].get("name"), n_before))
    if state is None and not sealed:
        return message
    kept = [block for block in content if not (isinstance(block, Mapping) and _is_sealed_block(block))]
    for place, block in state.blocks if state is not None else ():
        kept.insert(place, block)
    return {**message, "content": kept} if kept else None


def _restored_chat(message: Any, n_before: int, model: Model, recall: Recall, within: str) -> Any:
    if not isinstance(message, Mapping) or message.get("role") != "assistant":
        return message
    sent, calls = dict(message), message.get("tool_calls") or ()
    carried = [s for each in sent.pop(FIELD, ()) if (s := unseal(*each)) is not None and s.model == model.id]
    state = merged(carried)
    is_bare = not any(name in sent for name in REASONING) and not any(c.get("extra_content") for c in _objects(calls))
    if state is None and within and is_bare and (first := next(_objects(calls), None)) is not None:
        state = recall(key(within, first.get("id"), (first.get("function") or {}).get("name"), n_before))
    if state is not None and calls:
        sent |= state.fields
    if model.provider in ("openai", "gemini"):  # which take no field that they do not know
        for name in (*REASONING, "reasoning_details"):
            sent.pop(name, None)
    if isinstance(calls, list | tuple) and calls:
        extras = {} if state is None else state.calls
        sent["tool_calls"] = [_restored_call(call, extras, model) for call in calls]
        if (found := _GEMINI.match(model.id)) and int(found[1]) >= 3 and model.provider == "gemini":
            _sign(sent["tool_calls"])
        if all(one is other for one, other in zip(sent["tool_calls"], calls, strict=True)):
            sent["tool_calls"] = calls
    return message if sent == message else sent


def _restored_call(call: Any, extras: Mapping[str, Any], model: Model) -> Any:
    if not isinstance(call, Mapping):
        return call
    if model.provider == "openai" and "extra_content" in call:
        return {name: value for name, value in call.items() if name != "extra_content"}
    extra = None if call.get("extra_content") else extras.get(str(call.get("id")))
    return call if extra is None else {**call, "extra_content": extra}


def _sign(calls: list[Any]) -> None:
    """The first of a message's calls must be signed; what another model called is marked as to be taken unsigned."""
    first = calls[0] if calls else None
    if not isinstance(first, Mapping):
        return
    extra = first.get("extra_content")
    google = extra.get("google") if isinstance(extra, Mapping) else None
    if not (isinstance(google, Mapping) and google.get("thought_signature")):
        calls[0] = {**first, "extra_content": _UNSIGNED}


def _restored_items(body: Body, model: Model, recall: Recall, within: str) -> Iterator[Any]:
    """Items, with reasoning before the first call of each turn that made it."""
    n_before, before, is_carried = 0, None, False
    for item in body["input"]:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "reasoning":
            is_carried = True
            if is_sealed(item.get("encrypted_content")):
                state = unseal(item.get("encrypted_content"))
                is_carried = state is not None and state.model == model.id
                yield from state.items if state is not None and is_carried else ()
                before = kind if is_carried else before
                continue
        elif kind == "function_call" and before != "function_call":
            if within and not is_carried:
                state = recall(key(within, item.get("call_id"), item.get("name"), n_before))
                yield from state.items if state is not None else ()
            n_before += 1
            is_carried = False
        elif kind == "function_call_output":
            is_carried = False
        before = kind
        yield item
