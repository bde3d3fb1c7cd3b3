"""What was learned of each class of traffic: labels -> its level, kept in a file, and its operating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from xxhash import xxh3_64_hexdigest

from router.classifier.artifact import OperatingPoint
from router.engine import Router
from router.errors import SettingsError
from router.types import Tier
from training.build.arrays import Array
from training.thresholds import widening
from training.thresholds.widening import State, Widening

if TYPE_CHECKING:
    from training.rows.traffic import LabelBatch

PREFIX = "learned-"
"""How the names of operating points begin that are written here."""

_TIERS = list(Tier)


class File(msgspec.Struct, forbid_unknown_fields=True):
    """The file: for which classifier and operating point it is, each class's state, and which labels it has seen."""

    artifact: str
    point: str
    classes: dict[str, State] = {}
    seen: dict[str, list[str]] = {}


class Learned(msgspec.Struct, frozen=True):
    """One class after a run. `n_new` labels were new; `too_low`, with its 95 % `interval`, and `too_high` are shares of
    those, at the level that is served now; `before` are the same at the operating point as it was."""

    name: str
    widening: Widening
    n_new: int
    point: OperatingPoint
    too_high: float
    before: tuple[float, float]


def read_file(path: Path, artifact: str, point: str) -> File:
    """The file, or an empty one. Raises SettingsError for one of another form, classifier or operating point."""
    if not path.exists():
        return File(artifact, point)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=File)
    except (OSError, msgspec.DecodeError) as exc:
        raise SettingsError(f"{path}: {exc}; restore it, or begin with another --state") from exc
    if (found.artifact, found.point) != (artifact, point):
        raise SettingsError(
            f"{path} is of {found.artifact} at {found.point}, and {artifact} at {point} serves now: what was proved of "
            "one says nothing of the other; begin anew with another --state"
        )
    return found


def write_file(path: Path, file: File) -> None:
    """Whole or not at all."""
    staged = path.with_name(f"{path.name}.new")
    staged.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=1))
    staged.replace(path)


def learn(
    file: File, batches: Iterable[LabelBatch], router: Router, *, start: int, target: float, error: float
) -> tuple[list[Learned], int]:
    """Take in labels, class by class and in order; what was seen before is left out. Also how many rows have no class.

    `start`, `target` and `error` are for classes that are new.
    """
    base = router.policy.champion.manifest.operating_points[file.point].thresholds
    rows: dict[str, list[tuple[Sequence[float], Array]]] = {}
    n_classless, known = 0, {name: set(keys) for name, keys in file.seen.items()}
    for batch in batches:
        names = batch.slices.get("class", [""] * len(batch.texts))
        for text, name, required in zip(batch.texts, names, batch.targets, strict=True):
            if not name:
                n_classless += 1
                continue
            seen = known.setdefault(name, set())
            if (key := xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))) in seen:
                continue
            seen.add(key)
            file.seen.setdefault(name, []).append(key)
            rows.setdefault(name, []).append((_p_suffices(text, name, router), required))
    found = []
    for name, of_class in rows.items():
        before = file.classes.get(name)
        state = Widening(start, target, error) if before is None else Widening.of(before)
        for p_suffices, required in of_class:
            state.add(widening.losses_at_each(p_suffices, required, base))
        file.classes[name] = state.state()
        found.append(_learned(name, state, of_class, router))
    return found, n_classless


def _p_suffices(text: str, name: str, router: Router) -> Sequence[float]:
    """P(suffices) of the lower tiers; zeros where the text goes up whatever the thresholds."""
    body = {"messages": [{"role": "user", "content": text}], "router": {"traffic_class": name}}
    decision = router.decide(body)
    if decision.reason not in ("suffices", "below_threshold"):
        return (0.0,) * (len(_TIERS) - 1)
    return [decision.p_suffices[tier] for tier in _TIERS[:-1]]


def _learned(name: str, state: Widening, rows: Sequence[tuple[Sequence[float], Array]], router: Router) -> Learned:
    from training.thresholds.risk import Evidence  # scipy, which reading the file does without

    manifest = router.policy.champion.manifest
    base = manifest.operating_points[router.operating_point].thresholds
    thresholds = widening.thresholds_at(state.level, base)
    low, high, sent = _sides(rows, thresholds)
    how = (
        "proved" if state.is_proved else "taken on trust" if state.level == state.start else "proved until it went back"
    )
    point = OperatingPoint(
        thresholds=thresholds,
        target=f"at most {state.target:.0%} too low for the class {name!r}: {how}",
        achieved=float(np.mean(low)),
        interval=Evidence.of(np.array(low)).interval(0.95),
        shares={tier: sent.count(tier.rank) / len(sent) for tier in _TIERS},
        split="learn",
        confidence=1 - state.error if state.is_proved else None,
        n_rows=state.n,
        artifact=router.policy.champion.name,
    )
    before_low, before_high, _ = _sides(rows, base)
    before = float(np.mean(before_low)), float(np.mean(before_high))
    return Learned(name, state, len(rows), point, float(np.mean(high)), before)


def _sides(
    rows: Sequence[tuple[Sequence[float], Array]], thresholds: Mapping[Tier, float]
) -> tuple[list[float], list[float], list[int]]:
    """P(too low), P(too high) and the tier's rank of each row."""
    sent = [widening.sent_at(thresholds, p_suffices) for p_suffices, _ in rows]
    low = [float(required[at + 1 :].sum()) for at, (_, required) in zip(sent, rows, strict=True)]
    high = [float(required[:at].sum()) for at, (_, required) in zip(sent, rows, strict=True)]
    return low, high, sent
