"""The commands learn and classes: thresholds of each class of traffic that widen as labels allow, and what is known."""

from __future__ import annotations

import datetime as dt
import json
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from router import settings as settings_module
from router.engine import Router
from router.options_cli import config_option, json_option
from router.settings import FILE, Settings
from router.types import Tier
from training.commands.options import text_option, tier_option, traffic_file

if TYPE_CHECKING:
    from training.thresholds.learned import File, Learned

_STATE = "learned.json"
_STARTS = ("careful", "as-is")

_state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(_STATE),
    show_default=True,
    help="Where the evidence is kept between runs.",
)


@click.command()
@click.option("--labels", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A table with text, tier and class, drawn evenly from each class, or with weights.")  # fmt: skip
@click.option("--from", "traffic", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Requests with a class, a table or the records: models judge those where it matters.")  # fmt: skip
@click.option(
    "--usd", type=click.FloatRange(0, min_open=True), help="With --from: pay models at most this, in this run."
)
@click.option("--fleet", "-f", metavar="NAME", help="With --from: whose models answer; default: claude.")
@click.option("--judge", "judge_model", metavar="MODEL", help="With --from: who compares; default: the top model.")
@text_option
@tier_option
@click.option("--max-weight", type=click.FloatRange(0, min_open=True), help="The most that a row could weigh.")
@click.option("--target", default=0.05, show_default=True, type=click.FloatRange(0.001, 0.5), help="Share too low.")
@click.option("--error", default=0.05, show_default=True, type=click.FloatRange(0.0001, 0.5), help="Of the guarantee.")
@click.option(
    "--start", type=click.Choice(_STARTS), default="careful", show_default=True, help="Where a new class begins."
)
@_state_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path(FILE), show_default=True,
              help="Settings to write the operating points to.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Write nothing.")
@json_option
def learn(
    labels: Path | None,
    traffic: Path | None,
    usd: float | None,
    fleet: str | None,
    judge_model: str | None,
    text_column: str | None,
    tier_column: str | None,
    max_weight: float | None,
    target: float,
    error: float,
    start: str,
    state: Path,
    out: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Widen the thresholds of each class of traffic as far as its labels prove, and take them back when they do not.

    A class begins at the top tier (careful) or at the operating point as it is (as-is). Its thresholds widen only when
    no more than the target is sent too low, whenever one looks, but for the stated error. Run it again with each new
    batch of labels: those seen before are left out. Each class gets an operating point in the settings.

    With --from, models make the labels, within --usd or `usd_a_day` of the settings: they answer requests that might
    go down with the cheap and the top tier, and compare blind, in both orders.

    \b
    Examples:
      tierwise learn --labels labels.csv
      tierwise learn --labels this_week.csv --target 0.03 --start as-is
      tierwise learn --from traffic.jsonl --usd 2
    """
    from training.thresholds import learned, widening

    if (labels is None) == (traffic is None) or (traffic and dry_run):
        raise click.UsageError("expected one of --labels (with tiers) and --from (to be judged; without --dry-run)")
    settings = settings_module.load()
    router = _router(settings)
    file = learned.read_file(state, router.policy.champion.name, router.operating_point)
    first, spent = 0 if start == "careful" else widening.ZERO_SHOT, None
    source = traffic_file(labels or traffic or Path(), None, (), text_column, tier_column)
    if labels is not None:
        from training.rows.traffic import read_labels

        found, n_classless = learned.learn(
            file, read_labels(source), router, start=first, target=target, error=error, max_weight=max_weight
        )
        if not dry_run:
            _save_all(found, out, file, state)
    else:
        from training.commands.learn_by_judge import Terms, learn_by_judge

        terms = Terms(first, target, error, usd, settings.learning.usd_a_day, fleet, judge_model)
        found, n_classless, spent = learn_by_judge(
            source, file, state, router, settings, terms, lambda row: _save(row, out)
        )
    if as_json:
        click.echo(json.dumps({"classes": [_row(row) for row in found], "n_without_class": n_classless, "usd": spent}))
    else:
        _print(found, n_classless, spent, None if dry_run else f"{out} and {state}")


def _save_all(found: list[Learned], out: Path, file: File, state: Path) -> None:
    from training.thresholds import learned

    for row in found:
        _save(row, out)
    learned.write_file(state, file)


def _save(row: Learned, out: Path) -> None:
    """A class's operating point, into the settings."""
    from training.thresholds import learned
    from training.thresholds.operating_point import write_class, write_point

    write_point(out, learned.PREFIX + row.name, row.point)
    write_class(out, row.name, learned.PREFIX + row.name)


def _print(found: list[Learned], n_classless: int, spent: float | None, written: str | None) -> None:
    for row in found:
        _print_class(row)
    if n_classless:
        click.echo(f"{n_classless:,} rows name no class and were left out", err=True)
    if not found:
        click.echo("no new labels: all were seen before, name no class, or could change nothing")
    elif written:
        click.echo(f"written to {written}; a running gateway takes it with SIGHUP")
    if spent is not None:
        click.echo(f"paid ${spent:.4f}")


def _router(settings: Settings) -> Router:
    """Decides without rules, at the operating point that classes without their own have."""
    plain = msgspec.structs.replace(settings, ledger=None, state=None, rules=(), classes={}, mode="on")
    return Router.load(config=plain)


def _row(row: Learned) -> dict[str, Any]:
    point, state = row.point, row.widening
    return {
        "class": row.name,
        "n_labels": state.n,
        "n_new": row.n_new,
        "level": state.level,
        "is_proved": state.is_proved,
        "n_back": state.n_back,
        "thresholds": {tier.value: value for tier, value in point.thresholds.items()},
        "too_low": point.achieved,
        "too_low_interval": point.interval,
        "too_high": _known_or_none(row.too_high),
        "before": {"too_low": _known_or_none(row.before[0]), "too_high": _known_or_none(row.before[1])},
        "n_free": state.n_free,
        "shares": {tier.value: share for tier, share in point.shares.items()},
    }


def _known_or_none(share: float) -> float | None:
    return None if isnan(share) else share


def _percent(share: float) -> str:
    return "not known" if isnan(share) else f"{share:.1%}"


def _print_class(row: Learned) -> None:
    point, state = row.point, row.widening
    at = ", ".join(f"{tier} {value:.3f}" for tier, value in point.thresholds.items())
    low, high = point.interval
    back = f"; it went back {state.n_back} times" if state.n_back else ""
    free = f", and {state.n_free:,} requests that need none" if state.n_free else ""
    click.echo(f"{row.name}: {row.n_new:,} new labels, {state.n:,} in all{free}{back}")
    click.echo(f"  thresholds  {at} ({point.target.partition(': ')[2]})")
    click.echo(f"  too low     {point.achieved:.1%} [{low:.1%}, {high:.1%}]   as it was {_percent(row.before[0])}")
    if not isnan(row.too_high):
        click.echo(f"  too high    {row.too_high:.1%}{'':<17}as it was {_percent(row.before[1])}")
    click.echo("  shares      " + ", ".join(f"{tier} {share:.0%}" for tier, share in point.shares.items()))


@click.command()
@_state_option
@click.option("--since", default="30d", show_default=True, help="Of the records: 24h, 7d, 4w, or a day.")
@config_option
@json_option
def classes(state: Path, since: str, config: str | None, as_json: bool) -> None:
    """What is known of each class of traffic: its requests and their cost, its labels, its thresholds, what to do next.

    A class is what callers name in `traffic_class`. Records are those of `tierwise report`, where there are any.

    \b
    Examples:
      tierwise classes
      tierwise classes --since 7d --json
    """
    from router.gateway.report import span_of
    from training.thresholds import learned

    settings = settings_module.load(config)
    router = _router(settings)
    file = learned.read_file(state, router.policy.champion.name, router.operating_point)
    traffic = _traffic(settings, span_of(since, None)[0])
    rows = [_known(name, file, traffic.get(name), settings) for name in sorted({*file.classes, *traffic})]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        tiers = ", ".join(f"{tier} {share:.0%}" for tier, share in row["shares"].items()) or "none"
        cost = "" if row["cost_usd"] is None else f", ${row['cost_usd']:,.4f}"
        click.echo(f"{row['class']}: {row['n_requests']:,} requests ({tiers}){cost}")
        click.echo(f"  operating point {row['operating_point']}; {row['n_labels']:,} labels; next: {row['next']}")
    if not rows:
        click.echo("no class of traffic is known: name one in the `traffic_class` of calls, or learn from labels")


def _traffic(settings: Settings, since: dt.datetime) -> dict[str, dict[str, Any]]:
    """Requests, cost and shares by class, of the records that there are."""
    from router.accounts.ledger import SEPARATOR
    from router.errors import SettingsError
    from router.gateway.stores import opened

    found: dict[str, dict[str, Any]] = {}
    try:
        with opened(settings) as store:
            lines = store.report("class,tier", since)
    except SettingsError:
        return {}
    for line in lines:
        name, tier = line.name.split(SEPARATOR)
        row = found.setdefault(name, {"n": 0, "usd": 0.0, "tiers": {}})
        row["n"] += line.n_requests
        row["usd"] += float(line.cost_usd)
        row["tiers"][tier] = row["tiers"].get(tier, 0) + line.n_requests
    return {name: row for name, row in found.items() if name and name not in ("chat", "agent")}


def _known(name: str, file: Any, traffic: dict[str, Any] | None, settings: Settings) -> dict[str, Any]:
    state = file.classes.get(name)
    n = traffic["n"] if traffic else 0
    shares = {t.value: traffic["tiers"].get(t.value, 0) / n for t in Tier} if traffic and n else {}
    n_labels = state.n if state else 0
    if not n_labels:
        what = "label 100 of its requests: tierwise learn --from TRAFFIC --usd 2"
    elif state.level == 0:
        what = f"more labels: {n_labels} prove nothing below the top tier yet"
    else:
        what = "labels of new traffic from time to time, so that a change is seen"
    return {
        "class": name,
        "n_requests": n,
        "cost_usd": traffic["usd"] if traffic else None,
        "shares": shares,
        "n_labels": n_labels,
        "level": state.level if state else None,
        "operating_point": settings.classes.get(name, settings.operating_point),
        "next": what,
    }
