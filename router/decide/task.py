"""A request body -> the task being routed: the user's ask that opened the turn, not merely the last message.

What harnesses wrap around an ask (reminders, environment, attached files) and what tools answered is taken away, long
pastes are cut to their first lines, and an ask that only makes sense after an earlier one ("yes", "the second one") is
read together with it. Shapes: Claude Code, Codex, Cursor, ReAct and plain chat, in Anthropic's and OpenAI's formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from router.decide.words import alternatives, spaced, unspaced
from router.errors import RequestError
from router.types import Body, Prefix, Task, TurnState

SESSION_HEADER = "x-claude-code-session-id"
"""Claude Code's own conversation id (https://code.claude.com/docs/en/llm-gateway-protocol, 2026-08)."""

_AGENT_HEADERS = ("x-claude-code-agent-id", "x-claude-code-parent-agent-id")

_TEXT_TYPES = ("text", "input_text", "output_text")  # tuples: a caller's type may be one that has no hash
_IMAGE_TYPES = ("image", "image_url", "input_image")
_RESULT_TYPES = ("function_call_output", "computer_call_output", "local_shell_call_output",
                 "custom_tool_call_output", "shell_call_output", "mcp_call_output")  # fmt: skip

_FOLLOW_UP_WORDS = 7
_FOLLOW_UP_CHARS = 60
"""An ask up to this long, in words and in characters, is taken to lean on the one before it."""

_TOOL_FAILURES = 2
"""So many failed tool results in a row are a sign of trouble."""

_QUERY = re.compile(r"<(user_query|user_request|user_message)>(.*?)</\1>", re.S)
_ARGUMENTS = re.compile(r"<command-args>(.*?)</command-args>", re.S)
_WRAPPER = re.compile(r"<([a-z]+(?:[-_][a-z]+)+|INSTRUCTIONS)(?:\s[^>]*)?>.*?</\1>", re.S)
_ATTACHED = re.compile(r"<(context|file|files|document|documents|attachment|attachments|environment|diff)(?:\s[^>]*)?>"
                       r".*?</\1>", re.S)  # fmt: skip
_NOTICE = re.compile(
    r"^(?:\[(?:Request interrupted|Image|File|Pasted)[^\]\n]*\]|# AGENTS\.md instructions for .*)$", re.M
)
_OBSERVATION = re.compile(r"(?:Observation|Tool (?:result|output|response)|Result of tool)\b[^:\n]*:", re.I)
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.S)

_RETRY = re.compile(
    rf"(?:^|[\s.,;:?!、。])(?:{alternatives('retry')})(?:[\s,]*(?:{alternatives('please')}))?[\s.!。]*$", re.I
)
_RETRY_CHARS = 50
_WRONG = re.compile(rf"\b(?:{spaced('wrong')})\b|{unspaced('wrong')}", re.I)
_ANAPHORA = re.compile(
    rf"(?:(?:{alternatives('joins')}) )?(?:{spaced('leans')})\b|{unspaced('leans')}",
    re.I,
)
_POINTS_BACK = re.compile(rf"\b(?:{spaced('points_back')})\b", re.I)
_ASSENT = re.compile(rf"(?:{alternatives('assent')})\b|{unspaced('assent')}", re.I)
_CHOICE = re.compile(rf"\b(?:(?:{alternatives('article')}) )?(?:{spaced('choice')})\w?\b|{unspaced('choice')}", re.I)
_LAUNCHED = re.compile(
    r"(?:launched|spawned|started|invoked|called|dispatched|created|given|delegated)[^.]{0,60}\b(?:by|from) "
    r"(?:an?|the|another|your)[^.]{0,30}\b(?:agent|orchestrator|planner|coordinator|assistant)|\bsub-?agent\b|"
    r"(?:main|parent|lead|calling|orchestrat\w+) agent",
    re.I,
)


_ASKS_READ = 5


class _Turn(msgspec.Struct, frozen=True):
    """One message: whose it is, what was written in it, and whether it brings tool results (and which failed)."""

    role: str
    text: str
    is_result: bool
    failed: bool


def read_task(body: Body, headers: Mapping[str, str] | None = None, prefix: Prefix | None = None) -> Task:
    """The task in an Anthropic Messages, OpenAI Chat Completions or OpenAI Responses body.

    `headers` are the request's; Claude Code's name the conversation and the sub-agent. `prefix` is the body's, when it
    was measured before. Only the last few asks are read: what came long before has no say. Raises RequestError when the
    body has neither `messages` nor `input`, or one of the wrong type.
    """
    messages = _messages(body)
    named = {name.lower(): value for name, value in (headers or {}).items()}
    turns = _turns(messages)
    asks = [turn.text for turn in turns if turn.role == "user" and turn.text]
    state = _state(turns, asks, body, named)
    return Task(
        text=_joined(turns),
        turn=state,
        n_chars=_n_chars(body) if prefix is None else prefix.size,
        has_images=any(_has_image(m.get("content")) for m in messages) if prefix is None else prefix.has_images,
        has_tools=bool(body.get("tools")),
        session="/".join(named[name] for name in (SESSION_HEADER, *_AGENT_HEADERS) if named.get(name)),
        in_trouble=_in_trouble(turns, asks, state),
    )


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[_Turn]:
    """The messages back to the fifth ask from the end, in their order; an ask that stands alone needs but one more.

    Of tool results only the last are judged, and of the assistant's only what is next to an ask is read.
    """
    turns, asks, n_results, next_to_ask = list[_Turn](), list[str](), 0, False
    for message in reversed(messages):
        turn = _turn(message, reads_assistant=next_to_ask, judges=n_results < _TOOL_FAILURES)
        turns.append(turn)
        n_results += turn.is_result
        if not turn.text:
            continue
        next_to_ask = turn.role == "user"
        if next_to_ask:
            asks.append(turn.text)
            if len(asks) == _ASKS_READ or (len(asks) == 2 and not _leans(asks[0])):
                break
    return turns[::-1]


def _state(turns: Sequence[_Turn], asks: Sequence[str], body: Body, headers: Mapping[str, str]) -> TurnState:
    if any(name in headers for name in _AGENT_HEADERS):
        return TurnState.SUB_AGENT
    last = next((turn for turn in reversed(turns) if turn.role != "assistant"), None)
    n_users = sum(turn.role == "user" and not turn.is_result for turn in turns)
    if n_users == 1 and _is_launched(_system_text(body, turns)):
        return TurnState.SUB_AGENT
    if last is not None and last.is_result and not last.text:
        return TurnState.TOOL_LOOP
    if len(asks) > 1 and (_is_retry(asks[-1]) or (_same(asks[-1], asks[-2]) and not _ASSENT.match(asks[-1]))):
        return TurnState.RETRY
    return TurnState.USER_TURN


@lru_cache(maxsize=256)
def _is_launched(system: str) -> bool:
    """Whether a system prompt says that another agent calls. Kept, for looking takes a millisecond."""
    return _LAUNCHED.search(system) is not None


def _joined(turns: Sequence[_Turn]) -> str:
    """The last ask, after those that it leans on, at most three back; retries and repetitions are passed over.

    An assent or a choice also takes in what the assistant had offered: "yes" asks for that.
    """
    said = [turn for turn in turns if turn.text and turn.role in ("user", "assistant")]
    last = next((at for at in reversed(range(len(said))) if said[at].role == "user"), None)
    if last is None:
        return ""
    parts, n_asks = [said[last].text], 1
    for at in reversed(range(last)):
        if not _leans(parts[0]) or n_asks == 4:
            break
        turn = said[at]
        if turn.role == "assistant":
            offer = _offer(turn.text, parts[0]) if said[at + 1].role == "user" and n_asks == 1 else ""
            parts[1:1] = [offer] if offer else []
        elif _same(turn.text, parts[0]) or (n_asks > 1 and _is_retry(turn.text)):
            continue
        else:
            offers = parts[1:] if n_asks == 1 and len(parts) > 1 else []
            parts = [turn.text, *offers, parts[0]] if n_asks == 1 else [turn.text, *parts]
            n_asks += 1
    return "\n\n".join(parts)


def _offer(text: str, ask: str) -> str:
    """What an assent says yes to, or a choice chooses from: the assistant's last question, or its list."""
    if _CHOICE.search(ask) and len(ask) <= _FOLLOW_UP_CHARS:
        return text[-_OFFER_CHARS:]
    if not _ASSENT.match(ask):
        return ""
    sentences = re.split(r"(?<=[.!?。？؟।])\s+", text[-_OFFER_CHARS:].strip())
    questions = [sentence for sentence in sentences[-2:] if sentence.rstrip().endswith(("?", "？", "؟"))]
    return questions[-1] if questions else sentences[-1]


def _is_retry(ask: str) -> bool:
    return len(ask) <= _RETRY_CHARS and bool(_RETRY.search(ask))


def _leans(ask: str) -> bool:
    """Whether an ask makes little sense without the one before it."""
    if len(ask) > 4 * _FOLLOW_UP_CHARS:
        return False
    if len(ask) <= _FOLLOW_UP_CHARS and (len(ask.split()) <= _FOLLOW_UP_WORDS or _POINTS_BACK.search(ask)):
        return True
    return bool(_ANAPHORA.match(ask)) or _is_retry(ask)


def _same(one: str, other: str) -> bool:
    if one[:80].casefold().split()[:1] != other[:80].casefold().split()[:1]:
        return False  # most differ at once, and all of a long text takes 10 us
    return one.casefold().split() == other.casefold().split()


def _in_trouble(turns: Sequence[_Turn], asks: Sequence[str], state: TurnState) -> bool:
    """Whether the model seems not up to it: tool calls keep failing, or the user says that the answer is wrong."""
    if state in (TurnState.USER_TURN, TurnState.RETRY):
        return len(asks) > 1 and (state is TurnState.RETRY or bool(_WRONG.search(asks[-1][:200])))
    results = [turn.failed for turn in turns if turn.is_result][-_TOOL_FAILURES:]
    return len(results) == _TOOL_FAILURES and all(results)


def _turn(message: Mapping[str, Any], *, reads_assistant: bool, judges: bool) -> _Turn:
    content, role = message.get("content"), str(message.get("role") or "assistant")
    if role in ("tool", "function") or message.get("type") in _RESULT_TYPES:
        return _Turn("tool", "", True, judges and _failed(message.get("output", content), message))
    if role != "user":
        return _Turn(role, _text(content) if reads_assistant and role == "assistant" else "", False, False)
    parts = _parts(content)
    results = [part for part in parts if _is_object(part) and part.get("type") == "tool_result"]
    text = "" if results and len(results) == len(parts) else _text(content).strip()
    if _OBSERVATION.match(text):
        return _Turn("user", "", True, judges and _failed(text.partition(":")[2], {}))
    failed = judges and bool(results) and all(_failed(part.get("content"), part) for part in results)
    return _Turn("user", _ask(text) if text else "", bool(results), failed)


def _failed(content: Any, message: Mapping[str, Any]) -> bool:
    if message.get("is_error"):
        return True
    text = (content if isinstance(content, str) else _text(content)).lstrip()[:200]
    return bool(re.match(r"(?:error|fatal|traceback|exception|failed|command failed|exit code:? [1-9])", text, re.I))


def _ask(text: str) -> str:
    """What the user wrote themselves, without what a harness put around it and with long pastes cut short."""
    if "<" in text:
        asked = [found.group(2) for found in _QUERY.finditer(text)]
        text = "\n\n".join(filter(str.strip, asked)) or _WRAPPER.sub("", _ARGUMENTS.sub(r"\1\n", text))
        text = without if (without := _ATTACHED.sub("", text)).strip() else text
    text = _NOTICE.sub("", text) if "[" in text or "#" in text else text
    return _unpasted(text.strip()).strip()


_OFFER_CHARS = 600
_PASTE_CHARS = 1200
_PASTE_LINES = 12


def _unpasted(text: str) -> str:
    """A long text with its fenced blocks, quotes, logs and other many-lined passages cut to their first lines."""
    if len(text) < 400 or text.count("\n") < _PASTE_LINES:
        return text
    text = _FENCE.sub(lambda found: _first_lines(found.group()), text)
    paragraphs, kept = re.split(r"\n[ \t]*\n", text), []
    long = len(text) > _PASTE_CHARS
    for at, paragraph in enumerate(paragraphs):
        is_edge = at in (0, len(paragraphs) - 1)
        if paragraph.count("\n") >= _PASTE_LINES or (long and not is_edge and len(paragraphs) > 8):
            lines = paragraph.split("\n")
            # The ask stands at the outer edge of a text: the head of its first paragraph, the tail of its last.
            paragraph = "\n".join([*lines[:3], "...", *lines[-3:]]) if is_edge else _first_lines(paragraph)
        kept.append(paragraph)
    return "\n\n".join(kept)


def _first_lines(block: str, n_lines: int = 3) -> str:
    lines = block.split("\n")
    return block if len(lines) <= n_lines + 1 else "\n".join([*lines[:n_lines], "..."])


def _system_text(body: Body, turns: Sequence[_Turn]) -> str:
    system = body.get("system", body.get("instructions"))
    texts = [system if isinstance(system, str) else _text(system)]
    if not texts[0] and turns and turns[0].role in ("system", "developer"):
        texts.append(_text(_messages(body)[0].get("content")))
    return "\n".join(texts)[:4000]


def _messages(body: Body) -> list[Mapping[str, Any]]:
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, str) and "messages" not in body:
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, Iterable) or isinstance(messages, Mapping | str | bytes):
        found = "neither" if messages is None else f"a {type(messages).__name__}"
        raise RequestError(f"expected `messages` or `input` with a list of messages, found {found}")
    items = list(messages)
    if set(map(type, items)) <= {dict}:
        return items
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise RequestError(f"message {index} is a {type(item).__name__}, expected an object with role and content")
    return items


def _parts(content: Any) -> Sequence[Any]:
    is_list = type(content) is list or (isinstance(content, Sequence) and not isinstance(content, str | bytes))
    return content if is_list else ()


def _is_object(value: Any) -> bool:
    return type(value) is dict or isinstance(value, Mapping)  # the second alone takes 0.3 us


def _text(content: Any) -> str:
    """The text that somebody wrote: tool results, images and documents are left out."""
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in _parts(content) if _is_object(part) and part.get("type") in _TEXT_TYPES)
    return "\n".join(text for text in texts if isinstance(text, str))


def _has_image(content: Any) -> bool:
    return any(isinstance(part, Mapping) and part.get("type") in _IMAGE_TYPES for part in _parts(content))


def _n_chars(body: Any) -> int:
    """Characters of all strings in a body, without base64 payloads, which cost image tokens instead."""
    n_chars, pending = 0, [body]
    while pending:  # a loop, so that no nesting is too deep
        value = pending.pop()
        if isinstance(value, str):
            n_chars += len(value)
        elif isinstance(value, Mapping):
            if value.get("type") not in _IMAGE_TYPES and value.get("type") != "base64":
                pending.extend(value.values())
        else:
            pending.extend(_parts(value))
    return n_chars
