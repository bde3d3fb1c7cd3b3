"""A request as the provider's cache sees it: items in the order of the prefix, and where two requests part; pure.

The order is tools, system prompt, messages (https://platform.claude.com/docs/en/build-with-claude/prompt-caching,
2026-11-22).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from router import catalog
from router.errors import RequestError
from router.types import Api, Body

_CHARS_PER_TOKEN = 3.8  # where the body names no model of the catalog
_SYSTEM_ROLES = ("system", "developer")
_PARTS: dict[Api | None, tuple[str, ...]] = {
    None: ("tools", "system", "instructions", "messages", "input"),
    Api.MESSAGES: ("tools", "system", "messages"),
    Api.CHAT: ("tools", "messages"),
    Api.RESPONSES: ("tools", "instructions", "input"),
}


class Item(msgspec.Struct, frozen=True):
    """A tool, a system block or a message; `stable` is all that comes before the conversation. Sizes in characters."""

    path: str
    value: Any
    start: int
    size: int
    stable: bool

    @property
    def part(self) -> str:
        return self.path.partition("[")[0]


class Items(msgspec.Struct, frozen=True):
    """The items of one body, in order, and the model that it names if the catalog knows it."""

    items: tuple[Item, ...]
    model: catalog.Model | None

    def tokens_behind(self, n_chars: int) -> int:
        """An estimate of the tokens that come after the first `n_chars` characters."""
        end = self.items[-1].start + self.items[-1].size if self.items else 0
        return max(int((end - n_chars) / (self.model.chars_per_token if self.model else _CHARS_PER_TOKEN)), 0)

    def words(self) -> set[str]:
        """The words of all that comes before the conversation."""
        stable = (text for item in self.items if item.stable for _, text in texts(item.value, "", ("role", "type")))
        return {word for text in stable for word in text.split()}


class Difference(msgspec.Struct, frozen=True):
    """The first place where a later prefix leaves an earlier one.

    `kind` is text, value, fields, key_order, tool_order or length; `offset` is in characters, within two texts.
    `broken` is False where the requests merely belong to different conversations or branches of one.
    """

    kind: str
    path: str
    earlier: Any
    later: Any
    offset: int
    n_common_chars: int
    broken: bool


def read_items(body_or_text: Body | str, api: Api | None = None) -> Items:
    """The prefix of a body; a string is a system prompt. Raises RequestError for anything else."""
    body = {"system": body_or_text} if isinstance(body_or_text, str) else body_or_text
    if not isinstance(body, Mapping):
        raise RequestError(
            f"a prompt is a text or an object, not {type(body).__name__} {body!r:.60}; give a request body"
        )
    if not any(part in body for part in _PARTS[api]):
        wanted = ", ".join(_PARTS[api])
        raise RequestError(f"the body has the keys {sorted(map(str, body))[:9]}, expected one of: {wanted}")
    items: list[Item] = []
    start, stable = 0, True
    for part in _PARTS[api]:
        value = body.get(part)
        listed = isinstance(value, list | tuple)
        entries: Sequence[Any] = value if isinstance(value, list | tuple) else () if value is None else (value,)
        for index, entry in enumerate(entries):
            if part in ("messages", "input"):
                stable = stable and mapping(entry).get("role") in _SYSTEM_ROLES
            size = len(entry) if isinstance(entry, str) else len(json.dumps(entry, ensure_ascii=False, default=repr))
            items.append(Item(f"{part}[{index}]" if listed else part, entry, start, size, stable))
            start += size
    return Items(tuple(items), catalog.shipped().find(str(body.get("model"))))


def parse_bodies(data: bytes, name: str = "") -> list[Body | str]:
    """Bodies from a file's bytes: JSON, JSONL (also with the body in "body", "params" or "request"), else one text.

    A name that ends in .json or .jsonl promises JSON. Raises RequestError, with the line, where that is broken, and
    where the bytes are not UTF-8.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise RequestError(f"not UTF-8 text: {exc}; give a text, a JSON body or JSONL") from exc
    try:
        value = json.loads(text)
        found = value if isinstance(value, list) else [value]
    except ValueError:
        found = _lines(text, name)
    if not name.endswith((".json", ".jsonl")) and not (found and all(isinstance(row, dict) for row in found)):
        return [text]
    if found and all("role" in mapping(row) for row in found):
        found = [{"messages": found}]
    return [_unwrapped(row) for row in found]


def _lines(text: str, name: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as exc:
                if name.endswith((".json", ".jsonl")):
                    raise RequestError(f"line {number}: {exc}; expected one JSON body, or one a line") from exc
                return []
    return rows


def _unwrapped(row: Any) -> Any:
    wrappers = [key for key in ("body", "params", "request") if isinstance(mapping(row).get(key), dict)]
    return row[wrappers[0]] if wrappers and not any(part in row for part in _PARTS[None]) else row


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def texts(value: Any, path: str = "", without: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every text within a value with its path; fields named in `without` are left out."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in without:
                yield from texts(inner, f"{path}.{key}", without)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from texts(inner, f"{path}[{index}]", without)


def first_difference(earlier: Items, later: Items) -> Difference | None:
    """Where `later` leaves `earlier`; None if one of them goes on where the other ends. Cache fields are no content."""
    n_common_items = 0
    for old, new in zip_longest(earlier.items, later.items):
        if old is None or new is None:
            here = old or new
            if here is None or not here.stable:
                return None
            found = ("length", here.path, old and old.value, new and new.value, 0)
        elif old.part != new.part:
            longer = min(old, new, key=lambda item: _PARTS[None].index(item.part))
            found = ("length", longer.path, old.value, new.value, 0)
        else:
            between = _between(old.value, new.value, new.path)
            if between is None:
                n_common_items += not new.stable
                continue
            found = between
        kind, path, a, b, offset = found
        if (
            old
            and old.part == "tools"
            and tool_names(earlier) != tool_names(later)
            and sorted(tool_names(earlier)) == sorted(tool_names(later))
        ):
            kind, path, a, b, offset = "tool_order", "tools", tool_names(earlier), tool_names(later), 0
        here = new or old
        start = (here.start if here else 0) + offset
        broken = (old is None or new is None or old.stable or new.stable) or _goes_on(earlier, later, n_common_items)
        return Difference(kind, path, a, b, offset, start, broken)
    return None


def _goes_on(earlier: Items, later: Items, n_common_items: int) -> bool:
    """Whether `later` is the conversation of `earlier` with something in it changed, added or left out.

    It is when they agree again behind the place where they part, or when the earlier one ends there, nearly alike.
    """
    old, new = (
        [item.value for item in prefix.items if not item.stable][n_common_items:] for prefix in (earlier, later)
    )
    if len(old) > 1:
        return any(_between(a, b, "") is None for a in old[1:5] for b in new[:5])
    return len(new) > 1 and _resembles(_between(old[0], new[0], ""))


def _resembles(found: tuple[str, str, Any, Any, int] | None) -> bool:
    """Whether two messages that differ in one text are the same but for a part of it, at most a fifth or at one end."""
    if found is None or found[0] != "text":
        return found is not None and found[0] == "length"
    a, b, n_start = found[2], found[3], found[4]
    n_end = min(n_common(a[::-1], b[::-1]), min(len(a), len(b)) - n_start)
    return n_start + n_end >= min(0.8 * max(len(a), len(b)), max(min(len(a), len(b)), 20))


def alike(a: set[str], b: set[str], share: float = 0.5) -> bool:
    """Whether two sets have at least that share of the larger one in common."""
    return len(a & b) >= share * max(len(a), len(b))


def tool_names(prefix: Items) -> list[str]:
    """The tools' names, in order."""
    tools = [mapping(item.value) for item in prefix.items if item.part == "tools"]
    return [str(tool.get("name") or mapping(tool.get("function")).get("name")) for tool in tools]


def _between(a: Any, b: Any, path: str) -> tuple[str, str, Any, Any, int] | None:
    """Kind, path, both values and offset of the first difference between two values, None if they are the same."""
    if isinstance(a, str) != isinstance(b, str):
        a, b = _as_text(a), _as_text(b)
    if isinstance(a, str) and isinstance(b, str):
        return None if a == b else ("text", path, a, b, n_common(a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = [[key for key in value if key != "cache_control"] for value in (a, b)]
        for old, new in zip_longest(*keys):
            if old != new:
                kind = "key_order" if set(keys[0]) == set(keys[1]) else "fields"
                return kind, path, keys[0], keys[1], 0
            if (found := _between(a[old], b[new], f"{path}.{old}")) is not None:
                return found
        return None
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        for index, (old, new) in enumerate(zip_longest(a, b)):
            if (found := _between(old, new, f"{path}[{index}]")) is not None:
                return found
        return None
    return None if a == b else ("value", path, a, b, 0)


def n_common(a: str, b: str) -> int:
    """How many characters two texts have in common at the start."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # comparing slices is a thousand times faster than a loop over characters
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low


def _as_text(value: Any) -> Any:
    """The text of a lone text block or of a list of one: the same to a provider as the bare string."""
    block = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    return block["text"] if isinstance(block, Mapping) and block.get("type") == "text" and "text" in block else value
