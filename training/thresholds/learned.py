"""What was learned of each class of traffic: labels -> its level, kept in a file, and its operating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isnan
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
    """The file: for which classifier and operating point it is, each class's state, and which labels it has seen.

    `paid_before_usd` is what labels had cost before `day`, on which some were last paid for.
    """

    artifact: str
    point: str
    classes: dict[str, State] = {}
    seen: dict[str, list[str]] = {}
    day: str = ""
    paid_before_usd: float = 0.0


class Row(NamedTuple):
    """One request; `required` is None where it goes to the top tier up to the `horizon` and has no label.

    `weight` is over the most that one could have.
    """

    p_suffices: Sequence[float]
    required: Array | None
    weight: float = 1.0
    horizon: int | None = None


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
    rows: dict[str, list[Row]] = {}
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
            if (key := key_of(text)) in seen:
                continue
            seen.add(key)
            file.seen.setdefault(name, []).append(key)
            rows.setdefault(name, []).append(Row(p_suffices(text, name, router), required, weight))
    found = []
    for name, of_class in rows.items():
        state = widening_of(file, name, start, target, error)
        take_in(state, of_class, router)
        file.classes[name] = state.state()
        found.append(described(name, state, of_class, router))
    return found, n_classless


def key_of(text: str) -> str:
    """What stands for a text in the file: 16 hex digits."""
    return xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))


def widening_of(file: File, name: str, start: int, target: float, error: float) -> Widening:
    """A class as the file has it, or a new one."""
    before = file.classes.get(name)
    return Widening(start, target, error) if before is None else Widening.of(before)


def take_in(state: Widening, rows: Iterable[Row], router: Router) -> None:
    """Add requests, in order."""
    base = router.policy.champion.manifest.operating_points[router.operating_point].thresholds
    nothing = np.zeros(len(widening.SHIFTS))
    for row in rows:
        losses = nothing if row.required is None else widening.losses_at_each(row.p_suffices, row.required, base)
        state.add(losses, weight=row.weight, horizon=row.horizon, is_labelled=row.required is not None)


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


def described(name: str, state: Widening, rows: Sequence[Row], router: Router) -> Learned:
    """What came of a class's new rows. Shares of which nothing is known, for want of labels, are NaN."""
    from training.thresholds.risk import Evidence  # scipy, which reading the file does without

    n_new = sum(row.required is not None for row in rows)
    manifest = router.policy.champion.manifest
    base = manifest.operating_points[router.operating_point].thresholds
    thresholds = widening.thresholds_at(state.level, base)
    rows = [row for row in rows if row.horizon is None or row.horizon >= state.level] or rows
    low, high, sent = _sides(rows, thresholds)
    low = [1.0 if isnan(each) else each for each in low]
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
    return Learned(name, state, n_new, point, too_high, before)


def _sides(rows: Sequence[Row], thresholds: Mapping[Tier, float]) -> tuple[list[float], list[float], list[int]]:
    """P(too low), P(too high) and the tier's rank of each row."""
    sent = [widening.sent_at(thresholds, row.p_suffices) for row in rows]
    low = [_too_low(row, at) for at, row in zip(sent, rows, strict=True)]
    high = [
        float("nan") if row.required is None else float(row.required[:at].sum())
        for at, row in zip(sent, rows, strict=True)
    ]
    return low, high, sent


def _too_low(row: Row, at: int) -> float:
    if row.required is not None:
        return float(row.required[at + 1 :].sum())
    return 0.0 if at == len(_TIERS) - 1 else float("nan")
