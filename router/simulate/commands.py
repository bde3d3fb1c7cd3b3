"""The commands plan, simulate and lint-prompt: what would happen to a workload, a trace, a prompt."""

from __future__ import annotations

import datetime as dt
import math
import sys
from pathlib import Path
from typing import IO, Any, get_args

import click
import msgspec

from router import catalog as catalogs
from router import settings
from router.cache import items as prefixes
from router.engine import Router
from router.errors import RequestError
from router.lint import findings as linter
from router.options_cli import fleet_option, json_option, show_progress
from router.simulate import replay as simulations
from router.simulate import workload as workloads
from router.simulate.trace import Difficulty, read_trace
from router.volatile import Severity


@click.command()
@click.option("--calls-per-day", required=True, type=click.FloatRange(1), help="How many calls a day.")
@click.option("--system-tokens", required=True, type=click.IntRange(0), help="Tokens of tools and system prompt.")
@click.option("--user-tokens", required=True, type=click.IntRange(1), help="Tokens of the rest of a call's input.")
@click.option("--output-tokens", required=True, type=click.IntRange(0), help="Tokens of an answer.")
@click.option("--mix", default="70,20,10", show_default=True, help="Percent of calls by tier, cheap to strong.")
@click.option(
    "--gap-s", type=click.FloatRange(0, min_open=True), help="Seconds between calls; default: a day over them."
)
@click.option(
    "--ttl", type=click.Choice(get_args(workloads.Lifetime)), default="best", show_default=True, help="Cache life."
)
@fleet_option
@json_option
def plan(
    calls_per_day: float,
    system_tokens: int,
    user_tokens: int,
    output_tokens: int,
    mix: str,
    gap_s: float | None,
    ttl: workloads.Lifetime,
    fleet: str | None,
    as_json: bool,
) -> None:
    """Rehearse before you spend: a workload's bill with and without routing and caching, and where caching pays.

    Calls share one system prompt and come at random. 5m is a model's short cache lifetime, 1h its long one, "best"
    the cheapest for each model. Nothing is sent.

    \b
    Examples:
      tierwise plan --calls-per-day 10000 --system-tokens 5000 --user-tokens 200 --output-tokens 300
      tierwise plan --calls-per-day 300 --system-tokens 3000 --user-tokens 200 --output-tokens 300 --mix 50,30,20
    """
    load = workloads.Workload(
        system_tokens, user_tokens, output_tokens, gap_s or 86400 / calls_per_day, workloads.shares(mix)
    )
    config = settings.load()
    name = fleet or config.fleet or catalogs.DEFAULT_FLEET
    chosen = catalogs.configured(config.fleets, config.models).fleet(name)
    report = workloads.report(chosen, load, ttl, dt.datetime.now(dt.UTC).date())
    if as_json:
        click.echo(msgspec.json.encode({"calls_per_day": calls_per_day, "fleet": name, **report}))
    else:
        _print_plan(report, calls_per_day)


@click.command()
@click.option("--trace", "path", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A Parquet file.")
@fleet_option
@click.option("--mix", default="70,20,10", show_default=True, help="Shares of requests by the tier they need.")
@click.option(
    "--difficulty",
    type=click.Choice(get_args(Difficulty)),
    default="turn",
    show_default=True,
    help="How long one need for a tier lasts.",
)
@click.option("--policy", default="all", show_default=True, help=f"all, or: {', '.join(simulations.POLICIES)}.")
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="Draws of the difficulty.")
@click.option(
    "--gaps", default=1.0, show_default=True, type=click.FloatRange(min=0.0, min_open=True), help="Times the gaps."
)
@click.option("--reply-lengths", help="How long each tier's replies are beside the trace's, such as 0.5,0.8,1.")
@json_option
def simulate(
    path: Path,
    fleet: str | None,
    mix: str,
    difficulty: Difficulty,
    policy: str,
    seeds: int,
    gaps: float,
    reply_lengths: str | None,
    as_json: bool,
) -> None:
    """Replay a TRACE of real traffic through the engine and price it, beside simpler policies.

    Columns: timestamp_s, conversation_id, input_tokens, output_tokens, prefix_block_hashes, block_tokens, and user_turn
    where it is known. Nothing is sent anywhere. Every policy, ours too, is told the tier that a request needs.

    \b
    Examples:
      tierwise simulate --trace traffic.parquet
      tierwise simulate --trace traffic.parquet --difficulty request --policy ours --seeds 1 --json
    """
    names = simulations.POLICIES if policy == "all" else tuple(name.strip() for name in policy.split(","))
    if unknown := [name for name in names if name not in simulations.POLICIES]:
        known = ", ".join(simulations.POLICIES)
        raise click.BadParameter(f"{unknown[0]!r}; expected all or any of: {known}", param_hint="--policy")
    shares = _listed(mix, "shares such as 70,20,10", "--mix")
    lengths = _listed(reply_lengths, "numbers such as 0.5,0.8,1", "--reply-lengths") if reply_lengths else None
    config = settings.load()
    config = msgspec.structs.replace(config, ledger=None, state=None, fleet=fleet or config.fleet)
    if not path.is_file():
        raise click.BadParameter(f"no file {str(path)!r}", param_hint="--trace")
    trace = read_trace(path, gaps=gaps)
    found = simulations.replay(
        trace,
        lambda: Router.load(config=config),
        mix=shares,
        difficulty=difficulty,
        policies=names,
        seeds=seeds,
        lengths=lengths,
        progress=show_progress,
    )
    if as_json:
        click.echo(msgspec.json.encode({"n_requests": len(trace), "policies": found}))
        return
    middle = list(Router.load(config=config).fleet.models.values())
    click.echo(f"{len(trace):,} requests; cost as a part of {middle[len(middle) // 2].id} without caching\n")
    heads = "".join(f"{name:>{width}}" for name, width in _WIDTHS.items())
    click.echo(f"  {'policy':<24}{heads}")
    for name, row in found.items():
        interval = f"[{row.interval[0]:.3f}, {row.interval[1]:.3f}]"
        click.echo(
            f"  {name:<24}{row.usd:>12,.2f}{row.cost_ratio:>7.3f}{interval:>18}{row.hit_rate:>7.0%}"
            f"{row.below_required:>8.1%}{row.switches:>10.1%}{row.saved:>8.1%}"
        )
    click.echo("\n  read: share of input tokens from cache; below: requests on a tier below the one they need;")
    click.echo("  saved: against the top tier, cached at its better lifetime")


_WIDTHS = {"USD": 12, "cost": 7, "95 % interval": 18, "read": 7, "below": 8, "switches": 10, "saved": 8}


def _listed(text: str, expected: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r}: expected {expected}", param_hint=option) from None


@click.command("lint-prompt")
@click.argument("files", nargs=-1, required=True, type=click.File("rb"), metavar="FILE...")
@click.option("--strict", is_flag=True, help="Exit 1 for doubtful findings (maybe) as well.")
@json_option
def lint_prompt(files: tuple[IO[bytes], ...], strict: bool, as_json: bool) -> None:
    """What keeps the prompt cache from being read: times, ids, users, order, misplaced breakpoints. "-" is stdin.

    FILE is a system prompt, a request body in JSON, or JSONL of successive bodies. Two or more bodies are also
    compared: where each first differs from the one before is exact. Exit 0 clean, 1 findings, 2 unreadable.

    \b
    Examples:
      tierwise lint-prompt system_prompt.md
      tierwise lint-prompt monday.json tuesday.json
      tierwise lint-prompt --json - < requests.jsonl
    """
    bodies = []
    for file in files:
        try:
            bodies += prefixes.parse_bodies(file.read(), file.name)
        except RequestError as exc:
            raise RequestError(f"{file.name}: {exc}") from exc
    findings = linter.check(bodies)
    if as_json:
        click.echo(msgspec.json.encode(findings))
    else:
        for finding in findings:
            _print_finding(finding)
        click.echo(f"{len(findings)} findings in {len(bodies)} prompts", err=True)
    if any(strict or finding.severity is Severity.BREAKS for finding in findings):
        sys.exit(1)


def _print_finding(finding: linter.Finding) -> None:
    request = f"request {finding.request}: " if finding.request else ""
    was = f"  was {finding.versus!r}" if finding.versus is not None else ""
    click.echo(f"{request}{finding.path}:{finding.line} at {finding.offset}  {finding.severity}  {finding.rule}")
    click.echo(f"    {finding.excerpt!r}{was}  (about {finding.lost_tokens:,} tokens behind it)\n    {finding.remedy}")


def _print_plan(report: dict[str, Any], calls_per_day: float) -> None:
    lines: list[workloads.Line] = report["lines"]["both"]
    click.echo(f"  {'tier':<10}{'model':<20}{'calls':>7}{'every':>9}{'cached':>8}{'warm':>6}{'a call':>12}")
    for line in lines:
        kept = f"{line.ttl:>8}{line.hit_rate:>6.0%}" if line.ttl != "none" else f"{'no':>8}{'-':>6}"
        usd = f"${line.input_usd + line.output_usd:.6f}"
        click.echo(f"  {line.tier:<10}{line.model:<20}{line.share:>7.0%}{_span(line.gap_s):>9}{kept}{usd:>12}")
    click.echo("")
    total: dict[str, float] = report["usd_per_call"]
    for lever, usd_per_call in total.items():
        change = f"{usd_per_call / total['caching'] - 1:+8.0%} against caching alone" if lever != "caching" else ""
        click.echo(f"  {lever:<10}${usd_per_call * calls_per_day:>12,.2f} a day  {change}".rstrip())
    click.echo(
        f"\n  {'caching on':<20}{'lifetime':>9}{'reads to pay':>14}{'from a hit rate of':>20}{'calls within':>14}"
    )
    for row in report["break_even"]:
        gap = "always" if math.isinf(row.gap_s) else _span(row.gap_s)
        click.echo(f"  {row.model:<20}{row.ttl:>9}{row.reads:>14}{row.hit_rate:>20.0%}{gap:>14}")
    least = {row.model: f"{row.model} {row.min_prefix_tokens:,}" for row in report["break_even"]}
    click.echo(f"  smallest prefix that is cached, in tokens: {', '.join(least.values())}\n")
    for claim in report["claims"]:
        click.echo(f"  {'holds' if claim.holds else 'NOT HERE':<9}{claim.claim}: {claim.because}")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
