"""Calls as logs tell of them, whoever wrote the log."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from router.types import Prefix, Usage


class Piece(msgspec.Struct, frozen=True):
    """One thing that was added to a prompt: who added it, which tool and which file, and how long it is.

    `name` is a tool's, `path` the file that it read, as the log gives it; "" where there is none.
    """

    kind: Literal["user", "tool", "assistant", "system"]
    chars: int
    name: str = ""
    path: str = ""


class Call(msgspec.Struct, frozen=True):
    """One request and what was billed for it; `at_s` is in seconds since the epoch.

    `conversation` is "" for a call that stands alone. `head` names what shares its static prefix (tools and system
    prompt) with other conversations: a client, a project, a sub-agent; "" where the log does not tell. `opens_turn`
    says whether a user's turn begins, None where the log does not tell. `text` is what the user asked in this turn,
    `pieces` what was added to the prompt since the conversation's last call, `prefix` the whole prompt: each where the
    log keeps it. `cost_usd` is what the log says that it cost. A usage export sums several requests: `n_requests`, None
    where it does not count them.
    """

    at_s: float
    model: str
    usage: Usage
    conversation: str = ""
    head: str = ""
    opens_turn: bool | None = None
    text: str | None = None
    pieces: tuple[Piece, ...] = ()
    prefix: Prefix | None = None
    cost_usd: Decimal | None = None
    n_requests: int | None = 1


class Log(msgspec.Struct):
    """The calls of one source in the order of time, and what was left out: `skipped` counts by reason, in plain words.

    `kind` is the source's name for people ("Claude Code"), `paths` are the files that were read.
    """

    kind: str
    paths: list[Path]
    calls: list[Call]
    skipped: Counter[str]
