"""Champions and challengers of a folder of artifacts: list, compare, promote, roll back."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from router.classifier import artifact
from router.classifier.pointer import Feedback, Pointer, Verdict, read_pointer, verdict_of, write_pointer
from router.errors import TierwiseError
from router.gateway.store import StoreAway
from router.gateway.stores import open_store, sqlite_file
from router.settings import Settings
from training.examine import gate_report


class NotPromoted(TierwiseError):
    """An artifact that may not serve, with the reasons."""


def pointer_of(models: Path) -> Pointer:
    """The folder's pointer; without one, the shipped artifact serves."""
    return read_pointer(models) or Pointer(artifact.SHIPPED)


def champion_of(models: Path) -> Path:
    """The folder of the artifact that serves."""
    return artifact.member(models, pointer_of(models).champion)


def promote(models: Path, name: str, *, share: float | None = None, force: bool = False) -> Pointer:
    """Let an artifact serve, all conversations or `share` of them. Raises NotPromoted when the gate did not pass it.

    The shipped artifact and former champions need no gate: they are where one goes back to.
    """
    before = pointer_of(models)
    folder = artifact.load(artifact.member(models, name)).path  # every file is checked before anything changes
    if name == before.champion and (before.canary is None or share is not None):
        raise NotPromoted(f"{name} is the champion of {models} already")
    if not force and name not in (artifact.SHIPPED, before.champion, *before.history):
        _ask_gate(folder, artifact.member(models, before.champion))
    if share is None:
        after = before.with_champion(name)
    else:
        if not 0 < share < 1:
            raise NotPromoted(f"a canary's share is {share:.0%}, expected above 0 % and below 100 %")
        now = dt.datetime.now(dt.UTC)
        goes_on = name == before.canary and before.since is not None  # more or fewer conversations, the same trial
        after = Pointer(before.champion, name, share, before.history, before.since if goes_on else now)
    models.mkdir(parents=True, exist_ok=True)
    write_pointer(models, after)
    return after


def roll_back(models: Path) -> Pointer:
    """Take back the canary, or else the last promotion. Raises NotPromoted when there is nothing to take back."""
    before = pointer_of(models)
    if before.canary is not None:
        after = before.without_canary()
    elif before.history:
        after = Pointer(before.history[-1], history=before.history[:-1])
        artifact.load(artifact.member(models, after.champion))
    else:
        raise NotPromoted(f"{models} has no canary and no former champion: nothing to roll back to")
    write_pointer(models, after)
    return after


def judge_canary(models: Path, rows: Iterable[dict[str, Any]]) -> tuple[Verdict, str]:
    """The verdict on the canary from feedback rows {"artifact", "good", "conversation"}; one bad row makes a whole
    conversation bad. Raises NotPromoted without a canary.
    """
    pointer = pointer_of(models)
    if pointer.canary is None:
        raise NotPromoted(
            f"{models} has no canary to judge; start one with `tierwise models promote NAME --canary 10%`"
        )
    bad: dict[str, dict[str, bool]] = {pointer.champion: {}, pointer.canary: {}}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("good"), bool):
            raise NotPromoted(f'feedback row {number}: "good" is {row.get("good")!r}, expected true or false')
        if (conversations := bad.get(str(row.get("artifact")))) is not None:
            key = str(row.get("conversation", f"row {number}"))
            conversations[key] = conversations.get(key, False) or not row["good"]
    champion, canary = (Feedback(len(of), sum(of.values())) for of in bad.values())
    return verdict_of(champion, canary)


def heard(config: Settings, since: dt.datetime | None = None) -> dict[str, Feedback]:
    """What users said of each artifact from a time on, in the store of records that the settings name; {} without one.

    Raises NotPromoted when it is there and cannot be read.
    """
    if config.gateway.database_url is None and not sqlite_file(config).is_file():
        return {}
    try:
        store = open_store(config)
        try:
            return store.feedback(since)
        finally:
            store.close()
    except (StoreAway, sqlite3.Error, ImportError) as exc:
        raise NotPromoted(f"users' feedback cannot be read: {exc}") from exc


def listed(models: Path, users: Mapping[str, Feedback] | None = None) -> list[dict[str, Any]]:
    """A row for each artifact of the folder, and for the shipped one; with what `users` said of each."""
    pointer = pointer_of(models)
    names = {path.parent.name for path in models.glob("*/manifest.json") if not path.parent.name.startswith(".")}
    return [_row(models, name, pointer, users or {}) for name in sorted({*names, artifact.SHIPPED})]


def said(pointer: Pointer, users: Mapping[str, Feedback], option: str = "") -> str:
    """What users said of champion and canary, and the verdict so far with the command that follows from it."""
    names = (pointer.champion, *filter(None, [pointer.canary]))
    counts = [users.get(name, Feedback()) for name in names]
    told = ", ".join(f"{name} bad in {of.n_bad} of {of.n}" for name, of in zip(names, counts, strict=True))
    if pointer.canary is None:
        return f"{told} conversations"
    verdict, why = verdict_of(*counts)
    command = {Verdict.ROLL_BACK: "rollback", Verdict.PROMOTE: f"promote {pointer.canary}"}.get(verdict)
    return f"{told} conversations; {why}: {f'tierwise models {command}{option}' if command else 'wait'}"


def _ask_gate(folder: Path, champion: Path) -> None:
    try:
        report = gate_report.read_report(folder)
    except msgspec.DecodeError as exc:
        raise NotPromoted(f"{folder / gate_report.FILE}: {exc}; run `tierwise retrain` again") from exc
    again = "run `tierwise retrain` again, or promote with --force"
    if report is None:
        raise NotPromoted(f"{folder.name} has not passed the gate: no {gate_report.FILE} about it; {again}")
    if not report.passed:
        raise NotPromoted(f"the gate refused {folder.name}: " + "; ".join(report.reasons))
    if report.champion != gate_report.sha256(champion):
        raise NotPromoted(f"the gate compared {folder.name} with another champion than {champion.name}; {again}")


def _row(models: Path, name: str, pointer: Pointer, users: Mapping[str, Feedback]) -> dict[str, Any]:
    folder = artifact.member(models, name)
    loaded = artifact.load(folder)
    report = gate_report.read_report(folder)
    roles = {pointer.champion: "champion", pointer.canary: f"canary {pointer.share:.0%}"}
    retrained: Any = loaded.manifest.metrics.get("retrained", {})
    return {
        "name": name,
        "role": roles.get(name, "former" if name in pointer.history else ""),
        "n_labels": retrained.get("n_labels"),
        "gate": None if report is None else "passed" if report.passed else "refused",
        "gain": None if report is None else report.gain,
        "bytes": loaded.n_bytes,
        "sha256": gate_report.sha256(folder),
        "n_judged": users.get(name, Feedback()).n,
        "n_bad": users.get(name, Feedback()).n_bad,
    }


def read_feedback(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file. Raises NotPromoted for a bad line."""
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as exc:
            raise NotPromoted(f"{path}:{number}: {exc}") from exc
        if not isinstance(row, dict):
            raise NotPromoted(f"{path}:{number}: expected an object with artifact, conversation and good")
        rows.append(row)
    return rows
