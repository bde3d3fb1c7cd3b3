"""Text that is likely to differ from request to request, by its form; pure.

A form can only suggest that a value changes: what a fixed text holds just as often (a date in prose, a UUID without
a label in an example) is a `MAYBE` or left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

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
    r"[^\W\d]*\.?"
)
_WEEKDAY = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
_DATE = (
    rf"(?:(?:{_WEEKDAY},?\s+)?(?:the\s+)?(?:\d{{4}}-\d\d-\d\d|\d{{1,2}}(?:\.|st|nd|rd|th)?\s(?:de\s|of\s)?{_MONTH}(?:\sde)?,?"
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
_NAME = r"(?-i:[A-ZÀ-Þ][\w'’-]+(?:\s(?:van|de|der|von|bin|al-)?\s?[A-ZÀ-Þ][\w'’-]+){0,3})"
_MAIL = r"[\w.+-]+@[\w-]+\.[\w.-]*\w"
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
_IS = r"['\"*`]*(?:\s*[:=#]\s*|\sis\s)['\"*`]*"
_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_QUIET_NET = r"(?:10|127|0|255|192\.168|172\.(?:1[6-9]|2\d|3[01]))\."

_BEHIND = "move it behind the last breakpoint: into a last system block of its own, or into the user message"
_FIXES = {
    "placeholder": f"whatever fills it in changes the prefix from here on: {_BEHIND}",
    "time": f"leave it out, give the model a tool that tells the time, or {_BEHIND}",
    "id": f"keep ids in metadata or headers, where the model does not read them; if it must, {_BEHIND}",
    "nonce": "take it out: a random value makes every request the first of its kind",
    "counter": f"a counter differs in each request: {_BEHIND}",
    "user": f"the text before it is shared by all users, the text behind it by none: {_BEHIND}",
    "place": f"the text before it is shared by all users, the text behind it by none: {_BEHIND}",
}
_PATTERNS: tuple[tuple[str, Severity, tuple[str, ...]], ...] = (
    (
        "placeholder",
        Severity.BREAKS,
        (
            r"\{\{-?\s*[\w.|' -]+?\s*-?\}\}|<%=?\s*[\w.]+\s*%>|\$\{[\w.]+\}|%\(\w+\)s",
            r"(?<![/\w$\{])\{[a-z_]\w*(?:\.\w+)*\}(?![/\}])",
            r"(?-i:\$[A-Z]+_[A-Z_]+\b|<[A-Z]+(?:_[A-Z]+)+>)",
            r"(?-i:(?<!\w)\[\[?(?:USER|CUSTOMER|CURRENT|DATE|TIME)[A-Z_ ]*\]\]?)",
        ),
    ),
    (
        "time",
        Severity.BREAKS,
        (
            rf"{_TODAY}[^.;\n\d]{{0,25}}?{_DATE}(?:[ T,]+(?:at )?\d\d?:\d\d(?::\d\d)?)?",
            rf"{_TODAY}[^.;\n\d]{{0,25}}?\d{{1,2}}:\d\d(?::\d\d)?",
            rf"\b(?:today(?:'s date)?(?:\sis|:)|it is(?: now)?|it's)\s{_WEEKDAY}\b",
            r"\b(?:generated|retrieved|fetched|rendered|exported|received|reads)(?:\s(?:at|on))?:?\s"
            rf"(?:{_DATE}|\d\d:\d\d(?::\d\d)?)",
            rf"\b(?:current (?:month|year)|the (?:month|year))(?:\sis|:)\s(?:{_MONTH}\s)?\d{{4}}\b",
            r"\b(?:it is|it's|il est|es ist|het is|son las)\s(?:now\s|currently\s)?\d{1,2}:\d\d\b",
            r"\b(?!1970)\d{4}([-/])\d\d\1\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:\s?(?:Z|[+-]\d\d:?\d\d|UTC))?",
            rf"\b{_WEEKDAY},?\s\d{{1,2}}\s{_MONTH}\s\d{{4}}\s\d\d:\d\d(?::\d\d)?",
            rf"\b{_WEEKDAY}\s{_MONTH}\s+\d{{1,2}}\s\d\d:\d\d:\d\d\s(?:[A-Z]{{3,4}}\s)?\d{{4}}",
            rf"^[\W_]*{_LABEL}[\W_]{{0,3}}\s*[:=]\s*[\W_]{{0,3}}{_DATE}",
            rf"^\W*{_DATE}\W*$",
            r"\b(?:time|ts|epoch|now|at|timestamp|unix)\b\W{0,4}(?:is\s)?1[5-9]\d{8}(?:\d{3})?(?:\.\d+)?\b",
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
            rf"[ _-]?(?:id|number|no\.?)?{_IS}(?=[\w-]*\d)[\w-]{{6,}}",
            rf"\b(?:chat|ticket|call|case|job|order)[ _-]?(?:id|number|no\.?){_IS}(?=[\w-]*\d)[\w-]{{6,}}",
            r"\b(?:sid|uid|rid|guid|jti|trace|sess)\s?[=:]\s?(?=[\w-]*\d)[\w-]{4,}",
            r"\b(?:trace|span|request|session|run)\s(?=\w*\d)[0-9a-f]{16,}\b",
            r"\b(?:req|sess|session|msg|thread|conv|run|trace|usr|cus|acct|resp)_(?=\w*\d)[a-z0-9]{8,}\b",
            r"\b(?-i:01[0-9A-HJKMNP-TV-Z]{24})\b|\b(?-i:eyJ[\w-]{10,}\.[\w-]{10,})",
        ),
    ),
    (
        "id",
        Severity.MAYBE,
        (
            r"\b(?:commit|build|sha|digest|checksum|etag)\W{1,4}[0-9a-f]{7,64}\b",
            r"\b(?=\w*\d)(?=\w*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})\b",
        ),
    ),
    (
        "nonce",
        Severity.BREAKS,
        (
            r"\b(?:nonce|salt|cache[ _-]?bust(?:er|ing)?|random(?:[ _-]?(?:seed|number|string|id))?|entropy|seed)"
            rf"(?:\sfor\s\w+)?{_IS}(?=[\w-]*\d)[\w-]{{3,}}",
        ),
    ),
    (
        "counter",
        Severity.BREAKS,
        (
            r"(?:^|\b(?:this is|you are (?:on|in|at)|now|[io]n)\b|[\[(:,;.-])\s*"
            r"(?:message|turn|request|call)\s*(?:no\.?|number|#)?\s*\d+\s*(?:of|/|out of)\s*\d+",
            r"\b\d+\s?(?:of|/|out of)\s?\d+\s(?:messages|tokens|requests|turns|calls|credits)\b",
            r"\b\d[\d,.]*\s+(?:\w+\s)?(?:messages?|tokens?|credits?|requests?|calls?|turns?)\s(?:left|remaining)\b",
            r"\b(?:this is|you are(?: on| in| at)?) (?:message|turn|request|attempt)\s(?:no\.?|number|#)?\s*\d+",
            rf"\b{_WHOSE} has \d+ (?:unread|open|pending|new|active)\b",
            r"\b(?:messages?|tokens?|turns?|requests?|budget|credits?)[ _](?:count|used|left|remaining|so far)"
            r"\s*[:=]\s*\$?\d",
            r"\bremaining[ _](?:\w+[ _])?(?:budget|tokens|credits|messages|turns)\s*[:=]\s*\$?\d",
        ),
    ),
    ("counter", Severity.MAYBE, (r"\b(?:message|turn|attempt|iteration|round|page)\s*#?\d+\s*(?:of|/|out of)\s*\d+",)),
    (
        "user",
        Severity.BREAKS,
        (
            rf"{_ACTING}(?:{_TITLE})?{_NAME}\s?[(<\[]\s?(?:{_MAIL}|[^)>\]\n]*\d)",
            rf"{_ACTING}(?:{_TITLE}{_NAME}|(?-i:[A-ZÀ-Þ][a-zà-ÿ'’-]+\s(?!{_COMPANY})[A-ZÀ-Þ][a-zà-ÿ'’-]+))"
            r"(?=\s*(?:[.,;:(<\n]|$|(?:who|from|in|with|about|on|at|today)\b))",
            rf"{_ACTING}{_MAIL}",
            rf"\b(?:(?:current|active|authenticated|(?:signed|logged)[- ]in)\s{_WHOSE}{_IS}(?:{_NAME}|{_MAIL})"
            rf"|{_WHOSE}:\s(?-i:[A-ZÀ-Þ][\w'’-]+\s[A-ZÀ-Þ][\w'’-]+))",
            rf"\b(?:dob|date of birth)\W{{1,3}}{_DATE}",
            rf"\b{_WHOSE}(?:[ _](?:context|profile|data|info|details))?\"?\s*[:=]\s*"
            rf"\{{[^{{}}]*?\"(?:\w*id|\w*name|e?mail)\"\s*:\s*(?-i:\"?\d|\"[A-Z])",
            rf"\b{_WHOSE}[ _-]?(?:(?:full|first|last|display)[ _-]?)?name{_IS}{_NAME}(?=['\"*]*\s*(?:[.,;(<]|$))",
            rf"\b{_WHOSE}[ _-]?e-?mail(?: address)?{_IS}{_MAIL}",
            rf"\b{_WHOSE}[ _-]?(?:id|number|no\.?|phone|balance|iban|ssn|birthday|date of birth){_IS}"
            r"[$€£+]?(?=[\w.,-]*\d[\w.,-]*\d)[\w.,-]+",
            r"<(?P<tag>(?:user|customer|account|session)_(?:name|info|id|e?mail|profile|context|data|details))>\s*[^<\s{][^<]{0,300}</(?P=tag)>",
        ),
    ),
    (
        "user",
        Severity.MAYBE,
        (
            rf"{_ACTING}(?-i:[A-ZÀ-Þ][a-zà-ÿ'’-]+)(?=[.,(]|\s(?:\(|from\b|who\b))",
            r"^\W*(?:full )?name:\s(?-i:[A-ZÀ-Þ][\w'’-]+\s[A-ZÀ-Þ][\w'’-]+)\s*$",
            rf"\b{_WHOSE}[ _-]?(?:plan|tier|language|locale|time ?zone|role|company)\s*[:=]\s*"
            r"(?-i:[A-Z\d]\S+|[a-z]{2}\b)",
            _MAIL,
        ),
    ),
    (
        "place",
        Severity.BREAKS,
        (
            rf"\b(?:ip|ip[ _-]address|remote_addr)(?:{_IS}|\s(?!{_QUIET_NET})){_IPV4}(?!/|\.?\d)",
            rf"\b{_WHOSE} (?:lives|is (?:located|based)) in (?-i:[A-ZÀ-Þ]\w+)",
            r"\b(?:location|lat(?:itude)?|coordinates|gps|geo|position)\b[^\n\d-]{0,12}"
            r"-?\d{1,2}\.\d{3,}[^\n\d-]{1,12}-?\d{1,3}\.\d{3,}",
            rf"\b{_WHOSE}[ _]?(?:location|city|country|address){_IS}(?-i:[A-Z0-9][^\n]{{2,}})",
        ),
    ),
    (
        "place",
        Severity.MAYBE,
        (
            r"(?<![\w.-])-?\d{1,2}\.\d{4,},\s*-?\d{1,3}\.\d{4,}\b",
            rf"(?<!v)(?<!version )(?<![\d.])(?!{_QUIET_NET}){_IPV4}(?!/|\.?\d)",
        ),
    ),
)
"""Rule, how sure, patterns; the earlier one wins where two match the same text."""
_RULES = tuple(
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
    """What in a text is likely to change, without overlaps, in the order of the rules."""
    code = spans_of_code(text)
    taken: list[tuple[int, int]] = []
    for rule, severity, pattern in _RULES:
        for match in pattern.finditer(text):
            start, end = match.span()
            if any(start < stop and begin < end for begin, stop in taken):
                continue
            taken.append((start, end))
            demoted = any(begin <= start < stop for begin, stop in code) or _is_fixed(rule, match)
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
