"""What was learned of each class of traffic: labels -> its level, kept in a file, and its operating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from xxhash import xxh3_64_hexdigest

from router.classifier.artifact import OperatingPoint
from router.engine import Router
from router.errors import SettingsError
from router.types import Tier
from training.build.arrays import Array
from training.rows.errors import LabelError
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


class _Row(NamedTuple):
    """One labelled request; `weight` is over the most that one could have."""

    p_suffices: Sequence[float]
    required: Array
    weight: float


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
    file: File,
    batches: Iterable[LabelBatch],
    router: Router,
    *,
    start: int,
    target: float,
    error: float,
    max_weight: float | None = None,
) -> tuple[list[Learned], int]:
    """Take in labels, class by class and in order; what was seen before is left out. Also how many rows have no class.

    `start`, `target` and `error` are for classes that are new. `max_weight` is the most that a row of this draw could
    weigh, without which all must weigh the same. Raises LabelError for a row that weighs more.
    """
    base = router.policy.champion.manifest.operating_points[file.point].thresholds
    rows: dict[str, list[_Row]] = {}
    n_classless, known = 0, {name: set(keys) for name, keys in file.seen.items()}
    for batch in batches:
        names = batch.slices.get("class", [""] * len(batch.texts))
        max_weight = _checked(batch, max_weight)
        shares = batch.weights / max_weight
        for text, name, required, weight in zip(batch.texts, names, batch.targets, shares.tolist(), strict=True):
            if not name:
                n_classless += 1
                continue
            seen = known.setdefault(name, set())
            if (key := xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))) in seen:
                continue
            seen.add(key)
            file.seen.setdefault(name, []).append(key)
            rows.setdefault(name, []).append(_Row(p_suffices(text, name, router), required, weight))
    found = []
    for name, of_class in rows.items():
        before = file.classes.get(name)
        state = Widening(start, target, error) if before is None else Widening.of(before)
        for row in of_class:
            state.add(widening.losses_at_each(row.p_suffices, row.required, base), weight=row.weight)
        file.classes[name] = state.state()
        found.append(_learned(name, state, of_class, router))
    return found, n_classless


def _checked(batch: LabelBatch, max_weight: float | None) -> float:
    """The most that a row may weigh. Raises LabelError."""
    least, most = float(batch.weights.min()), float(batch.weights.max())
    heaviest = f"row {batch.numbers[int(batch.weights.argmax())]} weighs {most:g}"
    if max_weight is None and most > least * 1.001:
        raise LabelError(
            f"{heaviest}, another one {least:g}: these were not drawn evenly. Say the most that a row of it could "
            "weigh: --max-weight NUMBER (the larger it is, the more labels a proof takes), or label an even draw"
        )
    if max_weight is not None and most > max_weight * 1.001:
        raise LabelError(
            f"{heaviest}, above {max_weight:g}, the most that was said or seen before: then nothing is proved. Draw "
            "anew, with a --max-weight that no row can pass, or evenly"
        )
    return most if max_weight is None else max(most, max_weight)


def p_suffices(text: str, name: str, router: Router) -> Sequence[float]:
    """P(suffices) of the lower tiers; zeros where the text goes up whatever the thresholds."""
    body = {"messages": [{"role": "user", "content": text}], "router": {"traffic_class": name}}
    decision = router.decide(body)
    if decision.reason not in ("suffices", "below_threshold"):
        return (0.0,) * (len(_TIERS) - 1)
    return [decision.p_suffices[tier] for tier in _TIERS[:-1]]


def _learned(name: str, state: Widening, rows: Sequence[_Row], router: Router) -> Learned:
    from training.thresholds.risk import Evidence  # scipy, which reading the file does without

    manifest = router.policy.champion.manifest
    base = manifest.operating_points[router.operating_point].thresholds
    thresholds = widening.thresholds_at(state.level, base)
    low, high, sent = _sides(rows, thresholds)
    weights = np.array([row.weight for row in rows])
    too_low, too_high = (float(np.average(each, weights=weights)) for each in (low, high))
    n_worth = int(weights.sum() ** 2 / (weights**2).sum())  # so many even ones are worth as much
    seen = Evidence((too_low * n_worth,), (n_worth,), binary=False) if weights.std() else Evidence.of(np.array(low))
    how = (
        "proved" if state.is_proved else "taken on trust" if state.level == state.start else "proved until it went back"
    )
    point = OperatingPoint(
        thresholds=thresholds,
        target=f"at most {state.target:.0%} too low for the class {name!r}: {how}",
        achieved=too_low,
        interval=seen.interval(0.95),
        shares={tier: float(np.average(np.array(sent) == tier.rank, weights=weights)) for tier in _TIERS},
        split="learn",
        confidence=1 - state.error if state.is_proved else None,
        n_rows=state.n,
        artifact=router.policy.champion.name,
    )
    before_low, before_high, _ = _sides(rows, base)
    before = float(np.average(before_low, weights=weights)), float(np.average(before_high, weights=weights))
    return Learned(name, state, len(rows), point, too_high, before)


def _sides(rows: Sequence[_Row], thresholds: Mapping[Tier, float]) -> tuple[list[float], list[float], list[int]]:
    """P(too low), P(too high) and the tier's rank of each row."""
    sent = [widening.sent_at(thresholds, row.p_suffices) for row in rows]
    low = [float(row.required[at + 1 :].sum()) for at, row in zip(sent, rows, strict=True)]
    high = [float(row.required[:at].sum()) for at, row in zip(sent, rows, strict=True)]
    return low, high, sent
