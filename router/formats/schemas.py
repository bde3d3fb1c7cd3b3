"""The schema of a tool's input as the strictest provider takes it: an object at the root, without alternatives; pure.

Anthropic: "input_schema does not support oneOf, allOf, or anyOf at the top level". OpenAI: "schema must have type
'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'const'/'not' at the top level", and an object must name its
properties (their 400s, as users of both report them, 2026-11-26). Deeper down both take them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_JOINED = ("allOf", "anyOf", "oneOf")
_VALUES = ("enum", "const", "not")
_DEEPEST = 8
"""How many alternatives within alternatives, or references to references, are followed."""


def is_object(schema: Any, barred: tuple[str, ...], *, named: bool) -> bool:
    """Whether a schema is taken as it is: an object without the `barred` words at its root.

    `named`: its properties must be there.
    """
    return (
        isinstance(schema, Mapping)
        and schema.get("type") == "object"
        and (not named or isinstance(schema.get("properties"), Mapping))
        and not any(word in schema for word in (*barred, "$ref"))
    )


def to_object(schema: Any) -> dict[str, Any]:
    """The schema as one object that takes all that it took, and more where alternatives had to be joined.

    What each of `allOf` requires is required, and what every one of `anyOf` or `oneOf` does. A property of the same
    name in several becomes any of them.
    """
    given = schema if isinstance(schema, Mapping) else {}
    properties, required = _read(given, given, 0)
    kept = {k: v for k, v in given.items() if k not in (*_JOINED, *_VALUES, "$ref", "type", "properties", "required")}
    wanted = {"required": [name for name in required if name in properties]}
    return {"type": "object", "properties": properties, **(wanted if wanted["required"] else {}), **kept}


def _read(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> tuple[dict[str, Any], list[str]]:
    """(properties, required) of a schema with its alternatives."""
    given = schema.get("properties")
    properties: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    named = schema.get("required")
    required = [name for name in named if isinstance(name, str)] if isinstance(named, list | tuple) else []
    if depth == _DEEPEST:
        return properties, required
    if isinstance(schema.get("$ref"), str) and (target := _found(root, schema["$ref"])) is not None:
        _join(properties, required, _read(target, root, depth + 1))
    for word in _JOINED:
        read = [_read(each, root, depth + 1) for each in _schemas(schema.get(word))]
        shared = {name for _, names in read for name in names}
        if word != "allOf":
            shared = {name for name in shared if all(name in names for _, names in read)}
        for each, names in read:
            _join(properties, required, (each, [name for name in names if name in shared]))
    return properties, required


def _join(properties: dict[str, Any], required: list[str], more: tuple[dict[str, Any], list[str]]) -> None:
    for name, schema in more[0].items():
        known = properties.get(name)
        if known is None or known is True:
            properties[name] = schema
        elif known != schema:
            others = known["anyOf"] if isinstance(known, Mapping) and set(known) == {"anyOf"} else [known]
            properties[name] = known if schema in others else {"anyOf": [*others, schema]}
    required += [name for name in more[1] if name not in required]


def _schemas(value: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list | tuple) else iter(())


def _found(root: Mapping[str, Any], reference: str) -> Mapping[str, Any] | None:
    """What a local reference such as #/$defs/Route names."""
    found: Any = root
    for step in reference.removeprefix("#/").split("/") if reference.startswith("#/") else ():
        found = found.get(step) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) and found is not root else None
