"""What to do about a challenger that the gate refused: for each check that does not hold, what its figures suggest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.examine.gate import MARGIN, MIN_SLICE
from training.examine.gate_report import Check, Report

MOST = 20.0
"""How many times the labels at hand are still worth asking for."""


def next_steps(report: Report, retrained: Mapping[str, Any], min_gain: float, labels: str) -> list[str]:
    """A line for each check that does not hold, in order, after what prompt length alone would do.

    `retrained` are the challenger's figures, `labels` the file that a command names. No line where the gate passed.
    """
    failed = {check.name: check for check in report.checks if not check.holds}
    if not failed:
        return []
    steps = []
    length, best = report.apgr["length"], max(report.apgr["champion"], report.apgr["challenger"])
    if length > best:
        steps.append(
            f"prompt length alone ranks these texts better: APGR {length:.3f}, the models' {best:.3f}. A rule may do: "
            f'tierwise tune --labels {labels} --classifier rules --target "quality>=0.95"'
        )
    steps += [f"{name}: {_step(check, report, retrained, min_gain)}" for name, check in failed.items()]
    return steps


def _step(check: Check, report: Report, retrained: Mapping[str, Any], min_gain: float) -> str:
    n, (low, high) = int(retrained["n_labels"]), report.gain_interval
    if check.name == "labels follow from texts":
        return _on_learnability(n, retrained["out_of_fold"])
    if check.name == "quality at equal cost":
        if report.gain <= -MARGIN:
            return "it ranks worse than the champion, which stays; read the doubtful labels before you label more"
        return f"it may be worse by chance: {_more(n, report.gain - low, report.gain + MARGIN)} would tell"
    if check.name == "worth a change":
        if low > 0:
            return f"the gain is small, but no chance; if it is worth a change to you: --min-gain {report.gain:.3f}"
        if high >= min_gain > report.gain:
            return f"up to {high:+.3f} is possible; {_more(n, high - report.gain, min_gain - report.gain)} would tell"
        return "the champion is as good on this traffic, as far as these labels tell; keep it"
    if check.name.startswith("promise"):
        return "too many harder requests go down; label more of those that need moderate or complex"
    if check.name == "behaviour":
        return f"--rehearsal {4 * retrained.get('rehearsal', 0.05):g} keeps more of the base's manners"
    if check.name in ("size", "speed"):
        return "learn from the shipped model: leave --base out"
    return f"it got worse there; label more of it, at least {MIN_SLICE} texts count as a group"


def _on_learnability(n: int, quality: Mapping[str, Any]) -> str:
    apgr, low = quality["apgr"], quality["apgr_interval"][0]
    if apgr <= 0.5:
        return (
            "it ranks texts no better than chance on these labels. Either what decides the tier is not in the texts, "
            "or labels are wrong: read the doubtful ones; more of the same will not help"
        )
    return (
        f"labels at random may look like this; if APGR stays at {apgr:.3f}, {_more(n, apgr - low, apgr - 0.5)} would "
        "show that these are not"
    )


def _more(n: int, width: float, margin: float) -> str:
    """How many more labels make an interval this wide as narrow as the margin: it shrinks with their square root."""
    factor = (width / margin) ** 2 if margin > 0 else MOST + 1
    if factor > MOST:
        return f"more than {MOST:.0f} times as many labels"
    more = max((factor - 1) * n, 1)
    digits = 10 ** max(len(str(int(more))) - 2, 0)
    return f"about {-int(-more // digits) * digits:,} more labels"
