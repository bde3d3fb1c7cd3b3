"""What in a prompt keeps its prefix from being read from the cache; pure.

A provider reads a prefix from its cache only as far as it is the same, byte for byte, as an earlier request's. `lint`
looks at one prompt and judges by form: it cannot know that a value changes, so whatever may as well be fixed is only a
`MAYBE`. `compare` looks at successive requests and shows where they part: that is evidence.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from router import volatile
from router.cache import items as prefixes
from router.cache.items import Difference, Item, Items, mapping
from router.catalog import Model
from router.types import Api, Body
from router.volatile import Severity

_MAX_BREAKPOINTS = 4
_PARTNERS = 64  # how many earlier requests each one is compared with
_EXCERPT = 60
_JSON_CHARS = 20_000  # so much is read in vain before looking for JSON in a text is given up
_NO_TEXT = ("cache_control", "examples", "example", "enum", "const", "pattern", "default", "$id", "$schema")
"""Fields of a tool whose values are no prose."""


class Finding(msgspec.Struct, frozen=True):
    """One place in a prompt that keeps what is behind it from being reused.

    `path` is into the body (`system[0].text`, `tools[3].input_schema`); `line` counts from 1 and `offset` in characters
    from 0, both within the text at `path`. `lost_tokens` estimates what is behind it in the request. `request` counts
    from 1 among the bodies of a comparison, and `versus` is what an earlier one has in this place.
    """

    rule: str
    severity: Severity
    path: str
    line: int
    offset: int
    excerpt: str
    lost_tokens: int
    remedy: str
    request: int | None = None
    versus: str | None = None


def lint(body_or_text: Body | str, api: Api | None = None) -> list[Finding]:
    """What in one prompt may keep its prefix from being reused, in the order of the prefix.

    A string is a system prompt. Only tools and system prompt are read for changing values: messages belong to one
    conversation. `api` says which wire format the body has; without it, every part that is there is read.
    Raises RequestError for anything else than a string or an object.
    """
    prefix = prefixes.read_items(body_or_text, api)
    findings: list[Finding] = []
    shared = False
    for item in prefix.items:
        if not item.stable:
            break
        for path, text in prefixes.texts(item.value, item.path, _NO_TEXT):
            found = sorted([*_in_text(text, path, shared), *_in_json(text, path)], key=lambda finding: finding.offset)
            findings += [_at(finding, prefix, item) for finding in found]
        findings += [_at(finding, prefix, item) for finding in _in_schema(item)]
        shared = shared or "cache_control" in mapping(item.value)
    return [*findings, *_tool_order(prefix), *_breakpoints(mapping(body_or_text), prefix, findings)]


def compare(bodies: Sequence[Body | str], api: Api | None = None) -> list[Finding]:
    """Where each request's prefix first differs from that of the earlier one with which it shares most.

    A request that goes on where an earlier one ended, or that opens another conversation behind the same tools and
    system prompt, could reuse all there was. Of more than two requests, those whose system prompts have less than
    half of their words in common are taken for other applications. Two are always told apart: a difference that
    breaks nothing is then a `MAYBE`. Raises RequestError as `lint` does.
    """
    read = [prefixes.read_items(body, api) for body in bodies]
    findings = []
    for number, later in enumerate(read[1:], start=2):
        partners = read[max(number - 1 - _PARTNERS, 0) : number - 1][::-1]
        pairs = [(prefixes.first_difference(earlier, later), earlier) for earlier in partners]
        differing = [(difference, earlier) for difference, earlier in pairs if difference is not None]
        if len(differing) < len(pairs):
            continue
        difference, earlier = max(differing, key=lambda pair: pair[0].n_common_chars)
        if len(read) == 2 or (difference.broken and prefixes.alike(earlier.words(), later.words())):
            findings.append(_described(difference, later, number))
    return findings


def check(bodies: Sequence[Body | str], api: Api | None = None) -> list[Finding]:
    """`lint` of each body, what several have in one place said once, then `compare` of all."""
    found: dict[tuple[str, str, int], Finding] = {}
    for number, body in enumerate(bodies, start=1):
        for finding in lint(body, api):
            numbered = msgspec.structs.replace(finding, request=number if len(bodies) > 1 else None)
            found.setdefault((finding.rule, finding.path, finding.offset), numbered)
    return [*found.values(), *compare(bodies, api)]


def _described(difference: Difference, later: Items, number: int) -> Finding:
    """The difference as a finding, with its likely cause where the text there has the form of one."""
    rule, remedy = difference.kind, _REMEDIES[difference.kind]
    old, new, offset = difference.earlier, difference.later, difference.offset
    if difference.kind == "text":
        cause = next((m for m in volatile.find(new) if m.start <= offset <= m.end), None)
        rule, remedy = (cause.rule, cause.remedy) if cause else (rule, remedy)
    else:
        old, new = (json.dumps(value, ensure_ascii=False, default=repr) for value in (old, new))
        offset = 0 if difference.kind == "length" else prefixes.n_common(old, new)
    if not difference.broken:
        remedy = (
            "the requests part within the conversation: another one, or another branch; all before it can be reused"
        )
    severity = Severity.BREAKS if difference.broken else Severity.MAYBE
    found = _finding(rule, severity, difference.path, new, offset, offset + _EXCERPT, remedy)
    shown = " ".join(old[offset : offset + _EXCERPT].split())
    return msgspec.structs.replace(
        found, lost_tokens=later.tokens_behind(difference.n_common_chars), request=number, versus=shown
    )


_REMEDIES = {
    "text": "make this text the same in every request, or move it behind the last breakpoint",
    "value": "keep this value the same in every request",
    "fields": "send the same fields in every request",
    "key_order": "the same keys in another order: build the object once, or write it with sorted keys",
    "tool_order": "the same tools in another order: sort them by name, or keep a fixed list",
    "length": "one request has more in this part: send the same tools and system blocks, and add at the end only",
}


def _in_text(text: str, path: str, shared: bool) -> Iterator[Finding]:
    """Changing text; `shared` says that a breakpoint already closed the part that all users have in common."""
    ends = _line_ends(text)
    for m in volatile.find(text):
        severity = Severity.MAYBE if shared and m.rule == "user" else m.severity
        yield _finding(m.rule, severity, path, text, m.start, m.end, m.remedy, bisect_left(ends, m.start) + 1)


def _line_ends(text: str) -> list[int]:
    """Where lines end: counting them anew for each finding takes the square of a text."""
    return [match.start() for match in re.finditer("\n", text)]


def _in_json(text: str, path: str) -> Iterator[Finding]:
    """JSON pasted into a text whose objects have the same keys in different orders: it was not written canonically."""
    decoder, code, end, left = json.JSONDecoder(), volatile.spans_of_code(text), 0, 2 * len(text) + _JSON_CHARS
    begins, ends = [begin for begin, _ in code], _line_ends(text)
    for match in re.finditer(r"[\[{](?=\s{0,80}[\"{\[])", text):
        at = bisect_right(begins, match.start()) - 1
        if match.start() < end or (at >= 0 and match.start() < code[at][1]):
            continue
        try:
            value, end = decoder.raw_decode(text, match.start())
        except ValueError as exc:  # what opens and never closes is read to its end from each opening
            left -= max(getattr(exc, "pos", 0) - match.start(), 0) + 100
        except RecursionError:
            left -= _JSON_CHARS
        if left < 0:
            return
        if match.start() >= end:
            continue
        line = bisect_left(ends, match.start()) + 1
        if _key_order_clash(value, {}, "") is not None:
            remedy = (
                "write it with sorted keys, json.dumps(value, sort_keys=True), so that equal data gives equal bytes"
            )
            yield _finding("json_order", Severity.BREAKS, path, text, match.start(), end, remedy, line)
        elif end - match.start() > 300 and isinstance(value, dict) and list(value) != sorted(value):
            remedy = "keys are not sorted: write it with json.dumps(value, sort_keys=True) if a program puts it there"
            yield _finding("json_order", Severity.MAYBE, path, text, match.start(), end, remedy, line)


def _key_order_clash(value: Any, seen: dict[frozenset[str], list[str]], path: str) -> str | None:
    """The path of the first object that has the same keys (two or more) as an earlier one in another order."""
    inner: Iterator[tuple[str, Any]] = iter(())
    if isinstance(value, Mapping):
        keys = [key for key in value if key != "cache_control"]
        if len(keys) > 1 and seen.setdefault(frozenset(keys), keys) != keys:
            return path
        inner = ((f"{path}.{key}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inner = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    return next((clash for name, item in inner if (clash := _key_order_clash(item, seen, name)) is not None), None)


def _in_schema(item: Item) -> Iterator[Finding]:
    clash = _key_order_clash(item.value, {}, item.path) if item.part == "tools" else None
    if clash is not None:
        text = json.dumps(item.value, ensure_ascii=False, default=repr)
        remedy = "the same keys in different orders: build the tools once, or sort their keys, if a program makes them"
        yield _finding("json_order", Severity.MAYBE, clash, text, 0, len(text), remedy)


def _tool_order(prefix: Items) -> Iterator[Finding]:
    names = prefixes.tool_names(prefix)
    for index, (before, name) in enumerate(pairwise(names), start=1):
        if name < before:
            remedy = (
                "tools are not sorted: if their order ever changes, all is lost; sort by name, or keep a fixed list"
            )
            found = _finding("tool_order", Severity.MAYBE, prefix.items[index].path, f"{before}, {name}", 0, 99, remedy)
            yield _at(found, prefix, prefix.items[index])
            return


def _breakpoints(body: Mapping[str, Any], prefix: Items, findings: list[Finding]) -> Iterator[Finding]:
    """What is wrong with the cache_control fields that the body carries."""
    marks = [(item, path, block) for item in prefix.items for path, block in _marked(item.value, item.path)]
    n_marks = len(marks) + (body.get("cache_control") is not None)  # the automatic one takes a place
    if n_marks > _MAX_BREAKPOINTS:
        remedy = f"{n_marks} breakpoints, at most {_MAX_BREAKPOINTS} are taken: take some out"
        yield _mark(prefix, *marks[-1], remedy)
    n_short = 0
    for item, path, block in marks:
        ttl = mapping(block["cache_control"]).get("ttl", "5m")
        if ttl not in ("5m", "1h"):
            yield _mark(prefix, item, path, block, f'ttl {ttl!r} is rejected: "5m" or "1h"')
        elif ttl == "1h" and n_short:
            yield _mark(prefix, item, path, block, "1h behind 5m is rejected: longer lifetimes come first")
        n_short += ttl == "5m"
        kind = block.get("type")
        if kind in ("thinking", "redacted_thinking") or (kind == "text" and not block.get("text")):
            yield _mark(prefix, item, path, block, "empty text and thinking cannot be marked: mark the block before")
    stable = [mark for mark in marks if mark[0].stable]
    if stable and prefix.model:
        yield from _below_minimum(prefix, prefix.model, *stable[-1])
    changing = next((f for f in findings if f.severity is Severity.BREAKS), None)
    order = {item.path: index for index, item in enumerate(prefix.items)}
    for item, path, block in stable:
        if changing and order[_holder(changing.path)] <= order[item.path]:
            remedy = f"what it writes is never read: {changing.path} changes before it; put the mark before that"
            yield _mark(prefix, item, path, block, remedy)
            return


def _below_minimum(prefix: Items, model: Model, item: Item, path: str, block: Mapping[str, Any]) -> Iterator[Finding]:
    tokens = model.estimate_tokens(item.start + item.size)
    if tokens < model.cache_min_tokens:
        remedy = f"about {tokens} tokens up to here, {model.id} caches from {model.cache_min_tokens}: it does nothing"
        sure = tokens < 0.8 * model.cache_min_tokens  # the estimate is good to about 20 %
        yield _mark(prefix, item, path, block, remedy, Severity.BREAKS if sure else Severity.MAYBE)


def _holder(path: str) -> str:
    """The item that a path leads into: system, system[0], tools[3], messages[0]."""
    found = re.match(r"\w+(?:\[\d+\])?", path)
    return found.group() if found else path


def _marked(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    block = mapping(value)
    if block.get("cache_control") is not None:
        yield path, block
    content = block.get("content")
    for index, inner in enumerate(content if isinstance(content, list | tuple) else ()):
        yield from _marked(inner, f"{path}.content[{index}]")


def _mark(
    prefix: Items, item: Item, path: str, block: Mapping[str, Any], remedy: str, severity: Severity = Severity.BREAKS
) -> Finding:
    text = json.dumps(block["cache_control"], default=repr)
    found = _finding("breakpoint", severity, f"{path}.cache_control", text, 0, len(text), remedy)
    return msgspec.structs.replace(found, lost_tokens=prefix.tokens_behind(item.start))


def _finding(
    rule: str, severity: Severity, path: str, text: str, start: int, end: int, remedy: str, line: int | None = None
) -> Finding:
    shown = " ".join(text[start:end].split())
    shown = shown if len(shown) <= _EXCERPT else shown[: _EXCERPT - 1] + "…"
    line = text.count("\n", 0, start) + 1 if line is None else line
    return Finding(rule, severity, path, line, start, shown, 0, remedy)


def _at(finding: Finding, prefix: Items, item: Item) -> Finding:
    """The finding with what is lost behind it."""
    lost = prefix.tokens_behind(item.start + min(finding.offset, item.size))
    return msgspec.structs.replace(finding, lost_tokens=lost)
