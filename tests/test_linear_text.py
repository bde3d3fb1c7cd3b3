"""No text of a caller's takes more than linear time: each pattern of the package, and each reader of texts."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import router
from router import lint, volatile
from router.cache.breakpoints import read_prefix
from router.decide import language, markup, speaker
from router.decide.rules import any_of, n_words
from router.decide.task import read_task
from router.formats.translations import Translations
from router.types import Api
from tests.conftest import ROOT

N_CHARS = 8_000
FREE_S = 0.012
"""At N_CHARS characters a pattern that takes the square of its text takes more: 8,000 x 8,000 / 2 steps are 0.03 s."""
MAX_RATIO = 3.0

HOSTILE = (
    "<a-b ", "<a_b>\n", "</a-b>", "<user_query>\n", "<system-reminder>\n", "<file name='a'>\n", "<my-card><p>",
    "```\n", "`", "[", "[a] ", "{", "{{ ", "${", "{a.", "<A_", "$A_", "\"", "\"a", "'", " ", "\t", "\n", "\n\n",
    "\n \n", "a", "a ", "a.", "a-", "a_", "a:", "a: ", "0", "0.", "1,", "2026-", "10:", "jan", "monday ", "today ",
    "current ", "user ", "user said ", "the user sent ", "user_id", "user: {", "call ", "request ", "request-",
    "request id ", "id: ", "trace=", "eyJa-", "a@", "a.a@a.", "@a.", "x-a:", "x-a: b=", "now ", "message 1 ", "1 of ",
    "0 tokens ", "cache bust ", "seed ", "ip ", "1.1.1.1", "data: ", "data:  \r", "\r\n", "# ", "**a", "---",
    "=== a ===\n", "-----\n", "Observation: ", "\nObservation:", "Question: a\n", "Thought:\n", "example ",
    "launched ", "created by ", "again ", "again, ", "yes ", "the ", "that's ", "wrong ", "! ", "- ", "あ", "\ud800",
    "summarize the conversation ", "title for ", "only ", "in 5 ", "Dr. Aa Aa ", "helping Aa ", "location ",
    "1.2345, ", "e.g. ", "name=\"", "boundary=", "\"usage\" : ", "gpt-", "\\\\",
)  # fmt: skip
UNCLOSED = (
    "<a-b ", "<user_query>\n", "<system-reminder>\n", "<file name='a'>\n", "```\n", "[a] ", "{", "[\"a\", ", "{\"a\": ",
    " ", "\n", "Question: a\n", "Observation: ", "2026-11-26 ", "the user sent ", "## a\n", "a\n\n", "a: b\n",
    "**a**\n",
    "x-a: b=c\n",
)  # fmt: skip
PATTERN_CALLS = ("search", "match", "fullmatch", "findall", "finditer", "sub", "split", "compile")


def modules() -> Iterator[Any]:
    skipped = ("router.gateway.postgres", "router.gateway.server")  # of extras; they hold no pattern
    for found in pkgutil.walk_packages(router.__path__, "router."):
        if not found.name.endswith("__main__") and found.name not in skipped:
            yield importlib.import_module(found.name)


def patterns() -> dict[str, re.Pattern[Any]]:
    """Every compiled pattern that a module keeps, also in tuples and tables, and every one written in a call."""
    found: dict[str, re.Pattern[Any]] = {}

    def collect(name: str, value: Any, depth: int = 0) -> None:
        if isinstance(value, re.Pattern):
            found.setdefault(f"{value.flags} {value.pattern!r}", value)
        elif isinstance(value, tuple | list) and depth < 3:
            for item in value:
                collect(name, item, depth + 1)
        elif isinstance(value, dict) and depth < 3:
            for item in value.values():
                collect(name, item, depth + 1)

    for module in modules():
        for name, value in vars(module).items():
            collect(f"{module.__name__}.{name}", value)
    collect("router.volatile", volatile.rules())  # compiled at their first use
    for path in (ROOT / "router").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if not is_call or node.func.attr not in PATTERN_CALLS or not node.args:
                continue
            owner, written = node.func.value, node.args[0]
            if isinstance(owner, ast.Name) and owner.id == "re" and isinstance(written, ast.Constant):
                collect(path.name, re.compile(written.value))
    return found


PATTERNS = patterns()


def cpu_s(run: Callable[[], object]) -> float:
    start = time.thread_time()
    run()
    return time.thread_time() - start


def ratio(run: Callable[[int], object], n: int) -> float:
    """How much longer twice the text takes: of the least times of a few."""
    one = min(cpu_s(lambda: run(n)) for _ in range(3))
    two = min(cpu_s(lambda: run(2 * n)) for _ in range(3))
    return two / max(one, 1e-6)


def slow(run: Callable[[str], object], pieces: tuple[str, ...] = HOSTILE, free_s: float = FREE_S) -> list[str]:
    """The pieces of which a text twice as long takes more than MAX_RATIO times; what is quick needs no second look."""
    found = []
    for piece in pieces:

        def hostile(n: int, piece: str = piece) -> object:
            return run((piece * (n // len(piece) + 1))[:n])

        if cpu_s(lambda: hostile(N_CHARS)) < free_s or cpu_s(lambda: hostile(N_CHARS)) < free_s:
            continue
        if cpu_s(lambda: hostile(2 * N_CHARS)) < MAX_RATIO * cpu_s(lambda: hostile(N_CHARS)):
            continue
        if (measured := ratio(hostile, N_CHARS)) > MAX_RATIO and ratio(hostile, 2 * N_CHARS) > MAX_RATIO:
            found.append(f"{piece!r}: x{measured:.1f}")
    return found


def test_the_patterns_are_found() -> None:
    assert len(PATTERNS) > 120
    assert any("cc_version" not in name and "x-[a-z0-9-]" in name for name in PATTERNS)


@pytest.mark.parametrize("part", range(8))
def test_every_pattern_is_linear_in_a_callers_text(part: int) -> None:
    wrong = {}
    for pattern in list(PATTERNS.values())[part::8]:
        is_bytes = isinstance(pattern.pattern, bytes)

        def scan(text: str, pattern: Any = pattern, is_bytes: bool = is_bytes) -> None:
            given: Any = text.encode("utf-8", "surrogatepass") if is_bytes else text
            for _ in pattern.finditer(given):
                pass
            pattern.match(given)

        if found := slow(scan):
            wrong[pattern.pattern] = found
    assert wrong == {}


@pytest.mark.parametrize(("pattern", "piece", "n"), [(r"<(\w+)>.*?</\1>", "<a>", 2500), (r"\w+@", "a", 6000)])
def test_a_pattern_that_takes_the_square_is_seen(pattern: str, piece: str, n: int) -> None:
    assert ratio(lambda size: re.search(pattern, piece * size, re.DOTALL), n) > MAX_RATIO


def _task(text: str) -> object:
    return read_task({"messages": [{"role": "user", "content": text}]})


def _loop(text: str) -> object:
    said = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": text},
    ]
    return read_task({"messages": said, "system": text})


def _result(text: str) -> object:
    call = {"role": "assistant", "content": None, "tool_calls": []}
    return read_task({"messages": [{"role": "user", "content": "go"}, call, {"role": "tool", "content": text}]})


def _plan(text: str) -> object:
    body = {"system": text, "messages": [{"role": "user", "content": text}], "model": "m", "max_tokens": 9}
    return read_prefix(body, Api.MESSAGES), Translations(body, Api.MESSAGES).to(Api.CHAT)


READERS: dict[str, Callable[[str], object]] = {
    "task": _task,
    "task in a loop": _loop,
    "task behind a tool": _result,
    "prefix and translation": _plan,
    "lint": lambda text: lint.lint(text),
    "what changes": lambda text: list(volatile.find(text)),
    "what lasts": volatile.stable,
    "tags": markup.blocks,
    "markers": lambda text: speaker.sections(text, markup.markers(text)),
    "words of the user": speaker.told,
    "rules of a harness": speaker.without_rules,
    "words": n_words,
    "terms": any_of(("deadline", "proof of")),
    "language": language.detect,
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_of_texts_is_linear(name: str) -> None:
    assert slow(READERS[name], UNCLOSED, free_s=0.03) == []


def test_a_long_message_is_read_at_its_ends() -> None:
    text = "Prove the first. " + "<a-b " * 60_000 + " Prove the last."
    start = time.thread_time()
    task = read_task({"messages": [{"role": "user", "content": text}]})
    assert time.thread_time() - start < 0.5
    assert "Prove the first." in task.text
    assert "Prove the last." in task.text
