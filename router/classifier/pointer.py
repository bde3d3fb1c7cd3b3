"""Which artifact of a folder serves: a pointer file, replaced whole; a canary by share of conversations; its verdict.

A folder with `current.json` can be named wherever an artifact can (`artifact = "models"`): it stands for its champion.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import tempfile
from enum import StrEnum
from math import log, sqrt
from pathlib import Path

import msgspec

from router.errors import ArtifactCorrupt
from router.types import Prefix

POINTER_FILE = "current.json"
_MAX_NAME = 200

FALSE_ALARM = 0.05
SPREAD = 0.05
MARGIN = 0.02
MIN_CONVERSATIONS = 100


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The champion; a canary that takes `share` of the conversations, in [0, 1]; former champions, oldest first.

    `since` is when the canary began: what users said before does not count in its trial.
    """

    champion: str
    canary: str | None = None
    share: float = 0.0
    history: tuple[str, ...] = ()
    since: dt.datetime | None = None

    def serves(self, conversation: str) -> str:
        """The artifact of a conversation: always the same one as long as the pointer stays. "" is the champion's."""
        if self.canary is None or not conversation:
            return self.champion
        digest = hashlib.blake2b(f"{self.canary}\0{conversation}".encode("utf-8", "replace"), digest_size=8).digest()
        return self.canary if int.from_bytes(digest) / 2**64 < self.share else self.champion

    def without_canary(self) -> Pointer:
        """The champion alone, as before the canary."""
        return Pointer(self.champion, history=self.history)

    def with_champion(self, name: str) -> Pointer:
        """Another artifact for all conversations; the champion becomes a former one."""
        return Pointer(name, history=self.history if name == self.champion else (*self.history, self.champion))


class Feedback(msgspec.Struct, frozen=True):
    """What users said of one artifact's conversations: how many were judged, and how many of them were bad."""

    n: int = 0
    n_bad: int = 0


class Verdict(StrEnum):
    """What to do with a canary."""

    HOLD = "hold"
    ROLL_BACK = "roll_back"
    PROMOTE = "promote"


def verdict_of(champion: Feedback, canary: Feedback) -> tuple[Verdict, str]:
    """The verdict so far and why. It may be asked after every conversation.

    A confidence sequence for the difference of two shares holds at all times at once with probability 1 - FALSE_ALARM
    (mixture of normals of width SPREAD; Johari et al. 2017, https://doi.org/10.1145/3097983.3097992). Worse for sure:
    roll back. Not worse by MARGIN for sure: promote. Below MIN_CONVERSATIONS a side: hold.
    """
    if min(champion.n, canary.n) < MIN_CONVERSATIONS:
        return Verdict.HOLD, f"{canary.n} judged conversations, {MIN_CONVERSATIONS} of each side are needed"
    pooled = (champion.n_bad + canary.n_bad + 1) / (champion.n + canary.n + 2)
    variance = pooled * (1 - pooled) * (1 / champion.n + 1 / canary.n)
    total = variance + SPREAD**2
    half = sqrt(2 * variance * total / SPREAD**2 * log(sqrt(total / variance) / FALSE_ALARM))
    difference = canary.n_bad / canary.n - champion.n_bad / champion.n
    why = f"{difference:+.1%} bad conversations [{difference - half:+.1%}, {difference + half:+.1%}]"
    if difference - half > 0:
        return Verdict.ROLL_BACK, why
    return (Verdict.PROMOTE if difference + half < MARGIN else Verdict.HOLD), why


def key_of(conversation: str) -> str:
    """What stands for a conversation in records and feedback: 16 hex digits, "" for none. Names are not kept."""
    if not conversation:
        return ""
    return hashlib.blake2b(conversation.encode("utf-8", "replace"), digest_size=8).hexdigest()


def scoped(name: str, scope: str) -> str:
    """A conversation's name as it is kept: apart for each caller's key, and short, however long it came."""
    if not name or not (scope or len(name) > _MAX_NAME):
        return name
    return hashlib.blake2b(f"{scope}\0{name}".encode("utf-8", "replace"), digest_size=16).hexdigest()


def conversation_key(name: str | None, prefix: Prefix | None = None) -> str:
    """What stands for a conversation in decisions and feedback: by its name, else by its first message and what comes
    before that; "" for one of which neither is known.
    """
    if name:
        return key_of(f"c:{name}")
    if prefix is None:
        return ""
    return key_of(f"k:{prefix.keys[0]:x}" if len(prefix.keys) else f"p:{prefix.head_key}")


def read_pointer(folder: Path) -> Pointer | None:
    """The pointer of a folder, None without one. Raises ArtifactCorrupt for one that cannot be read."""
    path = folder / POINTER_FILE
    try:
        pointer = msgspec.json.decode(path.read_bytes(), type=Pointer)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ArtifactCorrupt(f"{path}: {exc}; write it with `tierwise models promote`") from exc
    for name in (pointer.champion, *filter(None, [pointer.canary]), *pointer.history):
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ArtifactCorrupt(f"{path}: {name!r} is not the name of an artifact in {folder}")
    if not 0 <= pointer.share <= 1:
        raise ArtifactCorrupt(f"{path}: share is {pointer.share}, expected 0 to 1")
    return pointer


def write_pointer(folder: Path, pointer: Pointer) -> None:
    """Replace the pointer: whoever reads sees the old one or the new one, also after a power cut."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{POINTER_FILE}.", delete=False) as file:
        file.write(msgspec.json.format(msgspec.json.encode(pointer), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(folder / POINTER_FILE)
