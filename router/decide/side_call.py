"""Requests that a harness makes on the side: probes, titles and other chores, the compaction of a conversation; pure.

They are recognised by what they ask for and how: one token; a thing about the conversation (its title, topic, tags, a
commit message for a diff, the prefix of a command) under a bound on the form; a summary to go on from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from router.types import Body, SideCall

_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_SYSTEM_CHARS = 1500
"""A prompt for a chore is short; a longer one mentions titles and commits among much else."""
_READ_CHARS = 1200

_THING = re.compile(
    r"\b(?:title|topic|tags?|emoji|name for|session name|commit messages?|command prefix|file ?paths?|filepaths|"
    r"follow-?up (?:questions?|prompts?|suggestions?)|search quer(?:y|ies)|standalone question|autocomplet\w{0,6}|"
    r"speak next|(?:short |brief )?description|label|slug|branch name|titel|titre|título|titolo)\b|标题|タイトル",
    re.I,
)
_SUMMARY = re.compile(
    r"\b(?:summar(?:y|i[sz]e|i[sz]es|i[sz]ing|i[sz]ation)|condense|compact(?:ion|ing)?|compress(?:es)?|hand-?off|checkpoint|"
    r"snapshot|detailed prompt for continuing|zusammenfass\w{0,5}|zusammen|fasse|résum\w{1,4}|resum(?:e|en|ir|es)|samenvat\w{0,6})\b|"
    r"总结|要約",
    re.I,
)
_TALK = re.compile(
    r"\b(?:conversations?|chat|session|thread|dialog(?:ue)?|history|discussion|transcript|messages?|gespräch|unterhaltung|"
    r"sitzung|conversación|gesprek|requests?|responses?|diffs?|commands?|user begins|follow ?up (?:question|message|input)|text)\b|"
    r"对话|会話",
    re.I,
)
_WHOLE = re.compile(
    r"\b(?:conversations?|chat|session|thread|history|gespräch|unterhaltung|conversación|gesprek)\b|对话|会話", re.I
)
_BOUND = re.compile(
    r"\b(?:only|nothing else|concise|brief|short|pithy|one-line|json|isnewtopic|standalone|logically|in under|"
    r"no (?:more|longer) than|at most|or less|in \d|under \d|\d ?-? ?\d{0,2}[ -]words?|fewer than|two or three|new topic|"
    r"without any (?:preamble|other)|no punctuation|keine|nur)\b|#{2,3} output\b",
    re.I,
)
_ORDERS = re.compile(
    r"\b(?:generate|write|create|reply|respond|extract|suggest|determine|provide|output|craft|produce|return|analy[sz]e|say|"
    r"summari[sz]e|rephrase|rewrite|name|you are|you will|your task|give|crafting|generates?|come up|schreibe?|gib)\b",
    re.I,
)
_ON = re.compile(
    r"\b(?:so far|continu\w{1,5}|resum\w{1,3}|los(?:ing|s)|replaces?|successor|another model|next (?:agent|model)|hand-?off|"
    r"checkpoint|entire|partial conversation|go(?:es)? on|carr(?:y|ies) on|preserv\w{1,4}|snapshot|"
    r"bisherige\w{0,2}|weiterarbeiten|weiter|full history|conversation history|previous conversation)\b|至今|继续",
    re.I,
)
_TINY = re.compile(
    r"\b(?:under|at most|within|no (?:more|longer) than|up to|maximum(?: of)?|in)\s\d{1,3}\s(?:characters|chars|words)\b",
    re.I,
)
_KEYS = (
    "title", "topic", "tag", "emoji", "name", "commit", "prefix", "path", "follow", "quer", "standalone", "autocomplet",
    "speak next", "description", "label", "slug", "titel", "titre", "título", "titolo", "标题", "タイトル",
    "summar", "condense", "compact", "compress", "hand", "checkpoint", "snapshot", "continuing", "zusammen", "fasse",
    "résum", "resum", "samenvat", "总结", "要約",
)  # fmt: skip
"""One of them is in every order that the patterns find; looking for these first takes a tenth of the time."""
_OWN = re.compile(r"\b(?:my|our|mein\w{0,2}|attached|explain|argue|why|compare)\b", re.I)


def read_side_call(body: Body, system: str, said: Sequence[str]) -> SideCall | None:
    """What a request is on the side for, None for one of the conversation itself.

    `system` is the start of the system prompt; `said` are the user's last messages as they came, the newest last.
    """
    if any(_is_one(body, name) for name in _MAX_TOKENS):
        return SideCall.PROBE
    last = said[-1] if said else ""
    if len(said) == 1 and len(last) < _READ_CHARS and (not system or len(system) > _SYSTEM_CHARS) and not _may_order(last):
        return None  # nearly all requests: 2 us
    ask = last if len(last) <= 2 * _READ_CHARS else f"{last[:_READ_CHARS]}\n{last[-_READ_CHARS:]}"
    prompt = system if len(system) <= _SYSTEM_CHARS else ""
    for text in (ask, prompt):
        if not _may_order(text):
            continue
        if _is_chore(text, body, is_prompt=text is prompt):
            return SideCall.CHORE
        if _is_compaction(text, is_prompt=text is prompt):
            return SideCall.COMPACTION
    before = said[-2][:_READ_CHARS] if len(said) > 1 else ""
    return SideCall.CHORE if _may_order(before) and _is_chore(before, body, is_prompt=True) else None


def _may_order(text: str) -> bool:
    return any(map(text.lower().__contains__, _KEYS))


def _is_one(body: Mapping[str, Any], name: str) -> bool:
    return body.get(name) == 1 and type(body.get(name)) is int


def _is_chore(text: str, body: Body, *, is_prompt: bool) -> bool:
    """Whether a text orders a small thing about a conversation, a diff or a command, in a bound form."""
    found = None if body.get("tools") else _THING.search(text)
    if found is None:
        return not body.get("tools") and _TINY.search(text) is not None and _is_summary(text)
    near = text[max(found.start() - 300, 0) : found.end() + 400]
    if not (_ORDERS.search(near) and _BOUND.search(near)):
        return False
    if is_prompt:
        return True
    return _TALK.search(near) is not None and _OWN.search(text[:_READ_CHARS]) is None


def _is_compaction(text: str, *, is_prompt: bool) -> bool:
    """Whether a text orders a summary of the conversation to go on from; a prompt may say just that it summarises."""
    found = _SUMMARY.search(text)
    if found is None or not _is_summary(text):
        return False
    near = text[max(found.start() - 300, 0) : found.end() + 400]
    return _ON.search(near) is not None or (is_prompt and found.start() < 120)


def _is_summary(text: str) -> bool:
    """Whether a text speaks of the summary of a conversation."""
    found = _SUMMARY.search(text)
    return found is not None and _WHOLE.search(text[max(found.start() - 300, 0) : found.end() + 400]) is not None
