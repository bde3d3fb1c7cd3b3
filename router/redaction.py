"""Takes out of a text what should not be kept: keys, e-mail addresses, phone and card numbers. In time linear in it.

It finds what has a form of its own. A name, an address, a secret in plain words it cannot know.
"""

from __future__ import annotations

import re

_KEYS = re.compile(
    r"\b(?:sk|pk|rk|tw|gsk|xox[abprs]|hf|key|glpat|pat)[-_][A-Za-z0-9_-]{12,400}|\bgh[pousr]_[A-Za-z0-9]{20,255}|"
    r"\bA(?:KIA|SIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,60}|\beyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_.-]{10,4000}"
)
_SECRETS = re.compile(
    r"\b((?:password|passwd|secret|api[_-]?key|token|authorization)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:bearer\s{1,3})?|bearer\s{1,3})"
    r"[^\s\"',;]{6,400}",
    re.IGNORECASE,
)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_NUMBER = re.compile(r"(?<![\w.])\+?\(?\d[\d ().\-/]{6,30}\d(?![\w])")
_SPACED = re.compile(r"[ ().\-/]")


def redacted(text: str) -> str:
    """The text with "[key]", "[e-mail]", "[card]" and "[phone]" in the place of what was found."""
    text = _KEYS.sub("[key]", text)
    text = _SECRETS.sub(r"\1[key]", text)
    return _NUMBER.sub(_number, _MAIL.sub("[e-mail]", text))


def _number(match: re.Match[str]) -> str:
    """A card's number by its check digit, a phone's by how it is written; any other number stays."""
    found = match[0]
    digits = re.sub(r"\D", "", found)
    if 13 <= len(digits) <= 19 and _checks(digits):
        return "[card]"
    is_phone = 8 <= len(digits) <= 15 and (found[0] in "+(" or (digits[0] == "0" and _SPACED.search(found) is not None))
    return "[phone]" if is_phone else found


def _checks(digits: str) -> bool:
    """Luhn's algorithm (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
