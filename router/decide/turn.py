"""One message -> a Turn: whose it is, what the user wrote in it, and whether it brings what tools answered; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from router.decide import markup, speaker
from router.decide.markup import READ_CHARS, Block, blocks, bounded, markers
from router.decide.message import is_object, parts, text_of, texts
from router.decide.paste import unpasted
from router.decide.speaker import Kind

_RESULT_TYPES = ("function_call_output", "computer_call_output", "local_shell_call_output", "custom_tool_call_output",
                 "shell_call_output", "mcp_call_output", "apply_patch_call_output")  # fmt: skip
_SURROUNDS = (Kind.CONTEXT, Kind.RULES, Kind.RESULT)
_PEOPLE = ("user", "human", "customer")
_NOTICE = re.compile(
    r"^(?:\[(?:Request interrupted|Image|File|Pasted)[^\]\n]{0,200}\]|"
    r"#{1,3} AGENTS\.md instructions for [^\n]{0,400})$",
    re.MULTILINE,
)
_SPEAKS = frozenset(("system", "notification", "msg", "turn", "hook", "session", "notice", "interruption", "aborted"))
_MARKS = re.compile(r"^[ \t]{0,4}(?:#|\*\*|__|==|--|~~|\[|<\|)", re.MULTILINE)
_FAILED = re.compile(r"\s{0,8}(?:error|fatal|traceback|exception|failed|command failed|exit code:? [1-9])", re.I)
_TOLD_CHARS = 1200
"""So much of a tool's result is searched for words of the user."""


class Turn(msgspec.Struct, frozen=True):
    """One message: whose it is, what its author wrote, and whether it brings results (`failed`: of a call that failed).

    `goes_on`: it ends in results and in nothing that the user added, so the turn before it goes on.
    """

    role: str
    text: str
    is_result: bool = False
    failed: bool = False
    goes_on: bool = False


class Around(msgspec.Struct, frozen=True):
    """What stands beside a message: the assistant's answers before it and behind it ("" for none), and its place.

    `is_answered`: the assistant has spoken before.
    """

    before: str = ""
    behind: str = ""
    is_answered: bool = False
    is_last: bool = False


def read_turn(message: Mapping[str, Any], around: Around, *, reads_assistant: bool, judges: bool) -> Turn:
    """What a message says. Only where `reads_assistant` an assistant's text is read, where `judges` a failure seen."""
    content, role = message.get("content"), str(message.get("role") or "assistant")
    if role in ("tool", "function") or message.get("type") in _RESULT_TYPES:
        output = message.get("output", content)
        said = _told_by(output)
        return Turn("user" if said else "tool", said, True, judges and failed(output, message), not said)
    if role == "user":
        return _user(content, around, judges)
    if role == "assistant":
        goes_on = around.is_last and "\nObservation:" in (text := text_of(content)) and not _concludes(text)
        return Turn(role, text_of(content) if reads_assistant else "", goes_on, False, goes_on)
    return Turn(role, "") if not around.is_answered else _interposed(role, content)


def _interposed(role: str, content: Any) -> Turn:
    """A system message in the middle of a conversation, which may hand on what the user said."""
    text = text_of(content)[:_TOLD_CHARS]
    said = speaker.told(text) if "ser " in text else ""
    return Turn("user", said) if said else Turn(role, "")


def _concludes(text: str) -> bool:
    return "Final Answer:" in text[text.rfind("\nObservation:") :]


def failed(content: Any, message: Mapping[str, Any]) -> bool:
    """Whether a tool's result says that the call failed."""
    return bool(message.get("is_error")) or _FAILED.match((text_of(content)).lstrip()[:200]) is not None


def _told_by(content: Any) -> str:
    """The user's words in a tool's result: what they said when they refused or answered; "" for none."""
    text = text_of(content)
    head = text[:_TOLD_CHARS]
    if len(text) > 4 * _TOLD_CHARS or ("ser" not in head and "uman" not in head and "<" not in head):
        return ""
    if "<" in text:
        text = bounded(text)
        marked = blocks(text)
        if replies := _inner(text, [block for block in marked if _is_reply(block.name)]):
            return replies
        if told := next(filter(None, (_told_in(block, text) for block in marked)), ""):
            return told
    return speaker.told(text)


def _is_reply(name: str) -> bool:
    """Whether a tag among results holds the user's words: only one that says so, for a file may hold any tag."""
    kind = speaker.of_tag(name)
    return kind is Kind.REPLY or (kind is Kind.ASK and "_" in name and name.lower().startswith(("user", "human")))


def _user(content: Any, around: Around, judges: bool) -> Turn:
    if isinstance(content, str):
        own, is_loop = _own_words((content,), around)
        return Turn("user", own, is_loop, judges and is_loop and failed(content.partition(":")[2], {}), is_loop)
    given = parts(content)
    results = [part for part in given if is_object(part) and part.get("type") == "tool_result"]
    said = [] if results and len(results) == len(given) else [text for text in texts(content) if text.strip()]
    in_results = next(filter(None, (_told_by(part.get("content")) for part in results)), "") if results else ""
    has_failed = judges and bool(results) and all(failed(part.get("content"), part) for part in results)
    own, is_loop = _own_words(said, around) if said else ("", False)
    words = "\n\n".join(filter(None, (in_results, own)))
    if is_loop and judges and not results:
        has_failed = failed(said[0].partition(":")[2], {})
    return Turn("user", words, bool(results) or is_loop, has_failed, is_loop or (bool(results) and not words))


def _own_words(said: Sequence[str], around: Around) -> tuple[str, bool]:
    """What the user wrote in the texts of a message, and whether it ends in results."""
    bound = [text if len(text) <= READ_CHARS else bounded(text) for text in said]
    begin = 0 if around.is_answered else 1
    first = next((at for at in range(begin, len(bound)) if speaker.is_result(bound[at])), None)
    if first is not None:
        behind = "\n".join(bound[first:])
        replies = _inner(behind, [block for block in blocks(behind) if _is_reply(block.name)])
        own = _asked("\n".join(bound[:first]), around)[0] if first else ""
        own = "\n\n".join(filter(None, (own, replies or speaker.told(behind))))
        return own, not own
    text = bound[0].strip() if len(bound) == 1 else "\n".join(bound).strip()
    own, goes_on = _asked(text, around)
    if own and not goes_on:
        if around.before and speaker.calls_tool(around.before) and own == text:
            said_so = speaker.of_title(text[:64].partition(":")[0]) is Kind.ASK
            return (own, False) if said_so else ("", True)
        if around.behind and speaker.is_handed_over(text, around.behind):
            return "", False
    return own, goes_on or (not own and bool(text) and around.is_answered)


def _asked(text: str, around: Around) -> tuple[str, bool]:
    """The ask in a text, without what is marked as something else and pastes cut short; whether it ends in results."""
    text, is_loop, is_whole = _unwrapped(text, around) if "<" in text else (text, False, False)
    if not is_whole and "\n" in text and (":" in text or "\n\n" in text or "：" in text or _MARKS.search(text)):
        text, observed = _in_sections(text)
        is_loop = is_loop or observed
    text = _NOTICE.sub("", text) if "[" in text or "#" in text else text
    return unpasted(text.strip()).strip(), is_loop


def _unwrapped(text: str, around: Around) -> tuple[str, bool, bool]:
    """The text without the blocks around the ask, whether only results were in it, and whether tags named the ask."""
    marked = [(_kind(block, around), block) for block in blocks(text)]
    asks = [block for kind, block in marked if kind is Kind.ASK and not _is_arguments(block)]
    told = [words for kind, block in marked if kind in _SURROUNDS and (words := _told_in(block, text))]
    if not asks and any(kind in _SURROUNDS for kind, _ in marked):
        asks = [block for _, block in marked if block.name.lower() in _PEOPLE]
    if not asks:
        asks = [block for kind, block in marked if kind is Kind.REPLY and _is_led_in(text[: block.start])]
    if asks and (found := _inner(text, asks)):
        return "\n\n".join([*told, found]), False, True
    kept, at = list[str](), 0
    for kind, block in marked:
        if kind in _SURROUNDS:
            kept.append(text[at : block.start])
            at = block.end
        elif kind is Kind.REPLY or _is_arguments(block):
            kept += [text[at : block.start], text[block.inner_start : block.inner_end] + "\n"]
            at = block.end
    kept.append(text[at:])
    without = "".join(kept)
    if told:
        return "\n\n".join([*told, without.strip()]).strip(), False, True
    if not without.strip():
        if any(kind is Kind.RESULT for kind, _ in marked):
            return "", True, False
        alone = [block for _, block in marked if block.name.lower() == "instructions"]
        return _inner(text, alone), False, True
    return without, False, False


def _is_led_in(before: str) -> bool:
    """Whether a harness's words stand before a reply: "The user has provided this feedback:"."""
    line = before.rstrip()[-_TOLD_CHARS:].rpartition("\n")[2].lower()
    return line.endswith(":") and ("user" in line or "human" in line)


def _kind(block: Block, around: Around) -> Kind:
    kind = speaker.of_tag(block.name)
    return Kind.NONE if kind is Kind.REPLY and not around.is_answered else kind


def _is_arguments(block: Block) -> bool:
    return block.name.lower().endswith(("-args", "_args", "-arguments", "_arguments"))


def _told_in(block: Block, text: str) -> str:
    """The user's words inside a block of a harness: behind a lead-in, or in a tag of their own."""
    if speaker.of_tag(block.name) is Kind.CONTEXT and not _SPEAKS.intersection(markup.words(block.name)):
        return ""  # a file or a transcript may say that some user said something
    inner = text[block.inner_start : min(block.inner_end, block.inner_start + 4 * _TOLD_CHARS)]
    lower = inner[:_TOLD_CHARS].lower()
    if "user" not in lower and "human" not in lower:
        return ""
    if "<" in inner:
        replies = _inner(inner, [block for block in blocks(inner) if _is_reply(block.name)])
        if replies:
            return replies
    return speaker.told(inner.strip())


def _inner(text: str, found: Sequence[Block]) -> str:
    inner = (text[block.inner_start : block.inner_end].strip() for block in found)
    return "\n\n".join(filter(None, (each.removeprefix("<![CDATA[").removesuffix("]]>").strip() for each in inner)))


def _in_sections(text: str) -> tuple[str, bool]:
    """The ask among headings, labels and ruled sections, and whether an observation of a tool stands behind it."""
    marked = markers(text)
    found = speaker.sections(text, marked) if marked else []
    if not found:
        return speaker.without_rules(speaker.without_handed(text)), False
    kinds = [kind for kind, _, _ in found]
    others = any(kind in (*_SURROUNDS, Kind.CUE) for kind in kinds)
    is_open = kinds[-1] is Kind.CUE and not found[-1][2].strip()
    at = max((n for n, kind in enumerate(kinds) if kind is Kind.ASK), default=-1) if others else -1
    if at < 0 and (is_open or Kind.CONTEXT in kinds or Kind.RESULT in kinds):
        at = max((n for n, kind in enumerate(kinds) if kind is Kind.WEAK_ASK), default=-1)
    if at < 0 and is_open and Kind.RESULT in kinds:  # a scratchpad below an ask without a label
        return text[: min(marker.start for _, marker, _ in found)].strip(), True
    if at < 0:
        text = text[
            : next(
                (m.start for kind, m, _ in found if kind is Kind.CONTEXT and m.start and speaker.is_retrieved(m)), None
            )
        ]
        return speaker.without_rules(speaker.without_handed(_without_closed(text, found))), False
    _, marker, _ = found[at]
    later = found[at + 1 :]
    if not marker.is_label:  # under a heading, what the user labels is theirs
        later = [each for each in later if not each[1].is_label or each[0] in (Kind.CUE, Kind.RESULT)]
    end = later[0][1].start if later else len(text)
    observed = any(kind is Kind.RESULT for kind, _, _ in found[at + 1 :])
    return speaker.without_rules(text[marker.end : end].strip(), in_template=True), observed


def _without_closed(text: str, found: Sequence[tuple[Kind, Any, str]]) -> str:
    """Without the sections of context that are marked at both ends."""
    kept, at, opened = list[str](), 0, None
    for kind, marker, _ in found:
        if kind in _SURROUNDS and not marker.is_label:
            opened = marker.start
        elif kind is Kind.END and opened is not None:
            kept.append(text[at:opened])
            at, opened = marker.end, None
        else:
            opened = None
    kept.append(text[at:])
    return "".join(kept) if "".join(kept).strip() else text
