"""Requests that a harness makes on the side: probes, titles and other chores, the compaction of a conversation; pure.

They are recognised by what they ask for and how: one token; a thing about the conversation (its title, topic, tags, a
commit message for a diff, the prefix of a command) under a bound on the form; a summary to go on from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from router.types import Body, SideCall

_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_SYSTEM_CHARS = 1500
"""A prompt for a chore is short; a longer one mentions titles and commits among much else."""
_READ_CHARS = 600

_THING = re.compile(
    r"\b(?:title|topic|tags?|emoji|name for|session name|commit messages?|command prefix|file ?paths?|filepaths|"
    r"follow-?up (?:questions?|prompts?|suggestions?)|search quer(?:y|ies)|standalone question|autocomplet\w{0,6}|"
    r"speak next|name (?:this|the) (?:chat|session|conversation|thread)|command is (?:safe|read-only)|"
    r"(?:short |brief )description|branch name|titel|titre|título|titolo)\b|标题|タイトル",
    re.I,
)
_SUMMARY = re.compile(
    r"\b(?:summar(?:y|i[sz]e|i[sz]es|i[sz]ing|i[sz]ation)|condense|compact(?:ion|ing)?|compress(?:es)?|hand-?off|"
    r"checkpoint|snapshot|detailed prompt for continuing|zusammenfass\w{0,5}|zusammen|fasse|résum\w{1,4}|"
    r"resum(?:e|en|ir|es)|samenvat\w{0,6})\b|"
    r"总结|要約",
    re.I,
)
_TALK = re.compile(
    r"\b(?:conversations?|chat|session|thread|dialog(?:ue)?|history|discussion|transcript|messages?|gespräch|unterhaltung|"
    r"following (?:query|question|prompt)|sitzung|conversación|gesprek|requests?|responses?|diffs?|commands?|"
    r"user begins|follow ?up (?:question|message|input))\b|"
    r"<text>|对话|会話",
    re.I,
)
_WHOLE = re.compile(
    r"\b(?:conversations?|discussion|chat|session|thread|(?:full|entire|our|message) history|"
    r"gespräch|unterhaltung|conversación|gesprek)\b|对话|会話",
    re.I,
)
_BOUND = re.compile(
    r"\b(?:only|nothing else|concise|brief|short|pithy|one-line|json|isnewtopic|standalone|logically|in under|"
    r"no (?:more|longer) than|at most|or less|in \d|under \d|\d ?-? ?\d{0,2}[ -]words?|fewer than|new topic|"
    r"without any (?:preamble|other)|no punctuation|keine|nur)\b|#{2,3} output\b",
    re.I,
)
_ORDERS = re.compile(
    r"\W{0,8}(?:(?:given|based|using|for|from|after)\b[^.\n]{0,160}?,\s{0,2})?"
    r"(?:(?:please|now|then|first|if so|if it does|and|task:?)\b,?\s)?"
    r"(?:you\b|i (?:want|need) you to\b|(?:your (?:task|job|goal) is to )?(?:generate|write|create|reply|respond|"
    r"extract|suggest|determine|decide|provide|output|craft|produce|return|analy[sz]e|say|summari[sz]e|rephrase|rewrite|name|give|"
    r"come up|classify|schreibe?|gib)\b)",
    re.I,
)
"""How a sentence begins that orders something."""
_ON = re.compile(
    r"\b(?:so far|continu\w{1,5}|resum\w{1,3}|los(?:ing|s)|replaces?|successor|another model|next (?:agent|model)|"
    r"hand-?off|checkpoint|entire|partial conversation|go(?:es)? on|carr(?:y|ies) on|preserv\w{1,4}|snapshot|"
    r"bisherige\w{0,2}|weiterarbeiten|weiter|full history|conversation history|previous conversation)\b|至今|继续",
    re.I,
)
_TINY = re.compile(
    r"\b(?:under|at most|within|no (?:more|longer) than|up to|maximum(?: of)?|in)\s\d{1,3}\s"
    r"(?:characters|chars|words)\b",
    re.I,
)
_END = re.compile(r"[\n.:!?]")
_CHORE_KEYS = (
    "title", "topic", " tag", "emoji", "name ", "commit message", "command prefix", "path", "follow", "search quer",
    "standalone", "autocomplet", "speak next", "description", "command is", "titel", "titre", "título", "titolo",
    "标题", "タイトル",
)  # fmt: skip
_TALK_KEYS = (
    "conversation", "chat", "session", "thread", "dialog", "histor", "discussion", "transcript", "messag", "request",
    "respons", "diff", "command", "following q", "following p", "follow up", "follow-up", "user begins", "<text>",
    "gespräch", "unterhaltung", "sitzung", "conversación", "gesprek", "对话", "会話",
)  # fmt: skip
_SUMMARY_KEYS = (
    "summar", "condense", "compact", "compress", "handoff", "hand-off", "checkpoint", "snapshot", "for continuing",
    "zusammen", "fasse", "résum", "resum", "samenvat", "总结", "要約",
)  # fmt: skip
"""One of them is in whatever the patterns find; looking for these first takes a tenth of the time."""
_OWN = re.compile(
    r"\b(?:my|our|mein\w{0,2}|attached|explain|argue|why|compare|function|service|script|component|class|method|endpoint|"
    r"code|api|app|program|tests?|design|implement)\b",
    re.I,
)
"""What an order of the user's own is about."""


def read_side_call(body: Body, system: str, said: Sequence[str], *, is_answered: bool) -> SideCall | None:
    """What a request is on the side for, None for one of the conversation itself.

    `system` is the start of the system prompt; `said` are the user's last messages as they came, the newest last;
    `is_answered`: the assistant has said something before.
    """
    if any(_is_one(body, name) for name in _MAX_TOKENS):
        return SideCall.PROBE
    last = said[-1] if said else ""
    has_tools = bool(body.get("tools"))
    last = _ends(said[-1]) if said else ""
    if last and not has_tools and _is_chore(last, is_prompt=False):
        return SideCall.CHORE
    if last and is_answered and _is_compaction(last, is_prompt=False):
        return SideCall.COMPACTION
    found = _of_prompt(system) if 0 < len(system) <= _SYSTEM_CHARS else None
    if found is None and len(said) > 1 and _is_chore(_ends(said[-2]), is_prompt=True):
        found = SideCall.CHORE
    return None if has_tools and found is SideCall.CHORE else found


@lru_cache(maxsize=256)
def _of_prompt(prompt: str) -> SideCall | None:
    """What a short system prompt orders; kept, for the same prompts come again and again."""
    if _is_chore(prompt, is_prompt=True):
        return SideCall.CHORE
    return SideCall.COMPACTION if _is_compaction(prompt, is_prompt=True) else None


def _ends(text: str) -> str:
    """The head and tail of a text: an order stands before or behind what it is about."""
    return text if len(text) <= 2 * _READ_CHARS else f"{text[:_READ_CHARS]}\n{text[-_READ_CHARS:]}"


def _is_one(body: Mapping[str, Any], name: str) -> bool:
    return body.get(name) == 1 and type(body.get(name)) is int


def _is_chore(text: str, *, is_prompt: bool) -> bool:
    """Whether a text orders a small thing about a conversation, a diff or a command, in a bound form."""
    lower = text.lower()
    if not is_prompt and not any(map(lower.__contains__, _TALK_KEYS)):
        return False
    if any(map(lower.__contains__, _SUMMARY_KEYS)) and _TINY.search(lower) is not None and _is_summary(lower):
        return True
    for key in _CHORE_KEYS:
        for at in {lower.find(key), lower.rfind(key)}:
            if at >= 0 and _orders(lower, at, is_prompt=is_prompt):
                return True
    return False


def _orders(text: str, at: int, *, is_prompt: bool) -> bool:
    """Whether the sentence at a place orders such a thing, in a bound form, for no work of the user's own."""
    begin = max(text.rfind("\n", 0, at), text.rfind(". ", 0, at), -1) + 1
    stop = _END.search(text, at + 1)
    sentence = text[begin : stop.start() if stop else len(text)]
    if _ORDERS.match(sentence) is None or _THING.search(sentence) is None:
        return False
    near = text[max(at - 300, 0) : at + 400]
    if _BOUND.search(near) is None:
        return False
    return is_prompt or (_TALK.search(near) is not None and _OWN.search(sentence) is None)


def _is_compaction(text: str, *, is_prompt: bool) -> bool:
    """Whether a text orders a summary of the conversation to go on from; a prompt may say just that it summarises."""
    found = _SUMMARY.search(text) if any(map(text.lower().__contains__, _SUMMARY_KEYS)) else None
    if found is None or not _is_summary(text):
        return False
    near = text[max(found.start() - 300, 0) : found.end() + 400]
    return _ON.search(near) is not None or (is_prompt and found.start() < 120)


def _is_summary(text: str) -> bool:
    """Whether a text speaks of the summary of a conversation."""
    found = _SUMMARY.search(text)
    return found is not None and _WHOLE.search(text[max(found.start() - 300, 0) : found.end() + 400]) is not None
