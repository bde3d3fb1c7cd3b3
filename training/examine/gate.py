"""May a challenger replace the champion? Paired, on rows that neither trained on, with every margin stated.

Both artifacts are loaded as the router loads them. A check that is not met gives a reason; one is enough to refuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from router.classifier import artifact, model
from router.classifier.artifact import Manifest
from router.types import Tier
from training import behaviour
from training.build import fit
from training.build.arrays import Array, Ints
from training.examine import measures
from training.examine.gate_report import Check, Report, sha256

MIN_GAIN = 0.05
MIN_CLASS_GAIN = 0.01
"""Requests of no class go where they went, so that less of a gain is worth it."""
MARGIN = 0.01
SLICE_MARGIN, MIN_SLICE = 0.02, 30
SUITE_MARGIN = 0.05
MAX_BYTES = 30_000_000
MAX_P50_US, SLOWER = 300.0, 1.5
N_TIMED = 300


@dataclass(frozen=True)
class HeldOut:
    """Labelled rows that took no part in training: `targets` are P(required tier) [n, n_tiers]; `slices` by name."""

    texts: list[str]
    targets: Array
    weights: Array
    groups: Ints
    slices: dict[str, npt.NDArray[np.str_]]


@dataclass(frozen=True)
class ByClass:
    """Labelled rows of classes of traffic: P(suffices) [n, n_tiers] of the base, which never saw them, and of the
    challenger, out of fold; `names` are the rows' classes, `lengths` the texts' lengths.
    """

    before: Array
    after: Array
    targets: Array
    weights: Array
    groups: Ints
    names: npt.NDArray[Any]
    lengths: Array


class _Contestant:
    """An artifact, loaded as it would serve."""

    def __init__(self, folder: Path) -> None:
        loaded = artifact.load(folder)
        self.folder, self.manifest = folder, loaded.manifest
        self.n_bytes = loaded.n_bytes
        self._runtime = model.of(loaded)
        thresholds = loaded.manifest.operating_points[behaviour.POINT].thresholds
        self._thresholds = tuple(thresholds[tier] for tier in list(Tier)[:-1])

    def predict(self, texts: list[str]) -> tuple[Array, Array]:
        """P(suffices) [n, n_tiers] and novelty [n]."""
        predictions = [self._runtime.predict(text) for text in texts]
        q = np.array([p.p_suffices for p in predictions], np.float64).reshape(-1, len(Tier))
        return q, np.array([p.novelty for p in predictions])

    def routed(self, p_suffices: Array) -> Ints:
        """The tier number of each row at the operating point of the suite."""
        return fit.route(p_suffices, self._thresholds)

    def route(self, texts: list[str]) -> list[int]:
        """The tier number of each text at the operating point of the suite."""
        q, novelty = self.predict(texts)
        chosen = fit.route(q, self._thresholds)
        numbers: list[int] = np.where(novelty > self.manifest.max_novelty, len(Tier) - 1, chosen).tolist()
        return numbers

    def p50_us(self, texts: list[str]) -> float:
        """The median time of a prediction once the words are known."""
        times = []
        for text in (*texts, *texts):
            start = time.perf_counter()
            self._runtime.predict(text)
            times.append(time.perf_counter() - start)
        return float(np.median(times[len(texts) :])) * 1e6


def compare(
    champion: Path,
    challenger: Path,
    rows: HeldOut,
    min_gain: float = MIN_GAIN,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Report:
    """Every check of the challenger against the champion on held-out rows."""
    old, new = _Contestant(champion), _Contestant(challenger)
    need = 1 - rows.targets[:, 0]
    scores = {}
    for number, (name, side) in enumerate((("champion", old), ("challenger", new))):
        progress("gate", number, 3)
        scores[name] = 1 - side.predict(rows.texts)[0][:, 0]
    before, after = (measures.gain_curve(s, need, rows.weights, rows.groups) for s in scores.values())
    lengths = np.array([len(text) for text in rows.texts], float)
    length = measures.gain_curve(lengths, need, rows.weights, rows.groups)
    gain, interval = after.apgr - before.apgr, after.interval(before)
    progress("gate", 2, 3)
    checks = (
        _learnable(new.manifest),
        Check(
            "quality at equal cost",
            interval[0] >= -MARGIN,
            f"APGR {gain:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}] on {len(need)} held-out texts",
            f"a lower bound of at least {-MARGIN}",
        ),
        Check("worth a change", gain >= min_gain, f"APGR {gain:+.3f}", f"at least {min_gain:+.2f} (--min-gain)"),
        _promise(new, rows),
        *_slices(scores, need, rows),
        _suite(old, new),
        Check("size", new.n_bytes <= MAX_BYTES, f"{new.n_bytes / 1e6:.1f} MB", f"at most {MAX_BYTES / 1e6:.0f} MB"),
        _speed(old, new, rows.texts[:N_TIMED]),
    )
    progress("gate", 3, 3)
    return Report(
        sha256(champion),
        sha256(challenger),
        len(need),
        {"champion": round(before.apgr, 4), "challenger": round(after.apgr, 4), "length": round(length.apgr, 4)},
        round(gain, 4),
        interval,
        checks,
    )


def compare_classes(
    champion: Path,
    challenger: Path,
    rows: ByClass,
    min_gain: float = MIN_CLASS_GAIN,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Report:
    """Every check of what was learned of classes: ranked together, for they share one bill, and each by itself."""
    old, new = _Contestant(champion), _Contestant(challenger)
    progress("gate", 0, 2)
    need = 1 - rows.targets[:, 0]
    scores = {"champion": 1 - rows.before[:, 0], "challenger": 1 - rows.after[:, 0]}
    before, after = (measures.gain_curve(s, need, rows.weights, rows.groups) for s in scores.values())
    length = measures.gain_curve(rows.lengths, need, rows.weights, rows.groups)
    gain, interval = after.apgr - before.apgr, after.interval(before)
    slices = HeldOut([], rows.targets, rows.weights, rows.groups, {"class": rows.names.astype(str)})
    checks = (
        _learnable(new.manifest),
        Check(
            "quality at equal cost",
            interval[0] >= -MARGIN,
            f"APGR {gain:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}] on {len(need)} texts, out of fold",
            f"a lower bound of at least {-MARGIN}",
        ),
        Check("worth a change", gain >= min_gain, f"APGR {gain:+.3f}", f"at least {min_gain:+.2f} (--min-gain)"),
        _kept(new.routed(rows.after), rows.targets, rows.weights),
        *_slices(scores, need, slices),
        _suite(old, new),
        Check("size", new.n_bytes <= MAX_BYTES, f"{new.n_bytes / 1e6:.1f} MB", f"at most {MAX_BYTES / 1e6:.0f} MB"),
    )
    progress("gate", 2, 2)
    return Report(
        sha256(champion),
        sha256(challenger),
        len(need),
        {"champion": round(before.apgr, 4), "challenger": round(after.apgr, 4), "length": round(length.apgr, 4)},
        round(gain, 4),
        interval,
        checks,
    )


def _learnable(manifest: Manifest) -> Check:
    """Labels that do not follow from their texts, such as shuffled ones, rank no better than chance.

    The check is made on the training side, out of fold, because that side is larger than the held-out one.
    """
    retrained: Any = manifest.metrics.get("retrained", {})
    quality = retrained.get("out_of_fold", {})
    low, high = quality.get("apgr_interval", (0.0, 0.0))
    found = f"APGR out of fold {quality.get('apgr', 0.0):.3f} [{low:.3f}, {high:.3f}]"
    return Check("labels follow from texts", low > 0.5, found, "a lower bound above .5, which is random")


def _promise(new: _Contestant, rows: HeldOut) -> Check:
    """Whether the operating point keeps its promise on the held-out rows, within their noise."""
    return _kept(np.array(new.route(rows.texts)), rows.targets, rows.weights)


def _kept(chosen: Ints, targets: Array, weights: Array) -> Check:
    below = fit.p_below(chosen, targets)
    low, _ = fit.interval(below, weights)
    share, target = float(weights @ below / weights.sum()), fit.TARGETS[behaviour.POINT]
    return Check(
        f"promise of {behaviour.POINT}",
        low <= target,
        f"{share:.1%} below their required tier, at least {low:.1%}",
        f"at most {target:.0%}, within the interval",
    )


def _slices(scores: dict[str, Array], need: Array, rows: HeldOut) -> list[Check]:
    """No language, category or key may lose for sure: an interval wholly under the margin."""
    checks = []
    for name, values in rows.slices.items():
        for value in np.unique(values[values != ""]):
            at = values == value
            if at.sum() < MIN_SLICE or need[at].sum() <= 0:
                continue
            curves = [measures.gain_curve(s[at], need[at], rows.weights[at], rows.groups[at]) for s in scores.values()]
            low, high = curves[1].interval(curves[0])
            gain = curves[1].apgr - curves[0].apgr
            checks.append(
                Check(
                    f"{name} {value}",
                    high >= -SLICE_MARGIN,
                    f"APGR {gain:+.3f} [{low:+.3f}, {high:+.3f}] on {int(at.sum())} texts",
                    f"an upper bound of at least {-SLICE_MARGIN}",
                )
            )
    return checks


def _suite(old: _Contestant, new: _Contestant) -> Check:
    cases = behaviour.cases()
    before, after = (behaviour.run(cases, side.route)["passed"] for side in (old, new))
    allowed = int(SUITE_MARGIN * len(cases))
    return Check(
        "behaviour",
        after >= before - allowed,
        f"{after} of {len(cases)} cases hold, the champion's {before}",
        f"at most {allowed} fewer (a higher --rehearsal keeps more)",
    )


def _speed(old: _Contestant, new: _Contestant, texts: list[str]) -> Check:
    """Measured up to three times, the best counts: a busy machine must not refuse a model."""
    for _ in range(3):
        before, after = old.p50_us(texts), new.p50_us(texts)
        if holds := after <= min(MAX_P50_US, SLOWER * before):
            break
    limit = f"at most {SLOWER} times the champion's and {MAX_P50_US:.0f} us"
    return Check(
        "speed", holds, "within the limit" if holds else f"{after:.0f} us, the champion's {before:.0f} us", limit
    )
