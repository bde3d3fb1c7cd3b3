"""The values that a provider refuses -> ones that it takes, after translation and whoever wrote the history; pure.

One table says what each takes, by provider and format. What is changed depends on nothing but the body up to that
place, so a conversation's next request begins with the same bytes. Ids go back to what they were where their own model
is asked again; names go back in the reply (`Telling.names`).

Sources: the providers' 400s as users report them, and the types of anthropic 2.12 and openai 3.54, 2026-11-26:
"String should match pattern '^[a-zA-Z0-9_-]+$'", "`tool_use` ids must be unique", "text content blocks must contain
non-whitespace text", "String should have at most 128 characters" (Anthropic); "Invalid 'input[1].call_id': string too
long. Expected a string with maximum length 64", "Expected a value >= 16" (OpenAI); "Function call is missing a
thought_signature" (Gemini, https://ai.google.dev/gemini-api/docs/thought-signatures).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from router.catalog import COMPATIBLE, Model
from router.formats import schemas
from router.formats.call_ids import PLAIN, digest, made_id, original_id
from router.formats.dependents import drop_dependents
from router.media import kind_of
from router.types import Api

NO_TEXT = "(no text)"
"""Said in place of a user's message that is blank, where a provider refuses one and the turn must stay."""

_DOTTED = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]*")
_DIGEST = "twh_"
_MAX_MADE = 40
"""Ids that are made here are no longer: older models of OpenAI's take no more."""

_IMAGE_TYPES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
_UNMARKED = ("thinking", "redacted_thinking")


class Values(msgspec.Struct, frozen=True):
    """What a provider takes in one format; the defaults take everything.

    `id_pattern` and `id_length` are those of tool-call ids, which must differ if `unique_ids`; `name_pattern` and
    `name_length` those of tools. `barred_roots` are the words that no tool's schema may have at its root (None: any
    schema is taken), where its properties must be named if `named_properties`. `user_length` is that of the end user's
    identifier.
    """

    id_pattern: re.Pattern[str] | None = None
    id_length: int | None = None
    unique_ids: bool = False
    name_pattern: re.Pattern[str] | None = None
    name_length: int | None = None
    blank_text: bool = True
    any_image_type: bool = True
    barred_roots: tuple[str, ...] | None = None
    named_properties: bool = False
    min_output_tokens: int = 0
    user_length: int | None = None


_OPENAI = Values(
    id_length=64,
    name_pattern=PLAIN,
    name_length=64,
    barred_roots=("anyOf", "oneOf", "allOf", "enum", "const", "not"),
    named_properties=True,
    min_output_tokens=1,
    user_length=64,
)

TABLE: Mapping[tuple[str, Api], Values] = {
    ("anthropic", Api.MESSAGES): Values(
        id_pattern=PLAIN,
        unique_ids=True,
        name_pattern=PLAIN,
        name_length=128,
        blank_text=False,
        any_image_type=False,
        barred_roots=("anyOf", "oneOf", "allOf"),
    ),
    ("openai", Api.CHAT): _OPENAI,
    ("openai", Api.RESPONSES): msgspec.structs.replace(_OPENAI, unique_ids=True, min_output_tokens=16),
    ("gemini", Api.CHAT): Values(
        id_length=64, name_pattern=_DOTTED, name_length=64, any_image_type=False, min_output_tokens=1
    ),
    (COMPATIBLE, Api.CHAT): Values(name_length=64, min_output_tokens=1),
    (COMPATIBLE, Api.RESPONSES): Values(name_length=64, min_output_tokens=16),
}
"""By provider and format. Of a server of the user's own only what each of them refuses is known."""


class Fitted(msgspec.Struct, frozen=True):
    """A body whose values are taken, what was changed, and tools' names: as they are sent, to what the caller says."""

    body: dict[str, Any]
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = {}


def fit(body: dict[str, Any], api: Api, model: Model | None) -> Fitted:
    """`body`, which is not modified, with values that `model`'s provider takes; unchanged for an unknown model."""
    values = None if model is None else TABLE.get((model.provider, api))
    if values is None or model is None:
        return Fitted(body)
    made = _Fitting(values, api)
    sent = made.fitted(body)
    drop_dependents(sent, api, model, made.notes)
    return Fitted(sent, tuple(dict.fromkeys(made.notes)), made.names)


class _Fitting:
    """One body on its way through the table: what has been called so far, and what was noted."""

    def __init__(self, values: Values, api: Api) -> None:
        self.notes: list[str] = []
        self.names: dict[str, str] = {}
        self._values = values
        self._api = api
        self._used: set[str] = set()
        self._asked: dict[str, list[str]] = {}
        self._answered: dict[str, str] = {}
        self._n_calls = 0

    def fitted(self, body: dict[str, Any]) -> dict[str, Any]:
        sent = dict(body)
        if sent.get("tools"):
            sent["tools"] = _each(sent["tools"], self._tool)
        if isinstance(sent.get("tool_choice"), Mapping):
            sent["tool_choice"] = self._choice(sent["tool_choice"])
        part = "input" if self._api is Api.RESPONSES else "messages"
        given = sent.get(part)
        if isinstance(given, list | tuple):
            fit_one = {Api.MESSAGES: self._message, Api.CHAT: self._chat_message, Api.RESPONSES: self._item}[self._api]
            sent[part] = _each(given, fit_one)
        if not self._values.blank_text:
            self._blank_edges(sent)
        self._least_output(sent)
        self._user(sent)
        return sent

    # ---- ids and names

    def _call(self, given: Any) -> str:
        """The id of a call as it is sent; its result will ask for it."""
        raw = given if isinstance(given, str) else ""
        self._n_calls += 1
        sent = self._id(raw) if raw else f"call_{self._n_calls}"
        if self._values.unique_ids and sent in self._used:
            sent = f"{_DIGEST}{digest(f'{sent}/{self._n_calls}', 32)}"
            self.notes.append("a repeated tool-call id sent as another: each must be its own")
        self._used.add(sent)
        self._asked.setdefault(raw, []).append(sent)
        return sent

    def _result(self, given: Any) -> str:
        raw = given if isinstance(given, str) else ""
        waiting = self._asked.get(raw)
        if waiting:
            self._answered[raw] = waiting.pop(0)
        return self._answered.get(raw) or self._id(raw)

    def _id(self, given: str) -> str:
        original, values = original_id(given), self._values
        if self._takes_id(original):
            return original
        made = made_id(original)
        if len(made) > _MAX_MADE and values.id_length is not None:
            made = _DIGEST + digest(original, 32)
        return made

    def _takes_id(self, given: str) -> bool:
        pattern, length = self._values.id_pattern, self._values.id_length
        return (pattern is None or pattern.fullmatch(given) is not None) and (length is None or len(given) <= length)

    def _name(self, given: Any) -> Any:
        pattern, length = self._values.name_pattern, self._values.name_length
        if not isinstance(given, str) or (
            (pattern is None or pattern.fullmatch(given)) and (length is None or len(given) <= length)
        ):
            return given
        kept = given if pattern is None else re.sub(r"[^a-zA-Z0-9_-]", "_", given)
        made = f"{kept[: (length or len(kept)) - 9]}_{digest(given, 8)}"
        made = made if made[0].isalpha() or made[0] == "_" else f"_{made[1:]}"
        if given not in self.names.values():
            self.notes.append(f"the tool {given[:60]!r} sent as {made!r}: the provider refuses its name")
            self.names[made] = given
        return made

    # ---- tools

    def _tool(self, tool: Any) -> Any:
        if not isinstance(tool, Mapping) or tool.get("type") not in (None, "custom", "function"):
            return tool  # the provider's own
        if self._api is Api.CHAT:
            function = tool.get("function")
            if not isinstance(function, Mapping):
                return tool
            fitted = self._described(function, "parameters")
            return tool if fitted is function else {**tool, "function": fitted}
        if self._api is Api.RESPONSES:
            return self._described(tool, "parameters") if tool.get("type") == "function" else tool
        return self._described(tool, "input_schema")

    def _described(self, tool: Mapping[str, Any], field: str) -> Mapping[str, Any]:
        name, barred = self._name(tool.get("name")), self._values.barred_roots
        if name != tool.get("name"):
            tool = {**tool, "name": name}
        if barred is not None and not schemas.is_object(tool.get(field), barred, named=self._values.named_properties):
            given = tool.get(field)
            if isinstance(given, Mapping) and any(word in given for word in (*barred, "$ref")):
                self.notes.append(f"the schema of {str(name)[:60]!r} sent as one object: its root has alternatives")
            tool = {**tool, field: schemas.to_object(tool.get(field))}
        return tool

    def _choice(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(function := choice.get("function"), Mapping):
            return {**choice, "function": {**function, "name": self._name(function.get("name"))}}
        return {**choice, "name": self._name(choice["name"])} if "name" in choice else choice

    # ---- messages

    def _message(self, message: Any) -> Any:
        """A message of Messages; None where nothing of it is left."""
        content = message.get("content") if isinstance(message, Mapping) else None
        blank = _is_blank(content)
        if isinstance(content, list | tuple):
            kept = _each(content, self._block)
            blank = not kept
            if kept is not content:
                message = {**message, "content": _with_marks(content, kept)}
        if not blank or content is None:
            return message
        return {**message, "content": NO_TEXT} if message.get("role") == "user" else None

    def _block(self, block: Any) -> Any:
        kind = block.get("type") if isinstance(block, Mapping) else None
        if kind == "text":
            return None if _is_blank(block.get("text")) else block
        if kind == "tool_use":
            given = block.get("id"), block.get("name")
            found = self._call(given[0]), self._name(given[1])
            return block if found == given else {**block, "id": found[0], "name": found[1]}
        if kind == "tool_result":
            return self._tool_result(block)
        if kind in ("image", "document"):
            return _typed(block)
        return block

    def _tool_result(self, block: Mapping[str, Any]) -> Mapping[str, Any]:
        found, inner = self._result(block.get("tool_use_id")), block.get("content")
        kept = _each(inner, self._block) if isinstance(inner, list | tuple) else inner
        if found == block.get("tool_use_id") and kept is inner:
            return block
        given = {"content": kept} if "content" in block else {}
        return {**block, "tool_use_id": found, **given}

    def _blank_edges(self, sent: dict[str, Any]) -> None:
        """A blank system prompt, and white space after the last word of a begun answer."""
        system = sent.get("system")
        if _is_blank(system):
            del sent["system"]
        elif isinstance(system, list | tuple):
            sent["system"] = _with_marks(system, _each(system, self._block))
            if not sent["system"]:
                del sent["system"]
        messages = sent.get("messages")
        last = messages[-1] if isinstance(messages, list | tuple) and messages else None
        if not isinstance(messages, list | tuple) or not isinstance(last, Mapping) or last.get("role") != "assistant":
            return
        content = last.get("content")
        if isinstance(content, str) and content[-1:].isspace():
            sent["messages"] = [*messages[:-1], {**last, "content": content.rstrip()}]
        elif isinstance(content, list | tuple) and content:
            block = content[-1]
            text = block.get("text") if isinstance(block, Mapping) and block.get("type") == "text" else None
            if isinstance(text, str) and text[-1:].isspace():
                content = [*content[:-1], {**block, "text": text.rstrip()}]
                sent["messages"] = [*messages[:-1], {**last, "content": content}]

    def _chat_message(self, message: Any) -> Any:
        role = message.get("role") if isinstance(message, Mapping) else None
        if role == "assistant" and message.get("tool_calls"):
            calls = _each(message["tool_calls"], self._chat_call)
            return message if calls is message["tool_calls"] else {**message, "tool_calls": calls}
        if role == "tool":
            given = message.get("tool_call_id")
            found = self._result(given)
            message = message if found == given else {**message, "tool_call_id": found}
            name = self._name(message.get("name"))
            return message if name == message.get("name") else {**message, "name": name}
        content = message.get("content") if role == "user" else None
        if not self._values.any_image_type and isinstance(content, list | tuple):
            parts = _each(content, _typed_url)
            return message if parts is content else {**message, "content": parts}
        return message

    def _chat_call(self, call: Any) -> Any:
        if not isinstance(call, Mapping):
            return call
        found, function = self._call(call.get("id")), call.get("function")
        if found != call.get("id"):
            call = {**call, "id": found}
        if isinstance(function, Mapping) and (name := self._name(function.get("name"))) != function.get("name"):
            call = {**call, "function": {**function, "name": name}}
        return call

    def _item(self, item: Any) -> Any:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "function_call":
            given = item.get("call_id"), item.get("name")
            found = self._call(given[0]), self._name(given[1])
            return item if found == given else {**item, "call_id": found[0], "name": found[1]}
        if kind == "function_call_output" and (answer := self._result(item.get("call_id"))) != item.get("call_id"):
            return {**item, "call_id": answer}
        return item

    # ---- single fields

    def _least_output(self, sent: dict[str, Any]) -> None:
        least = self._values.min_output_tokens
        for name in ("max_output_tokens", "max_completion_tokens", "max_tokens"):
            asked = sent.get(name)
            if isinstance(asked, int) and asked < least:
                sent[name] = least
                self.notes.append(f"{name} {asked} sent as {least}: the provider takes no less")

    def _user(self, sent: dict[str, Any]) -> None:
        """An end user's identifier that is too long goes as its digest, which tells users apart as well."""
        length = self._values.user_length
        for name in ("user", "safety_identifier"):
            if length is not None and isinstance(sent.get(name), str) and len(sent[name]) > length:
                sent[name] = digest(sent[name], 32)
                self.notes.append(f"{name} sent as its digest: the provider takes {length} characters")


def _each(given: Any, change: Callable[[Any], Any]) -> Any:
    """The list with each item changed, without those that become None; itself where nothing changes, or it is none."""
    if not isinstance(given, list | tuple):
        return given
    changed = [change(item) for item in given]
    if all(map(_is_same, changed, given)):
        return given
    return [item for item, before in zip(changed, given, strict=True) if item is not None or before is None]


def _is_same(one: Any, other: Any) -> bool:
    return one is other


def _is_blank(text: Any) -> bool:
    return isinstance(text, str) and (not text or text.isspace())


def _with_marks(before: Iterable[Any], kept: Any) -> Any:
    """The blocks that were kept, with the cache breakpoints of those that were not on the block before each."""
    marked, left = list[Any](), iter(kept)
    for block in before:
        if not _is_dropped(block):
            marked.append(next(left))
            continue
        last = marked[-1] if marked and isinstance(marked[-1], Mapping) else {"type": "thinking"}
        if block.get("cache_control") and not last.get("cache_control") and last.get("type") not in _UNMARKED:
            marked[-1] = {**last, "cache_control": block["cache_control"]}
    return marked


def _is_dropped(block: Any) -> bool:
    return isinstance(block, Mapping) and block.get("type") == "text" and _is_blank(block.get("text"))


def _typed(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """An image or a document with the media type that its bytes have."""
    source = block.get("source")
    if not isinstance(source, Mapping) or source.get("type") != "base64":
        return block
    given, data = source.get("media_type"), source.get("data")
    found = media_type(given, data if isinstance(data, str) else "")
    return block if found == given else {**block, "source": {**source, "media_type": found}}


def _typed_url(part: Any) -> Any:
    image = part.get("image_url") if isinstance(part, Mapping) else None
    url = image.get("url") if isinstance(image, Mapping) else None
    if not isinstance(image, Mapping) or not isinstance(url, str) or not url.startswith("data:"):
        return part
    head, comma, data = url.removeprefix("data:").partition(",")
    given, _, rest = head.partition(";")
    found = media_type(given, data)
    return part if found == given else {**part, "image_url": {**image, "url": f"data:{found};{rest}{comma}{data}"}}


def media_type(given: Any, data: str) -> str:
    """The media type of base64 data, by its bytes where they say it, else by its name as it is registered."""
    name = str(given or "").partition(";")[0].strip().lower()
    return kind_of(data) or _IMAGE_TYPES.get(name, name)
