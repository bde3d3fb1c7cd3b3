"""Asks that make little sense without what was said before: follow-ups, assents, choices, retries; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from router.decide.turn import Turn
from router.decide.words import alternatives, spaced, unspaced

_WORDS = 7
_CHARS = 60
"""An ask up to this long, in words and in characters, is taken to lean on the one before it."""
_RETRY_CHARS = 50
_OFFER_CHARS = 600

_RETRY = re.compile(
    rf"(?:^|[\s.,;:?!、。])(?:{alternatives('retry')})(?:[\s,]{{0,8}}(?:{alternatives('please')}))?[\s.!。]{{0,8}}$",
    re.I,
)
_WRONG = re.compile(rf"\b(?:{spaced('wrong')})\b|{unspaced('wrong')}", re.I)
_ANAPHORA = re.compile(rf"(?:(?:{alternatives('joins')}) )?(?:{spaced('leans')})\b|{unspaced('leans')}", re.I)
_POINTS_BACK = re.compile(rf"\b(?:{spaced('points_back')})\b", re.I)
_ASSENT = re.compile(rf"(?:{alternatives('assent')})\b|{unspaced('assent')}", re.I)
_CHOICE = re.compile(rf"\b(?:(?:{alternatives('article')}) )?(?:{spaced('choice')})\w?\b|{unspaced('choice')}", re.I)
_SENTENCE = re.compile(r"(?<=[.!?。？؟।])\s{1,40}")


def joined(turns: Sequence[Turn]) -> str:
    """The last ask, after those that it leans on, at most three back; retries and repetitions are passed over.

    An assent or a choice also takes in what the assistant had offered: "yes" asks for that.
    """
    said = [turn for turn in turns if turn.text and turn.role in ("user", "assistant")]
    last = next((at for at in reversed(range(len(said))) if said[at].role == "user"), None)
    if last is None:
        return ""
    parts, n_asks = [said[last].text], 1
    for at in reversed(range(last)):
        if not leans(parts[0]) or n_asks == 4:
            break
        turn = said[at]
        if turn.role == "assistant":
            offer = _offer(turn.text, parts[0]) if said[at + 1].role == "user" and n_asks == 1 else ""
            parts[1:1] = [offer] if offer else []
        elif is_same(turn.text, parts[0]) or (n_asks > 1 and is_retry(turn.text)):
            continue
        else:
            offers = parts[1:] if n_asks == 1 and len(parts) > 1 else []
            parts = [turn.text, *offers, parts[0]] if n_asks == 1 else [turn.text, *parts]
            n_asks += 1
    return "\n\n".join(parts)


def _offer(text: str, ask: str) -> str:
    """What an assent says yes to, or a choice chooses from: the assistant's last question, or its list."""
    if len(ask) <= _CHARS and _CHOICE.search(ask):
        return text[-_OFFER_CHARS:]
    if not is_assent(ask):
        return ""
    sentences = _SENTENCE.split(text[-_OFFER_CHARS:].strip())
    questions = [sentence for sentence in sentences[-2:] if sentence.rstrip().endswith(("?", "？", "؟"))]
    return questions[-1] if questions else sentences[-1]


def is_assent(ask: str) -> bool:
    """Whether an ask says yes."""
    return _ASSENT.match(ask) is not None


def is_retry(ask: str) -> bool:
    """Whether an ask says no more than to do the same once more."""
    return len(ask) <= _RETRY_CHARS and _RETRY.search(ask) is not None


def calls_wrong(ask: str) -> bool:
    """Whether an ask begins with saying that the answer before it is wrong."""
    return _WRONG.search(ask[:200]) is not None


def leans(ask: str) -> bool:
    """Whether an ask makes little sense without the one before it."""
    if len(ask) > 4 * _CHARS:
        return False
    if len(ask) <= _CHARS and (len(ask.split()) <= _WORDS or _POINTS_BACK.search(ask)):
        return True
    return _ANAPHORA.match(ask) is not None or is_retry(ask)


def is_same(one: str, other: str) -> bool:
    """Whether two asks say the same, but for case and white space."""
    if one[:80].casefold().split()[:1] != other[:80].casefold().split()[:1]:
        return False  # most differ at once, and all of a long text takes 10 us
    return one.casefold().split() == other.casefold().split()
