"""Whether traffic has changed: the classifier's scores of late beside those of the time before."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt

from router import settings as settings_module
from router.gateway.store import Store
from router.gateway.stores import opened
from router.options_cli import config_option, json_option
from router.types import Tier

ALERT = 0.2
"""A population stability index above this is worth a look, by the usual rule of thumb (.1 little, .25 much)."""

_BINS = 10
_LEAST = 100
_CHANCE = 16.9
"""The 95 % quantile of chi-squared with 9 degrees of freedom: what ten equal bins differ by when nothing has changed,
times 1/n + 1/m."""
_MOST_ROWS = 10_000


class Drift(msgspec.Struct, frozen=True):
    """One class of traffic, or all of it ("all"). `psi` is the population stability index of P(the simple tier
    suffices), 0 for no difference; None below 100 requests on either side. `chance` is what chance alone reaches in one
    case of twenty."""

    name: str
    n_late: int
    n_before: int
    psi: float | None
    chance: float

    @property
    def is_alert(self) -> bool:
        """Whether the difference is large, and not by chance."""
        return self.psi is not None and self.psi > max(ALERT, self.chance)


def psi(late: npt.NDArray[np.float64], before: npt.NDArray[np.float64]) -> float:
    """The population stability index of two samples, over the tenths of the earlier one. Both must not be empty."""
    edges = np.quantile(before, np.arange(1, _BINS) / _BINS)
    # Equal scores must fall on the same side in both; half a request in each bin keeps an empty one finite.
    counts = [np.bincount(np.searchsorted(edges, part, side="right"), minlength=_BINS) + 0.5 for part in (late, before)]
    a, b = (count / count.sum() for count in counts)
    return float(((a - b) * np.log(a / b)).sum())


def measure(store: Store, late: dt.timedelta, before: dt.timedelta) -> list[Drift]:
    """The drift of all traffic and of each class: the last `late` beside the time `before` that, by the records.

    Of very many records only the newest 10,000 are read.
    """
    now = dt.datetime.now(dt.UTC)
    rows = store.rows(now - late - before, model=None, key=None, limit=_MOST_ROWS)
    sides: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        p = row["p_suffices"]
        known: Mapping[str, Any] = json.loads(p) if isinstance(p, str) else p
        if (score := known.get(Tier.SIMPLE)) is None:
            continue
        at = row["at"] if isinstance(row["at"], dt.datetime) else dt.datetime.fromisoformat(row["at"])
        for name in dict.fromkeys(("all", row["class"] or "all")):
            sides[name][at < now - late].append(float(score))
    return [_drift(name, *sides[name]) for name in sorted(sides, key=lambda name: (name != "all", name))]


def _drift(name: str, late: Sequence[float], before: Sequence[float]) -> Drift:
    n, m = len(late), len(before)
    if min(n, m) < _LEAST:
        return Drift(name, n, m, None, 0.0)
    return Drift(name, n, m, psi(np.array(late), np.array(before)), _CHANCE * (1 / n + 1 / m))


@click.command("drift")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1), help="How many days are late.")
@click.option("--against", default=30, show_default=True, type=click.IntRange(1), help="The days before them.")
@config_option
@json_option
def command(days: int, against: int, config: str | None, as_json: bool) -> None:
    """Whether traffic has changed: the scores of the last days beside those of the days before, by the records.

    A population stability index above 0.2 that chance does not explain is an alert: thresholds and labels are of other
    requests than those that come now.

    \b
    Examples:
      tierwise drift
      tierwise drift --days 1 --against 7 --json
    """
    with opened(settings_module.load(config)) as store:
        found = measure(store, dt.timedelta(days=days), dt.timedelta(days=against))
    if as_json:
        click.echo(msgspec.json.encode([{**msgspec.structs.asdict(row), "is_alert": row.is_alert} for row in found]))
        return
    for row in found:
        if row.psi is None:
            what = f"too few requests to tell: {row.n_late:,} and {row.n_before:,}, expected {_LEAST} of each"
        else:
            verdict = "CHANGED" if row.is_alert else "as before"
            what = f"index {row.psi:.3f} (chance alone {row.chance:.3f})  {verdict}"
        click.echo(f"  {row.name[:24]:<26}{what}")
    if any(row.is_alert for row in found):
        click.echo("\nLabel some of what comes now (tierwise label), then tierwise learn or tierwise retrain.")
    if not found:
        click.echo("no request was judged in that time")
