"""The command audit: what logged traffic cost, and what would have made it cheaper."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from router import settings
from router.audit import labels, sources, usage_exports
from router.audit.audit import MAX_REPLAYED, Audit, audit
from router.audit.calls import Log
from router.audit.changes import Change, changes
from router.audit.levers import at_todays_prices, fleet_for, named
from router.audit.page import page
from router.catalog import DEFAULT_FLEET, Catalog, Fleet, configured
from router.engine import Router
from router.errors import RequestError
from router.options_cli import config_option, json_option, show_progress


@click.command("audit")
@click.argument("places", nargs=-1, type=click.Path(path_type=Path), metavar="[SOURCE]...")
@click.option(
    "--fleet", "-f", metavar="NAME", help="Where to route; default: the settings', else the log's provider's."
)
@click.option("--mix", default="70,20,10", show_default=True, help="Shares of calls by tier where no text is kept.")
@click.option("--since", type=click.IntRange(1), metavar="DAYS", help="Only calls of the last so many days.")
@click.option(
    "--effort-output",
    default=0.4,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Length of low effort's replies.",
)
@click.option("--all", "every", is_flag=True, help=f"Replay every call, not a sample of {MAX_REPLAYED:,}.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page for people to this file.")
@click.option("--yes", is_flag=True, help="Without SOURCE: read what is found, and do not ask.")
@config_option
@json_option
def command(
    places: tuple[Path, ...],
    fleet: str | None,
    mix: str,
    since: int | None,
    effort_output: float,
    every: bool,
    html: Path | None,
    yes: bool,
    config: str | None,
    as_json: bool,
) -> None:
    """What your logs say you paid, and what routing, caching and effort would have made of the same calls.

    SOURCE is a file or folder: Claude Code, Codex or opencode sessions, LiteLLM spend logs, usage exports of OpenAI or
    Anthropic, JSONL of request bodies and usage, or Tierwise's own records. Without one, the usual places are looked
    in. Everything stays on this machine: nothing is sent, and no text is kept or printed.

    \b
    Examples:
      tierwise audit
      tierwise audit ~/.claude/projects --since 30 --html audit.html
      tierwise audit spend_logs.jsonl --mix 50,30,20 --json
    """
    shares = _shares(mix)
    if effort_output != effort_output:
        raise click.BadParameter("nan: expected a number from 0 to 1", param_hint="--effort-output")
    logs = _recent(sources.read_logs(list(places) or _found(yes=yes), show_progress), since)
    _warn_of_overlap(logs)
    if not any(log.calls for log in logs):
        raise RequestError(f"no calls in {', '.join(sorted({log.kind for log in logs})) or 'the sources'}{_why(logs)}")
    loaded = msgspec.structs.replace(settings.load(config), ledger=None, state=None)
    catalog = configured(loaded.fleets, loaded.models)
    chosen = fleet or loaded.fleet or _fleet_of(logs, catalog)
    today = dt.datetime.now(dt.UTC).date()
    router = Router.load(config=msgspec.structs.replace(loaded, fleet=chosen))
    found = audit(
        logs,
        router,
        today=today,
        mix=shares,
        effort_output=effort_output,
        limit=sys.maxsize if every else MAX_REPLAYED,
        progress=show_progress,
    )
    dearest = named(catalog, found.models[0].model)
    model = dearest and at_todays_prices(dearest, today)
    routed = fleet_for(model, router.fleet, today) if model else router.fleet
    advice = changes(found, routed, model)
    if html is not None:
        _write(html, page(found, advice))
    if as_json:
        click.echo(msgspec.json.encode({**msgspec.to_builtins(found), "changes": msgspec.to_builtins(advice)}))
    elif html is None:
        _told(found, advice, routed)


def _warn_of_overlap(logs: Sequence[Log]) -> None:
    kinds = {log.kind for log in logs if log.calls}
    if usage_exports.KIND in kinds and len(kinds) > 1:
        click.echo("note: a usage export may sum the other logs' calls too; then they count twice", err=True)


def _write(html: Path, text: str) -> None:
    try:
        html.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise RequestError(f"--html {html}: {exc.strerror}; expected a file that can be written") from exc
    click.echo(f"written: {html}", err=True)


def _shares(mix: str) -> list[float]:
    try:
        shares = [float(part) for part in mix.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or not min(shares) >= 0 or not 0 < sum(shares) < 1e9:
        raise click.BadParameter(f"{mix!r}: expected three shares such as 70,20,10", param_hint="--mix")
    return shares


def _found(*, yes: bool) -> list[Path]:
    """What the usual places hold, if the user wants it read."""
    found = sources.find(os.environ, Path.home())
    if not found:
        raise RequestError("nothing in the usual places; name a file or folder: `tierwise audit --help` says which")
    for kind, path in found:
        click.echo(f"found {kind}: {path}", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError("say `tierwise audit --yes` to read what was found, or name what to read")
        click.confirm("Read them? Nothing leaves this machine.", default=True, abort=True, err=True)
    return [path for _, path in found]


def _recent(logs: list[Log], days: int | None) -> list[Log]:
    if days is not None:
        start_s = dt.datetime.now(dt.UTC).timestamp() - min(days, 1_000_000) * 86_400
        for log in logs:
            kept = [call for call in log.calls if call.at_s >= start_s]
            if len(kept) < len(log.calls):
                log.skipped["calls before --since"] += len(log.calls) - len(kept)
            log.calls = kept
    return logs


def _why(logs: Sequence[Log]) -> str:
    said = [f"{n:,} {reason}" for log in logs for reason, n in log.skipped.most_common(3)]
    return f": {', '.join(said)}" if said else ""


def _fleet_of(logs: Sequence[Log], catalog: Catalog) -> str:
    """The first fleet of the provider that most tokens went to."""
    by_name: Counter[str] = Counter()
    for log in logs:
        for call in log.calls:
            by_name[call.model] += call.usage.input_tokens
    sizes: Counter[str] = Counter()
    for name, n_tokens in by_name.items():
        if (model := named(catalog, name)) is not None:
            sizes[model.provider] += n_tokens
    most = max(sizes, key=lambda provider: sizes[provider], default="")
    fits = (name for name, fleet in catalog.fleets.items() if fleet.providers == (most,))
    return next(fits, DEFAULT_FLEET)


def _told(found: Audit, advice: Sequence[Change], fleet: Fleet) -> None:
    days = max((found.end - found.start).days, 1)
    click.echo(f"{found.n_calls:,} calls in {found.n_conversations:,} conversations, {found.start:%Y-%m-%d} to "
               f"{found.end:%Y-%m-%d} ({days} days)")  # fmt: skip
    for log in found.logs:
        skipped = ", ".join(f"{n:,} {reason}" for reason, n in log["skipped"].most_common())
        click.echo(f"  {log['kind']}: {log['calls']:,} calls in {log['files']:,} files"
                   + (f"; left out: {skipped}" if skipped else ""))  # fmt: skip
    logged = f" (the logs say ${found.logged_usd:,.2f})" if found.logged_usd is not None else ""
    click.echo(f"\nThe bill, at today's prices: ${found.usd:,.2f}{logged}; {found.weights.hit_rate:.0%} of input "
               "tokens were read from the cache")  # fmt: skip
    for line in found.models:
        usd = "    no price" if line.usd is None else f"${line.usd:>11,.2f}"
        click.echo(
            f"  {_printable(line.model):<30}{line.n_calls:>9,} calls{labels.tokens(line.input_tokens):>12} in {usd}"
        )
    _tell_weights(found)
    _tell_levers(found, fleet)
    if sum(bool(change.toml) for change in advice) > 1:
        click.echo("\nWhat to change, the best first. Settings of one stand alone: paste those of one.")
    for number, change in enumerate(advice, 1):
        click.echo(f"\n{number}. {change.title}: ${change.usd:,.2f}\n   {change.why}\n")
        click.echo("\n".join(f"     {line}".rstrip() for line in (change.toml or change.command).splitlines()))
    if not advice:
        click.echo("\nNothing here would save 1 % of the bill.")


def _tell_weights(found: Audit) -> None:
    click.echo("\nWhere it goes")
    for name, weight in found.weights.parts.items():
        share = weight.usd / found.usd if found.usd else 0
        click.echo(f"  {labels.PARTS[name]:<30}{labels.tokens(weight.tokens):>16} tokens{share:>6.0%}")
    for cause, weight in found.weights.misses.items():
        click.echo(
            f"  paid again: {labels.CAUSES[cause]:<23}{found.weights.n_misses[cause]:>9,} calls ${weight.usd:>11,.2f}"
        )
    for title, rows in (("tools that weigh most", found.weights.tools), ("files", found.weights.files)):
        for row in rows[:5]:
            click.echo(f"  {title}: {_printable(row.name[-40:])}, {row.tokens:,} tokens, sent as {row.sent_tokens:,}")


def _printable(name: str) -> str:
    """A name from a log, without what would steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in name)


def _tell_levers(found: Audit, fleet: Fleet) -> None:
    models = ", ".join(model.id for model in fleet.models.values())
    click.echo(f"\nWhat it would have cost, net ({models})")
    for name, outcome in found.levers.items():
        low, high = outcome.interval
        click.echo(
            f"  {labels.LEVERS[name]:<24}${outcome.usd:>11,.2f}  saves {outcome.saved:>6.1%} [{low:.1%}, {high:.1%}]"
        )
    read = found.n_read / max(found.n_calls, 1)
    mix = ", ".join(f"{tier} {share:.0%}" for tier, share in found.mix.items())
    click.echo(f"\n  Needed: {mix}; read from text for {read:.0%} of the calls, drawn for the others (--mix).")
    click.echo(f"  The replay of the log as it was misses its bill by {found.replay_error:+.1%}; "
               f"{found.n_replayed:,} calls were replayed. No answer was judged.")  # fmt: skip
