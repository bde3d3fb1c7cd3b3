"""Fields that a provider takes only together with others: dropped where those are not there; pure.

Sources: the 400s that users report ("`clear_thinking_20251015` strategy requires `thinking` to be enabled or adaptive",
"'tool_choice' is only allowed when 'tools' are specified", "Encrypted content is not supported with this model"),
2026-11-26.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.catalog import Model
from router.types import Api, Body

CLEAR_THINKING = "clear_thinking_20251015"
"""The edit of `context_management` that is refused unless thinking is on."""

_ENCRYPTED = "reasoning.encrypted_content"


def drop_dependents(sent: dict[str, Any], api: Api, model: Model, notes: list[str]) -> None:
    """Drop, in place, the fields that are taken only together with others that are not there."""
    if not sent.get("tools"):
        for name in ("tool_choice", "parallel_tool_calls"):
            if sent.get(name) is not None:
                del sent[name]
                notes.append(f"{name} dropped: there are no tools")
    if api is Api.MESSAGES:
        _context_management(sent, model, notes)
    elif api is Api.RESPONSES and not model.dialect.efforts and _ENCRYPTED in (sent.get("include") or ()):
        kept = [name for name in sent["include"] if name != _ENCRYPTED]
        sent["include"] = kept
        if not kept:
            del sent["include"]
        notes.append(f"include {_ENCRYPTED} dropped: {model.id} does not reason")


def _context_management(sent: dict[str, Any], model: Model, notes: list[str]) -> None:
    given = sent.get("context_management")
    edits = given.get("edits") if isinstance(given, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(edits, list | tuple) or _thinks(sent, model):
        return
    kept = [edit for edit in edits if not (isinstance(edit, Mapping) and edit.get("type") == CLEAR_THINKING)]
    if len(kept) == len(edits):
        return
    sent["context_management"] = {**given, "edits": kept}
    if not kept and set(given) == {"edits"}:
        del sent["context_management"]
    notes.append(f"{CLEAR_THINKING} dropped: thinking is off")


def _thinks(body: Body, model: Model) -> bool:
    thinking = body.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, Mapping) else None
    if kind is None:  # where it cannot be turned off it is on
        return bool(model.dialect.thinking) and "disabled" not in model.dialect.thinking
    return bool(kind != "disabled")
