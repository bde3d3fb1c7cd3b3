"""`tierwise learn --from`: requests are judged where a label can change a threshold, within a sum of money."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import click
import numpy as np

from router import catalog
from router.engine import Router
from router.errors import SettingsError
from router.settings import Settings
from router.types import Tier
from training.commands.progress import ProgressBars
from training.labelling import sources
from training.labelling.comparison import Judge
from training.labelling.paid_calls import Caller, CallsFailed, Journal, OverBudget, client_for
from training.rows.traffic import TrafficFile, read_requests
from training.thresholds import learned
from training.thresholds.learned import File, Learned, Row
from training.thresholds.pools import Asked, Pool, pools_of


@dataclass(frozen=True)
class Terms:
    """How new classes begin; what may be paid: `usd` in this run, `usd_a_day` on one day, None being no bound; and of
    which fleet the models are that answer, and which model compares."""

    start: int
    target: float
    error: float
    usd: float | None
    usd_a_day: float | None
    fleet: str | None = None
    judge: str | None = None


def learn_by_judge(
    source: TrafficFile,
    file: File,
    state: Path,
    router: Router,
    settings: Settings,
    terms: Terms,
    save: Callable[[Learned], None],
) -> tuple[list[Learned], int, float]:
    """Judge until the money or the requests are used up: what came of each class, how many rows have none, and USD.

    Labels are kept in `state` with the ending .jsonl, answers in .journal.db. After each block of requests its class is
    given to `save` and `file` is written, so that a run may be cut short. Raises SettingsError where no sum is set, and
    what paid calls raise before the first one.
    """
    if terms.usd is None and terms.usd_a_day is None:
        raise SettingsError(
            "models are asked only for a sum that you set: --usd 2, or usd_a_day = 2 under [learning] in tierwise.toml"
        )
    chosen, judge = _models(settings, terms)
    pools, n_classless = pools_of(
        read_requests(source), file, router, start=terms.start, target=terms.target, error=terms.error
    )
    found: dict[str, Learned] = {}
    rows: dict[str, list[Row]] = {}
    with (
        client_for(chosen) as client,
        sources.Book(state.with_suffix(".jsonl")) as book,
        Journal(state.with_suffix(".journal.db")) as journal,
        ProgressBars() as progress,
    ):
        before, limit = journal.spent_usd, _limit(file, journal, terms)
        learned.write_file(state, file)  # the day's beginning, before anything is paid for
        caller = Caller(client, journal, budget_usd=limit)
        try:
            while (pool := _next(pools, router)) is not None:
                block = pool.block(router)
                of_block = _judged(block, pool, judge, caller, book)
                learned.take_in(pool.widening, of_block, router)
                rows.setdefault(pool.name, []).extend(of_block)
                if rows[pool.name]:
                    found[pool.name] = learned.described(pool.name, pool.widening, rows[pool.name], router)
                    save(found[pool.name])
                _keep(file, pool, block, of_block)
                learned.write_file(state, file)
                progress("judged", sum(each.n_new for each in found.values()), 0)
        except OverBudget:
            click.echo(f"the sum is used up: ${journal.spent_usd - before:.4f} in this run", err=True)
        except CallsFailed as exc:
            if not found:
                raise
            click.echo(f"stopped: {exc}", err=True)
        return list(found.values()), n_classless, float(journal.spent_usd - before)


def _models(settings: Settings, terms: Terms) -> tuple[catalog.Fleet, Judge]:
    """Who answers and who compares. Raises SettingsError for a judge that is not the fleet's provider's."""
    models = catalog.configured(settings.fleets, settings.models)
    chosen = models.fleet(terms.fleet or settings.fleet or catalog.DEFAULT_FLEET)
    judging = models.find(terms.judge) if terms.judge else None
    if terms.judge and (judging is None or judging.provider != chosen.provider):
        raise SettingsError(f"--judge {terms.judge}: no model of {chosen.provider} in the catalog")
    return chosen, Judge.of(chosen, judging, with_middle=Tier.MODERATE in chosen.models)


def _next(pools: dict[str, Pool], router: Router) -> Pool | None:
    """The class where a label changes most, None where none changes anything."""
    values = {name: pool.value(router) for name, pool in pools.items()}
    best = max(values, key=values.__getitem__, default=None)
    return pools[best] if best is not None and values[best] > 0 else None


def _limit(file: File, journal: Journal, terms: Terms) -> Decimal:
    """What the journal may hold at the end of this run."""
    today = dt.datetime.now(dt.UTC).date().isoformat()
    if file.day != today:
        file.day, file.paid_before_usd = today, float(journal.spent_usd)
    bounds = []
    if terms.usd is not None:
        bounds.append(journal.spent_usd + Decimal(str(terms.usd)))
    if terms.usd_a_day is not None:
        bounds.append(Decimal(str(file.paid_before_usd)) + Decimal(str(terms.usd_a_day)))
    return min(bounds)


def _judged(block: list[tuple[Asked, bool]], pool: Pool, judge: Judge, caller: Caller, book: sources.Book) -> list[Row]:
    """The block with labels where they are needed; a request without a verdict is left out."""
    known = {label.text: label for label in book.labels if label.method == "judge" and label.traffic_class == pool.name}
    asked = [sources.Query(each.text, 1.0, each.row) for each, needs in block if needs and each.text not in known]
    made = sources.judge_labels(asked, judge, caller) if asked else []
    book.add(made)
    known |= {label.text: label for label in made}
    horizon, rows = pool.widening.horizon, []
    for each, needs in block:
        if not needs:
            rows.append(Row(each.p_suffices, None, horizon=horizon))
        elif each.text in known:
            rows.append(Row(each.p_suffices, np.array(known[each.text].p_required), horizon=horizon))
    return rows


def _keep(file: File, pool: Pool, block: list[tuple[Asked, bool]], rows: list[Row]) -> None:
    """Into the file: the class's state, and the block as seen, which waits no more."""
    file.classes[pool.name] = pool.widening.state()
    file.seen.setdefault(pool.name, []).extend(learned.key_of(each.text) for each, _ in block)
    pool.drop(block)
    if (n := len(block) - len(rows)) > 0:
        click.echo(f"{pool.name}: {n} requests got no verdict and count for nothing", err=True)
