"""The `rules` command: what the rules of the settings do, before they do it to anybody."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from router import settings
from router.decide.rules import Context, Rule
from router.engine import Router
from router.errors import SettingsError
from router.options_cli import config_option, json_option
from router.types import Task, TurnState
from training.commands.options import prompts_option, text_option, tier_option, tiers_option, traffic_file
from training.commands.progress import ProgressBars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from training.rows.traffic import LabelBatch, TrafficFile
    from training.thresholds.rules import Checked, Tally

MAX_BELOW = 0.08
"""What `balanced` promises of the classifier: a rule that decides instead of it should not be worse."""


@click.group()
def rules() -> None:
    """Rules of the settings: what they do."""


def _at(_: click.Context, __: click.Parameter, value: str | None) -> float:
    """Seconds since the epoch; without a time zone it is this machine's."""
    try:
        return time.time() if value is None else dt.datetime.fromisoformat(value).timestamp()
    except ValueError as exc:
        raise click.BadParameter(f"{value!r}: expected a time such as 2026-11-27T23:00") from exc


def _headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    if wrong := [value for value in values if "=" not in value]:
        raise click.BadParameter(f"{wrong[0]!r}: expected NAME=VALUE")
    return {name.strip().lower(): text for name, _, text in (value.partition("=") for value in values)}


@rules.command()
@click.option("--labels", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A table: text, and tier or a score a model.")  # fmt: skip
@click.option("--text", help="Say which rule matches this text, without labels.")
@prompts_option
@tiers_option
@text_option
@tier_option
@config_option
@click.option("--max-below", default=MAX_BELOW, show_default=True, type=click.FloatRange(0, 1),
              help="Exit 1 when a rule sends a larger share of what it matches too low.")  # fmt: skip
@click.option("--key", default="", help="The caller's key, where the labels have no column key.")
@click.option("--header", "headers", multiple=True, callback=_headers, metavar="NAME=VALUE", help="A request's header.")
@click.option("--at", "at_s", callback=_at, metavar="TIME", help="The time of the requests; default: now.")
@json_option
def check(
    labels: Path | None,
    text: str | None,
    prompts: Path | None,
    tiers: tuple[str, ...],
    text_column: str | None,
    tier_column: str | None,
    config: str | None,
    max_below: float,
    key: str,
    headers: dict[str, str],
    at_s: float,
    as_json: bool,
) -> None:
    """What each rule does to labelled requests: how many it matches, and how many it sends too low or too high.

    Too low is below the tier of the label. Beside it stands what the classifier alone does to the same rows. A rule
    with `min_tier` only raises, so it never fails the check. Exit 1 when a rule fails.

    \b
    Examples:
      tierwise rules check --labels labels.csv
      tierwise rules check --labels labels.csv --max-below 0.02 --json
      tierwise rules check --text "Is this contract valid?"
      tierwise rules check --text "Sum this up" --key batch --at 2026-11-27T23:00
    """
    if (labels is None) == (text is None):
        raise click.UsageError("give --labels FILE or --text TEXT")
    loaded = settings.load(config)
    if not loaded.rules:
        raise SettingsError(f"{config or settings.FILE} has no [[rules]], so there is nothing to check; docs/rules.md")
    context = Context(headers, key)
    if labels is None:
        _check_text(loaded, text or "", context, at_s, as_json)
        return
    from training.thresholds import rules as checks

    with ProgressBars() as progress:
        file = traffic_file(labels, prompts, tiers, text_column, tier_column)
        report = checks.check(loaded, file, context, at_s, lambda batches: _shown(batches, file, progress))
    if as_json:
        rows = [_row(checked, max_below) for checked in report.rules]
        figures = {"labels": str(labels), "max_below": max_below, "rules": rows, "all": _figures(report.everything)}
        click.echo(json.dumps(figures))
    else:
        for checked in report.rules:
            _print_rule(checked, max_below)
        click.echo(f"all {len(report.everything):,} rows, with the rules and without")
        _print_tally(report.everything)
    if any(checked.too_low(max_below) for checked in report.rules):
        sys.exit(1)


def _check_text(loaded: settings.Settings, text: str, context: Context, at_s: float, as_json: bool) -> None:
    """Which rules hold for one text, and where it goes with and without them."""
    quiet = msgspec.structs.replace(loaded, ledger=None, state=None)
    router = Router.load(config=quiet, clock=lambda: at_s)
    task = Task(text, TurnState.USER_TURN, len(text), has_images=False, has_tools=False)
    holding = [rule.name for rule in router.rules.matching(task, context, at_s)]
    sent = router.decide(text, context=context)
    alone = Router.load(config=msgspec.structs.replace(quiet, rules=())).decide(text, context=context)
    if as_json:
        row = {"rule": holding[0] if holding else None, "behind_it": holding[1:], "tier": sent.tier}
        click.echo(json.dumps({**row, "alone": alone.tier, "notes": sent.notes}))
        return
    click.echo(f"rule        {holding[0] if holding else 'none matches'}")
    if holding[1:]:
        click.echo(f"behind it   {', '.join(holding[1:])}")
    click.echo(f"tier        {sent.tier} ({sent.model}); {alone.tier} without rules")
    for note in sent.notes:
        click.echo(f"note        {note}")


def _shown(batches: Iterable[LabelBatch], file: TrafficFile, progress: ProgressBars) -> Iterator[LabelBatch]:
    total, n = file.table.count_rows(), 0
    for batch in batches:
        yield batch
        n += len(batch.texts)
        progress("deciding", n, total)


def _outcome(rule: Rule) -> str:
    """What a rule says: "-> simple", "at least complex", "at most moderate"."""
    for sign, tier in (("->", rule.tier), ("at least", rule.min_tier), ("at most", rule.max_tier)):
        if tier is not None:
            return f"{sign} {tier}"
    raise AssertionError(rule)


def _print_rule(checked: Checked, max_below: float) -> None:
    behind = f", {checked.n_shadowed:,} more went to an earlier rule" if checked.n_shadowed else ""
    click.echo(f"{checked.rule.name} {_outcome(checked.rule)}: matches {len(checked.tally):,} rows{behind}")
    if checked.untold:
        click.echo(f"  not told    {', '.join(checked.untold)}: not by labels; --key and --header can tell these two")
    if len(checked.tally):
        _print_tally(checked.tally)
    for miss in checked.misses:
        start = " ".join(miss.text.split())
        click.echo(f"  row {miss.row:<8}needs {miss.label}, went to {miss.sent}: {start[:80]}")
    if checked.too_low(max_below):
        click.echo(f"  FAILS       more than {max_below:.1%} go too low; narrow its conditions, or raise its tier")
    click.echo()


def _print_tally(tally: Tally) -> None:
    low, high = tally.interval()
    figures = _figures(tally)
    for name, side in (("too low", "too_low"), ("too high", "too_high")):
        ours, alone = figures[side], figures["alone"][side]
        between = f" [{low:.1%}, {high:.1%}]" if side == "too_low" else ""
        click.echo(f"  {name:<10}{ours:>8.1%}{between:<17}  the classifier alone {alone:.1%}")


def _figures(tally: Tally) -> dict[str, Any]:
    """Shares of the rows; None where there is none."""
    n = len(tally)

    def share(values: list[float]) -> float | None:
        return sum(values) / n if n else None

    alone = {"too_low": share(tally.alone_below), "too_high": share(tally.alone_above)}
    return {"n_rows": n, "too_low": share(tally.below), "too_high": share(tally.above), "alone": alone}


def _row(checked: Checked, max_below: float) -> dict[str, Any]:
    rule, tally = checked.rule, checked.tally
    return {
        "rule": rule.name,
        "outcome": _outcome(rule),
        **_figures(tally),
        "too_low_interval": tally.interval() if len(tally) else None,
        "n_shadowed": checked.n_shadowed,
        "untold": checked.untold,
        "fails": checked.too_low(max_below),
        "worst": [
            {"row": miss.row, "label": miss.label, "sent": miss.sent, "text": miss.text[:200]}
            for miss in checked.misses
        ],
    }
