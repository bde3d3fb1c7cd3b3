"""`[[rules]]` of tierwise.toml: conditions a request must meet -> a tier, a floor or a ceiling; pure.

The rules are read in order before the classifier is asked, and the first that matches applies. A rule that names a
`tier` decides alone; `min_tier` and `max_tier` bound what the classifier may choose. A rule without conditions always
matches: put last, it makes the rules a classifier of their own that needs no model.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from router.decide import language
from router.errors import SettingsError
from router.types import Task, Tier

READ_CHARS = 100_000
"""How much of a text terms and patterns see: its start. At that length a pattern or a term takes 0.1 to 1 ms."""

_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNSPACED_FROM = "\u0e00"  # from Thai on: scripts that put no space between words, or hang endings on them


_LEAST_INFLECTED = 3
"""Shorter terms are taken as they are: `AI` is no verb."""


class Context(msgspec.Struct, frozen=True):
    """What a rule may know beside the task: header names in lower case, and the NAME of the caller's key, no secret."""

    headers: Mapping[str, str] = {}
    key: str = ""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions, of which all that are given must hold, and one of `tier`, `min_tier`, `max_tier`.

    Words are what white space separates, and in Chinese, Japanese and Thai every two characters; bounds are inclusive.
    `terms`: any of these words or phrases, in any case; `without`: none of them. `pattern`: an RE2 regular
    expression found in the task's text. `language`: ISO 639-1 codes of router.language; a text that shows none matches
    no rule that asks for one. `headers`: name -> value, or "*" for any value. `between`: "22:00-06:00" in `timezone`.
    """

    name: str
    tier: Tier | None = None
    min_tier: Tier | None = None
    max_tier: Tier | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_chars: int | None = None
    max_chars: int | None = None
    terms: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    pattern: str | None = None
    language: tuple[str, ...] = ()
    tools: bool | None = None
    images: bool | None = None
    headers: Mapping[str, str] = {}
    key: tuple[str, ...] = ()
    between: str | None = None
    days: tuple[str, ...] = ()
    timezone: str = "UTC"

    def narrow(self, allowed: Sequence[Tier]) -> list[Tier]:
        """What is left of the tiers that can take the request (not empty, cheap to strong); never empty.

        Where the rule leaves none, the nearest stays: above a tier or a floor the cheapest that is stronger, else the
        strongest; below a ceiling the cheapest.
        """
        if self.tier is not None:
            return [tier for tier in allowed if tier.at_least(self.tier)][:1] or list(allowed[-1:])
        if self.min_tier is not None:
            return [tier for tier in allowed if tier.at_least(self.min_tier)] or list(allowed[-1:])
        highest = self.max_tier or Tier.COMPLEX
        return [tier for tier in allowed if highest.at_least(tier)] or list(allowed[:1])


_Check = Callable[[Task, Context, dt.datetime], bool]


class Rules:
    """Compiled rules. Thread-safe."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """Raises SettingsError, naming the rule, what is wrong with it and the remedy."""
        self._rules: list[tuple[Rule, list[_Check]]] = []
        for rule in rules:
            if rule.name in {other.name for other, _ in self._rules}:
                raise SettingsError(f"two rules are called {rule.name!r}; the name is the reason, so rename one")
            try:
                self._rules.append((rule, _compile(rule)))
            except ValueError as exc:
                raise SettingsError(f"rule {rule.name!r}: {exc}") from exc

    def match(self, task: Task, context: Context, at_s: float) -> Rule | None:
        """The first rule whose conditions all hold; `at_s` is in seconds since the epoch."""
        return next(self.matching(task, context, at_s), None) if self._rules else None

    def matching(self, task: Task, context: Context, at_s: float) -> Iterator[Rule]:
        """All rules whose conditions hold, in order. Only the first applies; the others are behind it."""
        at = dt.datetime.fromtimestamp(at_s, dt.UTC)
        return (rule for rule, checks in self._rules if all(holds(task, context, at) for holds in checks))


def check_names(rules: object, file: object) -> None:
    """Raises SettingsError for a key that no rule has, with the nearest one; what is not a table is msgspec's to name.

    `rules` is the list as TOML gives it.
    """
    for number, rule in enumerate(rules if isinstance(rules, list) else (), start=1):
        for name in rule if isinstance(rule, dict) else ():
            if name not in Rule.__struct_fields__:
                near = get_close_matches(name, Rule.__struct_fields__, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(Rule.__struct_fields__)}"
                raise SettingsError(f"{file}: rule {rule.get('name', number)!r} has the unknown key {name!r}; {remedy}")


def _compile(rule: Rule) -> list[_Check]:
    """The rule's conditions, cheapest first. Raises ValueError."""
    outcomes = [name for name in ("tier", "min_tier", "max_tier") if getattr(rule, name) is not None]
    if len(outcomes) != 1:
        raise ValueError(f"it has {' and '.join(outcomes) or 'no outcome'}, expected one of tier, min_tier, max_tier")
    return [*_of_request(rule), *_of_time(rule), *_of_length(rule), *_of_text(rule)]


def _of_request(rule: Rule) -> Iterable[_Check]:
    if rule.tools is not None:
        yield lambda task, *_: task.has_tools is rule.tools
    if rule.images is not None:
        yield lambda task, *_: task.has_images is rule.images
    if rule.key:
        yield lambda _task, context, _at: context.key in rule.key
    for name, value in rule.headers.items():
        yield _has_header(name.lower(), value)


def _has_header(name: str, value: str) -> _Check:
    if value == "*":
        return lambda _task, context, _at: name in context.headers
    return lambda _task, context, _at: context.headers.get(name) == value


def _of_time(rule: Rule) -> Iterable[_Check]:
    try:
        zone = ZoneInfo(rule.timezone)
    except (KeyError, OSError, ValueError) as exc:  # no such zone, or no zone data on this machine
        raise ValueError(f"timezone {rule.timezone!r} is unknown; expected a name such as Europe/Berlin") from exc
    if rule.between is not None:
        found = _CLOCK.fullmatch(rule.between)
        if found is None:
            raise ValueError(f'between is {rule.between!r}, expected two times of day such as "22:00-06:00"')
        hour, minute, to_hour, to_minute = map(int, found.groups())
        start, end = dt.time(hour, minute), dt.time(to_hour, to_minute)

        def within(_task: Task, _context: Context, at: dt.datetime) -> bool:
            now = at.astimezone(zone).time()
            return start <= now < end if start < end else now >= start or now < end

        yield within
    if wrong := set(rule.days) - set(_DAYS):
        raise ValueError(f"days has {sorted(wrong)}, expected any of {', '.join(_DAYS)}")
    if rule.days:
        yield lambda _task, _context, at: _DAYS[at.astimezone(zone).weekday()] in rule.days


def _of_length(rule: Rule) -> Iterable[_Check]:
    for name in ("words", "chars"):
        low, high = getattr(rule, f"min_{name}"), getattr(rule, f"max_{name}")
        if (low or 0) < 0 or (high is not None and high < (low or 0)):
            raise ValueError(f"min_{name} is {low} and max_{name} {high}: expected 0 <= min <= max")
    if rule.min_chars is not None or rule.max_chars is not None:
        yield lambda task, *_: (rule.min_chars or 0) <= len(task.text) <= _or_any(rule.max_chars)
    if rule.min_words is not None or rule.max_words is not None:
        enough = max(rule.min_words or 0, rule.max_words or 0)  # splitting further would tell nothing more
        yield lambda task, *_: (rule.min_words or 0) <= n_words(task.text, enough) <= _or_any(rule.max_words)


def n_words(text: str, enough: int = -1) -> int:
    """Words between white space, at most `enough` + 1; two characters of a script without spaces count as one more."""
    n = len(text.split(None, enough))
    return n if text.isascii() else n + len(_UNSPACED.findall(text[:READ_CHARS])) // 2


def _or_any(limit: int | None) -> float:
    return float("inf") if limit is None else limit


def _of_text(rule: Rule) -> Iterable[_Check]:
    if wrong := set(rule.language) - set(language.LANGUAGES):
        raise ValueError(f"language has {sorted(wrong)}, expected any of {', '.join(sorted(language.LANGUAGES))}")
    if rule.language:
        yield lambda task, *_: language.detect(task.text) in rule.language
    if rule.terms:
        some = any_of(rule.terms)
        yield lambda task, *_: some(task.text)
    if rule.without:
        none = any_of(rule.without)
        yield lambda task, *_: not none(task.text)
    if rule.pattern is not None:
        found = _pattern(rule.pattern)
        yield lambda task, *_: found.search(task.text[:READ_CHARS]) is not None


def any_of(terms: Iterable[str]) -> Callable[[str], bool]:
    """Whether a text holds any of the terms: whole words in scripts that have spaces, anywhere in others. In any case,
    and in the regular forms of English: `lease` is in "leases" and "leasing", `leases` in "lease".

    Raises ValueError for an empty term, which every text would hold.
    """
    given = [" ".join(term.lower().split()) for term in terms]
    if not all(given):
        raise ValueError("an empty term is in every text; remove it")
    listed = list(dict.fromkeys(form for term in given for form in _forms(term)))
    phrases = any(" " in term for term in listed)

    def some(text: str) -> bool:
        read = text[:READ_CHARS].lower()  # `find` on lower case takes a tenth of what an alternation in `re` takes
        read = " ".join(read.split()) if phrases else read
        return any(_holds(read, term) for term in listed)

    return some


def _forms(term: str) -> Iterator[str]:
    """The term and its regular English forms, by its last word: plural, -ed, -ing; of a plural the singular."""
    yield term
    if not (term.isascii() and term[-3:].isalpha() and len(term) >= _LEAST_INFLECTED):
        return
    stem = term[:-1]
    if term[-1] == "y" and term[-2] not in "aeiou":
        yield from (f"{stem}ies", f"{stem}ied", f"{term}ing")
    elif term[-1] == "e":
        yield from (f"{term}s", f"{term}d", f"{stem}ing")
    elif term.endswith(("s", "x", "z", "ch", "sh")):
        yield from (f"{term}es", f"{term}ed", f"{term}ing")
    else:
        yield from (f"{term}s", f"{term}ed", f"{term}ing")
    if term.endswith("ies"):
        yield f"{term[:-3]}y"
    elif term[-1] == "s" and term[-2] not in "su" and len(term) > _LEAST_INFLECTED:
        yield stem


def _holds(text: str, term: str) -> bool:
    at = text.find(term)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(term) : at + len(term) + 1]
        if not (_joins(before, term[0]) or _joins(after, term[-1])):
            return True
        at = text.find(term, at + 1)
    return False


def _joins(neighbour: str, edge: str) -> bool:
    """Whether the letter beside a term makes it a part of a longer word."""
    return edge < _UNSPACED_FROM and (neighbour.isalnum() or neighbour == "_")


def _pattern(pattern: str) -> Any:
    """RE2 runs in time linear in the text, whatever the pattern; Python's `re` can take hours on 30 characters."""
    try:
        import re2
    except ImportError as exc:
        raise ValueError("a pattern needs RE2: pip install 'tierwise[rules]'") from exc
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        why = exc.args[0].decode() if isinstance(exc.args[0], bytes) else exc.args[0]
        raise ValueError(f"pattern {pattern!r} is no RE2 expression: {why}") from exc
