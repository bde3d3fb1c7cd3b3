"""What the gate found, kept beside the challenger: read without the trainer's libraries, by `tierwise models`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from router.classifier import artifact

FILE = "gate.json"
"""Beside the manifest: what the gate found, about which artifact, against which champion."""


class Check(msgspec.Struct, frozen=True):
    """One question of the gate: `limit` is the condition, `found` what was measured."""

    name: str
    holds: bool
    found: str
    limit: str


class Report(msgspec.Struct, frozen=True):
    """The gate's answer. `champion` and `challenger` are SHA-256 of the manifests; `gain` is in APGR.

    `apgr` is that of the champion, of the challenger, and of prompt length, which costs nothing.
    """

    champion: str
    challenger: str
    n_held_out: int
    apgr: dict[str, float]
    gain: float
    gain_interval: tuple[float, float]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why not: one line for each check that does not hold."""
        return [f"{c.name}: {c.found}; asked for {c.limit}" for c in self.checks if not c.holds]


def sha256(folder: Path) -> str:
    """What identifies an artifact: the hash of its manifest, which holds the hashes of its files."""
    return artifact.entry((folder / "manifest.json").read_bytes()).sha256


def write_report(folder: Path, report: Report) -> None:
    """Keep the report beside the challenger."""
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def read_report(folder: Path) -> Report | None:
    """The report beside an artifact, if there is one about these very files."""
    path = folder / FILE
    if not path.is_file():
        return None
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    return report if report.challenger == sha256(folder) else None
