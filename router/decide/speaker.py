"""Whose words these are: the user's ask, what a harness put around it, what a tool answered; pure.

By rules, not by a list of agents: the words in the name of a tag, heading or label say what it holds, in any case and
spelling; a lead-in ("the user sent a message while you worked:") says that the user's words follow; and the tongue of a
protocol (blocks, fences, formats, tool calls) says that a program speaks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache

from router.decide.markup import Marker, words
from router.decide.words import vocabulary


class Kind(Enum):
    """What a marked stretch of a text is."""

    ASK = auto()
    """The user's own words, by a name that leaves no doubt."""
    WEAK_ASK = auto()
    """Theirs, if what surrounds it is not: "Question:" stands in ordinary texts, too."""
    REPLY = auto()
    """Theirs, once the assistant has said something: feedback, an answer."""
    CONTEXT = auto()
    RULES = auto()
    RESULT = auto()
    CUE = auto()
    """Where the model is to go on: "Answer:", "Thought:"."""
    END = auto()
    """Closes what was opened: "[/CONTEXT]", "--- END ISSUE ---"."""
    NONE = auto()


_MATTERS = frozenset(("issue", "problem", "pr", "bug", "ticket", "story", "feature"))
_DESCRIBES = frozenset(("description", "statement", "text", "body", *_MATTERS))
_DETERMINERS = frozenset(("the", "this", "final", "main", "primary", "your"))
_NEAR = 2  # words between "user" and "question" at most


@lru_cache(maxsize=2048)
def of_tag(name: str) -> Kind:
    """What a tag of that name holds; NONE for one that may be the user's own markup."""
    found = words(name)
    if not found:
        return Kind.NONE
    last, rest = found[-1], frozenset(found[:-1])
    if last in ("args", "arguments") and "command" in rest:
        return Kind.ASK
    if last in _DESCRIBES and (not rest or rest & _MATTERS):
        return Kind.NONE
    if last in vocabulary("asks") and rest & vocabulary("whose"):
        return Kind.ASK
    if rest <= _DETERMINERS and last in vocabulary("asks_alone"):
        return Kind.ASK
    if last in vocabulary("replies") and (not rest or rest & vocabulary("whose")):
        return Kind.REPLY
    if _is_result(found):
        return Kind.RESULT
    if last in vocabulary("rules_of_harness"):
        return Kind.RULES
    if last in vocabulary("contexts") or (rest & vocabulary("contexts") and not _is_component(name)):
        return Kind.CONTEXT
    if len(found) > 1 and ("_" in name or rest & vocabulary("rules_of_harness")):
        return Kind.CONTEXT  # no HTML element has such a name
    return Kind.NONE


def _is_result(found: Sequence[str]) -> bool:
    if found[-1] in ("returncode", "observation"):
        return True
    return found[-1] in vocabulary("results") and bool(frozenset(found[:-1]) & vocabulary("calls"))


def _is_component(name: str) -> bool:
    """Whether a name is spelt as components of a web page are."""
    return name[:1].isupper() and "_" not in name and "-" not in name and not name.isupper()


@lru_cache(maxsize=4096)
def of_title(title: str) -> Kind:
    """What stands under a heading or behind a label."""
    if title.lstrip("[<=-*# ").startswith("/"):
        return Kind.END
    found = words(title)
    if not 0 < len(found) <= 12:
        return Kind.NONE
    if found[0] == "end" or (found[-1] == "end" and len(found) > 1):
        return Kind.END
    found = tuple(word for word in found if word not in ("begin", "start"))
    if not found or (
        len(found) == 1 and found[0] in ("input", "output", "goal", "message", "command", "action", "objective")
    ):
        return Kind.NONE
    for at, word in enumerate(found):
        before = frozenset(found[max(at - _NEAR, 0) : at])
        if word in vocabulary("asks") and before & vocabulary("whose"):
            return Kind.ASK
        if word in ("instructions", "want", "need") and before & {"new", "my", "i", "user"}:
            return Kind.ASK
    if len(found) == 1 and (found[0] in vocabulary("asks_alone") or found[0] in ("human", "issue", "instruction")):
        return Kind.WEAK_ASK
    if len(found) <= 2 and found[-1] in vocabulary("cues"):
        return Kind.CUE
    if _is_result(found):
        return Kind.RESULT
    known = frozenset(found)
    if known & vocabulary("rules_of_harness"):
        return Kind.RULES
    return Kind.CONTEXT if known & vocabulary("contexts") else Kind.NONE


# ---- the user's words in what a harness says

_SPOKE = (
    r"(?:sent|send|sends|said|says|wrote|writes|asked|asks|added|adds|typed|provided|provides|left|leaves|gave|gives|"
    r"feedback|message|interjection|comment|correction|interruption|follow-?up|input|reply|replied|replies|answered|answers|responded|responds|commented|instructions?|interjected|told|"
    r"requested|requests)"
)
_LEAD_IN = re.compile(
    rf"(?:\b(?:user|human|customer|operator)(?:'s)?\b(?![-_])[^\n.:!?]{{0,80}}\b{_SPOKE}\b|"
    r"\b(?:given|provided|sent|said|left|added|typed|written|entered|supplied) by (?:the )?(?:user|human|customer)\b|"
    rf"\bnew (?:instructions?|message|request)\b)[^\n.:!?]{{0,80}}:",
    re.I,
)
_HARNESS = re.compile(
    r"\b(?:tool|edit|operation|command|plan|action|reject(?:ed|s)?|den(?:ied|ies)|declined?|approved?|applied|executed|"
    r"interrupt(?:ed|s)?|work(?:ing)?|task|proceed|user)\b",
    re.I,
)
_LEAD_IN_CHARS = 400
"""A lead-in stands this near to the start of what a harness or a tool says."""
_CLOSING = re.compile(
    r"(?:please |now |you (?:can|may|should|must) |important|note\b|remember|after |once |before |when |see to |"
    r"continue|address|consider|do not |don't |respond |this is )",
    re.I,
)
_WORK = re.compile(
    r"\b(?:your|current|the|this) (?:current )?(?:task|tasks|work|plan)\b|\bcontinue\b|\bproceed\b|\bmessage\b|"
    r"\buser's\b|\bin mind\b|\bprevious\b|\bautomat\w{0,8}\b",
    re.I,
)


def told(text: str) -> str:
    """The user's words behind a lead-in near the start of a text, without the closing words of the harness; "" if none.

    Before a lead-in only a harness speaks: what a file or a transcript says that some user said is no ask.
    """
    found = _LEAD_IN.search(text[: 2 * _LEAD_IN_CHARS])
    if found is None or found.start() > _LEAD_IN_CHARS:
        return ""
    before = text[: found.start()].strip()
    if before and not all(_HARNESS.search(sentence) for sentence in before.split(".") if len(sentence.split()) > 1):
        return ""
    return _without_closing(text[found.end() :].strip())


def _without_closing(text: str) -> str:
    """Without the paragraph, or the last sentence, in which the harness says how to go on."""
    paragraphs = text.split("\n\n")
    while len(paragraphs) > 1 and _CLOSING.match(paragraphs[-1]) and _WORK.search(paragraphs[-1]):
        paragraphs.pop()
    text = "\n\n".join(paragraphs).strip()
    head, dot, last = text.rpartition('". ')
    return f'{head}"' if dot and _CLOSING.match(last) and _WORK.search(last) else text


# ---- what a program says

_RESULT_HEAD = re.compile(
    r"[\s#*_=-]{0,20}(?:"
    r"\[[^\]\n]{1,200}\][ \t]{0,3}(?:result|output|response|error)s?\b|"
    r"\[[\w.-]{2,40}(?: for '[^\n]{0,200}'| completed| error)\]|"
    r"(?:observation|exit ?code|returncode|call id|code output|execution logs?|stdout|stderr)\b[^\n:]{0,60}:|"
    r"(?:tool|function|action|execution|stop hook|hook|mcp)\b[^\n:]{0,20}\b(?:result|output|response|returned|error|"
    r"feedback|failed|executed|finished)\b[^\n:]{0,80}[:.]|"
    r"(?:command|script|agent)\b[^\n:]{0,60}\b(?:result|output|response|returned|executed|finished)\b[^\n:]{0,80}[:.]|"
    r"(?:results?|output|response) (?:of|from|for) [^\n:]{1,80}:|"
    r"called the [^\n]{1,40} (?:tool|function)\b|i ran (?:this|the) command\b)",
    re.I,
)
_NAG_HEAD = re.compile(
    r"\s{0,20}(?:\[(?:error|warning|system|task|notice|automated|reminder)\b[^\]\n]{0,60}\]|#{1,3} |error:|warning:|"
    r"invalid |could not parse|your (?:last|previous) |you (?:did not|didn't|must|seem|have not|haven't)\b|"
    r"continue\b|please (?:always|continue|retry|respond|use|provide)\b|the (?:llm|model|assistant)\b|"
    r"the previous response\b|no tool\b|format error)",
    re.I,
)
_PROTOCOL = (
    "tool use", "tool call", "used no tool", "use a tool", "no tool", "action", "edit format", "block", "parse",
    "triple", "call a tool", "finish tool", "if finished", "if you are done", "working on the task",
    "previous response", "last answer", "your last", "automated", "automatic", "xml", "json", "errors below", "lint",
    "running:", "failed to match", "search/replace", "invalid format", "missing '", "whatever approach",
    "finish the interaction", "human help", "was interrupted", "may have been incomplete", "task resumption",
    "next steps",
    "attempt completion", "attempt_completion", "retry with", "required parameter",
)  # fmt: skip


def is_result(text: str) -> bool:
    """Whether a text begins as a tool's result does, or as what a harness sends of itself to keep a model going."""
    if _RESULT_HEAD.match(text):
        return True
    head = text.lstrip()[:80].partition("\n")[0]
    if head[:1] in ("#", "*", "=", "-") and of_title(head.partition("(")[0]) is Kind.RESULT:
        return True
    if not _NAG_HEAD.match(text):
        return False
    head = text[:600].lower()
    return sum(term in head for term in _PROTOCOL) >= 2


_GIVES = re.compile(
    r"\b(?:files?|repo(?:sitory)?|workspace|director(?:y|ies)|documentation|read[- ]?only|conventions|"
    r"content of https?|setting up the context|code from|selected code|project structure)\b",
    re.I,
)
_ACKNOWLEDGED = re.compile(
    r"(?:ok(?:ay)?|understood|got it|noted|sure|alright|thanks|i (?:will|won't|see|have read)|i'll)\b", re.I
)


def is_handed_over(text: str, answer: str) -> bool:
    """Whether a message only hands over files or surroundings, and the assistant's answer just acknowledges them."""
    if len(answer) > 160 or "?" in answer or not _ACKNOWLEDGED.match(answer.strip()):
        return False
    head = text[:400].split("```")[0]
    return "?" not in head and _GIVES.search(head) is not None


_HANDS = re.compile(
    r"(?:here (?:is|are)|below (?:is|are)|the following (?!files)|these are|relevant|retrieved|attached|"
    r"additional|some|context)\b"
    r"(?![^\n]{0,80}\b(?:my|our|mine|i)\b)[^\n]{0,80}\b(?:snippets?|context|documents?|results|passages|excerpts|"
    r"chunks|files?|sources|information|segments)\b[^\n]{0,60}:\s{0,4}\n",
    re.I,
)
_RETRIEVED = frozenset(("relevant", "retrieved", "snippets", "passages", "chunks", "knowledge", "excerpts"))


def without_handed(text: str) -> str:
    """An ask without the code or passages in fences that somebody else than the user has put before it."""
    if "```" not in text or _HANDS.match(text) is None:
        return text
    head, fence, rest = text.rpartition("```")
    return rest.strip() if fence and head.count("```") % 2 and rest.strip() else text


def is_retrieved(marker: Marker) -> bool:
    """Whether what stands under a marker was found by a program."""
    return bool(_RETRIEVED.intersection(words(marker.title)))


_ME = re.compile(r"\b(?:me|my|our)\b", re.I)
_BINDS = ("must", "only", "every", "always", "never", "do not", "don't", "format", "remember", "exactly")
_EDITS = (
    "search/replace", "diff", "hunk", "fence", "file listing", "entire content", "file path", "full path", "edit",
    "code block", "block", "divider", "placeholder", "lines to", "old lines", "new lines",
)  # fmt: skip
_MAY_BIND = ("block", "diff", "fence", "hunk", "listing", "format", "rule", "entire content", "guideline", "reminder")
_FORMATS = (*_EDITS, "json", "xml", "markdown", "field", "return", "respond", "tag", "marker", "output", "reply")
_RESPOND = re.compile(
    r"\s{0,8}\(?(?:respond|answer|return|reply|output|remember|reminder|write|provide|you must)\b", re.I
)


def without_rules(text: str, *, in_template: bool = False) -> str:
    """An ask without the paragraphs behind it that say in which form the model has to write or edit.

    `in_template`: an application's words stand around it, so a lone "Respond with ..." at the end is its as well.
    """
    if "\n\n" not in text or not (in_template or any(map(text.lower().__contains__, _MAY_BIND))):
        return text
    paragraphs = text.split("\n\n")
    first = len(paragraphs)
    for at in range(len(paragraphs) - 1, 0, -1):
        paragraph = paragraphs[at]
        if _is_rule(paragraph, "\n".join(paragraphs[at : at + 4])) or (
            in_template and at == len(paragraphs) - 1 and _RESPOND.match(paragraph) and _n_of(_FORMATS, paragraph) > 1
        ):
            first = at
        elif not _is_sample(paragraph) and _n_of(_FORMATS, paragraph) < 2:
            break
    return "\n\n".join(paragraphs[:first])


def _is_rule(paragraph: str, with_next: str) -> bool:
    head = paragraph.lstrip()
    if head.startswith("#") and of_title(head.partition("\n")[0]) is Kind.RULES:
        return _n_of(_FORMATS, with_next) > 1
    return _n_of(_EDITS, paragraph) > 1 and _n_of(_BINDS, paragraph) > 0 and _ME.search(paragraph[:2000]) is None


def _is_sample(paragraph: str) -> bool:
    """Whether a paragraph is a piece of code or an example between rules."""
    return "```" in paragraph or (
        "\n" not in paragraph and len(paragraph) < 80 and not paragraph.rstrip().endswith("?")
    )


def _n_of(terms: Sequence[str], text: str) -> int:
    read = text[:2000].lower()
    return sum(term in read for term in terms)


_CALL = re.compile(
    r"(?:</(?:[a-z]+_[a-z_]+|invoke|parameter|function|function_calls|tool_call|tool|code)>|"
    r"\bAction(?: Input)?:[^\n]{0,400}|"
    r"\"(?:action_input|action|tool|tool_name|function)\"\s{0,4}:[^`]{0,400}```)\s{0,40}$",
    re.I,
)
_ASKS_BACK = ("question", "completion", "finish", "respond", "plan_mode", "result>")


def calls_tool(answer: str) -> bool:
    """Whether the assistant's text ends in a call of a tool, so that what comes next is its result."""
    tail = answer[-600:].rstrip()
    if tail[-1:] not in (">", "`") and "Action" not in tail:
        return False
    found = _CALL.search(tail)
    return found is not None and not any(word in tail[-200:].lower() for word in _ASKS_BACK)


def sections(text: str, found: Sequence[Marker]) -> list[tuple[Kind, Marker, str]]:
    """What stands under each marker that says what it is, in their order."""
    known = [(kind, marker) for marker in found if (kind := of_title(marker.title)) is not Kind.NONE]
    ends = [*(marker.start for _, marker in known[1:]), len(text)]
    return [(kind, marker, text[marker.end : end]) for (kind, marker), end in zip(known, ends, strict=False)]
