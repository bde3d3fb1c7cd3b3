"""A request body -> the task being routed: the user's ask that opened the turn, not merely the last message.

What harnesses wrap around an ask (reminders, environment, attached files) and what tools answered is taken away, long
pastes are cut to their first lines, and an ask that only makes sense after an earlier one ("yes", "the second one") is
read together with it. Requests on the side (titles, probes, compaction) are told apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from router.decide import leaning
from router.decide.markup import bounded
from router.decide.message import has_image, messages, n_chars, system_text, text_of
from router.decide.paste import unpasted
from router.decide.side_call import read_side_call
from router.decide.turn import Around, Turn, read_turn
from router.types import Body, Prefix, Task, TurnState

SESSION_HEADER = "x-claude-code-session-id"
"""Claude Code's own conversation id (https://code.claude.com/docs/en/llm-gateway-protocol, 2026-08)."""

_AGENT_HEADERS = ("x-claude-code-agent-id", "x-claude-code-parent-agent-id")

_TOOL_FAILURES = 2
"""So many failed tool results in a row are a sign of trouble."""
_ASKS_READ = 5
_MESSAGES_READ = 400
"""So many messages are looked through for asks: the longest loops have fewer between two."""
_SAID_READ = 4

_LAUNCHED = re.compile(
    r"(?:launched|spawned|started|invoked|called|dispatched|created|given|delegated)[^.]{0,60}\b(?:by|from) "
    r"(?:an?|the|another|your)[^.]{0,30}\b(?:agent|orchestrator|planner|coordinator|assistant)|\bsub-?agent\b|"
    r"(?:main|parent|lead|calling|orchestrat\w{1,4}) agent",
    re.I,
)


def read_task(body: Body, headers: Mapping[str, str] | None = None, prefix: Prefix | None = None) -> Task:
    """The task in an Anthropic Messages, OpenAI Chat Completions or OpenAI Responses body.

    `headers` are the request's; Claude Code's name the conversation and the sub-agent. `prefix` is the body's, when it
    was measured before. Only the last few asks are read, and of a long message its head and tail. Raises RequestError
    when the body has neither `messages` nor `input`, or one of the wrong type.
    """
    items = messages(body)
    named = {name.lower(): value for name, value in (headers or {}).items()}
    turns = _turns(items)
    asks = [turn.text for turn in turns if turn.role == "user" and turn.text]
    system = system_text(body, items)
    said = _said(items)
    side_call = read_side_call(body, system, said, is_answered=any(m.get("role") == "assistant" for m in items[-3:]))
    state = _state(turns, asks, system, named)
    return Task(
        text=leaning.joined(turns) if side_call is None else _ordered(said),
        turn=state,
        n_chars=n_chars(body) if prefix is None else prefix.size,
        has_images=any(has_image(m.get("content")) for m in items) if prefix is None else prefix.has_images,
        has_tools=bool(body.get("tools")),
        session="/".join(named[name] for name in (SESSION_HEADER, *_AGENT_HEADERS) if named.get(name)),
        in_trouble=side_call is None and _in_trouble(turns, asks, state),
        side_call=side_call,
    )


def _said(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """The user's messages at the end, as they came, oldest first; those of tools' results say nothing."""
    said: list[str] = []
    for message in reversed(items[-_SAID_READ:]):
        if message.get("role") != "user":
            break
        content = message.get("content")
        said.append(content if isinstance(content, str) else text_of(content))
    return said[::-1]


def _ordered(said: Sequence[str]) -> str:
    """What a request on the side is about."""
    return "\n\n".join(unpasted(bounded(text).strip()) for text in said if text.strip())


def _turns(items: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The messages back to the fifth ask from the end, in their order; an ask that stands alone needs but one more.

    Of tool results only the last are judged, and of the assistant's only what is next to an ask is read.
    """
    turns, asks, n_results, next_to_ask = list[Turn](), list[str](), 0, False
    opening = next((at for at, message in enumerate(items) if message.get("role") == "assistant"), len(items))
    last = len(items) - 1
    for at in range(last, max(last - _MESSAGES_READ, -1), -1):
        around = Around(
            before=_answer(items, at - 1),
            behind=_answer(items, at + 1),
            is_answered=at > opening,
            is_last=at == last,
        )
        turn = read_turn(items[at], around, reads_assistant=next_to_ask, judges=n_results < _TOOL_FAILURES)
        turns.append(turn)
        n_results += turn.is_result
        if not turn.text:
            continue
        next_to_ask = turn.role == "user"
        if next_to_ask:
            asks.append(turn.text)
            if len(asks) == _ASKS_READ or (len(asks) == 2 and not leaning.leans(asks[0])):
                break
    return turns[::-1]


def _answer(items: Sequence[Mapping[str, Any]], at: int) -> str:
    """The assistant's text at a place; "" where another one's is."""
    if not 0 <= at < len(items) or items[at].get("role") != "assistant":
        return ""
    return text_of(items[at].get("content"))


def _state(turns: Sequence[Turn], asks: Sequence[str], system: str, headers: Mapping[str, str]) -> TurnState:
    if any(name in headers for name in _AGENT_HEADERS):
        return TurnState.SUB_AGENT
    last = next((turn for turn in reversed(turns) if turn.role != "assistant" or turn.goes_on), None)
    n_users = sum(turn.role == "user" and not turn.is_result for turn in turns)
    if n_users == 1 and _is_launched(system):
        return TurnState.SUB_AGENT
    if last is not None and last.goes_on:
        return TurnState.TOOL_LOOP
    if len(asks) > 1 and (
        leaning.is_retry(asks[-1]) or (leaning.is_same(asks[-1], asks[-2]) and not leaning.is_assent(asks[-1]))
    ):
        return TurnState.RETRY
    return TurnState.USER_TURN


@lru_cache(maxsize=256)
def _is_launched(system: str) -> bool:
    """Whether a system prompt says that another agent calls. Kept, for looking takes a millisecond."""
    return _LAUNCHED.search(system) is not None


def _in_trouble(turns: Sequence[Turn], asks: Sequence[str], state: TurnState) -> bool:
    """Whether the model seems not up to it: tool calls keep failing, or the user says that the answer is wrong."""
    if state in (TurnState.USER_TURN, TurnState.RETRY):
        return len(asks) > 1 and (state is TurnState.RETRY or leaning.calls_wrong(asks[-1]))
    results = [turn.failed for turn in turns if turn.is_result][-_TOOL_FAILURES:]
    return len(results) == _TOOL_FAILURES and all(results)
