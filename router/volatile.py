"""Text that is likely to differ from request to request, by its form; pure.

A form can only suggest that a value changes: what a fixed text holds just as often (a date in prose, a UUID without
a label in an example) is a `MAYBE` or left out. What changes says nothing about which conversation or application a
request is of: `stable` is a text without it. Every repetition in a pattern has a bound, so all is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

import msgspec


class Severity(StrEnum):
    """How sure a finding is."""

    BREAKS = "breaks"
    MAYBE = "maybe"


class Match(msgspec.Struct, frozen=True):
    """A stretch of text, [start, end) in characters, with the rule that it meets and what to do about it."""

    rule: str
    severity: Severity
    start: int
    end: int
    remedy: str


_MONTH = (
    r"(?:jan|feb|mar|mär|apr|may|mai|mei|jun|jul|aug|sep|oct|okt|nov|dec|dez|ene|abr|ago|dic|fév|avr|juin|juil|août|déc)"
    r"[^\W\d]{0,12}\.?"
)
_WEEKDAY = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
_DATE = (
    rf"(?:(?:{_WEEKDAY},?\s{{1,3}})?(?:the\s{{1,3}})?(?:\d{{4}}-\d\d-\d\d|\d{{1,2}}(?:\.|st|nd|rd|th)?\s(?:de\s|of\s)?{_MONTH}(?:\sde)?,?"
    rf"\s\d{{4}}|{_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{4}}|\d{{1,2}}[./]\d{{1,2}}[./]\d{{4}}"
    r"|\d{4}年\d{1,2}月\d{1,2}日))"
)
_TODAY = (
    r"(?:\btoday(?:'s date)?|\b(?:current|present)[ _-]?(?:date|day|time|datetime|timestamp)(?: and time)?|\bright now"
    r"|\bit is now|\bthe (?:date|time) is|\btime now|\bheute|\baujourd'hui|\bhoy|\bvandaag|今日|現在)"
)
_LABEL = (
    r"(?:date(?: (?:and|&) time)?|time|timestamp|datetime|generated(?: (?:at|on))?|rendered(?: at)?|created_at|now|"
    r"sent at|datum|fecha|server[ _]time|local[ _]time)"
)
_WHOSE = r"(?:user|customer|client|account|member|employee|patient|caller|visitor|subscriber|guest)(?:'s|’s)?"
_NAME = r"(?-i:[A-ZÀ-Þ][\w'’-]{1,40}(?:\s(?:van|de|der|von|bin|al-)?\s?[A-ZÀ-Þ][\w'’-]{1,40}){0,3})"
_MAIL = r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{0,100}\w"
_ROLE_MAIL = re.compile(
    r"(?:help|support|info|sales|contact|billing|privacy|security|press|legal|no-?reply|admin|office|hello|team|jobs|"
    r"service|care|feedback|abuse|on-?call|reception|accounts?|returns?|orders?|claims|incident|tech|dpo|hr|it|desk|"
    r"you|name|user|someone|example|customer)\b",
    re.IGNORECASE,
)
_VOLATILE_NAME = re.compile(
    r"user|name|mail|date|time|now|today|uuid|session|request|(?:^|_)ip$|(?:^|[_.])id$|location|city|query|question|"
    r"context|history|input|locale|account|customer|balance|random|nonce|timestamp|message|docs|documents|turn|count",
    re.IGNORECASE,
)
_ACTING = (
    r"\b(?:helping|assisting|talking (?:to|with)|chatting with|speaking (?:to|with)|advising|serving|logged in as|"
    r"signed in as|on behalf of)\s"
)
_TITLE = r"(?:the (?:user|customer|patient|student)|mr\.?|ms\.?|mrs\.?|dr\.?)\s"
_COMPANY = (
    r"(?:Inc|Corp|Group|Bank|University|Support|Team|Airlines?|Systems?|Cloud|Ltd|GmbH|Software|Services?|College|"
    r"Hospital|Insurance|Energy|Books|Hotels?|Express)\b"
)
_IS = r"['\"*`]{0,3}(?:\s{0,4}[:=#]\s{0,4}|\sis\s)['\"*`]{0,3}"
_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_QUIET_NET = r"(?:10|127|0|255|192\.168|172\.(?:1[6-9]|2\d|3[01]))\."

_BEHIND = "move it behind the last breakpoint: into a last system block of its own, or into the user message"
_FIXES = {
    "header": "a line for the provider's own books: the model needs none, and no other provider caches what is behind "
    "it; switch it off where the client can (Claude Code: CLAUDE_CODE_ATTRIBUTION_HEADER=0)",
    "placeholder": f"whatever fills it in changes the prefix from here on: {_BEHIND}",
    "time": f"leave it out, give the model a tool that tells the time, or {_BEHIND}",
    "id": f"keep ids in metadata or headers, where the model does not read them; if it must, {_BEHIND}",
    "nonce": "take it out: a random value makes every request the first of its kind",
    "counter": f"a counter differs in each request: {_BEHIND}",
    "user": f"the text before it is shared by all users, the text behind it by none: {_BEHIND}",
    "place": f"the text before it is shared by all users, the text behind it by none: {_BEHIND}",
}
_HEADER = r"^x-[a-z0-9-]{2,60}:(?=[^\n]{0,200}\w=)[^\n]{0,600}$"
"""Claude Code's first system block is "x-anthropic-billing-header: cc_version=...; cch=...;", new in each request
(https://github.com/anthropics/claude-code/issues/68900, 2026-11-26)."""
_PATTERNS: tuple[tuple[str, Severity, tuple[str, ...]], ...] = (
    ("header", Severity.BREAKS, (_HEADER,)),
    (
        "placeholder",
        Severity.BREAKS,
        (
            r"\{\{-?\s{0,4}[\w.|' -]{1,80}?\s{0,4}-?\}\}|<%=?\s{0,4}[\w.]{1,80}\s{0,4}%>|\$\{[\w.]{1,80}\}",
            r"%\(\w{1,60}\)s",
            r"(?<![/\w$\{])\{[a-z_]\w{0,60}(?:\.\w{1,60}){0,6}\}(?![/\}])",
            r"(?-i:\$[A-Z]{1,30}_[A-Z_]{1,40}\b|<[A-Z]{1,30}(?:_[A-Z]{1,30}){1,6}>)",
            r"(?-i:(?<!\w)\[\[?(?:USER|CUSTOMER|CURRENT|DATE|TIME)[A-Z_ ]{0,40}\]\]?)",
        ),
    ),
    (
        "time",
        Severity.BREAKS,
        (
            rf"{_TODAY}[^.;\n\d]{{0,25}}?{_DATE}(?:[ T,]{{1,4}}(?:at )?\d\d?:\d\d(?::\d\d)?)?",
            rf"{_TODAY}[^.;\n\d]{{0,25}}?\d{{1,2}}:\d\d(?::\d\d)?",
            rf"\b(?:today(?:'s date)?(?:\sis|:)|it is(?: now)?|it's)\s{_WEEKDAY}\b",
            r"\b(?:generated|retrieved|fetched|rendered|exported|received|reads)(?:\s(?:at|on))?:?\s"
            rf"(?:{_DATE}|\d\d:\d\d(?::\d\d)?)",
            rf"\b(?:current (?:month|year)|the (?:month|year))(?:\sis|:)\s(?:{_MONTH}\s)?\d{{4}}\b",
            r"\b(?:it is|it's|il est|es ist|het is|son las)\s(?:now\s|currently\s)?\d{1,2}:\d\d\b",
            r"\b(?!1970)\d{4}([-/])\d\d\1\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:\s?(?:Z|[+-]\d\d:?\d\d|UTC))?",
            rf"\b{_WEEKDAY},?\s\d{{1,2}}\s{_MONTH}\s\d{{4}}\s\d\d:\d\d(?::\d\d)?",
            rf"\b{_WEEKDAY}\s{_MONTH}\s{{1,3}}\d{{1,2}}\s\d\d:\d\d:\d\d\s(?:[A-Z]{{3,4}}\s)?\d{{4}}",
            rf"^[\W_]{{0,12}}{_LABEL}[\W_]{{0,3}}\s{{0,4}}[:=]\s{{0,4}}[\W_]{{0,3}}{_DATE}",
            rf"^\W{{0,12}}{_DATE}\W{{0,12}}$",
            r"\b(?:time|ts|epoch|now|at|timestamp|unix)\b\W{0,4}(?:is\s)?1[5-9]\d{8}(?:\d{3})?(?:\.\d{1,9})?\b",
        ),
    ),
    (
        "time",
        Severity.MAYBE,
        (
            rf"\b(?:as of|(?:last )?updated(?: on)?|stand)\b[^.;\n\d]{{1,20}}{_DATE}",
            rf"\b{_WEEKDAY},\s(?:{_MONTH}\s\d{{1,2}},?|\d{{1,2}}\.?\s{_MONTH})\s20[2-9]\d",
            r"(?<![\w.,+-])1[5-9]\d{8}(?:\d{3})?(?![\w-])",
        ),
    ),
    (
        "id",
        Severity.BREAKS,
        (
            r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
            rf"\b(?:request|session|trace|conversation|correlation|message|run|thread|transaction|span)"
            rf"[ _-]?(?:id|number|no\.?)?{_IS}(?=[\w-]{{0,80}}\d)[\w-]{{6,200}}",
            rf"\b(?:chat|ticket|call|case|job|order)[ _-]?(?:id|number|no\.?){_IS}(?=[\w-]{{0,80}}\d)[\w-]{{6,200}}",
            r"\b(?:sid|uid|rid|guid|jti|trace|sess)\s?[=:]\s?(?=[\w-]{0,80}\d)[\w-]{4,200}",
            r"\b(?:trace|span|request|session|run)\s(?=\w{0,80}\d)[0-9a-f]{16,128}\b",
            r"\b(?:req|sess|session|msg|thread|conv|run|trace|usr|cus|acct|resp)_(?=\w{0,80}\d)[a-z0-9]{8,128}\b",
            r"\b(?-i:01[0-9A-HJKMNP-TV-Z]{24})\b|\b(?-i:eyJ[\w-]{10,400}\.[\w-]{10,400})",
        ),
    ),
    (
        "id",
        Severity.MAYBE,
        (
            r"\b(?:commit|build|sha|digest|checksum|etag)\W{1,4}[0-9a-f]{7,64}\b",
            r"\b(?=\w{0,64}\d)(?=\w{0,64}[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})\b",
        ),
    ),
    (
        "nonce",
        Severity.BREAKS,
        (
            r"\b(?:nonce|salt|cache[ _-]?bust(?:er|ing)?|random(?:[ _-]?(?:seed|number|string|id))?|entropy|seed)"
            rf"(?:\sfor\s\w{{1,40}})?{_IS}(?=[\w-]{{0,80}}\d)[\w-]{{3,200}}",
        ),
    ),
    (
        "counter",
        Severity.BREAKS,
        (
            r"(?:^|\b(?:this is|you are (?:on|in|at)|now|[io]n)\b|[\[(:,;.-])\s{0,8}"
            r"(?:message|turn|request|call)\s{0,4}(?:no\.?|number|#)?\s{0,4}\d{1,9}\s{0,4}"
            r"(?:of|/|out of)\s{0,4}\d{1,9}",
            r"\b\d{1,9}\s?(?:of|/|out of)\s?\d{1,9}\s(?:messages|tokens|requests|turns|calls|credits)\b",
            r"\b\d[\d,.]{0,20}\s{1,4}(?:\w{1,30}\s)?(?:messages?|tokens?|credits?|requests?|calls?|turns?)\s"
            r"(?:left|remaining)\b",
            r"\b(?:this is|you are(?: on| in| at)?) (?:message|turn|request|attempt)\s(?:no\.?|number|#)?\s?\d{1,9}",
            rf"\b{_WHOSE} has \d{{1,9}} (?:unread|open|pending|new|active)\b",
            r"\b(?:messages?|tokens?|turns?|requests?|budget|credits?)[ _](?:count|used|left|remaining|so far)"
            r"\s{0,4}[:=]\s{0,4}\$?\d",
            r"\bremaining[ _](?:\w{1,30}[ _])?(?:budget|tokens|credits|messages|turns)\s{0,4}[:=]\s{0,4}\$?\d",
        ),
    ),
    (
        "counter",
        Severity.MAYBE,
        (r"\b(?:message|turn|attempt|iteration|round|page)\s{0,4}#?\d{1,9}\s{0,4}(?:of|/|out of)\s{0,4}\d{1,9}",),
    ),
    (
        "user",
        Severity.BREAKS,
        (
            rf"{_ACTING}(?:{_TITLE})?{_NAME}\s?[(<\[]\s?(?:{_MAIL}|[^)>\]\n]{{0,80}}\d)",
            rf"{_ACTING}(?:{_TITLE}{_NAME}|(?-i:[A-ZÀ-Þ][a-zà-ÿ'’-]{{1,40}}\s(?!{_COMPANY})[A-ZÀ-Þ][a-zà-ÿ'’-]{{1,40}}))"
            r"(?=\s{0,4}(?:[.,;:(<\n]|$|(?:who|from|in|with|about|on|at|today)\b))",
            rf"{_ACTING}{_MAIL}",
            rf"\b(?:(?:current|active|authenticated|(?:signed|logged)[- ]in)\s{_WHOSE}{_IS}(?:{_NAME}|{_MAIL})"
            rf"|{_WHOSE}:\s(?-i:[A-ZÀ-Þ][\w'’-]{{1,40}}\s[A-ZÀ-Þ][\w'’-]{{1,40}}))",
            rf"\b(?:dob|date of birth)\W{{1,3}}{_DATE}",
            rf"\b{_WHOSE}(?:[ _](?:context|profile|data|info|details))?\"?\s{{0,4}}[:=]\s{{0,4}}"
            rf"\{{[^{{}}]{{0,300}}?\"(?:\w{{0,30}}id|\w{{0,30}}name|e?mail)\"\s{{0,4}}:\s{{0,4}}(?-i:\"?\d|\"[A-Z])",
            rf"\b{_WHOSE}[ _-]?(?:(?:full|first|last|display)[ _-]?)?name{_IS}{_NAME}"
            r"(?=['\"*]{0,3}\s{0,4}(?:[.,;(<]|$))",
            rf"\b{_WHOSE}[ _-]?e-?mail(?: address)?{_IS}{_MAIL}",
            rf"\b{_WHOSE}[ _-]?(?:id|number|no\.?|phone|balance|iban|ssn|birthday|date of birth){_IS}"
            r"[$€£+]?(?=[\w.,-]{0,40}\d[\w.,-]{0,40}\d)[\w.,-]{1,80}",
            r"<(?P<tag>(?:user|customer|account|session)_(?:name|info|id|e?mail|profile|context|data|details))>\s{0,8}[^<\s{][^<]{0,300}</(?P=tag)>",
        ),
    ),
    (
        "user",
        Severity.MAYBE,
        (
            rf"{_ACTING}(?-i:[A-ZÀ-Þ][a-zà-ÿ'’-]{{1,40}})(?=[.,(]|\s(?:\(|from\b|who\b))",
            r"^\W{0,12}(?:full )?name:\s(?-i:[A-ZÀ-Þ][\w'’-]{1,40}\s[A-ZÀ-Þ][\w'’-]{1,40})\s{0,8}$",
            rf"\b{_WHOSE}[ _-]?(?:plan|tier|language|locale|time ?zone|role|company)\s{{0,4}}[:=]\s{{0,4}}"
            r"(?-i:[A-Z\d]\S{1,60}|[a-z]{2}\b)",
            _MAIL,
        ),
    ),
    (
        "place",
        Severity.BREAKS,
        (
            rf"\b(?:ip|ip[ _-]address|remote_addr)(?:{_IS}|\s(?!{_QUIET_NET})){_IPV4}(?!/|\.?\d)",
            rf"\b{_WHOSE} (?:lives|is (?:located|based)) in (?-i:[A-ZÀ-Þ]\w{{1,40}})",
            r"\b(?:location|lat(?:itude)?|coordinates|gps|geo|position)\b[^\n\d-]{0,12}"
            r"-?\d{1,2}\.\d{3,12}[^\n\d-]{1,12}-?\d{1,3}\.\d{3,12}",
            rf"\b{_WHOSE}[ _]?(?:location|city|country|address){_IS}(?-i:[A-Z0-9][^\n]{{2,120}})",
        ),
    ),
    (
        "place",
        Severity.MAYBE,
        (
            r"(?<![\w.-])-?\d{1,2}\.\d{4,12},\s{0,4}-?\d{1,3}\.\d{4,12}\b",
            rf"(?<!v)(?<!version )(?<![\d.])(?!{_QUIET_NET}){_IPV4}(?!/|\.?\d)",
        ),
    ),
)
"""Rule, how sure, patterns; the earlier one wins where two match the same text."""


@cache
def rules() -> tuple[tuple[str, Severity, re.Pattern[str]], ...]:
    """The patterns, compiled at their first use: it takes 17 ms, which `import router` should not."""
    return tuple(
        (rule, severity, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
        for rule, severity, patterns in _PATTERNS
        for pattern in patterns
    )


_EXAMPLE_BEFORE = re.compile(
    r"(?:e\.g\.|for example|for instance|example|such as|\blike\b|format|z\. ?b\.|par exemple|por ejemplo|"
    r"bijvoorbeeld)[^.\n]{0,30}$",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|<(?P<tag>examples?|sample)\b.*?(?:</(?P=tag)>|\Z)", re.DOTALL | re.IGNORECASE
)


def find(text: str) -> Iterator[Match]:
    """What in a text is likely to change, without overlaps, in the order of the rules. In time linear in the text."""
    code, taken = bytearray(len(text)), bytearray(len(text))
    for begin, stop in spans_of_code(text):
        code[begin:stop] = b"\1" * (stop - begin)
    for rule, severity, pattern in rules():
        for match in pattern.finditer(text):
            start, end = match.span()
            if taken.find(1, start, end) >= 0:
                continue
            taken[start:end] = b"\1" * (end - start)
            demoted = code[start : start + 1] == b"\1" or _is_fixed(rule, match)
            if (demoted and severity is Severity.MAYBE) or _EXAMPLE_BEFORE.search(text[max(start - 60, 0) : start]):
                continue
            if "@" not in match.group() or severity is Severity.BREAKS or not _ROLE_MAIL.match(match.group()):
                yield Match(rule, Severity.MAYBE if demoted else severity, start, end, _FIXES[rule])


def spans_of_code(text: str) -> list[tuple[int, int]]:
    """Where code and marked examples are: what stands there is quoted more often than it is filled in."""
    return [match.span() for match in _CODE.finditer(text)]


def _is_fixed(rule: str, match: re.Match[str]) -> bool:
    """Whether a placeholder's name does not say that its value changes from request to request."""
    return rule == "placeholder" and not _VOLATILE_NAME.search(match.group().strip("{}[]<>%=$ -"))


# ---- what stays

_PASSING = ("header", "time", "id", "nonce", "counter")
_MAY_CHANGE = re.compile(r"\d|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b|\bx-", re.IGNORECASE)
_READ_CHARS = 65_536
_LINE_CHARS = 2000


def stable(text: str) -> str:
    """A text without times, ids, counters, random values and lines for the provider's books: what identifies it.

    Of a long text the first and the last 32,768 characters are looked at, and of a long line its ends.
    """
    if _MAY_CHANGE.search(text) is None:
        return text
    if len(text) > _READ_CHARS:
        half = _READ_CHARS // 2
        return stable(text[:half]) + text[half:-half] + stable(text[-half:])
    return "\n".join(_stable_line(line) if _MAY_CHANGE.search(line) else line for line in text.split("\n"))


@lru_cache(maxsize=16_384)
def _stable_line(line: str) -> str:
    """Kept, for nearly all lines of a prompt come again: 40 us for a new one, 0.1 us for a known one."""
    if len(line) > _LINE_CHARS:
        half = _LINE_CHARS // 2
        return _stable_line(line[:half]) + line[half:-half] + _stable_line(line[-half:])
    for rule, _, pattern in rules():
        if rule in _PASSING:
            line = pattern.sub("", line)
    return line


_FOR_PROVIDER = re.compile(_HEADER, re.IGNORECASE | re.MULTILINE)


def without_header(text: str) -> str:
    """A text without the lines for the provider's books at its beginning."""
    while (found := _FOR_PROVIDER.match(text)) is not None:
        text = text[found.end() :].lstrip("\n")
    return text


def settled(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A Messages body as another provider than its own is told it: its system prompt begins with what stays.

    Lines for the provider's books are left out; a block or line before the first lasting one that is little more than a
    time, an id or a counter stands behind the rest. The same object where there is nothing to change.
    """
    system = body.get("system")
    if isinstance(system, str):
        lines = system.split("\n")
        kept = _settled(lines, lines)
        return body if kept is lines else {**body, "system": "\n".join(kept)}
    if not isinstance(system, list | tuple) or not all(isinstance(block, Mapping) for block in system):
        return body
    given = list(system)
    blocks = _settled(given, [str(block.get("text") or "") for block in given])
    return body if blocks is given else {**body, "system": blocks}


def _settled(parts: list[Any], texts: list[str]) -> list[Any]:
    """The parts without the leading ones for the provider, those that change last; the same list if there are none."""
    n_leading = next((at for at, text in enumerate(texts) if not _passes(text)), len(parts))
    leading = [part for part, text in zip(parts[:n_leading], texts, strict=False) if not _is_for_provider(text)]
    if not any(text.strip() for text in texts[:n_leading]):
        return parts
    return [*parts[n_leading:], *leading]


def _is_for_provider(text: str) -> bool:
    return not without_header(text.strip()).strip()


def _passes(text: str) -> bool:
    """Whether a short text is little more than what changes."""
    if len(text) > _LINE_CHARS:
        return False
    return not text.strip() or len(stable(text).strip()) <= len(text.strip()) // 2
