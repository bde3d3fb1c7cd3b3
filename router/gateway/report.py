"""The command report: what was spent and saved, from the records of the library or the gateway."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import click
import msgspec

from router import settings as settings_module
from router.accounts.ledger import EVER, REPORT_GROUPS, Totals
from router.gateway.stores import opened, where
from router.options_cli import config_option, json_option

_SINCE = re.compile(r"(\d{1,4})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_DAYS_AGO = {"today": 0, "yesterday": 1}

since_option = click.option(
    "--since",
    default="30d",
    show_default=True,
    help='So many hours, days or weeks (24h, 7d, 4w), a day (UTC), "today" or "yesterday".',
)
until_option = click.option("--until", help="The same, for the end: what was before it. Default: now.")


@click.command()
@since_option
@until_option
@click.option(
    "--by", type=click.Choice(list(REPORT_GROUPS)), default="model", show_default=True, help="A line for each."
)
@config_option
@json_option
def report(since: str, until: str | None, by: str, config: str | None, as_json: bool) -> None:
    """What requests cost, what they would have cost on the strongest model with caching, and what was saved.

    It reads the records that the settings name: the gateway's, or the library's where `ledger` is set.

    \b
    Examples:
      tierwise report --since 7d
      tierwise report --since yesterday --until today
      tierwise report --since 2026-11-01 --by day --json
    """
    start, end = span_of(since, until)
    settings = settings_module.load(config)
    with opened(settings) as store:
        rows = store.report(by, start, end)
    total = Totals.of(rows)
    if as_json:
        found = {
            "since": start,
            "until": None if until is None else end,
            "total": _row(total),
            by: [{by: row.name, **_row(row)} for row in rows],
        }
        click.echo(msgspec.json.encode(found))
        return
    click.echo(f"{said_of(start, end)}: {total.n_requests:,} requests")
    if total.n_requests:
        _told(total, rows, by)
    else:
        click.echo(f"The records are in {where(settings)}.")


def span_of(since: str, until: str | None) -> tuple[dt.datetime, dt.datetime]:
    """The times that `--since` and `--until` name. Raises BadParameter for what names none, or no time between them."""
    start, end = _time(since, "--since"), EVER if until is None else _time(until, "--until")
    if start >= end:
        raise click.BadParameter(f"{until!r} is not after {since!r}", param_hint="--until")
    return start, end


def said_of(start: dt.datetime, end: dt.datetime) -> str:
    """A span for people."""
    if end == EVER:
        return f"since {start:%Y-%m-%d %H:%M} UTC"
    return f"from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"


def _time(said: str, option: str) -> dt.datetime:
    now = dt.datetime.now(dt.UTC)
    if said in _DAYS_AGO:
        return now.replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=_DAYS_AGO[said])
    if (match := _SINCE.fullmatch(said)) is not None:
        return now - dt.timedelta(hours=int(match[1]) * _HOURS[match[2]])
    try:
        return dt.datetime.fromisoformat(said).replace(tzinfo=dt.UTC)
    except ValueError:
        expected = "expected 24h, 7d, 4w, today, yesterday or a day such as 2026-11-01"
        raise click.BadParameter(f"{said!r}: {expected}", param_hint=option) from None


def _told(total: Totals, rows: list[Totals], by: str) -> None:
    click.echo(f"\n  {by:<28}{'requests':>10}{'USD':>12}{'baseline':>12}{'saved':>12}{'':>7}{'read':>7}")
    for row in (*rows, msgspec.structs.replace(total, name="all")):
        share, read = (f"{'-':>7}" if part is None else f"{part:>7.0%}" for part in (row.saved_share, row.hit_rate))
        click.echo(
            f"  {row.name[:27]:<28}{row.n_requests:>10,}{row.cost_usd:>12,.4f}{row.baseline_usd:>12,.4f}"
            f"{row.saved_usd:>12,.4f}{share}{read}"
        )
    click.echo(
        "\n  baseline: the same calls on the fleet's strongest model, cached at the cheaper lifetime; read: of input"
    )
    click.echo("  tokens, from cache; saved: net, of the requests that were routed and whose cost is known")
    if total.n_shadow:
        would = ""
        if total.shadowed_usd:
            less = 1 - total.shadow_usd / total.shadowed_usd
            would = f": ${total.shadowed_usd:,.4f} as sent, about ${total.shadow_usd:,.4f} routed ({less:.0%} less)"
        click.echo(f"  {total.n_shadow:,} requests were decided and not routed (mode){would}")
    if total.n_unpriced:
        click.echo(
            f"  {total.n_unpriced:,} requests have no known cost and are in no sum: `tierwise catalog show MODEL`"
        )
    if total.n_estimated:
        click.echo(f"  {total.n_estimated:,} replies reported no usage: theirs is estimated")


def _row(row: Totals) -> dict[str, Any]:
    found = {name: value for name, value in msgspec.structs.asdict(row).items() if name != "name"}
    return {name: float(value) if name.endswith("_usd") else value for name, value in found.items()}
