"""A Chat Completions stream as the events of a Messages stream; pure.

Event orders are those of the SDKs' own stream readers (anthropic 2.12, openai 3.54) and of
https://platform.claude.com/docs/en/build-with-claude/streaming, 2026-11-22. Compatible servers differ in how they tell
tool calls apart: by `index`, by `id`, or by sending each whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from router.formats import states
from router.formats.messages_chat_replies import STOP, message_head, reasoning, to_messages_error, to_messages_usage
from router.formats.states import State

ITEM = "tierwise_item"
"""The field of a delta that brings one of Responses' reasoning items (chat_on_responses.to_chunk)."""


class _Call:
    """One tool call as it comes: its block once it has begun, and what of its arguments waits for that."""

    def __init__(self, call_id: str, name: str) -> None:
        self.id, self.name = call_id, name
        self.block: int | None = None
        self.waiting: list[str] = []
        self.arguments: list[str] = []
        self.extra: Any = None

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are complete JSON; asked only when another call's come in between."""
        text = "".join(self.arguments).strip()
        if not text.endswith("}"):
            return False
        try:
            return isinstance(json.loads(text), dict)
        except ValueError:
            return False


class MessageEvents:
    """A chat completion's chunks as the events of a Messages stream: `feed` each chunk, then `end` at [DONE].

    The usage is in the last `message_delta`, for that is when OpenAI tells it; `message_start` holds zeros. Thinking is
    among the events if it `shows`. `states` are what `model` wants back, `first_call` is the (id, name) of the first.
    `has_finished` is set once the reason for the end has come.
    """

    def __init__(self, model: str = "", *, shows: bool = False) -> None:
        self.states: list[State] = []
        self.first_call: tuple[str, str] | None = None
        self._model, self._shows = model, shows
        self._message_id = ""
        self._started = False
        self._n_blocks = 0
        self._open: tuple[int, str] | None = None
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._thought: tuple[str, list[str]] | None = None
        self.has_finished = False
        self._stop = "end_turn"
        self._usage: dict[str, Any] | None = None

    def feed(self, chunk: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events that a chunk amounts to, often none."""
        if chunk.get("error"):
            return [to_messages_error(chunk, _status(chunk["error"]))]
        events = [] if self._started else [self._start(chunk)]
        self._usage = to_messages_usage(chunk.get("usage")) or self._usage
        for choice in (chunk.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            events += self._think(delta)
            if text := delta.get("content") or delta.get("refusal"):
                events += self._block("text", {"type": "text", "text": ""})
                events.append(self._delta(self._n_blocks - 1, {"type": "text_delta", "text": text}))
            for call in delta.get("tool_calls") or ():
                events += self._call(call)
            if finish := choice.get("finish_reason"):
                self.has_finished = True
                self._stop = STOP.get(finish, "end_turn")
        if self._calls and self._stop == "end_turn":
            self._stop = "tool_use"  # some compatible servers say "stop"
        return events

    def end(self) -> list[dict[str, Any]]:
        """The last events: what is open closed, why it stopped, and the usage (zeros when there was none)."""
        events = []
        for call in self._calls:
            events += self._begin(call)
        events += self._close()
        delta = {"stop_reason": self._stop, "stop_sequence": None}
        usage = self._usage or {"output_tokens": 0}
        return [*events, {"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]

    def _start(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        self._started = True
        self._message_id = str(chunk.get("id") or "")
        usage = {"input_tokens": 0, "output_tokens": 0}
        head = {**message_head(chunk), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return {"type": "message_start", "message": head}

    # ---- thinking

    def _think(self, delta: Mapping[str, Any]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        name, text = reasoning(delta)
        if text := _text(text):
            if self._thought is None:
                events += self._open_thinking()
                self._thought = (name, [])
            self._thought[1].append(text)
            if self._shows:
                events.append(self._delta(self._n_blocks - 1, {"type": "thinking_delta", "thinking": text}))
        if item := delta.get(ITEM):
            if self._thought is None:
                events += self._open_thinking()
                self._thought = ("", [])
            events += self._seal(State(self._model, items=[item]))
        return events

    def _open_thinking(self) -> list[dict[str, Any]]:
        if not self._shows:
            return []
        events = self._close()
        self._open = (self._n_blocks, "thinking")
        self._n_blocks += 1
        block = {"type": "thinking", "thinking": "", "signature": ""}
        return [*events, {"type": "content_block_start", "index": self._open[0], "content_block": block}]

    def _seal(self, state: State | None = None) -> list[dict[str, Any]]:
        """The open thinking is over: what is wanted back of it is kept, and sealed in its signature."""
        if self._thought is None:
            return []
        (name, pieces), self._thought = self._thought, None
        state = state or State(self._model, fields={name: "".join(pieces)})
        self.states.append(state)
        return self._signed(state if state.items else msgspec.structs.replace(state, fields={name: None}))

    def _signed(self, state: State) -> list[dict[str, Any]]:
        if not self._shows or self._open is None:
            return []
        index, self._open = self._open[0], None
        signature = {"type": "signature_delta", "signature": states.seal(state)}
        return [self._delta(index, signature), {"type": "content_block_stop", "index": index}]

    def _sign_call(self, call: _Call) -> list[dict[str, Any]]:
        """A call's own state, in a thinking block before it."""
        state = State(self._model, calls={call.id: call.extra})
        self.states.append(state)
        events = self._seal()
        return [*events, *self._open_thinking(), *self._signed(state)]

    # ---- tool calls

    def _call(self, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        function = given.get("function") or {}
        call = self._found(given)
        events: list[dict[str, Any]] = []
        if call is None:
            call = _Call(given.get("id") or f"call_{self._message_id}_{len(self._calls)}", function.get("name") or "")
            events += self._finish_whole()
            self._calls.append(call)
            self.first_call = self.first_call or (call.id, call.name)
        if isinstance(number := given.get("index"), int):
            self._by_index[number] = call
        call.name = call.name or function.get("name") or ""
        if given.get("extra_content"):
            call.extra = given["extra_content"]
            if call.block is not None:  # it came too late to be sealed before the call
                self.states.append(State(self._model, calls={call.id: call.extra}))
        if piece := _text(function.get("arguments")):
            call.waiting.append(piece)
            call.arguments.append(piece)
        if self._may_begin(call):
            events += self._begin(call)
        return events

    def _found(self, given: Mapping[str, Any]) -> _Call | None:
        """The call that a fragment goes on with; None where it begins another.

        An id that is not the known one's begins another whatever the index; without either it goes on with the last.
        """
        call_id, number = given.get("id"), given.get("index")
        known = self._by_index.get(number) if isinstance(number, int) else None
        if call_id:
            if known is not None and known.id == call_id:
                return known
            if isinstance(number, int):
                return None
            return next((call for call in reversed(self._calls) if call.id == call_id and not call.is_whole), None)
        if isinstance(number, int):
            return known
        is_new = not self._calls or ((given.get("function") or {}).get("name") and self._calls[-1].is_whole)
        return None if is_new else self._calls[-1]

    def _may_begin(self, call: _Call) -> bool:
        """Whether a call's fragments can be passed on now: it is open, or nothing that is not whole is open."""
        if call.block is not None:
            return self._open is not None and self._open[0] == call.block
        return all(each.block is not None and each.is_whole for each in self._calls if each is not call)

    def _finish_whole(self) -> list[dict[str, Any]]:
        """The events of calls that waited for one that is whole by now."""
        events = []
        for call in self._calls:
            if call.block is None and self._may_begin(call):
                events += self._begin(call)
        return events

    def _begin(self, call: _Call) -> list[dict[str, Any]]:
        """Open a call's block unless it is, and pass on what has come of its arguments."""
        events = []
        if call.block is None:
            if call.extra:
                events += self._sign_call(call)
            block: dict[str, Any] = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            events += self._block(f"call {id(call)}", block)
            call.block = self._n_blocks - 1
        waiting, call.waiting = "".join(call.waiting), []
        if waiting:
            events.append(self._delta(call.block, {"type": "input_json_delta", "partial_json": waiting}))
        return events

    # ---- blocks

    def _block(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        """Open a block, unless one of its kind is open already."""
        if self._thought is None and self._open and self._open[1] == kind:
            return []
        events = self._close()
        self._open = (self._n_blocks, kind)
        self._n_blocks += 1
        return [*events, {"type": "content_block_start", "index": self._open[0], "content_block": block}]

    def _close(self) -> list[dict[str, Any]]:
        events = self._seal()
        events += [{"type": "content_block_stop", "index": self._open[0]}] if self._open else []
        self._open = None
        return events

    def _delta(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": index, "delta": delta}


def _text(piece: Any) -> str:
    """A piece of text, "" for none. Raises TypeError for anything else, now rather than when pieces are joined."""
    if not piece:
        return ""
    if not isinstance(piece, str):
        raise TypeError(f"a piece of text is a {type(piece).__name__}")
    return piece


def _status(error: Any) -> int:
    """The HTTP status that an error in a stream names; 500 where it names none."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return int(str(code)) if str(code).isdigit() and 400 <= int(str(code)) < 600 else 500
